"""Detection in an image and its mirror image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import SHARED
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector, DetectorConfig, SquashingDetector, load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.opening import EMBEDDED, FINDER_CONFIDENCE, open_finder

WIDTH = 100
PHOTOS = Path(__file__).resolve().parents[2] / "docs" / "images"


class StatedDetector:
    """Detector that gives stated detections for an image, and others for its mirror image."""

    name = "gives"
    fingerprint = "0"

    def __init__(self, first: list[Detection], second: list[Detection]) -> None:
        self.answers = [first, second]

    def detect(self, images: list[Image.Image]) -> list[tuple[Detection, ...]]:
        return [tuple(self.answers.pop(0)) for _ in images]


def detect(first: list[Detection], second: list[Detection], min_confidence: float) -> list[Detection]:
    [detections] = MirrorDetector(StatedDetector(first, second), min_confidence).detect([Image.new("RGB", (WIDTH, 80))])
    return list(detections)


def test_box_and_confidence_are_means_and_weak_ones_are_confirmed() -> None:
    left = Box(10, 10, 30, 50)
    right = Box(66, 10, 90, 50)  # `left` in the mirror image, 4 px wider
    [detection] = detect([Detection(left, 0.9)], [Detection(right, 0.3)], 0.5)
    assert detection == Detection(Box(10, 10, 32, 50), pytest.approx(0.6))
    assert detect([Detection(left, 0.6)], [Detection(right, 0.3)], 0.5) == []
    assert detect([Detection(left, 0.99)], [Detection(left, 0.99)], 0.5) == []  # elsewhere in the mirror image


@pytest.mark.thorough
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, with real photographs")
def test_the_embedded_detector_counts_the_same_people_in_a_mirror_image() -> None:
    """Without the mirror image, it counts others in a fifth of the photographs."""
    paths = sorted((SHARED / "data/coco_persons/images").glob("*.jpg"))[:24]
    images = [Image.open(path).convert("RGB") for path in paths]
    both = open_finder("embedded")
    alone = load_detector(EMBEDDED / "finder.onnx")
    mirror_images = [ImageOps.mirror(image) for image in images]
    changes = []
    for detector in (both, alone):
        plain, mirrored = (detector.detect(batch) for batch in (images, mirror_images))
        changes.append(sum(len(first) != len(second) for first, second in zip(plain, mirrored, strict=True)))
        if detector is both:
            assert sum(map(len, plain)) > 10
            for image, first, second in zip(images, plain, mirrored, strict=True):
                back = sorted((image.width - box.x2, box.y1, image.width - box.x1, box.y2) for box, _ in second)
                np.testing.assert_allclose(back, sorted(box for box, _ in first), atol=2)
    assert changes[0] <= 1
    assert changes[1] >= 3


def test_max_detections_keeps_the_most_confident_means() -> None:
    boxes = [Box(10, 10, 30, 50), Box(60, 10, 90, 50)]
    first = [Detection(boxes[0], 0.9), Detection(boxes[1], 0.8)]
    second = [Detection(Box(70, 10, 90, 50), 0.5), Detection(Box(10, 10, 40, 50), 0.9)]  # the other is now the best
    detector = MirrorDetector(StatedDetector(first, second), 0.5, max_detections=1)
    [[detection]] = detector.detect([Image.new("RGB", (WIDTH, 80))])
    assert detection.box == boxes[1]
    assert len(detector.fingerprint) == 16


def test_min_confidence_applies_to_the_mean() -> None:
    detector = open_finder("embedded", config=DetectorConfig(confidence=0.8))
    assert isinstance(detector, MirrorDetector)
    assert detector.min_confidence == 0.8
    assert detector.detector._thresholds.confidence == 0.4
    assert detector.fingerprint != open_finder("embedded").fingerprint
    assert open_finder("embedded").min_confidence == FINDER_CONFIDENCE


class TwoCalls:
    """Detector of a file without `squash`: images are resized in each pass."""

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self.fingerprint = detector.fingerprint
        self.detect = detector.detect


@pytest.mark.parametrize("name", ["embedded", "yolox_nano.onnx"])
def test_images_that_are_squashed_once_have_the_same_people(name: str) -> None:
    """The first network squashes images, the second puts them into a corner."""
    path = EMBEDDED / "finder.onnx" if name == "embedded" else SHARED / "models" / name
    if not path.exists():
        pytest.skip("needs ../shared, with a detector")
    detector = load_detector(path, DetectorConfig(confidence=0.01))
    photos = [Image.open(photo).convert("RGB") for photo in sorted(PHOTOS.glob("*.jpg"))]
    images = [*photos, Image.new("RGB", (90, 60), "grey"), photos[0].crop((3, 5, 200, 158))]
    assert isinstance(detector, SquashingDetector)
    assert not isinstance(TwoCalls(detector), SquashingDetector)
    assert (detector.squash(photos[0]).size == photos[0].size) == (name != "embedded")
    once = MirrorDetector(detector).detect(images)
    twice = MirrorDetector(TwoCalls(detector)).detect(images)
    assert sum(map(len, twice)) > 0
    for boxes, expected in zip(once, twice, strict=True):
        np.testing.assert_allclose([box for box, _ in boxes], [box for box, _ in expected], atol=1e-3)
        np.testing.assert_allclose([score for _, score in boxes], [score for _, score in expected], atol=1e-5)
