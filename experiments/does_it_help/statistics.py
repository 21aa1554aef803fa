"""Class-balanced means over images and seeds, and their paired differences, with 95 % intervals."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.intervals import UPPER, percentile_interval, spread_over_seeds

RESAMPLES = 2000
POWER = 0.8  # probability with which the smallest detectable difference is seen


@dataclass(frozen=True, slots=True)
class Estimate:
    """A balanced mean, or a difference of two."""

    value: float
    low: float | None
    """Lower end of the 95 % interval: over images for one seed, over seeds and images for three or more; else None."""
    high: float | None
    visible: float | None
    """Smallest difference whose interval would exclude 0 four times in five; None for two seeds."""
    seeds: int

    @property
    def is_above_zero(self) -> bool:
        """True if the interval is above 0; without one, if the value is."""
        return (self.value if self.low is None else self.low) > 0


def balanced_mean(values: NDArray, labels: NDArray, others: NDArray | None = None) -> Estimate:
    """Return the mean over classes of the mean over a class's images, over all seeds; or its difference from others.

    One seed has a bootstrap interval over images, drawn within their class. Three or more seeds have one over seeds
    (Student's t) and images, see `uniemox.intervals.Spread`. Two have none.

    Args:
        values: (S, N), one run per seed, paired by seed and image: 0 and 1 for a recall, log-probabilities, ...
        others: Likewise.
        labels: (N,).

    Raises:
        ShapeError: If the shapes do not match.

    >>> balanced_mean(np.array([[1, 1, 0, 1]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    if values.ndim != 2 or values.shape[1] != len(labels) or (others is not None and others.shape != values.shape):
        other = "" if others is None else f" and {others.shape}"
        raise ShapeError(f"values {values.shape}{other} must be (S, N), N the {len(labels)} labels")
    gain = values.astype(np.float64) - (0 if others is None else others)  # (S, N)
    by_seed = np.mean([gain[:, labels == label].mean(axis=1) for label in np.unique(labels)], axis=0)  # (S,)
    resampled = _weights(labels.astype(np.int64).tobytes()) @ gain.T  # (R, S)
    value = float(by_seed.mean())
    spread = spread_over_seeds(by_seed, resampled=[resampled])
    if spread is None:
        return Estimate(value, None, None, None, len(gain))
    reach = spread.reach(UPPER)
    low, high = percentile_interval(resampled[:, 0]) if len(gain) == 1 else (value - reach, value + reach)
    return Estimate(value, low, high, spread.reach(UPPER, POWER), len(gain))


@lru_cache(maxsize=2)  # all rows of a table are scored on the same images
def _weights(labels: bytes) -> NDArray[np.float64]:
    """Return the weight of each image in each resample: (R, N), rows that sum to 1."""
    places = np.frombuffer(labels, dtype=np.int64)
    rng = np.random.default_rng(0)
    classes = np.unique(places)
    weights = np.empty((RESAMPLES, len(places)))
    for label in classes:
        of_class = np.flatnonzero(places == label)
        counts = rng.multinomial(len(of_class), np.full(len(of_class), 1 / len(of_class)), size=RESAMPLES)
        weights[:, of_class] = counts / (len(of_class) * len(classes))
    return weights
