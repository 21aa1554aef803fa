"""Class-balanced means over images and seeds, and their paired differences, with 95 % intervals."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.intervals import UPPER, percentile_interval, spread_over_seeds

RESAMPLES = 2000
# Probability with which an experiment detects the smallest detectable difference.
POWER = 0.8


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
        values: Values of one run per seed, (S, N), paired by seed and image: 0 and 1 for a recall, log-probabilities...
        labels: Labels of the images, (N,).
        others: Values to subtract, in the same form; None: return the mean of `values`.

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
    if len(gain) == 1:
        low, high = percentile_interval(resampled[:, 0])
    else:
        low, high = value - reach, value + reach
    return Estimate(value, low, high, spread.reach(UPPER, POWER), len(gain))


# All rows of a table are scored on the same images.
@lru_cache(maxsize=2)
def _weights(labels: bytes) -> NDArray[np.float64]:
    """Return the weight of each image in each resample: (R, N), rows that sum to 1."""
    indices = np.frombuffer(labels, dtype=np.int64)
    rng = np.random.default_rng(0)
    classes = np.unique(indices)
    weights = np.empty((RESAMPLES, len(indices)))
    for label in classes:
        members = np.flatnonzero(indices == label)
        counts = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=RESAMPLES)
        weights[:, members] = counts / (len(members) * len(classes))
    return weights
