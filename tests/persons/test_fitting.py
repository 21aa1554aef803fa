"""How images come into a network's input and boxes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uniemox.persons.fitting import Preparation, fit_image, fit_images, sample_bilinear

SIDES = st.integers(1, 700)


@given(SIDES, SIDES, st.sampled_from(["squash", "corner", "centre"]))
def test_boxes_map_back_to_the_image(width: int, height: int, fit) -> None:
    """The whole image's box in the input, found from its red px, is the whole image again, to a px of the input."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    fitted, placement = fit_image(image, (64, 96), Preparation(fit=fit, order="RGB", fill=114))
    assert fitted.size == (96, 64)
    red = np.argwhere(np.asarray(fitted)[..., 1] == 0)
    (top, left) = red.min(axis=0)
    (bottom, right) = red.max(axis=0) + 1
    np.testing.assert_allclose(placement.back(np.array([left, top, right, bottom])), (0, 0, width, height), atol=1e-6)
    assert (np.asarray(fitted) == 114).all(axis=2).sum() == 96 * 64 - len(red)
    if fit == "squash":
        assert len(red) == 96 * 64


@pytest.mark.parametrize(("fit", "left", "top"), [("corner", 0, 0), ("centre", 0, 16)])
def test_a_letterbox_keeps_the_aspect_and_tells_its_placement(fit, left: int, top: int) -> None:
    """200 x 100 in 64 x 64: 64 x 32, in the corner or the middle."""
    _, placement = fit_image(Image.new("RGB", (200, 100)), (64, 64), Preparation(fit=fit, order="RGB"))
    assert placement == (0.32, 0.32, left, top)


def test_channels_mean_and_std() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    preparation = Preparation(fit="squash", order="BGR", mean=(1.0, 2.0, 3.0), std=(2.0, 3.0, 4.0))
    pixels, _ = fit_images([image, image], (4, 6), preparation)
    assert pixels.shape == (2, 3, 4, 6)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, :, 0, 0], [29 / 2, 18 / 3, 7 / 4])
    grey, _ = fit_images([Image.new("L", (8, 8), 7)], (4, 6), Preparation(fit="squash", order="RGB"))
    assert (grey == 7).all()


@given(st.integers(40, 79), st.integers(40, 79), st.integers(0, 2**32 - 1))
def test_bilinear_is_between_the_four_nearest_pixels(width: int, height: int, seed: int) -> None:
    """To 40 x 40 against the definition, with centres of px at halves; Pillow rounds down, and in steps between."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = np.asarray(sample_bilinear(Image.fromarray(pixels), 40, 40)).astype(float)
    y, x = ((np.arange(40) + 0.5) * side / 40 - 0.5 for side in (height, width))
    y0 = np.floor(y).astype(int)
    x0 = np.floor(x).astype(int)
    fy = (y - y0)[:, None, None]
    fx = (x - x0)[None, :, None]
    at = [pixels[np.clip(y0 + dy, 0, height - 1)][:, np.clip(x0 + dx, 0, width - 1)] for dy in (0, 1) for dx in (0, 1)]
    expected = (at[0] * (1 - fx) + at[1] * fx) * (1 - fy) + (at[2] * (1 - fx) + at[3] * fx) * fy
    np.testing.assert_allclose(small, expected, atol=1.5)


def test_large_images_are_averaged() -> None:
    """A chequered pattern of single px becomes grey, not another pattern."""
    pattern = (np.indices((800, 800)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = np.asarray(sample_bilinear(Image.fromarray(pattern).convert("RGB"), 100, 90))
    assert small.min() >= 120
    assert small.max() <= 135
