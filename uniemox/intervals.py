"""Confidence intervals of scores over other possible images: percentile bootstrap (Efron, 1979) over images.

Every score here is a function of means over samples (a recall is a mean of hits over a mean of labels), so one function
that resamples means serves all scores. Samples of one group, such as several people in one image, are one unit. A
sample with group None is its own unit. Draws depend on units and seed, not on the order of samples. With 20,000 units
or more, of which most are equal, the multinomial counts of the distinct units are drawn instead: same distribution,
much faster.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError, ShapeError

Interval = tuple[float, float]
Groups = Sequence[Hashable]
LEVEL = 0.95  # share of the resamples inside an interval
DRAWS = 2_000_000  # drawn at a time: about 50 MB
MANY, FEW = 20_000, 8
"""Draw multinomial counts from this number of units on, if there are this many times fewer distinct units."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two models' scores on the same images."""

    difference: float
    """Our score minus theirs, averaged over seeds and samples."""
    low: float
    high: float
    share_above_zero: float
    """Share of the resamples in which our score is higher; a tie does not count."""


def bootstrap_interval(per_sample: NDArray[np.generic], groups: Groups | None = None) -> Interval:
    """Return the percentile bootstrap interval of a mean.

    per_sample: (N,), one score per sample.  groups: group of each sample, resampled together; None: each sample alone.
    A single unit has no spread, so both ends are its mean.
    Raises DataError without samples or for a score that is not finite, ShapeError if the arguments do not match.

    >>> bootstrap_interval(np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1]))
    (0.5, 1.0)
    """
    scores = np.asarray(per_sample, dtype=np.float64)
    if scores.ndim != 1:
        raise ShapeError(f"scores {scores.shape} must be (N,), one per sample")
    return percentile_interval(resampled_means(scores[:, None], groups)[:, 0])


def paired_bootstrap(
    ours: NDArray[np.generic], theirs: NDArray[np.generic], groups: Groups | None = None
) -> PairedDifference:
    """Compare two models by their scores on the same samples in the same order.

    ours, theirs: (N,), or (S, N) with one row per training seed; both models may have different S. All seeds of an
    image are resampled together, so the interval says how the value varies with images, not with seeds.
    Raises the errors of `bootstrap_interval`.

    >>> paired_bootstrap(np.array([1, 1, 1, 1]), np.array([0, 1, 0, 1]))
    PairedDifference(difference=0.5, low=0.0, high=1.0, share_above_zero=0.938)
    """
    first, second = (np.atleast_2d(np.asarray(scores, dtype=np.float64)) for scores in (ours, theirs))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not len(first) or not len(second):
        raise ShapeError(f"ours {np.shape(ours)} and theirs {np.shape(theirs)} must both be (N,) or (S, N), of one N")
    # Scores of 0 or 1 have whole sums over seeds, so a tie is exactly 0 and not 1e-17.
    gain = first.sum(axis=0) * len(second) - second.sum(axis=0) * len(first)  # (N,)
    scale = len(first) * len(second)
    means = resampled_means(gain[:, None], groups)[:, 0] / scale  # (R,)
    low, high = percentile_interval(means)
    return PairedDifference(float(gain.mean() / scale), low, high, float((means > 0).mean()))


def resampled_means(
    terms: NDArray[np.generic], groups: Groups | None = None, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Return means over samples in each of R resamples of the images; all columns use the same draws.

    terms: (N, K), K values per sample.  Returns (R, K). A resample draws, with replacement,
    as many groups as there are, or as many samples if there are no groups. Raises the errors of `bootstrap_interval`.
    """
    values = np.asarray(terms, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"terms {values.shape} must be (N, K)")
    if not len(values):
        raise DataError("there is no sample to resample; was the split empty?")
    if not np.isfinite(values).all():
        raise DataError(f"sample {np.nonzero(~np.isfinite(values))[0][0]} has a score that is not finite")
    units = _unit_sums(np.hstack([values, np.ones((len(values), 1))]), groups)  # (U, K + 1), the size last
    units = units[np.lexsort(units.T)]  # draws do not depend on the order of samples
    alike = _alike(units) if len(units) >= MANY else np.ones(len(units), dtype=np.int64)
    units = units[np.cumsum(alike) - 1]  # distinct units, (D, K + 1)
    sums, rng = np.empty((resamples, units.shape[1])), np.random.default_rng(seed)
    at_once = max(1, DRAWS // int(alike.sum()))
    for start in range(0, resamples, at_once):
        times = _draw(rng, alike, min(at_once, resamples - start))  # (rows, D)
        # einsum uses one thread, so its bits are the same everywhere; threaded matrix products of this shape are slow.
        sums[start : start + len(times)] = np.einsum("ru,uk->rk", times.astype(np.float64), units)
    return sums[:, :-1] / sums[:, -1:]


def _alike(units: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of equal successive rows in a sorted (U, K): (D,), whose sum is U."""
    first = np.flatnonzero(np.append(True, (units[1:] != units[:-1]).any(axis=1)))
    alike = np.diff(np.append(first, len(units)))
    return alike if len(alike) * FEW <= len(units) else np.ones(len(units), dtype=np.int64)


def _draw(rng: np.random.Generator, alike: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Draw how often each distinct unit occurs in each resample, (rows, D).  alike: (D,), number of equal units."""
    count = int(alike.sum())
    if len(alike) < count:
        return rng.multinomial(count, alike / count, size=rows)
    drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def percentile_interval(values: NDArray[np.floating]) -> Interval:
    """Return the middle 95 % of a statistic's resamples, (R,), without those where it is undefined (nan).

    Both ends are nan if all are.
    """
    resamples = values[~np.isnan(values)]
    if not len(resamples):
        return float("nan"), float("nan")
    low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _unit_sums(values: NDArray[np.float64], groups: Groups | None) -> NDArray[np.float64]:
    """Sum the samples of each unit: (N, K) to (U, K)."""
    if groups is None:
        return values
    if len(groups) != len(values):
        raise ShapeError(f"{len(groups)} groups do not match {len(values)} samples; give one per sample")
    places: dict[Hashable, int] = {}
    alone = (object() for _ in groups)  # a sample without a group is its own unit
    keys = [next(alone) if group is None else group for group in groups]
    unit = np.array([places.setdefault(key, len(places)) for key in keys])
    sums = np.zeros((len(places), values.shape[1]))
    np.add.at(sums, unit, values)
    return sums
