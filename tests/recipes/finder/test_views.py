"""What the person finder sees: parts of images, their people, their light."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipes.finder.views import FinderView, FinderViews, draw_crop, place_people, vary_light
from tests.drawn import Stored
from tests.recipes.finder.figures import SAMPLES, figure
from uniemox.data.sample import Broken, Sample
from uniemox.persons.box import Box


def test_people_move_with_the_part_of_the_image() -> None:
    """The part from 50, 0 to 100, 100, twice as wide: one inside, one cut to 40 %, one cut to 30 %, one outside."""
    found = np.array(
        [[60, 10, 80, 60, 0.9], [41, 0, 56, 50, 0.8], [43, 0, 53, 50, 0.8], [0, 0, 50, 90, 0.9]], np.float32
    )
    boxes, confidences = place_people(found, Box(50, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(boxes, [[20, 10, 60, 60], [0, 0, 12, 50], [0, 0, 6, 50]])
    np.testing.assert_allclose(confidences, [0.9, 0.8, 0])


def test_who_is_unsure_or_tiny_is_not_learned() -> None:
    found = np.array([[0, 0, 50, 50, 0.29], [0, 0, 50, 50, 0.3], [0, 0, 7, 8, 0.9], [0, 0, 8, 8, 0.9]], np.float32)
    _, confidences = place_people(found, Box(0, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(confidences, [0, 0.3, 0, 0.9])


def test_nobody() -> None:
    boxes, confidences = place_people(np.zeros((0, 5), np.float32), Box(0, 0, 10, 10), 32, 32, 0.3)
    assert boxes.shape == (0, 4)
    assert confidences.shape == (0,)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**31))
def test_a_crop_lies_in_its_image(width: int, height: int, seed: int) -> None:
    crop = draw_crop((width, height), np.random.default_rng(seed))
    assert crop.x1 >= 0
    assert crop.y1 >= 0
    assert crop.x2 <= width * (1 + 1e-9)
    assert crop.y2 <= height * (1 + 1e-9)
    assert crop.x2 - crop.x1 >= 0.5 * width * (1 - 1e-9)
    assert crop.y2 - crop.y1 >= 0.5 * height * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([32, 64, 96]))
@example(520, 32)
def test_boxes_are_where_the_people_are(seed: int, size: int) -> None:
    """In a view of any kind, what lies outside all boxes is dark, and the middle of whom is learned is bright."""
    views = FinderViews([figure(1), figure(2), replace(figure(3, 0), persons=())], seed, 0.3)
    view = views[(0, 0, size)]
    assert isinstance(view, FinderView)
    assert view.pixels.shape == (size, size, 3)
    outside = np.ones((size, size), bool)
    for x1, y1, x2, y2 in view.boxes:
        outside[max(0, math.floor(y1) - 3) : math.ceil(y2) + 3, max(0, math.floor(x1) - 3) : math.ceil(x2) + 3] = False
    bright = outside & (view.pixels.max(axis=-1) >= 135)
    assert bright.sum() <= size // 8  # less than a px of somebody who is cut off may be left, and has no box
    for (x1, y1, x2, y2), confidence in zip(view.boxes, view.confidences, strict=True):
        if confidence > 0 and (x2 - x1) * (y2 - y1) > 200:
            assert view.pixels[int((y1 + y2) / 2), int((x1 + x2) / 2)].max() > 100


def test_a_view_is_a_function_of_seed_epoch_and_index() -> None:
    views = FinderViews([figure(i) for i in range(4)], 7, 0.3)
    first = views[(2, 1, 64)]
    again = views[(2, 1, 64)]
    later = views[(3, 1, 64)]
    assert isinstance(first, FinderView)
    assert isinstance(again, FinderView)
    assert isinstance(later, FinderView)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.pixels, later.pixels)


def test_the_broken_image_of_a_mosaic_is_named_itself() -> None:
    """One file that can't be read is one, however many images it is put beside."""
    bad = Sample(key="bad.jpg", image=Stored(b"no"), persons=figure(0).persons)
    views = FinderViews([*SAMPLES[:7], bad], 0, 0.2)
    found = [views[epoch, index, 64] for epoch in range(6) for index in range(8)]
    assert {one.key for one in found if isinstance(one, Broken)} == {"bad.jpg"}
    assert sum(isinstance(one, Broken) for one in found) > 6  # in mosaics too


def test_a_broken_image_is_named() -> None:
    broken = Sample(key="bad.jpg", image=Stored(b"no image"), persons=())
    item = FinderViews([broken], 0, 0.3)[(0, 0, 64)]
    assert not isinstance(item, FinderView)
    assert item.key == "bad.jpg"


def test_light_keeps_shape_and_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    varied = [vary_light(pixels, np.random.default_rng(seed)) for seed in range(60)]
    assert {one.shape for one in varied} == {(8, 8, 3)}
    assert {one.dtype for one in varied} == {np.dtype(np.uint8)}
    assert sum(bool((one[..., 0] == one[..., 2]).all()) for one in varied) in range(1, 10)  # grey
