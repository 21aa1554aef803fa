"""Confidence intervals of scores: over other possible images, and over other training seeds.

One run has a percentile bootstrap interval (Efron, 1979) over images. It holds for this run on other images. Three or
more runs that differ in their seed have an interval over seeds and images, see `Spread`. Two runs have none: their
difference says too little about other seeds. `python -m tools.coverage` measures how often the intervals contain the
true value. The resamples are drawn in `resampling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.plurals import counted
from uniemox.resampling import Groups, resampled_means, unit_count

Interval = tuple[float, float]
LEVEL = 0.95  # share of the resamples inside an interval
UPPER = (1 + LEVEL) / 2  # probability below the upper end
# Two runs have no interval.
MIN_SEEDS = 3
# With fewer groups, resampling them shows too little of the spread.
MIN_GROUPS = 5


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two models' scores on the same images."""

    difference: float
    """Our score minus theirs, averaged over seeds and samples."""
    low: float | None
    """Lower end of the 95 % interval, see `paired_bootstrap`; None if a model has two runs."""
    high: float | None
    share_above_zero: float
    """Share of the resamples of the images, with the same runs, in which our score is higher; a tie does not count."""

    @property
    def interval(self) -> Interval | None:
        """Both ends of the interval."""
        if self.low is None or self.high is None:
            return None
        return (self.low, self.high)

    @property
    def is_above_zero(self) -> bool:
        """True if the interval is above 0; without one, if the difference is."""
        lowest = self.difference if self.low is None else self.low
        return lowest > 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a mean over seeds and images, or of a difference of such means, by its two sources.

    With S runs of different seeds, the variance between their scores, divided by S, is that of the mean over seeds. It
    includes the part of the images that differs between runs. The part of the images that is common to all runs is the
    covariance of two runs over resamples of the images. The half-width of an interval is the square root of the sum of
    both squared half-widths: Student's t for the seeds, the normal distribution for the images. It is at least that of
    an interval over images for these runs, because three runs can agree by chance.
    """

    of_seeds: tuple[tuple[float, int], ...]
    """Variance of the mean over seeds and its degrees of freedom, for each model with several runs."""
    shared_by_runs: float
    """Variance over images that all runs share."""
    of_images: float
    """Variance over images of the mean of these runs."""

    def reach(self, *probabilities: float) -> float:
        """Return the distance from the mean to the sum of these quantiles.

        0.975 gives the half-width of a 95 % interval; 0.975 and 0.8 give the smallest difference that such an interval
        excludes from 0 four times in five.
        """
        normal = sum(NormalDist().inv_cdf(probability) for probability in probabilities)
        squares = [normal**2 * self.shared_by_runs]
        for variance, degrees_of_freedom in self.of_seeds:
            quantile = sum(_student(probability, degrees_of_freedom) for probability in probabilities)
            squares.append(quantile**2 * variance)
        return sqrt(max(sum(squares), normal**2 * self.of_images))


def _student(probability: float, degrees_of_freedom: int) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit  # noqa: PLC0415 - a core installation has no scipy and compares no seeds

    return float(stdtrit(degrees_of_freedom, probability))


def spread_over_seeds(*models: NDArray[np.floating], resampled: Sequence[NDArray[np.floating]]) -> Spread | None:
    """Return the spread of a model's mean over seeds, or of the difference of two models' means.

    Args:
        models: (S,), the score of each run on all images; one or two models.
        resampled: (R, S) for each model, the same scores in R resamples of the images, with the same draws for all
            models. A model with one run counts as fixed: its spread is that of the images alone.

    Returns:
        The spread; None if a model has two runs.

    >>> scores, resampled = np.array([0.5, 0.6, 0.7]), np.array([[0.5, 0.6, 0.7], [0.5, 0.6, 0.7]])
    >>> round(spread_over_seeds(scores, resampled=[resampled]).reach(0.975), 3)
    0.248
    """
    if any(1 < len(scores) < MIN_SEEDS for scores in models):
        return None
    covariance = np.atleast_2d(np.cov(np.hstack(resampled), rowvar=False))  # (T, T), T runs of all models
    model_of_run = np.repeat(np.arange(len(models)), [len(scores) for scores in models])
    shared = 0.0
    of_images = 0.0
    for i in range(len(models)):
        for j in range(len(models)):
            sign = 1 if i == j else -1
            block = covariance[np.ix_(model_of_run == i, model_of_run == j)]
            of_images += sign * float(block.mean())
            if i == j and len(block) > 1:
                # Only pairs of different runs: their covariance is the part that all runs share.
                block = block[~np.eye(len(block), dtype=bool)]
            shared += sign * float(block.mean())
    of_seeds = tuple((float(scores.var(ddof=1)) / len(scores), len(scores) - 1) for scores in models if len(scores) > 1)
    return Spread(of_seeds, max(shared, 0.0), max(of_images, 0.0))


def bootstrap_interval(per_sample: NDArray[np.generic], groups: Groups | None = None) -> Interval:
    """Return the percentile bootstrap interval of a mean.

    A single unit has no spread, so both ends are its mean.

    Args:
        per_sample: (N,), one score per sample.
        groups: Group of each sample, resampled together; None: each sample alone.

    Raises:
        DataError: Without samples or for a score that is not finite.
        ShapeError: If the arguments do not match.

    >>> bootstrap_interval(np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1]))
    (0.5, 1.0)
    """
    scores = np.asarray(per_sample, dtype=np.float64)
    if scores.ndim != 1:
        raise ShapeError(f"scores {scores.shape} must be (N,), one per sample")
    return percentile_interval(resampled_means(scores[:, None], groups)[:, 0])


def share_interval(is_right: NDArray[np.generic], groups: Groups | None = None) -> Interval:
    """Return the 95 % interval of a share: bootstrap, or exact if all samples are right, or all wrong.

    The bootstrap of equal values has no width. The exact interval (Clopper and Pearson, 1934) counts each group as one
    sample. A single group says nothing about others: its interval is 0 to 1, unless all of it is right, or wrong.

    Args:
        is_right: (N,), 1 for each right sample, else 0.
        groups: See `bootstrap_interval`.

    Raises:
        DataError: Without samples.
        ShapeError: If the arguments do not match.

    >>> low, high = share_interval(np.ones(10))
    >>> round(low, 3), high
    (0.692, 1.0)
    """
    low, high = bootstrap_interval(is_right, groups)
    units = len(is_right) if groups is None else unit_count(groups)
    if (low, high) == (1.0, 1.0):
        return lowest_of_all_right(units), 1.0
    if (low, high) == (0.0, 0.0):
        return 0.0, 1.0 - lowest_of_all_right(units)
    if units == 1:
        return 0.0, 1.0
    return low, high


def lowest_of_all_right(count: int) -> float:
    """Return the lower end of the exact 95 % interval of a share of 1."""
    return float((1 - UPPER) ** (1 / count))


def sign_test(wins: int, losses: int) -> float:
    """Return the p-value of the exact sign test, two-sided: of two models that are equally good (McNemar, 1947).

    Args:
        wins: Number of images on which only the first model is right.
        losses: Number of images on which only the second model is right.

    >>> sign_test(4, 0), sign_test(6, 0), sign_test(2, 2)
    (0.125, 0.03125, 1.0)
    """
    count = wins + losses
    tail = sum(comb(count, k) for k in range(max(wins, losses), count + 1)) / 2**count
    return min(1.0, 2 * tail)


def few_groups_note(groups: int, count: int) -> str | None:
    """Return a warning if so few groups are resampled that intervals are too narrow; None for any other number.

    Args:
        groups: Number of groups of samples that are resampled together.
        count: Number of samples.

    >>> few_groups_note(1, 12)
    'the 12 images are of 1 group, and images of a group are resampled together: intervals say nothing about others'
    """
    if groups >= MIN_GROUPS or groups == count:
        return None
    meaning = "intervals say nothing about others" if groups == 1 else "all intervals are too narrow"
    return (
        f"the {count:,} images are of {counted(groups, 'group')}, and images of a group are resampled together: "
        f"{meaning}"
    )


def no_spread_note(share: float, count: int, units: int | None = None) -> str | None:
    """Return a warning if a share is 0 or 1, so that its bootstrap interval has no width.

    The interval in the warning is exact (Clopper and Pearson, 1934) for independent samples.

    Args:
        share: Share of the samples that are right, 0 to 1.
        count: Number of samples.
        units: Number of groups that are resampled together; None: each sample alone.

    Returns:
        The warning; None for any other share.

    >>> no_spread_note(1.0, 6)
    'all 6 images are right, so resampling shows no spread; the exact 95 % interval is 54 to 100 %'
    """
    if share not in (0.0, 1.0):
        return None
    lowest = 100 * lowest_of_all_right(count if units is None else units)
    images = "the only image is" if count == 1 else f"all {count:,} images are"
    answers = "right"
    exact = f"{lowest:.0f} to 100"
    if share == 0:
        answers = "wrong"
        exact = f"0 to {100 - lowest:.0f}"
    return f"{images} {answers}, so resampling shows no spread; the exact 95 % interval is {exact} %"


def interval_over_runs(scores: NDArray[np.generic], groups: Groups | None = None) -> Interval | None:
    """Return the interval of the mean of scores over runs and images; None for two runs.

    One run has the interval over images of `share_interval`; three or more have one over seeds and images (`Spread`).

    Args:
        scores: (S, N), 0 or 1, a row per run, each with another seed.
        groups: Group of each sample, resampled together; None: each sample alone.

    Raises:
        DataError: Without samples or for a score that is not finite.
        ShapeError: If the arguments do not match.
    """
    by_image = np.asarray(scores, dtype=np.float64)
    if by_image.ndim != 2 or not len(by_image):
        raise ShapeError(f"scores {by_image.shape} must be (S, N), one row per run")
    if len(by_image) == 1:
        return share_interval(by_image[0], groups)
    if len(by_image) > 2 and len(np.unique(by_image)) == 1:
        # All runs are right on all images, or wrong, so that neither seeds nor resamples show a spread.
        return share_interval(by_image[0], groups)
    if len(by_image) > 2 and _is_one_unit(by_image, groups):
        return 0.0, 1.0
    by_run = by_image.mean(axis=1)
    spread = spread_over_seeds(by_run, resampled=[resampled_means(by_image.T, groups)])
    if spread is None:
        return None
    value = float(by_run.mean())
    reach = spread.reach(UPPER)
    return value - reach, value + reach


def clip_to_share(interval: Interval | None) -> Interval | None:
    """Cut an interval of a share, such as an accuracy, off at 0 and 1.

    >>> clip_to_share((0.9, 1.1)), clip_to_share(None)
    ((0.9, 1.0), None)
    """
    if interval is None:
        return None
    return max(0.0, interval[0]), min(1.0, interval[1])


def share_difference(
    ours: NDArray[np.generic], theirs: NDArray[np.generic], groups: Groups | None = None
) -> PairedDifference:
    """Compare two models by shares, such as their accuracies, see `paired_bootstrap`.

    A single group says nothing about others: the interval is then -1 to 1.

    Args:
        ours: Our model's scores, 0 or 1: (N,), or (S, N) with one row per training seed.
        theirs: The other model's scores, likewise.
        groups: Group of each sample, resampled together; None: each sample alone.

    Raises:
        DataError: Without samples or for a score that is not finite.
        ShapeError: If the arguments do not match.
    """
    difference = paired_bootstrap(ours, theirs, groups)
    if difference.interval is not None and _is_one_unit(np.atleast_2d(np.asarray(ours)), groups):
        return replace(difference, low=-1.0, high=1.0)
    return difference


def _is_one_unit(scores: NDArray[np.generic], groups: Groups | None) -> bool:
    """Return True if all samples of scores, (S, N), are of one group, or there is only one."""
    return (scores.shape[1] if groups is None else unit_count(groups)) == 1


def paired_bootstrap(
    ours: NDArray[np.generic], theirs: NDArray[np.generic], groups: Groups | None = None, *, pair_seeds: bool = False
) -> PairedDifference:
    """Compare two models by their scores on the same samples in the same order.

    A single run of each has a bootstrap interval over images, all else an interval over seeds and images, see `Spread`.
    In it, a model with one run counts as fixed. If a model has two runs, there is no interval.

    Args:
        ours: Our model's scores, (N,), or (S, N) with one row per training seed.
        theirs: The other model's scores, (N,) or (S, N); its S may be another.
        groups: Group of each sample, resampled together; None: each sample alone.
        pair_seeds: Row i of both models has the same seed, so the differences of the rows are compared.

    Raises:
        DataError: Without samples or for a score that is not finite.
        ShapeError: If the arguments do not match.

    >>> paired_bootstrap(np.array([1, 1, 1, 1]), np.array([0, 1, 0, 1]))
    PairedDifference(difference=0.5, low=0.0, high=1.0, share_above_zero=0.938)
    """
    first = np.atleast_2d(np.asarray(ours, dtype=np.float64))
    second = np.atleast_2d(np.asarray(theirs, dtype=np.float64))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not len(first) or not len(second):
        raise ShapeError(f"ours {np.shape(ours)} and theirs {np.shape(theirs)} must both be (N,) or (S, N), of one N")
    if pair_seeds and len(first) != len(second):
        raise ShapeError(f"{len(first)} and {len(second)} runs can't be paired by seed")
    # Scores of 0 or 1 have whole sums over seeds, so a tie is exactly 0 and not 1e-17.
    gain = first.sum(axis=0) * len(second) - second.sum(axis=0) * len(first)  # (N,)
    scale = len(first) * len(second)
    means = resampled_means(gain[:, None], groups)[:, 0] / scale  # (R,)
    difference = float(gain.mean() / scale)
    share = float((means > 0).mean())
    if len(first) == len(second) == 1:
        return PairedDifference(difference, *percentile_interval(means), share)

    models = [first, second]
    if pair_seeds:
        models = [first - second]
    elif difference < 0:
        # The draws depend on the order, so swapped models would have another interval.
        models = [second, first]
    resampled = np.hsplit(resampled_means(np.vstack(models).T, groups), [len(models[0])])[: len(models)]
    spread = spread_over_seeds(*(scores.mean(axis=1) for scores in models), resampled=resampled)
    if spread is None:
        return PairedDifference(difference, None, None, share)
    reach = spread.reach(UPPER)
    return PairedDifference(difference, difference - reach, difference + reach, share)


def percentile_interval(values: NDArray[np.floating]) -> Interval:
    """Return the middle 95 % of a statistic's resamples, (R,), without those where it is undefined (nan).

    Both ends are nan if the statistic is undefined in all resamples.
    """
    resamples = values[~np.isnan(values)]
    if not len(resamples):
        return float("nan"), float("nan")
    low, high = np.quantile(resamples, [1 - UPPER, UPPER])
    return float(low), float(high)
