"""Resamples of images for bootstrap intervals: means and counts of samples in each.

Every score here is a function of means over samples (a recall is a mean of hits over a mean of labels), so one function
that resamples means serves all scores. Samples of one group, such as several people in one image, are one unit. A
sample with group None is its own unit. Draws depend on units and seed, not on the order of samples. With 20,000 units
or more, of which most are equal, the multinomial counts of the distinct units are drawn instead: same distribution,
much faster.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError, ShapeError

Groups = Sequence[Hashable]
# Draws in memory at a time: about 50 MB.
MAX_DRAWS = 2_000_000
# Multinomial counts are drawn from this number of units on, if there are this many times fewer distinct units.
MIN_MULTINOMIAL_UNITS = 20_000
MIN_REPETITION = 8


def resampled_means(
    terms: NDArray[np.generic], groups: Groups | None = None, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Return means over samples in each of R resamples of the images; all columns use the same draws.

    A resample draws, with replacement, the number of groups that there are; without groups, the number of samples.

    Args:
        terms: (N, K), K values per sample.
        groups: Group of each sample, resampled together; None: each sample alone.
        resamples: R, number of resamples.
        seed: Random seed of the draws.

    Returns:
        (R, K) means.

    Raises:
        DataError: Without samples or for a value that is not finite.
        ShapeError: If the arguments do not match.
    """
    values = np.asarray(terms, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"terms {values.shape} must be (N, K)")
    if not len(values):
        raise DataError("there is no sample to resample; was the split empty?")
    if not np.isfinite(values).all():
        raise DataError(f"sample {np.nonzero(~np.isfinite(values))[0][0]} has a score that is not finite")

    units = unit_sums(np.hstack([values, np.ones((len(values), 1))]), groups)  # (U, K + 1), the size last
    units = _in_order_of_draws(units)
    repetitions = np.ones(len(units), dtype=np.int64)
    if len(units) >= MIN_MULTINOMIAL_UNITS:
        repetitions = _repetitions(units)
    units = units[np.cumsum(repetitions) - 1]  # distinct units, (D, K + 1)

    sums = np.empty((resamples, units.shape[1]))
    rng = np.random.default_rng(seed)
    rows_per_block = max(1, MAX_DRAWS // int(repetitions.sum()))
    for start in range(0, resamples, rows_per_block):
        counts = _draw(rng, repetitions, min(rows_per_block, resamples - start))  # (rows, D)
        # einsum uses one thread, so its bits are the same everywhere; threaded matrix products of this shape are slow.
        sums[start : start + len(counts)] = np.einsum("ru,uk->rk", counts.astype(np.float64), units)
    # Resamples of groups differ in size, so the mean divides by each one's own.
    return sums[:, :-1] / sums[:, -1:]


def resampled_counts(samples: int, groups: Groups | None = None, *, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Return how often each sample occurs in each of R resamples, (R, N), for scores that are no function of means.

    The draws depend on the order of the samples, unlike those of `resampled_means`.

    Args:
        samples: N.
        groups: Group of each sample, resampled together; None: each sample alone.
        resamples: R.
        seed: Random seed of the draws.

    >>> resampled_counts(3, ["a", "a", "b"], resamples=2).tolist()
    [[0, 0, 2], [1, 1, 1]]
    """
    unit_of_sample = np.arange(samples) if groups is None else _unit_numbers(groups)
    units = int(unit_of_sample.max()) + 1
    counts = _draw(np.random.default_rng(seed), np.ones(units, dtype=np.int64), resamples)  # (R, U)
    return counts[:, unit_of_sample]


def unit_count(groups: Groups) -> int:
    """Return the number of groups; a sample without a group is its own unit.

    >>> unit_count(["a", "a", None, None])
    3
    """
    return int(_unit_numbers(groups).max()) + 1


def _in_order_of_draws(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort units, (U, K + 1), such that draws depend neither on the order of samples nor on the sign of all values.

    So the resampled differences of two models are the negatives of those with the models swapped, except if the sorted
    differences are the same with the other sign, such as after as many wins as losses.
    """
    ascending = units[np.lexsort(units.T)]
    if (units[:, :-1] >= 0).all():
        return ascending
    sign = np.append(np.full(units.shape[1] - 1, -1.0), 1.0)  # sizes keep theirs
    descending = units[np.lexsort((sign * units).T)]
    # Of the two orders, take the one whose values are the larger ones at the first place where they differ.
    mirrored = (sign * descending).ravel()
    differing = np.flatnonzero(ascending.ravel() != mirrored)
    if len(differing) and mirrored[differing[0]] > ascending.ravel()[differing[0]]:
        return descending
    return ascending


def _repetitions(units: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how often each distinct row of a sorted (U, K) occurs, (D,), with sum U; all 1 if few rows repeat."""
    first_rows = np.flatnonzero(np.append(True, (units[1:] != units[:-1]).any(axis=1)))
    repetitions = np.diff(np.append(first_rows, len(units)))
    if len(repetitions) * MIN_REPETITION <= len(units):
        return repetitions
    return np.ones(len(units), dtype=np.int64)


def _draw(rng: np.random.Generator, repetitions: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Draw how often each distinct unit occurs in each resample, (rows, D).

    Args:
        repetitions: (D,), number of equal units.
        rows: Number of resamples.
    """
    count = int(repetitions.sum())
    if len(repetitions) < count:
        return rng.multinomial(count, repetitions / count, size=rows)
    drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def unit_sums(values: NDArray[np.float64], groups: Groups | None) -> NDArray[np.float64]:
    """Sum the samples of each unit: (N, K) to (U, K)."""
    if groups is None:
        return values
    if len(groups) != len(values):
        raise ShapeError(f"{len(groups)} groups do not match {len(values)} samples; give one per sample")
    unit_of_sample = _unit_numbers(groups)
    sums = np.zeros((int(unit_of_sample.max()) + 1, values.shape[1]))
    np.add.at(sums, unit_of_sample, values)
    return sums


def _unit_numbers(groups: Groups) -> NDArray[np.int64]:
    """Return the number of each sample's unit, from 0 on; a sample without a group is its own unit: (N,)."""
    # An object equals only itself.
    keys = [object() if group is None else group for group in groups]
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def folds_of(units: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Return the fold of each sample, (N,), from 0 on; samples of one unit are in one fold. Order does not matter.

    >>> folds_of(["a", "b", "a", "c"], 2).tolist()
    [1, 0, 1, 0]
    """
    names = sorted(set(units))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[index]: position % folds for position, index in enumerate(order)}
    return np.array([fold_of[unit] for unit in units])
