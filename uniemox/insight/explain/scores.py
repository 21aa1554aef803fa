"""Quality of a heat map: deletion and insertion (RISE, arXiv 1806.07421, section 4.3), without torch."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.insight.explain.explanation import Array, enlarged
from uniemox.intervals import bootstrap_interval

Classify = Callable[[Array], NDArray[np.floating]]
"""Function from pixels (N, 3, S, S), normalised, to the probability of the explained label, (N,)."""

STEPS = 28
# With 15 images at a time, the 29 images of a curve take two runs.
BATCH = 15
# Deviation of the Gaussian, as a share of the side; the paper's 5 px of 224.
BLUR = 5 / 224


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScores:
    """Areas under the probability curve while pixels are deleted or inserted, hottest first."""

    deletion: float
    """0 to 1; low if the map finds the pixels that the prediction needs. Deleted pixels get the image's mean colour."""
    insertion: float
    """0 to 1; high if the map finds pixels that suffice for the prediction. Pixels appear on the blurred image."""
    random_deletion: float
    """Deletion with a random map of the same size, for comparison."""
    random_insertion: float


def map_scores(classify: Classify, pixels: Array, heat: Array, *, seed: int = 0) -> MapScores:
    """Measure deletion and insertion of one map, and of a random one, in 116 passes.

    Args:
        classify: Function that predicts the probability of the explained label.
        pixels: (3, S, S), normalised.
        heat: Map of these pixels, (h, w).
        seed: Random seed of the random map, and of the order of equally hot pixels.
    """
    rng = np.random.default_rng(seed)
    chance = rng.random(heat.shape, np.float32)
    grey = np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape)
    blurred = blur(pixels, BLUR * pixels.shape[1])
    areas = []
    for values in (heat, chance):
        order = _order(values, pixels.shape, rng)
        for before, after in ((pixels, grey), (blurred, pixels)):
            areas.append(_area(classify, before, after, order))
    return MapScores(deletion=areas[0], insertion=areas[1], random_deletion=areas[2], random_insertion=areas[3])


MIN_FOR_INTERVAL = 20
"""Minimum number of images whose means have intervals: resampling few images shows too little spread."""


def summarise(scores: Sequence[MapScores]) -> dict[str, Any]:
    """Return means over images, in JSON-serialisable form, with 95 % bootstrap intervals from 20 images on.

    The gains, deletion_gain and insertion_gain, are above 0 if the map is better than a random one.

    Args:
        scores: Scores of the images, at least one.
    """
    table = np.array([astuple(image_scores) for image_scores in scores])  # (N, 4)
    columns = {part.name: table[:, i] for i, part in enumerate(fields(MapScores))}
    columns["deletion_gain"] = columns["random_deletion"] - columns["deletion"]
    columns["insertion_gain"] = columns["insertion"] - columns["random_insertion"]
    summary: dict[str, Any] = {"pictures": len(scores)}
    for name, column in columns.items():
        interval = list(bootstrap_interval(column)) if len(scores) >= MIN_FOR_INTERVAL else None
        summary[name] = {"mean": float(column.mean()), "interval": interval}
    return summary


def blur(pixels: Array, deviation: float) -> Array:
    """Blur an image with a Gaussian; edge pixels are repeated beyond the edges.

    Args:
        pixels: (3, H, W).
        deviation: Standard deviation of the Gaussian, px, above 0.
    """
    reach = max(1, round(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (reach, reach)
        padded = np.pad(pixels, padding, mode="edge")
        length = pixels.shape[axis]
        parts = (weight * padded.take(range(i, i + length), axis=axis) for i, weight in enumerate(kernel))
        pixels = np.stack(list(parts)).sum(axis=0, dtype=np.float64).astype(np.float32)
    return pixels


def _order(heat: Array, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the positions (H*W,) of an image, hottest first, equal ones in random order."""
    large = enlarged(heat, (shape[2], shape[1])).ravel()
    return np.lexsort((rng.random(len(large)), -large))


def _area(classify: Classify, before: Array, after: Array, order: NDArray[np.intp]) -> float:
    """Return the area under the label's probability while pixels change from one image to the other, 0 to 1."""
    ends = np.linspace(0, len(order), STEPS + 1).round().astype(int)
    images = np.repeat(before.reshape(1, 3, -1), len(ends), axis=0)
    for image, end in zip(images, ends, strict=True):
        image[:, order[:end]] = after.reshape(3, -1)[:, order[:end]]
    images = images.reshape(-1, *before.shape)
    probabilities = [classify(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return float(np.trapezoid(np.concatenate(probabilities), ends / len(order)))
