"""Scores of a network that gives an image several labels: average precision by label, and agreement at the thresholds.

The average precision of a label is the area under its precision-recall curve, without interpolation, as scikit-learn
and later code for EMOTIC compute it. The code that the authors of EMOTIC published interpolates the precision at eleven
recalls instead, which usually gives higher values; `interpolated_precision` is that measure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.evaluate.metrics import Array, check_finite, macro_f1, ratio
from uniemox.intervals import Interval, percentile_interval
from uniemox.resampling import Groups, resampled_counts

RESAMPLES = 1000
"""Number of resamples of the images for an interval."""
# Resamples in memory at a time.
BLOCK = 100
# Recalls at which precision is interpolated: 0, 0.1, ..., 1.
RECALLS = 10
# Bins of equal width of the calibration error.
BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class MultilabelScores:
    """Scores of a network that gives several labels, as fractions from 0 to 1."""

    measure: ClassVar[str] = "mean_average_precision"
    mean_average_precision: float | None
    """Mean over the labels that an image has; None if no image has a label."""
    mean_average_precision_interval: Interval | None
    mean_interpolated_precision: float | None
    """The same with precision interpolated at eleven recalls, as in the code of EMOTIC's authors."""
    average_precision: Mapping[str, float | None]
    """Average precision by label; None for a label that no image has."""
    average_precision_interval: Mapping[str, Interval | None]
    macro_f1: float
    """Mean F1 of the labels above their thresholds, over labels that an image has or is given."""
    jaccard: float
    """Mean over images of the labels that are both true and given, divided by those that are true or given."""
    ece: float
    """Calibration error of the network's uncalibrated probabilities: mean over labels, 15 bins each."""
    ece_calibrated: float | None = None
    """Calibration error of the probabilities as they are given; None without a calibration."""
    temperature: float | None = None
    positives: Mapping[str, int]
    """Number of images that have a label."""
    labels: tuple[str, ...]
    n: int
    """Number of samples."""


def score_multilabel(
    probabilities: Array,
    is_present: NDArray[np.bool_],
    labels: tuple[str, ...],
    thresholds: Array,
    *,
    groups: Groups | None = None,
) -> MultilabelScores:
    """Return every score of a network that gives several labels.

    Args:
        probabilities: (N, E), 0 to 1.
        is_present: (N, E), True for the labels that an image has.
        labels: E names.
        thresholds: (E,); a label is given where its probability is above.
        groups: Samples that are resampled together, see `uniemox.intervals`.

    Raises:
        DataError: If there are no samples, or if a probability is not finite.
        ShapeError: If the shapes do not match.
    """
    expected = (len(probabilities), len(labels))
    if probabilities.shape != expected or is_present.shape != expected or thresholds.shape != expected[1:]:
        raise ShapeError(
            f"probabilities {probabilities.shape} and labels {is_present.shape} must be (N, E), thresholds "
            f"{thresholds.shape} (E,), with E = {len(labels)}"
        )
    check_finite(probabilities)
    resampled = _resampled_precisions(probabilities, is_present, groups)  # (1 + R, E)
    precisions = [_estimate(column) for column in resampled.T]
    mean, mean_interval = _estimate(_mean_over_labels(resampled))
    interpolated = np.array([interpolated_precision(probabilities[:, i], is_present[:, i]) for i in range(len(labels))])
    is_given = probabilities > thresholds
    hits = (is_given & is_present).sum(axis=0)
    return MultilabelScores(
        mean_average_precision=mean,
        mean_average_precision_interval=mean_interval,
        mean_interpolated_precision=_estimate(_mean_over_labels(interpolated[None]))[0],
        average_precision={label: value for label, (value, _) in zip(labels, precisions, strict=True)},
        average_precision_interval={label: interval for label, (_, interval) in zip(labels, precisions, strict=True)},
        macro_f1=float(macro_f1(hits, is_present.sum(axis=0), is_given.sum(axis=0))),
        jaccard=_jaccard(is_given, is_present),
        ece=label_calibration_error(probabilities, is_present),
        positives=dict(zip(labels, is_present.sum(axis=0).tolist(), strict=True)),
        labels=labels,
        n=len(probabilities),
    )


def mean_average_precision(scores: Array, is_present: NDArray[np.bool_]) -> float:
    """Return the mean of `average_precision` over the labels that an image has; nan if there is none.

    Args:
        scores: (N, E); a higher score means that the label is more probable.
        is_present: (N, E), True for the labels that an image has.
    """
    precisions = [average_precision(scores[:, i], is_present[:, i])[0] for i in range(scores.shape[1])]
    return float(_mean_over_labels(np.array([precisions]))[0])


def average_precision(
    scores: Array, is_present: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> Array:
    """Return the area under the precision-recall curve: Σ (R_k - R_{k-1}) P_k over the distinct scores.

    Equal scores count as one step of the curve, as in scikit-learn.

    Args:
        scores: (N,); a higher score means that the label is more probable.
        is_present: (N,), True for the images that have the label.
        weights: (R, N), at least 0: R weightings of the images; None: one with equal weights.

    Returns:
        (R,), 0 to 1; nan where no image has the label.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    array([0.83333333])
    """
    hits, taken = _counts(scores, is_present, weights)
    precision = np.nan_to_num(ratio(hits, taken))  # (R, K)
    gains = np.diff(hits, axis=1, prepend=0.0)
    return ratio((gains * precision).sum(axis=1), hits[:, -1])


def interpolated_precision(scores: Array, is_present: NDArray[np.bool_]) -> float:
    """Return the mean of the highest precisions from recalls 0, 0.1, ..., 1 on.

    Takes the arguments of `average_precision`; nan if no image has the label. The source is function
    precisionrecallvector of the authors' repository rkosti/emotic.

    >>> round(interpolated_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])), 4)
    0.8485
    """
    hits, taken = (row[0] for row in _counts(scores, is_present, None))
    if hits[-1] == 0:
        return math.nan
    precision = hits / taken  # (K,)
    # The highest precision at this recall or a higher one.
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    # In floating point, a recall of 3 / 10 may be below 0.3.
    recalls = hits / hits[-1] + 1e-9
    steps = [int(np.argmax(recalls >= level / RECALLS)) for level in range(RECALLS + 1)]
    return float(best_from[steps].mean())


def label_calibration_error(probabilities: Array, is_present: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the mean over labels of the gap between mean probability and frequency of the label, in equal bins.

    Args:
        probabilities: (N, E), 0 to 1.
        is_present: (N, E), True for the labels that an image has.
        bins: Number of bins.

    Returns:
        0 to 1; biased upwards if bins have few samples.
    """
    errors = []
    for values, is_label in zip(probabilities.T.astype(np.float64), is_present.T, strict=True):
        bin_of = np.digitize(values, np.linspace(0, 1, bins + 1)[1:-1], right=True)
        gaps = np.bincount(bin_of, values - is_label, minlength=bins)
        errors.append(np.abs(gaps).sum() / len(values))
    return float(np.mean(errors))


def _counts(scores: Array, is_present: NDArray[np.bool_], weights: NDArray[np.floating] | None) -> tuple[Array, Array]:
    """Return the weights of right and of all images down to each of K distinct scores, (R, K) each, from the top."""
    if weights is None:
        weights = np.ones((1, len(scores)))
    order = np.argsort(-scores, kind="stable")
    is_last = np.append(np.diff(scores[order]) != 0, True)
    ordered = weights[:, order]  # (R, N)
    hits = np.cumsum(ordered * is_present[order], axis=1)[:, is_last]
    taken = np.cumsum(ordered, axis=1)[:, is_last]
    return hits, taken


def _resampled_precisions(probabilities: Array, is_present: NDArray[np.bool_], groups: Groups | None) -> Array:
    """Return the average precision of each label, (1 + R, E): of all images first, then of each resample."""
    columns = range(probabilities.shape[1])
    rows = [np.stack([average_precision(probabilities[:, i], is_present[:, i]) for i in columns], axis=1)]
    counts = resampled_counts(len(probabilities), groups, resamples=RESAMPLES)
    for start in range(0, RESAMPLES, BLOCK):
        weights = counts[start : start + BLOCK].astype(np.float64)
        block = [average_precision(probabilities[:, i], is_present[:, i], weights) for i in columns]
        rows.append(np.stack(block, axis=1))
    return np.concatenate(rows)


def _mean_over_labels(values: Array) -> Array:
    """Return the mean over labels, (R,), of (R, E), without those that are nan."""
    is_known = ~np.isnan(values)
    return ratio(np.nan_to_num(values).sum(axis=1), is_known.sum(axis=1))


def _estimate(values: Array) -> tuple[float | None, Interval | None]:
    """Return the first value and the interval of the others, of (1 + R,); None if they are undefined."""
    if math.isnan(values[0]):
        return None, None
    if len(values) == 1:
        return float(values[0]), None
    return float(values[0]), percentile_interval(values[1:])


def _jaccard(is_given: NDArray[np.bool_], is_present: NDArray[np.bool_]) -> float:
    """Return the mean overlap of two sets of labels, (N, E) each; two empty sets are equal."""
    common = (is_given & is_present).sum(axis=1)
    either = (is_given | is_present).sum(axis=1)
    return float(np.where(either > 0, common / np.maximum(either, 1), 1.0).mean())
