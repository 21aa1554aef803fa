"""Boxes at the borders of an image, and the settings of a detector."""

import numpy as np
import pytest

from uniemox.errors import BoxError, ConfigError
from uniemox.persons.box import Box, DetectorConfig, clip_box, touched_box


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
