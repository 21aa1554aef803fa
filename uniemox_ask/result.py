"""Accuracy of the models, their agreement with ours, their cost and time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from uniemox.intervals import Interval, bootstrap_interval
from uniemox.labels import LabelSet
from uniemox_ask.config import AskConfig
from uniemox_ask.question import AskedImage
from uniemox_ask.record import OUTCOMES, AnswerReader, AnswerRow

OURS = "UniEmoX (ours)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """Results for the images of one class."""

    n: int
    recall: float | None
    """Share of right answers; None without images."""
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementWithOurs:
    """Agreement with our model, over the images with a label from both."""

    n: int
    percent: float | None
    kappa: float | None
    """Cohen's kappa; None if undefined, because both always give the same label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """Results of one model. Shares are 0 to 1; undefined values are None."""

    model: str
    endpoint: str
    n: int
    """Number of answered images, including refusals."""
    accuracy: float | None
    """Right answers divided by n; an answer without a label is wrong."""
    accuracy_interval: Interval | None
    """95 % interval, bootstrap over images."""
    accuracy_of_named: float | None
    """Right answers divided by the number of answers with a label."""
    outcomes: Mapping[str, int]
    """Number of answers by outcome, see `AnswerReader`."""
    failed: int
    """Number of images whose last request failed."""
    not_asked: int
    per_class: Mapping[str, ClassResult]
    agreement: AgreementWithOurs | None
    """None if there is no model of ours."""
    tokens_in: int
    tokens_out: int
    cost: float | None
    """None if a price or a token count is unknown."""
    latency_p50_s: float | None
    latency_p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Results of all models on the same images."""

    data: str
    question: str
    labels: tuple[str, ...]
    images: tuple[AskedImage, ...]
    models: tuple[ModelResult, ...]
    answers: Mapping[tuple[str, str], Mapping[str, AnswerRow]]
    """Answers by endpoint and model, then by image."""
    ours: Mapping[str, str] | None
    """Labels of our model by image."""
    ours_result: ModelResult | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return {
            "data": self.data,
            "question": self.question,
            "pictures": len(self.images),
            "models": [asdict(model) for model in self.models],
            "ours": None if self.ours_result is None else asdict(self.ours_result),
            "notes": list(self.notes),
        }


def summarise(
    config: AskConfig,
    images: Sequence[AskedImage],
    labels: LabelSet,
    rows: Mapping[str, AnswerRow],
    *,
    data: str,
    question: str,
    ours: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Results:
    """Return the results of every model of the config, then of others that answered about at least one of the images.

    Args:
        config: Endpoint, models and prices of this call.
        images: The images that models were asked about.
        labels: The options of the question.
        rows: From `run.ask`, of this endpoint and others.
        data: The data set's name.
        question: The question, for the report.
        ours: Labels of our model by image; None if there is no model of ours.
        notes: Notes about skipped images, for the report.
    """
    reader = AnswerReader(labels)
    digests = {image.sha256 for image in images}
    by_source: dict[tuple[str, str], list[AnswerRow]] = {(config.url, model): [] for model in config.models}
    for row in rows.values():
        if row.picture in digests:
            by_source.setdefault((row.endpoint, row.model), []).append(row)

    answers = dict[tuple[str, str], dict[str, AnswerRow]]()
    models = []
    for source, source_rows in by_source.items():
        answers[source] = {row.picture: reader.read_row(row) for row in source_rows if row.error is None}
        answered = list(answers[source].values())
        predictions = {row.picture: row.label for row in answered}
        failed = len(source_rows) - len(answered)
        cost = _total_cost(config, source, answered)
        models.append(_score(source, predictions, images, labels, ours=ours, rows=answered, failed=failed, cost=cost))
    ours_result = None if ours is None else _score(("", OURS), ours, images, labels)
    return Results(
        data=data,
        question=question,
        labels=labels.labels,
        images=tuple(images),
        models=tuple(models),
        answers=answers,
        ours=ours,
        ours_result=ours_result,
        notes=tuple(notes),
    )


def agreement(first: Sequence[str], second: Sequence[str]) -> AgreementWithOurs:
    """Return the agreement of two lists of labels, and Cohen's kappa, which corrects for chance.

    Source: Cohen, Educational and Psychological Measurement 20 (1960).

    Args:
        first: (N,) labels, N may be 0.
        second: (N,) labels, N may be 0.

    >>> agreement(["fear", "awe", "awe", "fear"], ["fear", "awe", "fear", "fear"])
    AgreementWithOurs(n=4, percent=75.0, kappa=0.5)
    """
    n = len(first)
    if not n:
        return AgreementWithOurs(n=0, percent=None, kappa=None)
    same = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours = Counter(first)
    theirs = Counter(second)
    chance = sum(ours[label] * theirs[label] for label in ours) / n**2
    return AgreementWithOurs(n=n, percent=100 * same, kappa=None if chance == 1 else (same - chance) / (1 - chance))


def _score(
    source: tuple[str, str],
    predictions: Mapping[str, str | None],
    images: Sequence[AskedImage],
    labels: LabelSet,
    *,
    ours: Mapping[str, str] | None = None,
    rows: Sequence[AnswerRow] = (),
    failed: int = 0,
    cost: float | None = None,
) -> ModelResult:
    """Score a model's labels.

    Args:
        source: Endpoint and model.
        predictions: Labels by image; None for an answer without a label.
        images: All images of the comparison.
        labels: The options of the question.
        ours: Labels of our model by image, to compare with.
        rows: The answers; none for our model, which always names a label.
        failed: Number of images whose last request failed.
        cost: From `_total_cost`.
    """
    answered = [image for image in images if image.sha256 in predictions]
    hits = np.array([predictions[image.sha256] == image.label for image in answered], dtype=np.float64)  # (N,)
    outcomes = Counter(row.outcome for row in rows) if rows else Counter(label=len(answered))
    agreement_with_ours = None
    if ours is not None:
        pairs = [(ours[image], label) for image, label in predictions.items() if label]
        agreement_with_ours = agreement([label for label, _ in pairs], [label for _, label in pairs])
    latencies = [row.latency_s for row in rows]
    accuracy, interval = _mean(hits)
    return ModelResult(
        model=source[1],
        endpoint=source[0],
        n=len(answered),
        accuracy=accuracy,
        accuracy_interval=interval,
        accuracy_of_named=float(hits.sum() / outcomes["label"]) if outcomes["label"] else None,
        outcomes={name: outcomes[name] for name in OUTCOMES},
        failed=failed,
        not_asked=len(images) - len(answered) - failed,
        per_class={label: _class_result(label, answered, hits) for label in labels.labels},
        agreement=agreement_with_ours,
        tokens_in=sum(row.tokens_in or 0 for row in rows),
        tokens_out=sum(row.tokens_out or 0 for row in rows),
        cost=cost,
        latency_p50_s=float(np.quantile(latencies, 0.5)) if latencies else None,
        latency_p95_s=float(np.quantile(latencies, 0.95)) if latencies else None,
    )


def _class_result(label: str, images: Sequence[AskedImage], hits: np.ndarray) -> ClassResult:
    """Score the images of one class.

    Args:
        label: The class.
        images: All answered images.
        hits: (N,) 1 for a right answer, 0 for a wrong one.
    """
    # The type is given, because NumPy takes an empty list for numbers and can't select by it.
    is_class = np.array([image.label == label for image in images], dtype=bool)  # (N,)
    class_hits = hits[is_class]
    recall, interval = _mean(class_hits)
    return ClassResult(n=len(class_hits), recall=recall, interval=interval)


def _mean(hits: np.ndarray) -> tuple[float | None, Interval | None]:
    """Return a share and its interval; both are None for no values."""
    if not len(hits):
        return None, None
    return float(hits.mean()), bootstrap_interval(hits)


def _total_cost(config: AskConfig, source: tuple[str, str], rows: Sequence[AnswerRow]) -> float | None:
    """Return the cost of a model's answers; None if that of any answer is unknown, or there are none.

    It is at this call's prices if the call used the model, else at those of the call that did.
    """
    endpoint, model = source
    is_priced = config.price_in is not None and endpoint == config.url and model in config.models
    total = 0.0
    for row in rows:
        cost = row.cost
        if is_priced and row.tokens_in is not None and row.tokens_out is not None:
            cost = config.cost(row.tokens_in, row.tokens_out)
        if cost is None:
            return None
        total += cost
    return total if rows else None
