"""Boxes, crops of a person, and the selection of detections."""

import math
from collections.abc import Sequence
from contextlib import suppress as ignoring
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.bounds import check_numbers
from uniemox.classifier_info import PersonPolicy
from uniemox.errors import BoxError


class Box(NamedTuple):
    """Rectangle in px; x2 and y2 are excluded."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """Area in square px; 0 for an empty box."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


class Detection(NamedTuple):
    """A detected person."""

    box: Box
    confidence: float  # 0 to 1; 1 for an annotated box


def clip_box(box: Box, width: int, height: int) -> Box:
    """Return the part of a box inside an image.

    Raises:
        BoxError: If the box is not finite, or if this part is less than one px wide or high.

    >>> clip_box(Box(-5, 10, 50, 400), width=100, height=80)
    Box(x1=0, y1=10, x2=50, y2=80)
    """
    if not all(math.isfinite(value) for value in box):
        raise BoxError(f"{box} is not finite; remove or correct it")
    inside = Box(max(box.x1, 0), max(box.y1, 0), min(box.x2, width), min(box.y2, height))
    if inside.x2 - inside.x1 < 1 or inside.y2 - inside.y1 < 1:
        raise BoxError(f"{box} covers no px of an image {width} px wide and {height} px high; remove or correct it")
    return inside


def touched_box(box: Box, width: int, height: int) -> Box:
    """Clip a box as `clip_box` does; a box thinner than a px becomes a px wide.

    Raises:
        BoxError: Only if it is not finite or outside of the image.

    >>> touched_box(Box(99.5, 10, 300, 10.2), width=100, height=80)
    Box(x1=99, y1=10, x2=100, y2=11)
    """
    if not (box.x2 > 0 and box.x1 < width and box.y2 > 0 and box.y1 < height):
        return clip_box(box, width, height)  # raises the error
    x1 = min(max(box.x1, 0), width - 1)
    y1 = min(max(box.y1, 0), height - 1)
    return clip_box(Box(x1, y1, max(box.x2, x1 + 1), max(box.y2, y1 + 1)), width, height)


def overlap(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the intersection over union of every box with every other: (M, 4), (N, 4) -> (M, N), 0 to 1."""
    # Broadcast to all pairs: the upper left corner and the size of each intersection.
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    extent = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(0)  # (M, N, 2)
    shared = extent.prod(axis=2)  # (M, N)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)  # (M,)
    other_areas = (others[:, 2:] - others[:, :2]).clip(0).prod(axis=1)  # (N,)
    # The minimum avoids 0 / 0 for two empty boxes, whose overlap is 0.
    return shared / np.maximum(areas[:, None] + other_areas[None] - shared, 1e-9)


def suppress(boxes: NDArray[np.floating], confidences: NDArray[np.floating], threshold: float) -> list[int]:
    """Return the rows that non-maximum suppression keeps, most confident first.

    Args:
        boxes: (N, 4).
        confidences: (N,).
        threshold: Maximum intersection over union with a kept box.
    """
    order = np.argsort(-confidences, kind="stable")
    rows: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        rows.append(int(best))
        order = order[overlap(boxes[best][None], boxes[order])[0] <= threshold]
    return rows


Source = Literal[
    "target",
    "largest",
    "union",
    "persons_only",
    "whole_image_nobody_found",
    "whole_image_nobody_looked",
    "whole_image_second_crop",
]


class PersonCrop(NamedTuple):
    """Part of an image, and why it was chosen."""

    box: Box
    """Box inside the image, at least one px."""
    source: Source
    keep: tuple[Box, ...] = ()
    """Boxes that are not blacked out; (): nothing is blacked out."""

    @property
    def shows_person(self) -> bool:
        """True if a person was found or given; False for the whole image."""
        return is_of_person(self.source)


def is_of_person(source: str) -> bool:
    """Return True if a person view with this source shows a person."""
    return not source.startswith("whole_image")


def choose_person(
    persons: Sequence[Detection] | None, target: Box | None, size: tuple[int, int], policy: PersonPolicy = "largest"
) -> PersonCrop:
    """Choose the person view of an image.

    Without a person the view is the whole image, and `source` has the reason. People with less than a px in the image
    are ignored.

    Args:
        persons: Detected people; None if no detector was run.
        target: Box of the data set's target person; None if it has none.
        size: Width and height of the image, px.
        policy: largest: the target if there is one, else the person with the largest area × confidence. union: the box
            around all persons. persons_only: the whole image, black outside the persons. second_crop: a second random
            crop in training, as in the authors' code, and the whole image otherwise.

    Raises:
        BoxError: For a target outside of the image.
    """
    image_box = Box(0, 0, *size)
    if policy == "second_crop":
        return PersonCrop(image_box, "whole_image_second_crop")
    if target is not None and policy == "largest":
        return PersonCrop(touched_box(target, *size), "target")

    visible = []
    for person in persons or ():
        with ignoring(BoxError):
            visible.append(Detection(clip_box(person.box, *size), person.confidence))
    boxes = [] if target is None else [touched_box(target, *size)]
    boxes += [person.box for person in visible]
    if not boxes:
        reason: Source = "whole_image_nobody_looked" if persons is None else "whole_image_nobody_found"
        return PersonCrop(image_box, reason)
    if policy == "union":
        x1, y1, x2, y2 = zip(*boxes, strict=True)
        return PersonCrop(Box(min(x1), min(y1), max(x2), max(y2)), "union")
    if policy == "persons_only":
        return PersonCrop(image_box, "persons_only", tuple(boxes))
    largest = max(visible, key=lambda person: person.box.area * person.confidence)
    return PersonCrop(largest.box, "largest")


class Thresholds(NamedTuple):
    """Limits for the boxes of a detector."""

    confidence: float
    nms_overlap: float
    max_detections: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Settings of a person detector."""

    confidence: float | None = None
    """Minimum confidence, 0 to 1: objectness times class, or as the layout defines it; None: the layout's own."""
    nms_overlap: float | None = None
    """Intersection over union, 0 to 1, above which the weaker of two boxes is dropped; None: the layout's own."""
    max_detections: int = 100
    """Maximum number of people per image."""

    def __post_init__(self) -> None:
        shares = ("confidence", "nms_overlap")
        check_numbers(self, at_least=dict.fromkeys(shares, 0) | {"max_detections": 1}, at_most=dict.fromkeys(shares, 1))

    def thresholds(self, confidence: float, nms_overlap: float) -> Thresholds:
        """Return the thresholds, with the layout's defaults for those that are not set.

        Args:
            confidence: The layout's minimum confidence, 0 to 1.
            nms_overlap: The layout's intersection over union, 0 to 1, above which a box is dropped.
        """
        return Thresholds(
            confidence if self.confidence is None else self.confidence,
            nms_overlap if self.nms_overlap is None else self.nms_overlap,
            self.max_detections,
        )


MAX_CANDIDATES = 1000
"""Maximum number of an image's boxes that are compared, the most confident ones, as in NanoDet."""


def select(
    boxes: NDArray[np.floating], confidences: NDArray[np.floating], image: tuple[int, int], thresholds: Thresholds
) -> tuple[Detection, ...]:
    """Select the person boxes of one image, clipped to the image, most confident first.

    Boxes are dropped that miss the thresholds, overlap with better ones, are not finite, or cover no px of the image.

    Args:
        boxes: (M, 4) in px of the image.
        confidences: (M,).
        image: Width and height in px.
    """
    candidates = np.flatnonzero((confidences >= thresholds.confidence) & np.isfinite(boxes).all(axis=1))
    candidates = candidates[np.argsort(-confidences[candidates], kind="stable")][:MAX_CANDIDATES]
    detections = []
    for row in candidates[suppress(boxes[candidates], confidences[candidates], thresholds.nms_overlap)]:
        # A box may lie outside of the image, in the letterbox, or be thinner than a px.
        with ignoring(BoxError):
            box = clip_box(Box(*map(float, boxes[row])), *image)
            detections.append(Detection(box, float(min(confidences[row], 1.0))))
    return tuple(detections[: thresholds.max_detections])
