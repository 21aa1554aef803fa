"""The views of evaluation without torch: timm's for the scene, Pillow's box for the person, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from tests.drawn import draw_image
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box, PersonCrop
from uniemox.predict.views import person_view, scene_box, scene_view, whole_px


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    size=st.sampled_from([8, 33, 64]),
    crop_fraction=st.sampled_from([0.7, 0.875, 0.9, 1.0]),
)
def test_the_scene_view_equals_timms(width: int, height: int, size: int, crop_fraction: float) -> None:
    image = draw_image(width).resize((width, height))
    transform = create_transform(
        size, is_training=False, use_prefetcher=True, interpolation="bicubic", crop_pct=crop_fraction
    )
    view = scene_view(image, size, crop_fraction)
    assert np.array_equal(view, np.asarray(transform(image)))
    assert view.flags.c_contiguous


def test_the_scene_box_equals_the_part_that_the_view_shows() -> None:
    """A white square that fills the box fills the view."""
    image = Image.new("RGB", (300, 200))
    box = scene_box(image.size, 45, 0.9)
    assert box == pytest.approx((60, 10, 240, 190))
    image.paste("white", tuple(map(round, box)))  # type: ignore[arg-type]
    assert scene_view(image, 45, 0.9).min() > 100
    assert (scene_view(image, 45, 0.9)[:, 1:-1, 1:-1] == 255).all()


def test_the_person_is_squashed_and_others_are_black() -> None:
    image = draw_image(3, (120, 80))
    box = Box(10.5, 20.25, 70, 79)
    expected = image.resize((24, 24), Image.Resampling.BICUBIC, box=box)
    view = person_view(SizedImage.of(image), PersonCrop(box, "largest"), 24)
    assert np.array_equal(view, np.asarray(expected).transpose(2, 0, 1))
    persons_only = PersonCrop(Box(0, 0, 120, 80), "persons_only", (box, Box(100, 0, 120, 5)))
    black = np.asarray(image).copy()
    keep = np.zeros((80, 120), bool)
    keep[20:79, 11:70] = keep[0:5, 100:120] = True
    black[~keep] = 0
    expected = Image.fromarray(black).resize((24, 24), Image.Resampling.BICUBIC, box=(0, 0, 120, 80))
    assert np.array_equal(person_view(SizedImage.of(image), persons_only, 24), np.asarray(expected).transpose(2, 0, 1))


def test_a_smaller_copy_gives_the_same_part() -> None:
    image = draw_image(4, (320, 240))
    small = image.reduce(2)
    box = Box(40, 60, 200, 220)
    full = person_view(SizedImage(image, (320, 240)), PersonCrop(box, "largest"), 16).astype(int)
    half = person_view(SizedImage(small, (320, 240)), PersonCrop(box, "largest"), 16).astype(int)
    assert np.abs(full - half).mean() < 4
    edge = PersonCrop(Box(300, 230, 320, 240), "largest")
    assert person_view(SizedImage(image.resize((107, 81)), (320, 240)), edge, 8).shape == (3, 8, 8)


@given(st.integers(1, 50), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
def test_whole_px_is_never_empty(decoded: int, full: int, a: float, b: float) -> None:
    low, high = sorted((a * full, b * full))
    first, last = whole_px(low, high, decoded, full)
    assert 0 <= first < last <= decoded
