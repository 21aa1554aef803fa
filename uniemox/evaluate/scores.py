"""Scores of an evaluation, whole and by group, with intervals.

Every score with an interval is a function of means over samples. It is computed from a table: the first row has the
means over all samples, and each further row has the means over one resample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.evaluate.metrics import (
    Array,
    Labels,
    check_finite,
    concordance,
    distribution_measures,
    macro_f1,
    moments,
    pearson,
    polarity_accuracy,
    ratio,
    top_k_accuracy,
)
from uniemox.evaluate.multilabel import MultilabelScores
from uniemox.intervals import Interval, percentile_interval, share_interval
from uniemox.labels import AFFECT, AXES, DOMINANCE, LabelSet
from uniemox.ranks import ranks
from uniemox.resampling import Groups, resampled_means, unit_count

UNKNOWN = "unknown"
MIN_RANKED = 20
"""Minimum number of samples of a ranked group."""
MIN_OF_CLASS = 20
"""Minimum number of images of a class whose recall is shown with an interval."""
SCORE_TITLES = {
    "macro_f1": "macro F1",
    "top2_accuracy": "label among the two most probable answers",
    "polarity_accuracy": "positive or negative told apart, among labels that are either",
    "ece": "calibration error (ECE) of the network's own probabilities",
    "ece_calibrated": "calibration error (ECE) of the answers",
    "temperature": "temperature in the model's file",
    "mean_average_precision": "mean average precision (mAP)",
    "mean_interpolated_precision": "mAP, interpolated at 11 recalls",
    "jaccard": "Jaccard index",
    "kl": "KL divergence",
    "ccc": "concordance (CCC)",
    "mae": "mean absolute error",
    "pearson": "Pearson correlation",
    "cosine": "cosine similarity",
    "clark": "Clark distance",
    "canberra": "Canberra distance",
    "chebyshev": "Chebyshev distance",
    "coverage": "90 % likely sets that contain the label",
    "set_size": "labels of the model per 90 % likely set",
    "coverage_unfamiliar": "the same for unfamiliar images: sets that contain the label",
    "set_size_unfamiliar": "the same for unfamiliar images: labels per set",
    "flagged": "flagged as unfamiliar",
}
"""Titles of scores whose names do not say what they are; others are their own titles."""


def score_title(name: str, axis: str = "") -> str:
    """Return the title of a score.

    Args:
        name: Name of the score.
        axis: What alone it is of, such as valence; "": of everything.

    >>> score_title("ccc", "valence"), score_title("coverage", "arousal")
    ('valence: concordance (CCC)', 'arousal: ratings inside their 90 % intervals')
    """
    title = SCORE_TITLES.get(name, name.replace("_", " "))
    if not axis:
        return title
    if name == "coverage":
        title = "ratings inside their 90 % intervals"
    return f"{axis}: {title}"


def images_by_class(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of images of each class; {} for scores without a confusion matrix.

    Args:
        values: Scores in JSON form.

    >>> images_by_class({"labels": ["awe", "fear"], "confusion": [[3, 1], [0, 2]]})
    {'awe': 4, 'fear': 2}
    """
    rows = zip(values.get("labels", ()), values.get("confusion", ()), strict=False)
    return {label: sum(row) for label, row in rows}


def small_classes(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of images of the classes that have too few for an interval of their recall.

    Args:
        values: Scores in JSON form.
    """
    return {label: count for label, count in images_by_class(values).items() if count < MIN_OF_CLASS}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Scores of a classifier, as fractions from 0 to 1."""

    measure: ClassVar[str] = "accuracy"
    """Name of the score by which groups of images are compared."""
    accuracy: float
    accuracy_interval: Interval
    per_class_recall: Mapping[str, float | None]
    per_class_interval: Mapping[str, Interval | None]
    macro_f1: float
    """Mean F1 over the classes that occur as label or as prediction."""
    macro_f1_interval: Interval
    top2_accuracy: float
    polarity_accuracy: float | None
    """Accuracy of the polarity over samples whose label has one; None if the labels do not have both."""
    ece: float
    """Calibration error of the network's own probabilities, the softmax of its logits, over 15 bins."""
    ece_calibrated: float | None = None
    """Calibration error of the probabilities that prediction gives: of logits divided by the temperature, and moved
    towards equal values for unfamiliar images. None without a temperature."""
    temperature: float | None = None
    confusion: list[list[int]]
    """Counts, one row per true class."""
    labels: tuple[str, ...]
    n: int
    """Number of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionScores:
    """Scores of a network that predicts shares of votes: means over samples; see `distribution_measures`."""

    measure: ClassVar[str] = "kl"
    kl: float
    kl_interval: Interval
    cosine: float
    cosine_interval: Interval
    clark: float
    clark_interval: Interval
    canberra: float
    canberra_interval: Interval
    chebyshev: float
    chebyshev_interval: Interval
    intersection: float
    intersection_interval: Interval
    accuracy: float
    """Share of samples whose most probable class has the most votes; ties go to the first."""
    accuracy_interval: Interval
    temperature: float | None = None
    """Divisor of the logits; None: 1."""
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisScores:
    """Scores of one axis."""

    mae: float
    """Mean absolute error in the axis's unit."""
    mae_interval: Interval
    mae_of_mean: float | None = None
    """The same if every prediction was the mean of these ratings, a trivial baseline; None in older files."""
    pearson: float | None
    pearson_interval: Interval | None
    ccc: float | None
    """Lin's concordance."""
    ccc_interval: Interval | None
    spearman: float | None
    """Rank correlation."""
    spearman_interval: Interval | None
    """Interval of the rank correlation; ranks are among all samples and resampled with their sample."""
    coverage: float | None = None
    """Share of the ratings inside their predicted intervals; None if there are no intervals."""
    coverage_interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectScores:
    """Scores of a network that predicts valence and arousal, and perhaps dominance."""

    measure: ClassVar[str] = "ccc"
    valence: AxisScores
    arousal: AxisScores
    dominance: AxisScores | None = None
    """None if the network or the data have no dominance."""
    ccc: float | None
    """Mean over the axes; None if one is undefined."""
    ccc_interval: Interval | None
    n: int


Scores = ClassScores | DistributionScores | AffectScores | MultilabelScores


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """Scores by group. The lowest of many groups is low partly by chance: read its interval."""

    groups: Mapping[str, Scores]
    """Scores by group name, each with its number of samples n."""
    measure: str
    """Score by which groups are ranked: accuracy, kl, ccc or mean_average_precision."""
    min_samples: int
    """Groups with fewer samples are listed and not ranked."""
    worst: str | None = None
    """None if fewer than two groups can be ranked."""
    worst_value: float | None = None
    worst_interval: Interval | None = None
    best: str | None = None
    gap: float | None = None
    """Difference between the best and the worst, at least 0."""


def headline_of(scores: Scores) -> tuple[float | None, Interval | None]:
    """Return the score by which groups of images are compared, and its interval."""
    return getattr(scores, scores.measure), getattr(scores, f"{scores.measure}_interval")


def score_classes(
    probabilities: Array, labels: Labels, label_set: LabelSet, *, groups: Groups | None = None
) -> ClassScores:
    """Return every score of a classifier.

    Args:
        probabilities: (N, E), rows of sum 1.
        labels: (N,), indices in the label set.
        label_set: The labels.
        groups: Samples that are resampled together, see `bootstrap_interval`.

    Raises:
        DataError: If there are no samples, or if a probability is not finite.
    """
    check_finite(probabilities)
    names = label_set.labels
    predictions = probabilities.argmax(axis=1)  # (N,)
    labelled = np.eye(len(names))[labels]  # (N, E)
    predicted = np.eye(len(names))[predictions]  # (N, E)
    is_right = labels == predictions  # (N,)
    means = _with_resamples(np.hstack([labelled * predicted, labelled, predicted]), groups)  # (1 + R, 3 E)
    hits, label_shares, predicted_shares = np.split(means, 3, axis=1)  # (1 + R, E)
    # The recall of a class without samples is nan.
    recalls = [_estimate(column) for column in ratio(hits, label_shares).T]
    is_of_one_group = [groups is not None and _are_of_one_group(groups, labels == i) for i in range(len(names))]
    return ClassScores(
        **_estimates({"macro_f1": macro_f1(hits, label_shares, predicted_shares)}),
        accuracy=float(is_right.mean()),
        # Draws depend on all columns that are resampled together. Alone, the accuracy has the interval of `compare`.
        accuracy_interval=share_interval(is_right, groups),
        per_class_recall={name: value for name, (value, _) in zip(names, recalls, strict=True)},
        per_class_interval={
            name: None if is_of_one else interval
            for name, (_, interval), is_of_one in zip(names, recalls, is_of_one_group, strict=True)
        },
        top2_accuracy=top_k_accuracy(probabilities, labels, k=2),
        polarity_accuracy=polarity_accuracy(probabilities, labels, label_set),
        ece=expected_calibration_error(probabilities, labels),
        confusion=(labelled.T @ predicted).astype(int).tolist(),
        labels=names,
        n=len(labels),
    )


def _are_of_one_group(groups: Groups, is_chosen: NDArray[np.bool_]) -> bool:
    """Return True if several chosen samples are all of one group, whose resamples have no spread."""
    chosen = [groups[row] for row in np.flatnonzero(is_chosen).tolist()]
    return len(chosen) > 1 and unit_count(chosen) == 1


def score_distributions(predicted: Array, target: Array, *, groups: Groups | None = None) -> DistributionScores:
    """Return every score of a network that predicts a distribution.

    Args:
        predicted: (N, E), predicted shares of votes, rows of sum 1.
        target: (N, E), true shares of votes, rows of sum 1.
        groups: As for `score_classes`.

    Raises:
        DataError: If there are no samples, or if a value is not finite.
    """
    check_finite(np.hstack([predicted, target]))
    measures = distribution_measures(target, predicted)
    measures["accuracy"] = (target.argmax(axis=1) == predicted.argmax(axis=1)).astype(np.float64)
    means = _with_resamples(np.stack(list(measures.values()), axis=1), groups)  # (1 + R, 7)
    estimates = _estimates(dict(zip(measures, means.T, strict=True)))
    estimates["accuracy_interval"] = share_interval(measures["accuracy"], groups)
    return DistributionScores(**estimates, n=len(target))


def score_affect(
    predicted: Array, target: Array, *, groups: Groups | None = None, intervals: Array | None = None
) -> AffectScores:
    """Return every score of a network that predicts valence and arousal.

    Args:
        predicted: (N, K), predicted valence and arousal, and dominance if K is 3, in the data set's unit.
        target: (N, K), the true values.
        groups: As for `score_classes`.
        intervals: (N, K, 2) low and high end of each prediction's interval; None: there are none.

    Raises:
        DataError: If there are no samples, or if a value is not finite.
        ShapeError: If predicted or target have another shape.
    """
    if target.ndim != 2 or target.shape[1] not in (len(AFFECT), len(AXES)) or predicted.shape != target.shape:
        raise ShapeError(
            f"predictions {predicted.shape} and target {target.shape} must both be (N, 2), valence and arousal, or "
            "(N, 3), with dominance"
        )
    check_finite(np.hstack([target, predicted]))
    count = target.shape[1]
    axes = [(target[:, i], predicted[:, i]) for i in range(count)]
    of_ranks = [(ranks(t), ranks(p)) for t, p in axes]
    errors = np.abs(np.subtract(target, predicted, dtype=np.float64))  # (N, K)
    inside = np.zeros_like(errors)
    if intervals is not None:
        inside = ((intervals[:, :, 0] <= target) & (target <= intervals[:, :, 1])).astype(np.float64)
    terms = [errors, inside, *(moments(*pair) for pair in (*axes, *of_ranks))]
    means = _with_resamples(np.hstack(terms), groups)  # (1 + R, K + K + 2 K * 5)
    error, coverage, moments_of_all = np.split(means, [count, 2 * count], axis=1)
    # The axes, then the ranks of each.
    blocks = np.split(moments_of_all, 2 * count, axis=1)
    axis_moments = blocks[:count]
    rank_moments = blocks[count:]
    scores = []
    for i in range(count):
        values = {
            "mae": error[:, i],
            "pearson": pearson(axis_moments[i]),
            "ccc": concordance(axis_moments[i]),
            "spearman": pearson(rank_moments[i]),
        }
        if intervals is not None:
            values["coverage"] = coverage[:, i]
        estimates = _estimates(values)
        if intervals is not None:
            estimates["coverage_interval"] = share_interval(inside[:, i], groups)
        mae_of_mean = float(np.abs(target[:, i] - target[:, i].mean()).mean())
        scores.append(AxisScores(**estimates, mae_of_mean=mae_of_mean))
    mean_ccc = sum(concordance(block) for block in axis_moments) / count
    by_axis: dict[str, Any] = dict(zip(AXES, scores, strict=False))
    return AffectScores(**by_axis, **_estimates({"ccc": mean_ccc}), n=len(target))


def as_values(scores: Any) -> dict[str, Any]:
    """Return the fields of scores, or of scores by group, as dictionaries; without dominance if there is none."""
    return asdict(scores, dict_factory=_without_missing_dominance)


def _without_missing_dominance(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if not (name == DOMINANCE and value is None)}


def _with_resamples(terms: NDArray[np.generic], groups: Groups | None) -> Array:
    """Return means (1 + R, K) over samples of terms (N, K): of all samples first, then of each resample."""
    return np.vstack([terms.mean(axis=0, dtype=np.float64), resampled_means(terms, groups)])


def _estimates(scores: Mapping[str, Array]) -> dict[str, Any]:
    """Return each score and its interval by field name, for scores (1 + R,) each, see `_estimate`."""
    estimates = {name: _estimate(values) for name, values in scores.items()}
    intervals = {f"{name}_interval": interval for name, (_, interval) in estimates.items()}
    return {name: value for name, (value, _) in estimates.items()} | intervals


def _estimate(values: Array) -> tuple[float | None, Interval | None]:
    """Return a score and its interval; None if they are undefined.

    Args:
        values: (1 + R,), the score of all samples, then of each resample.
    """
    if math.isnan(values[0]):
        return None, None
    return float(values[0]), percentile_interval(values[1:])


def score_groups(
    values: Sequence[str | None], score: Callable[[NDArray[np.intp]], Scores], *, min_samples: int = MIN_RANKED
) -> GroupScores:
    """Score the groups that have one value of a column each.

    The worst group has the lowest accuracy or mean concordance, or the highest divergence; ties go to the first name.

    Args:
        values: The column's value for each sample, at least one; None becomes "unknown", an ordinary group.
        score: Function from the indices of a group's samples, (M,), to scores.
        min_samples: Minimum number of samples of a ranked group; its score must also be defined.
    """
    members: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        members.setdefault(UNKNOWN if value is None else value, []).append(row)
    groups = {name: score(np.array(members[name], dtype=np.intp)) for name in sorted(members)}
    measure = next(iter(groups.values())).measure
    headlines = {name: headline_of(group) for name, group in groups.items() if group.n >= min_samples}
    value_of = {name: value for name, (value, _) in headlines.items() if value is not None}
    # The worst comes first; a divergence is worse the higher it is.
    worst_sign = -1 if measure == "kl" else 1
    ranked = sorted(value_of, key=lambda name: worst_sign * value_of[name])
    scores = GroupScores(groups=groups, measure=measure, min_samples=min_samples)
    if len(ranked) < 2:
        return scores
    worst = ranked[0]
    best = ranked[-1]
    return replace(
        scores,
        worst=worst,
        worst_value=value_of[worst],
        worst_interval=headlines[worst][1],
        best=best,
        gap=abs(value_of[best] - value_of[worst]),
    )
