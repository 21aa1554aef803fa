"""Mean recall of the classes, and differences of it, with intervals over images and seeds together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.intervals import percentile_interval

RESAMPLES = 2000
POWER = 2.8  # standard errors that a difference must have to be seen four times in five, at 5 %: 1.96 + 0.84

Hits = NDArray[np.bool_]
"""(P, L, N): whether the run of pre-training seed P and label seed L is right about image N."""


@dataclass(frozen=True, slots=True)
class Recall:
    """A mean recall, or a difference of two; shares of 1."""

    value: float
    low: float
    """95 %."""
    high: float
    visible: float
    """The smallest difference that would be seen four times in five."""
    seeds: int
    """Of pre-training."""


def mean_recall(hits: Hits, labels: NDArray[np.int64], theirs: Hits | None = None) -> Recall:
    """The mean recall of the classes, over all runs; or by how much it is above that of others, paired.

    hits: see `Hits`.  labels: (N,), what is right.  theirs: of runs with the same seeds, in the same order.
    Bootstrap: each resample draws images within their class, seeds of pre-training and seeds of labels. The parts of
    the seeds are widened by √(n / (n - 1)), by which a resample of n things varies less than n new ones would; where
    there is one seed it is taken as it is, and the interval is over images alone.
    Raises ShapeError where the two don't fit together.

    >>> mean_recall(np.array([[[True, True, False, True]]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    if hits.ndim != 3 or hits.shape[2] != len(labels) or (theirs is not None and theirs.shape != hits.shape):
        other = "" if theirs is None else f" and {theirs.shape}"
        raise ShapeError(f"hits {hits.shape}{other} must be (P, L, N), N the {len(labels)} labels")
    gain = hits.astype(np.float64) - (0 if theirs is None else theirs)  # (P, L, N)
    runs, draws, _ = gain.shape
    by_run = np.moveaxis(gain @ _weights(labels.tobytes()).T, 2, 0)  # (R, P, L)
    rng = np.random.default_rng(0)
    some = np.take_along_axis(by_run, rng.integers(runs, size=(RESAMPLES, runs, 1)), axis=1)  # (R, P, L)
    both = np.take_along_axis(some, rng.integers(draws, size=(RESAMPLES, 1, draws)), axis=2)
    means = [one.mean(axis=(1, 2)) for one in (by_run, some, both)]  # (R,) each
    of_runs, of_draws = (sqrt(count / (count - 1)) if count > 1 else 0.0 for count in (runs, draws))
    values = means[0] + of_runs * (means[1] - means[0]) + of_draws * (means[2] - means[1])
    value = float(np.mean([gain[:, :, labels == label].mean() for label in np.unique(labels)]))
    low, high = percentile_interval(values)
    return Recall(value, low, high, POWER * float(values.std(ddof=1)), runs)


@lru_cache(maxsize=4)  # all rows of a table are scored on the same images
def _weights(labels: bytes) -> NDArray[np.float64]:
    """What each image counts in the mean recall of each resample: (R, N), rows that sum to 1."""
    places = np.frombuffer(labels, dtype=np.int64)
    rng, classes = np.random.default_rng(0), np.unique(places)
    weights = np.empty((RESAMPLES, len(places)))
    for label in classes:
        of_class = np.flatnonzero(places == label)
        counts = rng.multinomial(len(of_class), np.full(len(of_class), 1 / len(of_class)), size=RESAMPLES)
        weights[:, of_class] = counts / (len(of_class) * len(classes))
    return weights


def stacked(rows: Sequence[Sequence[NDArray[np.bool_]]]) -> Hits:
    """Hits of runs by seed of pre-training, then of labels."""
    return np.array([list(row) for row in rows])
