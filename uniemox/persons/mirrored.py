"""Detector that looks at an image and at its mirror image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from uniemox.io.files import fingerprint_of
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import Detector, SquashingDetector

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
        small = list(images)
        if isinstance(self.detector, SquashingDetector):
            # To resize a photograph takes half as long as the network, so it is done once for both passes.
            small = [self.detector.squash(image) for image in images]
        detections = self.detector.detect(small)
        # Images in which nothing is found need no mirror image.
        indices = [i for i, of_image in enumerate(detections) if of_image]
        mirrored = self.detector.detect([ImageOps.mirror(small[i]) for i in indices])
        for i, in_mirror in zip(indices, mirrored, strict=True):
            width = small[i].width
            others = [detection._replace(box=_mirror_box(detection.box, width)) for detection in in_mirror]
            means = _mean_detections(detections[i], others)
            confident = [mean for mean in means if mean.confidence >= self.min_confidence]
            scale_x = images[i].width / width
            scale_y = images[i].height / small[i].height
            detections[i] = tuple(_scaled(mean, scale_x, scale_y) for mean in confident[: self.max_detections])
        return detections


def _scaled(detection: Detection, scale_x: float, scale_y: float) -> Detection:
    """Return a detection in px of an image that is larger by these factors."""
    box = detection.box
    return detection._replace(box=Box(box.x1 * scale_x, box.y1 * scale_y, box.x2 * scale_x, box.y2 * scale_y))


def _mirror_box(box: Box, width: int) -> Box:
    """Return the mirror image of a box in an image of this width, px."""
    return box._replace(x1=width - box.x2, x2=width - box.x1)


def _mean_detections(detections: Sequence[Detection], others: Sequence[Detection]) -> tuple[Detection, ...]:
    """Return the means of pairs of detections that overlap by half, most confident first.

    Args:
        detections: Detections in the image, at least one.
        others: Detections in the mirror image, mirrored back.
    """
    if not others:
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
