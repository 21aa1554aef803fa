"""Boxes in px of the upright image, and what is done with them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import BoxError


class Box(NamedTuple):
    """A rectangle in px; x2 and y2 are excluded."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """In square px; 0 for an empty box."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


class Detection(NamedTuple):
    """A person that was found."""

    box: Box
    confidence: float  # 0 to 1; 1 for a box that people drew


def clip_box(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies inside an image, at least one px of it.

    Raises BoxError if it is empty, not finite, or lies outside.

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
    """As `clip_box`, but a box that is thinner than a px becomes a px wide.

    Raises BoxError only if it is not finite or lies outside.

    >>> touched_box(Box(99.5, 10, 300, 10.2), width=100, height=80)
    Box(x1=99, y1=10, x2=100, y2=11)
    """
    if not (box.x2 > 0 and box.x1 < width and box.y2 > 0 and box.y1 < height):
        return clip_box(box, width, height)  # says what is wrong
    x1, y1 = min(max(box.x1, 0), width - 1), min(max(box.y1, 0), height - 1)
    return clip_box(Box(x1, y1, max(box.x2, x1 + 1), max(box.y2, y1 + 1)), width, height)


def union_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them; at least one is needed."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return Box(min(x1), min(y1), max(x2), max(y2))


def overlap(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of every box with every other: (M, 4), (N, 4) -> (M, N), 0 to 1."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    extent = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(0)  # (M, N, 2)
    shared = extent.prod(axis=2)  # (M, N)
    areas = [(b[:, 2:] - b[:, :2]).clip(0).prod(axis=1) for b in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def suppress(boxes: NDArray[np.floating], confidences: NDArray[np.floating], threshold: float) -> list[int]:
    """Non-maximum suppression: rows kept, most confident first; a box that overlaps a kept one by more goes.

    boxes: (N, 4).  confidences: (N,).  threshold: intersection over union, 0 to 1.
    """
    order = np.argsort(-confidences, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlap(boxes[best][None], boxes[order])[0] <= threshold]
    return kept
