"""Scores of an evaluation, whole and by group, with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError, ShapeError
from uniemox.evaluate import metrics as distributions
from uniemox.evaluate.calibration import expected_calibration_error, softmax
from uniemox.evaluate.metrics import (
    Array,
    Labels,
    check_distributions,
    check_finite,
    check_labels,
    confusion_matrix,
    macro_f1,
    macro_f1_from_counts,
    per_class_recall,
    polarity_accuracy,
    recall_from_counts,
    top_k_accuracy,
)
from uniemox.intervals import Groups, Interval, percentile_interval, resampled_means
from uniemox.labels import LabelSet


@dataclass(frozen=True, slots=True)
class Headline:
    """The one score by which groups of images are compared."""

    measure: str
    value: float | None
    interval: Interval | None
    is_error: bool
    """Lower is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Scores of a classifier; fractions, 0 to 1."""

    accuracy: float
    accuracy_interval: Interval
    per_class_recall: Mapping[str, float | None]
    per_class_interval: Mapping[str, Interval | None]
    macro_f1: float
    """Over the classes that occur as label or as prediction."""
    macro_f1_interval: Interval
    top2_accuracy: float
    polarity_accuracy: float | None
    """Over the samples whose label has a sign; None where the labels do not have both signs."""
    ece: float
    """Of the probabilities as the network gives them, over 15 bins."""
    ece_calibrated: float | None
    """After division by the temperature; None without one."""
    temperature: float | None
    confusion: tuple[tuple[int, ...], ...]
    """Counts, a row for each true class."""
    labels: tuple[str, ...]
    n: int
    """Samples."""

    @property
    def headline(self) -> Headline:
        """Accuracy."""
        return Headline("accuracy", self.accuracy, self.accuracy_interval, is_error=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return json_ready(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionScores:
    """Scores of a network that predicts shares of votes: means over samples."""

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
    """The fraction of samples whose most probable class is the one with most votes, the first of equals."""
    accuracy_interval: Interval
    temperature: float | None
    """What the logits were divided by; None: nothing."""
    n: int

    @property
    def headline(self) -> Headline:
        """The divergence from the votes."""
        return Headline("kl", self.kl, self.kl_interval, is_error=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return json_ready(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisScores:
    """Scores of one axis."""

    mae: float
    """In the unit of the axis."""
    mae_interval: Interval
    pearson: float | None
    pearson_interval: Interval | None
    ccc: float | None
    """Lin's concordance."""
    ccc_interval: Interval | None
    spearman: float | None
    """Rank correlation."""
    spearman_interval: Interval | None
    """Of the ranks among all samples, drawn with their sample."""
    coverage: float | None = None
    """Share of the ratings that lie in the interval predicted for them; None where none is predicted."""
    coverage_interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectScores:
    """Scores of a network that predicts valence and arousal."""

    valence: AxisScores
    arousal: AxisScores
    ccc: float | None
    """The mean of both axes; None if one is undefined."""
    ccc_interval: Interval | None
    n: int

    @property
    def headline(self) -> Headline:
        """The mean concordance of both axes."""
        return Headline("ccc", self.ccc, self.ccc_interval, is_error=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return json_ready(asdict(self))


Scores = ClassScores | DistributionScores | AffectScores


def score_classes(
    logits: NDArray[np.floating],
    labels: Labels,
    label_set: LabelSet,
    *,
    temperature: float | None = None,
    groups: Groups | None = None,
) -> ClassScores:
    """Every score of a classifier.

    logits: (N, E), before the softmax.  labels: (N,).  temperature: fitted on another split; None leaves
    `ece_calibrated` out. It changes no other score: `polarity_accuracy` sums the probabilities without it.
    groups: samples that are drawn together, see `bootstrap_interval`.
    Raises DataError for no samples or logits that are not finite, ShapeError for shapes that do not match, LabelError
    for an unknown label, and ConfigError for a temperature that is not above 0.
    """
    check_labels(logits, labels, label_set)
    probabilities, predicted, names = softmax(logits), logits.argmax(axis=1), label_set.labels
    confusion = confusion_matrix(labels, predicted, len(label_set))
    labelled, given = np.eye(len(label_set))[labels], np.eye(len(label_set))[predicted]  # (N, E)
    is_right = (labels == predicted)[:, None]  # (N, 1)
    means = resampled_means(np.hstack([is_right, labelled * given, labelled, given]), groups)  # (R, 1 + 3 E)
    hits, shares, given_shares = np.split(means[:, 1:], 3, axis=1)  # (R, E)
    recalls, recall, f1 = recall_from_counts(hits, shares), per_class_recall(confusion), macro_f1(confusion)
    return ClassScores(
        accuracy=float(is_right.mean()),
        accuracy_interval=percentile_interval(means[:, 0]),
        per_class_recall={name: _defined(value) for name, value in zip(names, recall, strict=True)},
        per_class_interval={
            name: _interval(value, recalls[:, i]) for i, (name, value) in enumerate(zip(names, recall, strict=True))
        },
        macro_f1=f1,
        macro_f1_interval=percentile_interval(macro_f1_from_counts(hits, shares, given_shares)),
        top2_accuracy=top_k_accuracy(logits, labels, k=2),
        polarity_accuracy=polarity_accuracy(probabilities, labels, label_set),
        ece=expected_calibration_error(probabilities, labels),
        ece_calibrated=None
        if temperature is None
        else expected_calibration_error(softmax(logits, temperature), labels),
        temperature=temperature,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        labels=names,
        n=len(labels),
    )


def score_distributions(
    logits: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    temperature: float | None = None,
    groups: Groups | None = None,
) -> DistributionScores:
    """Every score of a network that predicts a distribution.

    logits: (N, E), before the softmax.  target: (N, E), shares of votes with rows of sum 1.  temperature: divides the
    logits for every measure; None: they stay as they are.  groups: as `score_classes`.
    Raises DataError for no samples, values that are not finite, or shares without sum 1; ShapeError for shapes that do
    not fit; ConfigError for a temperature that is not above 0.
    """
    check_finite(logits)
    check_distributions(target)
    pred = softmax(logits, 1.0 if temperature is None else temperature)  # (N, E)
    measures = {
        "kl": distributions.kl_divergence(target, pred),
        "cosine": distributions.cosine_similarity(target, pred),
        "clark": distributions.clark(target, pred),
        "canberra": distributions.canberra(target, pred),
        "chebyshev": distributions.chebyshev(target, pred),
        "intersection": distributions.intersection(target, pred),
        "accuracy": (target.argmax(axis=1) == logits.argmax(axis=1)).astype(np.float64),
    }
    means = resampled_means(np.stack(list(measures.values()), axis=1), groups)  # (R, 7)
    value: dict[str, Any] = {name: float(scores.mean()) for name, scores in measures.items()}
    interval: dict[str, Any] = {f"{name}_interval": percentile_interval(means[:, i]) for i, name in enumerate(measures)}
    return DistributionScores(**value, **interval, temperature=temperature, n=len(target))


def score_affect(
    predicted: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    groups: Groups | None = None,
    intervals: NDArray[np.floating] | None = None,
) -> AffectScores:
    """Every score of a network that predicts valence and arousal.

    predicted, target: (N, 2), valence first, both in the data set's unit.  groups: as `score_classes`.
    intervals: (N, 2, 2) low and high of each prediction; None: there are none.
    Raises DataError for no samples or values that are not finite, ShapeError for other shapes.
    """
    if target.ndim != 2 or target.shape[1] != 2 or predicted.shape != target.shape:
        raise ShapeError(
            f"predictions {predicted.shape} and target {target.shape} must both be (N, 2), valence and arousal"
        )
    axes = [(target[:, i], predicted[:, i]) for i in range(2)]
    errors = np.abs(np.subtract(target, predicted, dtype=np.float64))  # (N, 2)
    inside = np.zeros_like(errors)
    if intervals is not None:
        inside = ((intervals[:, :, 0] <= target) & (target <= intervals[:, :, 1])).astype(np.float64)
    ranks = [(_ranks(t), _ranks(p)) for t, p in axes]
    terms = [errors, inside, *(distributions.moments(*pair) for pair in (*axes, *ranks))]
    means = resampled_means(np.hstack(terms), groups)  # (R, 2 + 2 + 4 * 5)
    error, held, valence, arousal, *of_ranks = np.split(means, [2, 4, 9, 14, 19], axis=1)
    scores = [
        _score_axis(*axis, error[:, i], means, _RankScores(*ranks[i], of_ranks[i]))
        for i, (axis, means) in enumerate(zip(axes, (valence, arousal), strict=True))
    ]
    if intervals is not None:
        scores = [
            replace(one, coverage=float(inside[:, i].mean()), coverage_interval=percentile_interval(held[:, i]))
            for i, one in enumerate(scores)
        ]
    both = float(np.mean([distributions.concordance(*axis) for axis in axes]))
    resampled = (distributions.concordance_of_moments(valence) + distributions.concordance_of_moments(arousal)) / 2
    return AffectScores(
        valence=scores[0],
        arousal=scores[1],
        ccc=_defined(both),
        ccc_interval=_interval(both, resampled),
        n=len(target),
    )


def json_ready(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {name: json_ready(part) for name, part in value.items()}
    return [json_ready(part) for part in value] if isinstance(value, list | tuple) else value


class _RankScores(NamedTuple):
    target: Array  # (N,) ranks
    predicted: Array
    means: Array  # (R, 5) of resamples


def _ranks(values: Array) -> Array:
    """(N,) ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _score_axis(target: Array, predicted: Array, errors: Array, means: Array, ranks: _RankScores) -> AxisScores:
    """Scores of one axis; errors: (R,) and means: (R, 5) of its resamples."""
    pearson, ccc = distributions.pearson(target, predicted), distributions.concordance(target, predicted)
    spearman = distributions.pearson(ranks.target, ranks.predicted)
    return AxisScores(
        mae=distributions.mean_absolute_error(target, predicted),
        mae_interval=percentile_interval(errors),
        pearson=_defined(pearson),
        pearson_interval=_interval(pearson, distributions.pearson_of_moments(means)),
        ccc=_defined(ccc),
        ccc_interval=_interval(ccc, distributions.concordance_of_moments(means)),
        spearman=_defined(spearman),
        spearman_interval=_interval(spearman, distributions.pearson_of_moments(ranks.means)),
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _interval(value: float, resampled: Array) -> Interval | None:
    """None where the score itself is undefined."""
    return None if math.isnan(value) else percentile_interval(resampled)


UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """Scores by group. The lowest of many groups is low by chance too: read its interval."""

    groups: Mapping[str, Scores]
    """Every group, by name; each knows its n."""
    measure: str
    """What groups are ranked by: accuracy, kl or ccc."""
    min_samples: int
    """Groups with less samples are listed and not ranked."""
    worst: str | None
    """None if less than two groups can be ranked."""
    worst_value: float | None
    worst_interval: Interval | None
    best: str | None
    gap: float | None
    """From the worst to the best, at least 0."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        scores = {name: group.as_dict() for name, group in self.groups.items()}
        names = ("measure", "min_samples", "worst", "worst_value", "worst_interval", "best", "gap")
        return {"groups": scores} | json_ready({name: getattr(self, name) for name in names})


def score_groups(
    values: Sequence[str | None], score: Callable[[NDArray[np.intp]], Scores], *, min_samples: int = 20
) -> GroupScores:
    """Scores by the values of one column.

    values: one a sample; None becomes "unknown", a group like any other.  score: from the places of a group's samples,
    (M,), to their scores.  min_samples: samples that a group must have to be ranked; its score must also be defined.
    The worst group has the lowest accuracy or mean concordance, or the highest divergence; of equals, the first name.
    Raises DataError without samples, ConfigError for min_samples below 1.
    """
    if min_samples < 1:
        raise ConfigError(f"min_samples must be at least 1, got {min_samples}")
    if not len(values):
        raise DataError("there is no sample to group; was the split empty?")
    members: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        members.setdefault(UNKNOWN if value is None else value, []).append(place)
    groups = {name: score(np.array(members[name], dtype=np.intp)) for name in sorted(members)}
    headlines = {name: group.headline for name, group in groups.items()}
    measure, is_error = next((line.measure, line.is_error) for line in headlines.values())
    value_of = {
        name: line.value for name, line in headlines.items() if groups[name].n >= min_samples and line.value is not None
    }
    if len(value_of) < 2:
        return GroupScores(
            groups=groups,
            measure=measure,
            min_samples=min_samples,
            worst=None,
            worst_value=None,
            worst_interval=None,
            best=None,
            gap=None,
        )
    ranked = sorted(value_of, key=lambda name: -value_of[name] if is_error else value_of[name])  # the worst first
    worst, best = ranked[0], ranked[-1]
    return GroupScores(
        groups=groups,
        measure=measure,
        min_samples=min_samples,
        worst=worst,
        worst_value=value_of[worst],
        worst_interval=headlines[worst].interval,
        best=best,
        gap=abs(value_of[best] - value_of[worst]),
    )
