"""Agreement of annotators: percentage, Cohen's κ, Krippendorff's α, per class and annotator, with intervals."""

import itertools
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.intervals import percentile_interval
from uniemox.resampling import resampled_means
from uniemox_curate.annotate.verdicts import LatestAnswers, read_answers
from uniemox_curate.counters import count
from uniemox_curate.project import NONE, Project
from uniemox_curate.questions import scales_of
from uniemox_curate.saved_results import AGREEMENT, KeptRecord

RESAMPLES = 1000
# Code in place of an answer that an annotator did not give.
MISSING = -1
Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its 95 % bootstrap interval over images; nan where it is not defined."""

    value: float
    low: float
    high: float


UNDEFINED = Figure(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Pair:
    """Agreement of two annotators on the images that both answered."""

    first: str
    second: str
    pictures: int
    percent: Figure
    """Share of images, 0 to 1, with the same answer."""
    kappa: Figure
    """Cohen's κ (Educational and Psychological Measurement 20, 1960)."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts: rows are answers of the first annotator, columns of the second, in the order of the labels."""


@dataclass(frozen=True, slots=True)
class AgreementStats:
    """All statistics of a set of answers."""

    labels: tuple[str, ...]
    pictures: int
    """Number of images with at least two answers; only these count."""
    answers: int
    percent: Figure
    """Share of equal pairs of answers to one image, averaged over images."""
    alpha: Figure
    """Krippendorff's α for nominal data (Content Analysis, 2004)."""
    per_class: Mapping[str, Figure]
    """Krippendorff's α of "this class or not"."""
    per_annotator: Mapping[str, Figure]
    """Share of the other annotators' answers that are the same, averaged over images."""
    pairs: tuple[Pair, ...]
    ratings: Mapping[str, Figure] = field(default_factory=dict)
    """Krippendorff's α for interval data of each scale on which an annotator has answered."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable statistics, nan as None."""
        content: dict[str, Any] = _without_nan(asdict(self))
        return content

    def anonymous(self) -> dict[str, Any]:
        """Return `as_dict` with numbers instead of names, as in a release's answers.csv."""
        content = self.as_dict()
        number = {name: f"annotator {i + 1}" for i, name in enumerate(self.per_annotator)}
        content["per_annotator"] = {number[name]: value for name, value in content["per_annotator"].items()}
        for pair in content["pairs"]:
            for position in ("first", "second"):
                pair[position] = number[pair[position]]
        return content


def agree(project: Project) -> AgreementStats:
    """Compute the agreement of all current answers and save it for `status`.

    Raises:
        DataError: If no image has two answers.
    """
    # Before the answers are read: those that come meanwhile are later ones.
    counts = count(project.store)
    stats = agreement_now(project)
    if not stats.pictures:
        remedy = f"uniemox curate status {shlex.quote(str(project.folder))} shows the next step"
        raise DataError(f"{project.folder}: no image has two answers yet; {remedy}")
    state = {
        "of_answers": counts.newest_answer,
        "of_batch": counts.newest_batch,
        "rule": counts.basis.rule,
        "kept": asdict(KeptRecord.of(counts.labelled, counts.basis.rule, counts)),
    }
    project.store.set(AGREEMENT, stats.anonymous() | state)
    return stats


def agreement_now(project: Project) -> AgreementStats:
    """Compute the agreement of all current answers; nan if no image has two.

    Raises:
        DataError: If an answer has a label that the plan does not have.
    """
    answers = read_answers(project)
    labels = (*project.plan.labels, NONE)
    scales = {name: _ratings_of(answers, name) for name in scales_of(project.plan.answer.known)}
    others = {label for of_image in answers.by_image.values() for label in of_image.values()} - set(labels)
    if others:
        raise DataError(
            f"{project.folder}: answers have the label {min(others)!r}, which the plan does not have: add it to the "
            "labels of the plan, as they were when people answered"
        )
    codes = codes_of(answers.by_image, labels, answers.people)
    return agreement(codes, labels, answers.people, ratings=scales)


def agreement(
    codes: NDArray[np.integer],
    labels: Sequence[str],
    people: Sequence[str],
    *,
    ratings: Mapping[str, NDArray[np.float64]] | None = None,
) -> AgreementStats:
    """Return all statistics.

    Args:
        codes: (images, annotators), indices into labels, -1 for no answer.
        labels: Labels, and "none".
        people: Names of the annotators.
        ratings: Values on each scale, (images, annotators), nan for no answer; scales without a value are left out.
    """
    answered = codes[(codes != MISSING).sum(axis=1) >= 2]
    counts = label_counts(answered, len(labels))  # (U, E)
    m = counts.sum(axis=1)  # (U,)
    return AgreementStats(
        labels=tuple(labels),
        pictures=len(answered),
        answers=int(m.sum()),
        percent=_figure((counts * (counts - 1)).sum(axis=1, keepdims=True) / (m * (m - 1))[:, None]),
        alpha=_figure(_alpha_terms(counts), _alpha_from),
        per_class={
            label: _figure(_alpha_terms(np.stack([counts[:, i], m - counts[:, i]], axis=1)), _alpha_from)
            for i, label in enumerate(labels)
        },
        per_annotator={name: _with_others(answered[:, i], counts) for i, name in enumerate(people)},
        pairs=tuple(
            _pair(codes[:, i], codes[:, j], people[i], people[j], len(labels))
            for i, j in itertools.combinations(range(len(people)), 2)
            if ((codes[:, i] != MISSING) & (codes[:, j] != MISSING)).any()
        ),
        ratings={name: rating_alpha(values) for name, values in (ratings or {}).items() if not np.isnan(values).all()},
    )


def codes_of(
    by_image: Mapping[int, Mapping[str, str]], labels: Sequence[str], people: Sequence[str]
) -> NDArray[np.int64]:
    """Return answers as (images, annotators) indices into labels, -1 for no answer."""
    rows = [
        [labels.index(answers[name]) if name in answers else MISSING for name in people]
        for answers in by_image.values()
    ]
    return np.array(rows, dtype=np.int64).reshape(len(by_image), len(people))


def _ratings_of(answers: LatestAnswers, scale: str) -> NDArray[np.float64]:
    """Return the values on a scale, (images, annotators), nan for no answer."""
    rows = [
        [answers.details.get(image, {}).get(name, {}).get(scale, math.nan) for name in answers.people]
        for image in answers.by_image
    ]
    return np.array(rows, dtype=np.float64).reshape(len(answers.by_image), len(answers.people))


def rating_alpha(values: NDArray[np.float64]) -> Figure:
    """Return Krippendorff's α for interval data: the difference of two values counts by its square.

    Args:
        values: Values of each annotator, (images, annotators), nan for no answer.
    """
    count = (~np.isnan(values)).sum(axis=1)
    answered = values[count >= 2]
    m = count[count >= 2]  # (U,)
    total = np.nansum(answered, axis=1)  # (U,)
    squares = np.nansum(answered**2, axis=1)  # (U,)
    # The sum of the squared differences of all pairs.
    inside = 2 * (m * squares - total**2) / (m - 1)
    return _figure(np.column_stack([inside, m, total, squares]), _rating_alpha_from)


def _rating_alpha_from(sums: Counts) -> Counts:
    """Return Krippendorff's α for interval data from sums of its terms, (R, 4) -> (R,); nan if all are equal."""
    inside, n, total, squares = sums.T
    expected = 2 * (n * squares - total**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * inside / expected, np.nan)


def label_counts(codes: NDArray[np.integer], classes: int) -> Counts:
    """Count the annotators of each label: (U, annotators) -> (U, E)."""
    return np.stack([(codes == i).sum(axis=1) for i in range(classes)], axis=1).astype(np.float64)


def _alpha_terms(counts: Counts) -> Counts:
    """Return the terms of α by image: disagreement inside, number of answers, and counts. (U, 2 + E)."""
    m = counts.sum(axis=1)  # (U,)
    inside = (m**2 - (counts**2).sum(axis=1)) / (m - 1)
    return np.column_stack([inside, m, counts])


def _alpha_from(sums: Counts) -> Counts:
    """Return Krippendorff's α for nominal data from sums of its terms, (R, 2 + E) -> (R,); nan if all are equal.

    α = 1 - D_o / D_e. D_o is the disagreement of pairs inside an image, weighted by 1 / (m - 1) for its m answers; D_e
    is that of all pairs of answers.
    """
    inside = sums[:, 0]
    n = sums[:, 1]
    per_label = sums[:, 2:]
    expected = n**2 - (per_label**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * inside / expected, np.nan)


def _with_others(codes: NDArray[np.integer], counts: Counts) -> Figure:
    """Return the agreement of one annotator with the others.

    Args:
        codes: Answers of the annotator, (U,).
        counts: Number of annotators by label, (U, E), with this one.
    """
    rows = np.flatnonzero(codes != MISSING)
    same = counts[rows, codes[rows]] - 1
    return _figure((same / (counts[rows].sum(axis=1) - 1))[:, None])


def _pair(first: NDArray[np.integer], second: NDArray[np.integer], name: str, other: str, classes: int) -> Pair:
    """Return the agreement of two annotators.

    Args:
        first: Answers of one, (images,).
        second: Answers of the other, (images,).
        name: Name of the first annotator.
        other: Name of the second annotator.
        classes: Number of labels, with "none".
    """
    both = (first != MISSING) & (second != MISSING)
    a = np.eye(classes)[first[both]]  # (U, E)
    b = np.eye(classes)[second[both]]  # (U, E)
    same = (a * b).sum(axis=1, keepdims=True)  # (U, 1)

    def kappa(sums: Counts) -> Counts:
        means = sums / len(same)
        by_chance = (means[:, 1 : 1 + classes] * means[:, 1 + classes :]).sum(axis=1)
        # Not defined if chance alone always agrees.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(by_chance < 1 - 1e-12, (means[:, 0] - by_chance) / (1 - by_chance), np.nan)

    return Pair(
        first=name,
        second=other,
        pictures=int(both.sum()),
        percent=_figure(same),
        kappa=_figure(np.column_stack([same, a, b]), kappa),
        confusion=tuple(tuple(int(value) for value in row) for row in a.T @ b),
    )


def _figure(terms: Counts, statistic: Callable[[Counts], Counts] | None = None) -> Figure:
    """Return a statistic of sums over images with its interval.

    Args:
        terms: K values of each image, (U, K).
        statistic: Function of sums over images, (R, K) -> (R,); None: the mean of the first value.
    """
    count = len(terms)
    if not count:
        return UNDEFINED
    of_sums = statistic or (lambda sums: sums[:, 0] / count)
    value = float(of_sums(terms.sum(axis=0, keepdims=True))[0])
    sums = resampled_means(terms, resamples=RESAMPLES) * count  # (R, K)
    return Figure(value, *percentile_interval(of_sums(sums)))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
