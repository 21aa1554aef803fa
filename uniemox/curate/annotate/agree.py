"""How far annotators agree: percentage, Cohen's κ, Krippendorff's α, per class and annotator, with intervals."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.intervals import percentile_interval, resampled_means

RESAMPLES = 1000
MISSING = -1
Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % bootstrap interval over images; nan where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two annotators on the images that both answered."""

    first: str
    second: str
    pictures: int
    percent: Figure
    """Share of the images, 0 to 1, on which both said the same."""
    kappa: Figure
    """Cohen's κ (Educational and Psychological Measurement 20, 1960)."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows: what the first said; columns: the second; in the order of the labels."""


@dataclass(frozen=True, slots=True)
class AgreementStats:
    """All figures of a set of answers."""

    labels: tuple[str, ...]
    pictures: int
    """With at least two answers; only they count."""
    answers: int
    percent: Figure
    """Of all pairs of answers to one image, the mean over images."""
    alpha: Figure
    """Krippendorff's α for nominal data (Content Analysis, 2004)."""
    per_class: Mapping[str, Figure]
    """α of "this class or not"."""
    per_annotator: Mapping[str, Figure]
    """Share of others' answers that are the same, the mean over images."""
    pairs: tuple[Pair, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON, nan as null."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


def agreement(
    codes: NDArray[np.integer], labels: Sequence[str], people: Sequence[str], seed: int = 0
) -> AgreementStats:
    """All figures.

    codes: (images, annotators) places in labels, -1 where there is no answer.  Raises ShapeError if they don't fit.
    """
    if codes.ndim != 2 or codes.shape[1] != len(people):
        raise ShapeError(f"codes {codes.shape} must be (images, {len(people)} annotators)")
    if codes.size and not (codes.min() >= MISSING and codes.max() < len(labels)):
        raise ShapeError(f"codes must be -1 to {len(labels) - 1}, got {codes.min()} to {codes.max()}")
    answered = codes[(codes != MISSING).sum(axis=1) >= 2]
    counts = label_counts(answered, len(labels))  # (U, E)
    return AgreementStats(
        labels=tuple(labels),
        pictures=len(answered),
        answers=int(counts.sum()),
        percent=_percent(counts, seed),
        alpha=_alpha(counts, seed),
        per_class={
            label: _alpha(np.stack([counts[:, i], counts.sum(axis=1) - counts[:, i]], axis=1), seed)
            for i, label in enumerate(labels)
        },
        per_annotator={name: _with_others(answered[:, i], counts, seed) for i, name in enumerate(people)},
        pairs=tuple(
            _pair(codes[:, i], codes[:, j], people[i], people[j], len(labels), seed)
            for i, j in itertools.combinations(range(len(people)), 2)
            if ((codes[:, i] != MISSING) & (codes[:, j] != MISSING)).any()
        ),
    )


def codes_of(
    by_picture: Mapping[int, Mapping[str, str]], labels: Sequence[str], people: Sequence[str]
) -> NDArray[np.int64]:
    """Answers as (images, annotators) places in labels, -1 where there is none."""
    place, column = {label: i for i, label in enumerate(labels)}, {name: i for i, name in enumerate(people)}
    codes = np.full((len(by_picture), len(people)), MISSING)
    for row, said in enumerate(by_picture.values()):
        for name, label in said.items():
            codes[row, column[name]] = place[label]
    return codes


def label_counts(codes: NDArray[np.integer], classes: int) -> Counts:
    """How many annotators named each label: (U, annotators) -> (U, E)."""
    return np.stack([(codes == i).sum(axis=1) for i in range(classes)], axis=1).astype(np.float64)


def krippendorff_alpha(counts: Counts) -> float:
    """Krippendorff's α for nominal data: (U, E) counts of labels, a row an image; nan if it is not defined.

    α = 1 - D_o / D_e with D_o the disagreement of pairs inside an image, each image's pairs weighted by 1 / (m - 1)
    for its m answers, and D_e that of all pairs of answers. Images with one answer are left out.
    """
    terms = _alpha_terms(counts[counts.sum(axis=1) >= 2])
    return float(_alpha_from(terms.sum(axis=0, keepdims=True))[0]) if len(terms) else math.nan


def cohen_kappa(confusion: Counts) -> float:
    """Cohen's κ of a confusion matrix of two annotators, (E, E); nan if chance alone would agree always."""
    shares = confusion / confusion.sum()
    by_chance = float(shares.sum(axis=1) @ shares.sum(axis=0))
    return math.nan if by_chance >= 1 else (float(np.trace(shares)) - by_chance) / (1 - by_chance)


def _alpha_terms(counts: Counts) -> Counts:
    """What α is made of, a row an image: disagreement inside, number of answers, and counts. (U, 2 + E)."""
    m = counts.sum(axis=1)  # (U,)
    inside = (m**2 - (counts**2).sum(axis=1)) / (m - 1)
    return np.column_stack([inside, m, counts])


def _alpha_from(sums: Counts) -> Counts:
    """α of sums of `_alpha_terms`, (R, 2 + E) -> (R,); nan where all answers are the same."""
    inside, n, per_label = sums[:, 0], sums[:, 1], sums[:, 2:]
    expected = n**2 - (per_label**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * inside / expected, np.nan)


def _alpha(counts: Counts, seed: int) -> Figure:
    if not len(counts):
        return Figure(math.nan, math.nan, math.nan)
    terms = _alpha_terms(counts)
    sums = resampled_means(terms, resamples=RESAMPLES, seed=seed) * len(terms)  # (R, 2 + E)
    return Figure(krippendorff_alpha(counts), *percentile_interval(_alpha_from(sums)))


def _percent(counts: Counts, seed: int) -> Figure:
    if not len(counts):
        return Figure(math.nan, math.nan, math.nan)
    m = counts.sum(axis=1)
    return _mean((counts * (counts - 1)).sum(axis=1) / (m * (m - 1)), seed)


def _with_others(codes: NDArray[np.integer], counts: Counts, seed: int) -> Figure:
    """codes: (U,) of one annotator, counts: (U, E) of all."""
    rows = np.flatnonzero(codes != MISSING)
    same = counts[rows, codes[rows]] - 1
    return _mean(same / (counts[rows].sum(axis=1) - 1), seed)


def _pair(
    first: NDArray[np.integer], second: NDArray[np.integer], name: str, other: str, classes: int, seed: int
) -> Pair:
    both = (first != MISSING) & (second != MISSING)
    a, b = np.eye(classes)[first[both]], np.eye(classes)[second[both]]  # (U, E)
    same = (a * b).sum(axis=1)
    terms = np.column_stack([same, a, b])
    means = resampled_means(terms, resamples=RESAMPLES, seed=seed)
    by_chance = (means[:, 1 : 1 + classes] * means[:, 1 + classes :]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappas = np.where(by_chance < 1 - 1e-12, (means[:, 0] - by_chance) / (1 - by_chance), np.nan)
    confusion = a.T @ b
    return Pair(
        name,
        other,
        int(both.sum()),
        _mean(same, seed),
        Figure(cohen_kappa(confusion), *percentile_interval(kappas)),
        tuple(tuple(int(value) for value in row) for row in confusion),
    )


def _mean(values: Counts, seed: int) -> Figure:
    if not len(values):
        return Figure(math.nan, math.nan, math.nan)
    means = resampled_means(values[:, None], resamples=RESAMPLES, seed=seed)[:, 0]
    return Figure(float(values.mean()), *percentile_interval(means))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
