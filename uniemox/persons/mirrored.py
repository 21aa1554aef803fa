"""Detector that looks at an image and at its mirror image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from uniemox.io.files import fingerprint_of
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import Detector

MIN_OVERLAP = 0.5  # minimum IoU of the boxes of one object in an image and in its mirror image


class MirrorDetector:
    """Detector that keeps what another detector finds in both an image and its mirror image.

    Box and confidence are the means of both, so that an image and its mirror image have the same objects.

    Args:
        detector: finds objects in each of both. If it has a lower minimum confidence than `min_confidence`, a weak
            detection in one of them can confirm a strong one in the other.
        min_confidence: minimum mean confidence, 0 to 1.
        max_detections: maximum number of objects per image; None: as many as the detector finds in both.
    """

    def __init__(self, detector: Detector, min_confidence: float = 0.0, max_detections: int | None = None) -> None:
        self.detector = detector
        self.name = detector.name
        self.min_confidence = min_confidence
        self.max_detections = max_detections
        self.fingerprint = fingerprint_of([], f"{detector.fingerprint} both ways {min_confidence} {max_detections}")

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect in images, see `Detector`."""
        detections = self.detector.detect(images)
        # Images in which nothing is found need no mirror image.
        places = [place for place, of_image in enumerate(detections) if of_image]
        mirrored = self.detector.detect([ImageOps.mirror(images[place]) for place in places])
        for place, back in zip(places, mirrored, strict=True):
            width = images[place].width
            others = [found._replace(box=_mirrored(found.box, width)) for found in back]
            means = _in_both(detections[place], others)
            confident = [mean for mean in means if mean.confidence >= self.min_confidence]
            detections[place] = tuple(confident[: self.max_detections])
        return detections


def _mirrored(box: Box, width: int) -> Box:
    """Return a box of the mirror image as one of the image.  width: of the image, px."""
    return box._replace(x1=width - box.x2, x2=width - box.x1)


def _in_both(detections: Sequence[Detection], others: Sequence[Detection]) -> tuple[Detection, ...]:
    """Return the means of detections that overlap by half, most confident first."""
    if not others:
        return ()
    shared = overlap(np.array([found.box for found in detections]), np.array([found.box for found in others]))  # (M, N)
    means = []
    while shared.max() >= MIN_OVERLAP:
        i, j = divmod(int(shared.argmax()), len(others))
        first = detections[i]
        second = others[j]
        box = Box(*((x + y) / 2 for x, y in zip(first.box, second.box, strict=True)))
        means.append(Detection(box, (first.confidence + second.confidence) / 2))
        shared[i] = 0
        shared[:, j] = 0
    return tuple(sorted(means, key=lambda mean: -mean.confidence))
