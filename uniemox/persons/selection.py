"""From a detector's many boxes to the people in the image."""

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import BoxError
from uniemox.persons.box import Box, Detection, clip_box, suppress

MAX_CANDIDATES = 1000
"""Boxes of an image that are compared with each other, the most confident ones, as NanoDet has it."""


def select(
    boxes: NDArray[np.floating],
    confidences: NDArray[np.floating],
    image: tuple[int, int],
    *,
    confidence: float,
    nms_overlap: float,
    max_detections: int,
) -> tuple[Detection, ...]:
    """People in one image, clipped to it, most confident first.

    boxes: (M, 4) in px of the image.  confidences: (M,).  image: width and height in px.
    Boxes that are less confident than `confidence`, are not finite or cover no px of the image are left out.
    """
    candidates = np.flatnonzero((confidences >= confidence) & np.isfinite(boxes).all(axis=1))
    candidates = candidates[np.argsort(-confidences[candidates], kind="stable")][:MAX_CANDIDATES]
    kept = candidates[suppress(boxes[candidates], confidences[candidates], nms_overlap)]
    found = []
    for row in kept:
        try:
            box = clip_box(Box(*map(float, boxes[row])), *image)
        except BoxError:
            continue  # outside the image, in the letterbox, or thinner than a px
        found.append(Detection(box, float(min(confidences[row], 1.0))))
    return tuple(found[:max_detections])
