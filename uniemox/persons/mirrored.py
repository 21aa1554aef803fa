"""Detector that looks at an image and at its mirror image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from uniemox.io.files import fingerprint_of
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import Detector, MirroringDetector

# Minimum intersection over union of the boxes of one object in an image and in its mirror image.
MIN_OVERLAP = 0.5


class MirrorDetector:
    """Detector that keeps what another detector finds in both an image and its mirror image.

    Box and confidence are the means of both, so that an image and its mirror image have the same objects.

    Args:
        detector: Detector for both images. If it has a lower minimum confidence than `min_confidence`, a weak
            detection in one of them can confirm a strong one in the other.
        min_confidence: Minimum mean confidence, 0 to 1.
        max_detections: Maximum number of objects per image; None: as many as the detector finds in both.
    """

    def __init__(self, detector: Detector, min_confidence: float = 0.0, max_detections: int | None = None) -> None:
        self.detector = detector
        self.name = detector.name
        self.min_confidence = min_confidence
        self.max_detections = max_detections
        self.fingerprint = fingerprint_of([], f"{detector.fingerprint} both ways {min_confidence} {max_detections}")

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect in images, see `Detector`."""
        detections = []
        for image, in_image, in_mirror in zip(images, *_detect_both(self.detector, images), strict=True):
            others = [detection._replace(box=_mirror_box(detection.box, image.width)) for detection in in_mirror]
            means = _mean_detections(in_image, others)
            confident = [mean for mean in means if mean.confidence >= self.min_confidence]
            detections.append(tuple(confident[: self.max_detections]))
        return detections


def _detect_both(
    detector: Detector, images: Sequence[Image.Image]
) -> tuple[list[tuple[Detection, ...]], list[tuple[Detection, ...]]]:
    """Detect in images, and in the mirror images of those in which something is found; () for the others."""
    if isinstance(detector, MirroringDetector):
        return detector.detect_both(images)
    detections = detector.detect(images)
    rows = [row for row, of_image in enumerate(detections) if of_image]
    mirrored = detector.detect([ImageOps.mirror(images[row]) for row in rows])
    by_row = dict(zip(rows, mirrored, strict=True))
    return detections, [by_row.get(row, ()) for row in range(len(images))]


def _mirror_box(box: Box, width: int) -> Box:
    """Return the mirror image of a box in an image of this width, px."""
    return box._replace(x1=width - box.x2, x2=width - box.x1)


def _mean_detections(detections: Sequence[Detection], others: Sequence[Detection]) -> tuple[Detection, ...]:
    """Return the means of pairs of detections that overlap by half, most confident first.

    Args:
        detections: Detections in the image.
        others: Detections in the mirror image, mirrored back.
    """
    if not detections or not others:
        return ()
    boxes = np.array([detection.box for detection in detections])
    other_boxes = np.array([detection.box for detection in others])
    overlaps = overlap(boxes, other_boxes)  # (M, N)
    means = []
    # Greedy: the pair with the largest overlap first; each detection is in one pair.
    while overlaps.max() >= MIN_OVERLAP:
        i, j = divmod(int(overlaps.argmax()), len(others))
        first = detections[i]
        second = others[j]
        box = Box(*((x + y) / 2 for x, y in zip(first.box, second.box, strict=True)))
        means.append(Detection(box, (first.confidence + second.confidence) / 2))
        overlaps[i] = 0
        overlaps[:, j] = 0
    return tuple(sorted(means, key=lambda mean: -mean.confidence))
