"""Accuracy of the models over images and prompts, their agreement with ours, their cost and time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.intervals import Interval, bootstrap_interval
from uniemox_ask.agreement import AgreementWithOurs, Consistency, agreement, consistency
from uniemox_ask.answer_reader import OUTCOMES
from uniemox_ask.answers import ModelAnswers, Source, answers_by_model, answers_to_compare
from uniemox_ask.choices import LabelChoice, pooled, probability_rows, yes_probability
from uniemox_ask.config import AskConfig
from uniemox_ask.expert import GateResult
from uniemox_ask.forms import YES, QuestionSet
from uniemox_ask.question import AskedImage
from uniemox_ask.record import AnswerRow
from uniemox_ask.statements import StatementResult, score_statements

OURS = "UniEmoX (ours)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """Results for the images of one class."""

    n: int
    recall: float | None
    """Share of right answers; None without images."""
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """Accuracy of one prompt, over the images that every prompt has an answer for."""

    text: str
    """The question; for statements that about the first label."""
    accuracy: float
    interval: Interval
    """95 % interval, bootstrap over images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledResult:
    """Scores of the label with the highest mean probability over all prompts."""

    accuracy: float
    interval: Interval
    """95 % interval, bootstrap over images."""
    brier: float | None
    """Mean squared error of the probabilities, summed over labels, 0 (best) to 2. An image without a label has equal
    ones. None if no image has a label. Source: Brier, Monthly Weather Review 78 (1950)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """Results of one model. Shares are 0 to 1; undefined values are None.

    Our model is not asked, so what describes questions and answers has its default there.
    """

    model: str
    endpoint: str
    n: int
    """Number of images whose questions are all answered, including refusals."""
    accuracy: float | None
    """Share of right answers about these images, averaged over prompts. An answer without a label is wrong. One of k
    labels whose statements are equally probable counts 1/k."""
    accuracy_interval: Interval | None
    """95 % interval, bootstrap over images."""
    accuracy_of_named: float | None
    """Share of right answers among those with a label."""
    outcomes: Mapping[str, int]
    """Number of answers by outcome, see `AnswerReader`."""
    failed: int = 0
    """Number of questions whose last request failed."""
    not_asked: int = 0
    """Number of questions that were not sent."""
    with_probabilities: int = 0
    """Number of answers with log-probabilities of the options."""
    prompts: tuple[PromptResult, ...] = ()
    """Empty without an image whose questions are all answered."""
    accuracy_sd: float | None = None
    """Standard deviation of the accuracy over prompts; None for fewer than two."""
    consistency: Consistency | None = None
    """None for one prompt."""
    pooled: PooledResult | None = None
    """None if it has nothing to add: for one prompt without log-probabilities."""
    statements: Mapping[str, StatementResult] | None = None
    """Scores by label; None for another form of the question."""
    per_class: Mapping[str, ClassResult]
    agreement: AgreementWithOurs | None = None
    """None if there is no model of ours."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    """None if a price or a token count is unknown."""
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Results of all models on the same images."""

    data: str
    questions: QuestionSet
    images: tuple[AskedImage, ...]
    models: tuple[ModelResult, ...]
    answers: Mapping[Source, ModelAnswers]
    ours: Mapping[str, str] | None
    """Labels of our model by image."""
    ours_result: ModelResult | None
    notes: tuple[str, ...]
    gates: Mapping[Source, GateResult] = field(default_factory=dict)
    """Scores with an expert."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return {
            "data": self.data,
            "question": self.questions.text,
            "form": self.questions.form,
            "prompts": self.questions.prompts,
            "pictures": len(self.images),
            "models": [{**asdict(model), "gate": self._gate_of(model)} for model in self.models],
            "ours": None if self.ours_result is None else asdict(self.ours_result),
            "notes": list(self.notes),
        }

    def _gate_of(self, model: ModelResult) -> dict[str, Any] | None:
        gate = self.gates.get((model.endpoint, model.model))
        return None if gate is None else asdict(gate)


def summarise(
    config: AskConfig,
    images: Sequence[AskedImage],
    questions: QuestionSet,
    rows: Mapping[str, AnswerRow],
    *,
    data: str,
    ours: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Results:
    """Return the results of every model of the config, then of others that answered about at least one of the images.

    Args:
        config: Endpoint, models and prices of this call.
        images: The images that models were asked about.
        questions: The questions about each image.
        rows: From `run.ask`, of this endpoint and others.
        data: The data set's name.
        ours: Labels of our model by image; None if there is no model of ours.
        notes: Notes about skipped images, for the report.
    """
    answers = answers_by_model(config, images, questions, rows)
    models = []
    for source, model_answers in answers.items():
        cost = _total_cost(config, source, model_answers.rows)
        models.append(_score(source, model_answers, images, questions, cost=cost, ours=ours))
    return Results(
        data=data,
        questions=questions,
        images=tuple(images),
        models=tuple(models),
        answers=answers,
        ours=ours,
        ours_result=None if ours is None else _score_ours(ours, images, questions.labels),
        notes=tuple(notes),
    )


def _score(
    source: Source,
    answers: ModelAnswers,
    images: Sequence[AskedImage],
    questions: QuestionSet,
    *,
    cost: float | None,
    ours: Mapping[str, str] | None,
) -> ModelResult:
    """Score the choices of a model that was asked.

    Args:
        source: Endpoint and name.
        answers: Its answers.
        images: All images of the comparison.
        questions: The questions about each image.
        cost: Cost of its answers.
        ours: Labels of our model by image, to compare with.
    """
    endpoint, name = source
    rows = answers.rows
    choices = answers.choices
    answered = [image for image in images if image.sha256 in choices]
    credit = np.array(
        [[choice.credit(image.label) for choice in choices[image.sha256]] for image in answered], dtype=np.float64
    )  # (N, P)
    hits = credit.mean(axis=1) if answered else np.zeros(0)  # (N,)
    named = sum(bool(choice.labels) for image in answered for choice in choices[image.sha256])
    outcomes: Counter[str | None] = Counter(row.outcome for row in rows)
    with_probabilities = sum(row.probabilities is not None for row in rows)
    total = len(images) * len(questions.questions)
    latencies = [row.latency_s for row in rows]
    prompts = _prompt_results(questions, credit)
    accuracies = [prompt.accuracy for prompt in prompts]
    accuracy, interval = _mean(hits)
    pooled_choices = {image.sha256: pooled(questions.labels, choices[image.sha256]) for image in answered}
    has_pooled = bool(answered) and (questions.prompts > 1 or with_probabilities > 0)
    return ModelResult(
        model=name,
        endpoint=endpoint,
        n=len(answered),
        accuracy=accuracy,
        accuracy_interval=interval,
        accuracy_of_named=float(credit.sum() / named) if named else None,
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        failed=answers.failed,
        not_asked=total - len(rows) - answers.failed,
        with_probabilities=with_probabilities,
        prompts=prompts,
        accuracy_sd=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        consistency=_consistency(questions, answers, answered),
        pooled=_score_pooled(questions, pooled_choices, answered) if has_pooled else None,
        statements=_score_statements(questions, answers, answered),
        per_class={label: _class_result(label, answered, hits) for label in questions.labels},
        agreement=None if ours is None else _agreement_with_ours(ours, pooled_choices),
        tokens_in=sum(row.tokens_in or 0 for row in rows),
        tokens_out=sum(row.tokens_out or 0 for row in rows),
        cost=cost,
        latency_p50_s=float(np.quantile(latencies, 0.5)) if latencies else None,
        latency_p95_s=float(np.quantile(latencies, 0.95)) if latencies else None,
    )


def _score_ours(ours: Mapping[str, str], images: Sequence[AskedImage], labels: Sequence[str]) -> ModelResult:
    """Score the labels of our model, which always names one.

    Args:
        ours: Labels by image.
        images: All images of the comparison.
        labels: Labels of the data.
    """
    scored = [image for image in images if image.sha256 in ours]
    hits = np.array([ours[image.sha256] == image.label for image in scored], dtype=np.float64)  # (N,)
    accuracy, interval = _mean(hits)
    outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    outcomes["label"] = len(scored)
    return ModelResult(
        model=OURS,
        endpoint="",
        n=len(scored),
        accuracy=accuracy,
        accuracy_interval=interval,
        accuracy_of_named=accuracy,
        outcomes=outcomes,
        per_class={label: _class_result(label, scored, hits) for label in labels},
    )


def _prompt_results(questions: QuestionSet, credit: NDArray[np.float64]) -> tuple[PromptResult, ...]:
    """Return the accuracy of each prompt.

    Args:
        questions: The questions.
        credit: (N, P) 1 for a right answer of a prompt, 0 for a wrong one; N may be 0.
    """
    if not len(credit):
        return ()
    results = []
    for number in range(1, questions.prompts + 1):
        hits = credit[:, number - 1]
        text = questions.of_prompt(number)[0].text
        results.append(PromptResult(text=text, accuracy=float(hits.mean()), interval=bootstrap_interval(hits)))
    return tuple(results)


def _score_pooled(
    questions: QuestionSet, choices: Mapping[str, LabelChoice], images: Sequence[AskedImage]
) -> PooledResult:
    """Score the choices of all prompts together, by image."""
    hits = np.array([choices[image.sha256].credit(image.label) for image in images])  # (N,)
    brier = None
    if any(choices[image.sha256].probabilities is not None for image in images):
        probabilities = probability_rows(questions.labels, [choices[image.sha256] for image in images])  # (N, E)
        truth = np.array([[label == image.label for label in questions.labels] for image in images])  # (N, E)
        brier = float(((probabilities - truth) ** 2).sum(axis=1).mean())
    return PooledResult(accuracy=float(hits.mean()), interval=bootstrap_interval(hits), brier=brier)


def _consistency(questions: QuestionSet, answers: ModelAnswers, images: Sequence[AskedImage]) -> Consistency | None:
    """Return the agreement of the prompts."""
    return consistency([answers_to_compare(questions, answers.by_image[image.sha256]) for image in images])


def _score_statements(
    questions: QuestionSet, answers: ModelAnswers, images: Sequence[AskedImage]
) -> dict[str, StatementResult] | None:
    """Score statements by label, averaged over prompts; None for other forms of the question."""
    if questions.form != "statements":
        return None
    shape = (len(images), len(questions.labels))
    says_yes = np.zeros(shape)  # (N, E)
    values = np.zeros(shape)  # (N, E)
    for row, image in enumerate(images):
        for question in questions.questions:
            answer = answers.by_image[image.sha256][question.id]
            column = questions.labels.index(str(question.label))
            says_yes[row, column] += (answer.label == YES) / questions.prompts
            values[row, column] += yes_probability(answer) / questions.prompts
    # Rounded, because equal sums of shares may differ in the last digits, and the AUC compares them.
    return score_statements(questions.labels, [image.label for image in images], says_yes, values.round(9))


def _agreement_with_ours(ours: Mapping[str, str], choices: Mapping[str, LabelChoice]) -> AgreementWithOurs:
    """Return the agreement with our model over the images for which a model has one label."""
    pairs = [(ours[image], choice.label) for image, choice in choices.items() if choice.label is not None]
    return agreement([label for label, _ in pairs], [label for _, label in pairs])


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


def _total_cost(config: AskConfig, source: Source, rows: Sequence[AnswerRow]) -> float | None:
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
