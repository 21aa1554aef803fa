"""Training views of the person finder: crops, their people, their light."""

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


def test_boxes_are_moved_scaled_and_clipped_with_the_crop() -> None:
    """The part from 50, 0 to 100, 100, twice as wide: one inside, one cut to 40 %, one cut to 30 %, one outside."""
    detections = np.array(
        [[60, 10, 80, 60, 0.9], [41, 0, 56, 50, 0.8], [43, 0, 53, 50, 0.8], [0, 0, 50, 90, 0.9]], np.float32
    )
    boxes, confidences = place_people(detections, Box(50, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(boxes, [[20, 10, 60, 60], [0, 0, 12, 50], [0, 0, 6, 50]])
    np.testing.assert_allclose(confidences, [0.9, 0.8, 0])


def test_unsure_and_tiny_people_are_not_learned() -> None:
    detections = np.array([[0, 0, 50, 50, 0.29], [0, 0, 50, 50, 0.3], [0, 0, 7, 8, 0.9], [0, 0, 8, 8, 0.9]], np.float32)
    _, confidences = place_people(detections, Box(0, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(confidences, [0, 0.3, 0, 0.9])


def test_image_without_people() -> None:
    boxes, confidences = place_people(np.zeros((0, 5), np.float32), Box(0, 0, 10, 10), 32, 32, 0.3)
    assert boxes.shape == (0, 4)
    assert confidences.shape == (0,)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**31))
def test_crop_lies_inside_its_image(width: int, height: int, seed: int) -> None:
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
    """In a view of any kind, pixels outside all boxes are dark, and centres of learned people are bright."""
    views = FinderViews([figure(1), figure(2), replace(figure(3, 0), persons=())], seed, 0.3)
    view = views[(0, 0, size)]
    assert isinstance(view, FinderView)
    assert view.pixels.shape == (size, size, 3)
    outside = np.ones((size, size), bool)
    for x1, y1, x2, y2 in view.boxes:
        outside[max(0, math.floor(y1) - 3) : math.ceil(y2) + 3, max(0, math.floor(x1) - 3) : math.ceil(x2) + 3] = False
    bright = outside & (view.pixels.max(axis=-1) >= 135)
    # Less than a pixel of a person who is cut off may be visible, and has no box.
    assert bright.sum() <= size // 8
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


def test_unreadable_image_of_a_mosaic_is_reported_by_its_own_key() -> None:
    """An unreadable file is reported once, in whatever mosaics it is drawn."""
    unreadable = Sample(key="bad.jpg", image=Stored(b"no"), persons=figure(0).persons)
    views = FinderViews([*SAMPLES[:7], unreadable], 0, 0.2)
    items = [views[epoch, index, 64] for epoch in range(6) for index in range(8)]
    assert {item.key for item in items if isinstance(item, Broken)} == {"bad.jpg"}
    assert sum(isinstance(item, Broken) for item in items) > 6  # in mosaics too


def test_unreadable_image_is_reported_by_its_key() -> None:
    broken = Sample(key="bad.jpg", image=Stored(b"no image"), persons=())
    item = FinderViews([broken], 0, 0.3)[(0, 0, 64)]
    assert not isinstance(item, FinderView)
    assert item.key == "bad.jpg"


def test_light_keeps_shape_and_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    varied = [vary_light(pixels, np.random.default_rng(seed)) for seed in range(60)]
    assert {image.shape for image in varied} == {(8, 8, 3)}
    assert {image.dtype for image in varied} == {np.dtype(np.uint8)}
    assert sum(bool((image[..., 0] == image[..., 2]).all()) for image in varied) in range(1, 10)  # grey
