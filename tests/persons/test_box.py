"""Boxes at the borders of an image, the choice of a person, and the settings of a detector."""

import numpy as np
import pytest

from uniemox.errors import BoxError, ConfigError
from uniemox.persons.box import Box, Detection, DetectorConfig, choose_person, clip_box, touched_box


@pytest.mark.parametrize("corner", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_box_with_one_corner_that_is_not_finite_is_refused(corner: int, value: float) -> None:
    numbers = [1.0, 2.0, 30.0, 40.0]
    numbers[corner] = value
    with pytest.raises(BoxError, match="is not finite"):
        clip_box(Box(*numbers), 50, 50)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(20, 30, 20.25, 30.5), Box(20, 30, 21, 31)),
        (Box(-5, -3, 0.2, 0.3), Box(0, 0, 1, 1)),
        (Box(99.5, 79.5, 99.75, 79.75), Box(99, 79, 100, 80)),
        (Box(99.5, 79.5, 300, 300), Box(99, 79, 100, 80)),
        (Box(10, 20, 60, 70), Box(10, 20, 60, 70)),
    ],
)
def test_a_thin_box_becomes_a_px_wide(box: Box, expected: Box) -> None:
    """In the middle, at each end, and across the border of an image of 100 x 80 px."""
    assert touched_box(box, 100, 80) == expected


@pytest.mark.parametrize("box", [Box(-9, 5, 0, 9), Box(100, 5, 120, 9), Box(5, -9, 9, 0), Box(5, 80, 9, 99)])
def test_a_box_outside_of_the_image_is_refused(box: Box) -> None:
    with pytest.raises(BoxError, match="covers no px"):
        touched_box(box, 100, 80)


def test_limits_of_settings_are_allowed() -> None:
    for config in (
        DetectorConfig(confidence=0, nms_overlap=0, max_detections=1),
        DetectorConfig(confidence=1, nms_overlap=1),
    ):
        assert config.thresholds(0.3, 0.4) == (config.confidence, config.nms_overlap, config.max_detections)
    assert DetectorConfig().thresholds(0.3, 0.4) == (0.3, 0.4, 100)
    with pytest.raises(ConfigError, match="max_detections"):
        DetectorConfig(max_detections=0)


def test_choice_of_the_person_by_policy() -> None:
    size = (100, 100)
    near = Box(0, 0, 50, 50)
    far = Box(60, 60, 70, 70)
    sure = Box(10, 10, 50, 50)
    people = [Detection(near, 0.3), Detection(far, 0.99), Detection(sure, 0.9)]
    assert choose_person(people, None, size).box == sure  # 1600 x 0.9 beats 2500 x 0.3
    assert choose_person(people[:2], None, size).box == near
    assert choose_person([Detection(near, 0.5), Detection(Box(50, 50, 100, 100), 0.5)], None, size).box == near
    assert choose_person(people, None, size, "union").box == Box(0, 0, 70, 70)
    assert choose_person(people, far, size) == (far, "target", ())
    assert choose_person(people[:1], far, size, "union").box == Box(0, 0, 70, 70)
    assert choose_person(people[:1], far, size, "persons_only").keep == (far, near)
    assert choose_person([Detection(Box(-10, -10, 500, 60), 1.0)], None, size).box == Box(0, 0, 100, 60)
    with pytest.raises(BoxError, match="covers no px"):
        choose_person(None, Box(200, 200, 300, 300), size)


def test_without_a_person_the_view_is_the_whole_image() -> None:
    image_box = Box(0, 0, 100, 80)
    person = Detection(Box(10, 20, 60, 70), 0.9)
    for policy in ("largest", "union", "persons_only"):
        assert choose_person(None, None, (100, 80), policy) == (image_box, "whole_image_nobody_looked", ())
        assert choose_person([], None, (100, 80), policy) == (image_box, "whole_image_nobody_found", ())
    assert choose_person([person], None, (100, 80), "persons_only") == (image_box, "persons_only", (person.box,))
    assert choose_person([person], None, (100, 80), "second_crop") == (image_box, "whole_image_second_crop", ())


def test_people_at_the_border_do_not_break_an_image() -> None:
    """A detection of which less than a px is inside does not count; a target becomes at least a px."""
    sliver = Detection(Box(99.6, 0, 130, 50), 0.9)
    assert choose_person([sliver], None, (100, 100)).source == "whole_image_nobody_found"
    assert choose_person([sliver, Detection(Box(0, 0, 9, 9), 0.1)], None, (100, 100)).box == Box(0, 0, 9, 9)
    assert choose_person([], sliver.box, (100, 100)).box == Box(99, 0, 100, 50)
