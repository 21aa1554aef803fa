"""Alterations of photographs: what each one does, and how they are drawn for training."""

import random
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.drawn import draw_image
from uniemox.views import alterations
from uniemox.views.alterations import TRAINING_SHARES, draw_alteration, framed, grey, sepia, small, turned

SIZE = (60, 44)
ALTERATIONS = [
    alterations.grey,
    alterations.sepia,
    alterations.faded,
    alterations.tinted,
    alterations.dark,
    alterations.small,
    alterations.compressed,
    alterations.framed,
    alterations.captioned,
    alterations.turned,
    alterations.mirrored,
    partial(turned, quarters=2),
]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_size_and_mode_stay_and_the_image_changes(alteration: alterations.Alteration) -> None:
    image = draw_image(4, SIZE)
    before = image.tobytes()
    altered = alteration(image)
    assert (altered.size, altered.mode) == (SIZE, "RGB")
    assert altered.tobytes() != before
    # The argument itself stays unchanged.
    assert image.tobytes() == before


def test_grey_is_grey_and_sepia_is_brown() -> None:
    image = draw_image(4, SIZE)
    red, green, blue = pixels(grey(image)).transpose(2, 0, 1)
    assert np.array_equal(red, green)
    assert np.array_equal(green, blue)
    np.testing.assert_allclose(red, np.asarray(image.convert("L")), atol=1)
    red, green, blue = pixels(sepia(image)).transpose(2, 0, 1)
    assert (red >= green).all()
    assert (green >= blue).all()
    assert red.mean() > blue.mean() + 5
    assert grey(image, 0.5).convert("L").tobytes() != grey(image).convert("L").tobytes()


def test_small_loses_detail_and_a_frame_keeps_the_whole_image() -> None:
    chessboard = Image.fromarray(np.indices((44, 60)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    assert pixels(small(chessboard)).std() < 10 < pixels(chessboard).std()
    sheet = pixels(framed(Image.new("RGB", (100, 50), (9, 9, 9)), 0.1))
    assert (sheet[:5] == 255).all()
    assert (sheet[5:45, 10:90] == 9).all()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_square_image_is_turned_without_resampling(quarters: int) -> None:
    image = draw_image(4, (40, 40))
    assert np.array_equal(pixels(turned(image, quarters)), np.rot90(pixels(image), quarters))


def test_draws_are_repeatable_and_have_the_stated_shares() -> None:
    image = draw_image(4, SIZE)
    for seed in range(20):
        first, second = (draw_alteration(random.Random(seed))(image) for _ in range(2))
        assert first.tobytes() == second.tobytes()
    draw = random.Random(0)
    kinds = Counter(getattr(draw_alteration(draw), "func").__name__ for _ in range(5_000))  # noqa: B009
    kinds["framed"] += kinds.pop("captioned")
    assert set(kinds) == set(TRAINING_SHARES)
    for kind, share in TRAINING_SHARES.items():
        assert kinds[kind] / 5_000 == pytest.approx(share, abs=0.025), kind
