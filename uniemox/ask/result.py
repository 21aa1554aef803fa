"""Accuracy of the models, their agreement with ours, their cost and time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from uniemox.ask.config import AskConfig
from uniemox.ask.question import AskedImage
from uniemox.ask.record import OUTCOMES, AnswerReader, AnswerRow
from uniemox.intervals import Interval, bootstrap_interval
from uniemox.labels import LabelSet

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
        rows: From `run.ask`, of this endpoint and others.
        data: The data set's name.
    """
    reader = AnswerReader(labels)
    wanted = {asked.sha256 for asked in images}
    by_source: dict[tuple[str, str], list[AnswerRow]] = {(config.url, model): [] for model in config.models}
    for row in rows.values():
        if row.picture in wanted:
            by_source.setdefault((row.endpoint, row.model), []).append(row)
    answers = dict[tuple[str, str], dict[str, AnswerRow]]()
    models = []
    for source, theirs in by_source.items():
        answers[source] = {row.picture: reader.read_row(row) for row in theirs if row.error is None}
        kept = list(answers[source].values())
        named = {row.picture: row.label for row in kept}
        failed = len(theirs) - len(kept)
        cost = _costs(config, source, kept)
        models.append(_score(source, named, images, labels, ours=ours, rows=kept, failed=failed, cost=cost))
    if ours is None:
        ours_result = None
    else:
        ours_result = _score(("", OURS), ours, images, labels)
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
    named: Mapping[str, str | None],
    images: Sequence[AskedImage],
    labels: LabelSet,
    *,
    ours: Mapping[str, str] | None = None,
    rows: Sequence[AnswerRow] = (),
    failed: int = 0,
    cost: float | None = None,
) -> ModelResult:
    """Score the named labels by image.  rows: the answers; none for our model, which always names a label."""
    asked = [image for image in images if image.sha256 in named]
    hits = np.array([named[image.sha256] == image.label for image in asked], dtype=np.float64)
    outcomes = Counter(row.outcome for row in rows) if rows else Counter(label=len(asked))
    both = [(ours[image], label) for image, label in named.items() if ours is not None and label]
    latencies = [row.latency_s for row in rows]
    accuracy, interval = _mean(hits)
    return ModelResult(
        model=source[1],
        endpoint=source[0],
        n=len(asked),
        accuracy=accuracy,
        accuracy_interval=interval,
        accuracy_of_named=float(hits.sum() / outcomes["label"]) if outcomes["label"] else None,
        outcomes={name: outcomes[name] for name in OUTCOMES},
        failed=failed,
        not_asked=len(images) - len(asked) - failed,
        per_class={label: _of_class(label, asked, hits) for label in labels.labels},
        agreement=None if ours is None else agreement([own for own, _ in both], [other for _, other in both]),
        tokens_in=sum(row.tokens_in or 0 for row in rows),
        tokens_out=sum(row.tokens_out or 0 for row in rows),
        cost=cost,
        latency_p50_s=float(np.quantile(latencies, 0.5)) if latencies else None,
        latency_p95_s=float(np.quantile(latencies, 0.95)) if latencies else None,
    )


def _of_class(label: str, asked: Sequence[AskedImage], hits: np.ndarray) -> ClassResult:
    if asked:
        own = hits[[image.label == label for image in asked]]
    else:
        own = hits
    recall, interval = _mean(own)
    return ClassResult(n=len(own), recall=recall, interval=interval)


def _mean(hits: np.ndarray) -> tuple[float | None, Interval | None]:
    """Return a share and its interval; both are None for no values."""
    if len(hits):
        return (float(hits.mean()), bootstrap_interval(hits))
    return (None, None)


def _costs(config: AskConfig, source: tuple[str, str], rows: Sequence[AnswerRow]) -> float | None:
    """Return the cost at this call's prices if it used the model, else at those of the call that did."""
    is_priced = config.price_in is not None and source[0] == config.url and source[1] in config.models
    costs = [
        config.cost(row.tokens_in, row.tokens_out)
        if is_priced and row.tokens_in is not None and row.tokens_out is not None
        else row.cost
        for row in rows
    ]
    known_costs = [cost for cost in costs if cost is not None]
    if costs and len(known_costs) == len(costs):
        return sum(known_costs)
    return None
