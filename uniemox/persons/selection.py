"""From a detector's many boxes to the people in the picture."""

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import BoxError
from uniemox.persons.box import Box, Detection, clip_box, suppress

MAX_CANDIDATES = 1000
"""Boxes of a picture that are compared with each other, the most confident ones, as NanoDet has it."""


def select(
    boxes: NDArray[np.floating],
    confidences: NDArray[np.floating],
    picture: tuple[int, int],
    *,
    confidence: float,
    nms_overlap: float,
    max_detections: int,
) -> tuple[Detection, ...]:
    """People in one picture, clipped to it, most confident first.

    boxes: (M, 4) in px of the picture.  confidences: (M,).  picture: width and height in px.
    Boxes that are less confident than `confidence`, are not finite or cover no px of the picture are left out.
    """
    candidates = np.flatnonzero((confidences >= confidence) & np.isfinite(boxes).all(axis=1))
    candidates = candidates[np.argsort(-confidences[candidates], kind="stable")][:MAX_CANDIDATES]
    kept = candidates[suppress(boxes[candidates], confidences[candidates], nms_overlap)]
    found = []
    for row in kept:
        try:
            box = clip_box(Box(*map(float, boxes[row])), *picture)
        except BoxError:
            continue  # outside the picture, in the letterbox, or thinner than a px
        found.append(Detection(box, float(min(confidences[row], 1.0))))
    return tuple(found[:max_detections])
