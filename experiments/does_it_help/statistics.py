"""Class-balanced means over images and seeds, and their paired differences, with bootstrap intervals."""

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.intervals import percentile_interval

RESAMPLES = 2000
POWER = 2.8  # standard errors of a difference with a power of 80 % at the 5 % level: 1.96 + 0.84


@dataclass(frozen=True, slots=True)
class Estimate:
    """A balanced mean, or a difference of two."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    visible: float
    """Smallest difference that would be statistically significant four times in five."""
    seeds: int


def balanced_mean(values: NDArray, labels: NDArray, others: NDArray | None = None) -> Estimate:
    """Return the mean over classes of the mean over a class's images, over all seeds; or its difference from others.

    values, others: (S, N), one run per seed, paired by seed and image: 0 and 1 for a recall, log-probabilities, ...
    labels: (N,).
    Bootstrap: each resample draws images within their class, and seeds. The part of the seeds is widened by √(S / (S -
    1)), because a resample of S values varies less than S new ones by this factor; with one seed the interval is over
    images only.
    Raises ShapeError if the shapes do not match.

    >>> balanced_mean(np.array([[1, 1, 0, 1]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    if values.ndim != 2 or values.shape[1] != len(labels) or (others is not None and others.shape != values.shape):
        other = "" if others is None else f" and {others.shape}"
        raise ShapeError(f"values {values.shape}{other} must be (S, N), N the {len(labels)} labels")
    gain = values.astype(np.float64) - (0 if others is None else others)  # (S, N)
    seeds = len(gain)
    by_seed = _weights(labels.astype(np.int64).tobytes()) @ gain.T  # (R, S)
    drawn = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    resampled = np.take_along_axis(by_seed, drawn, axis=1)
    over_images, over_both = by_seed.mean(axis=1), resampled.mean(axis=1)  # (R,)
    widened = sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    spread = over_images + widened * (over_both - over_images)
    value = float(np.mean([gain[:, labels == label].mean() for label in np.unique(labels)]))
    low, high = percentile_interval(spread)
    return Estimate(value, low, high, POWER * float(spread.std(ddof=1)), seeds)


@lru_cache(maxsize=2)  # all rows of a table are scored on the same images
def _weights(labels: bytes) -> NDArray[np.float64]:
    """Return the weight of each image in each resample: (R, N), rows that sum to 1."""
    places = np.frombuffer(labels, dtype=np.int64)
    rng, classes = np.random.default_rng(0), np.unique(places)
    weights = np.empty((RESAMPLES, len(places)))
    for label in classes:
        of_class = np.flatnonzero(places == label)
        counts = rng.multinomial(len(of_class), np.full(len(of_class), 1 / len(of_class)), size=RESAMPLES)
        weights[:, of_class] = counts / (len(of_class) * len(classes))
    return weights
