"""Answers of every model about every image, read from saved rows, with the labels that they choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniemox_ask.choices import ImageChoices, choices_of
from uniemox_ask.config import AskConfig
from uniemox_ask.forms import QuestionSet
from uniemox_ask.question import AskedImage
from uniemox_ask.record import AnswerRow

Source = tuple[str, str]
"""Endpoint and name of a model."""
ImageAnswers = Mapping[str, AnswerRow]
"""Answers about an image by `AskedQuestion.id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswers:
    """Answers of one model to the questions about some images."""

    by_image: Mapping[str, ImageAnswers]
    """Answers by image; those that failed are left out."""
    choices: ImageChoices
    failed: int
    """Number of questions whose last request failed."""

    @property
    def rows(self) -> list[AnswerRow]:
        """All answers."""
        return [row for answers in self.by_image.values() for row in answers.values()]


def answers_by_model(
    config: AskConfig, images: Sequence[AskedImage], questions: QuestionSet, rows: Mapping[str, AnswerRow]
) -> dict[Source, ModelAnswers]:
    """Return the answers to these questions about these images, of the config's models first.

    Args:
        config: Endpoint and models of this call.
        images: The images.
        questions: The questions about each image.
        rows: From `run.ask`, of this endpoint and others.
    """
    digests = {image.sha256 for image in images}
    by_model: dict[Source, list[AnswerRow]] = {(config.url, model): [] for model in config.models}
    for row in rows.values():
        if row.picture in digests and questions.has(row.question_id, row.question_sha256):
            by_model.setdefault((row.endpoint, row.model), []).append(row)
    return {source: _answers_of(questions, model_rows) for source, model_rows in by_model.items()}


def answers_to_compare(questions: QuestionSet, answers: ImageAnswers) -> list[list[str | None]]:
    """Return the options that an image's answers name, a list for each question with an entry for each prompt.

    There is one question, or a statement for each label.
    """
    options: dict[str | None, list[str | None]] = {}
    for question in questions.questions:
        options.setdefault(question.label, []).append(answers[question.id].label)
    return list(options.values())


def _answers_of(questions: QuestionSet, rows: Sequence[AnswerRow]) -> ModelAnswers:
    """Return the answers of a model, parsed again, because parsing may have changed since they were saved."""
    readers = {question.id: question.reader for question in questions.questions}
    by_image: dict[str, dict[str, AnswerRow]] = {}
    choices = {}
    failed = 0
    for row in rows:
        if row.error is not None:
            failed += 1
            continue
        by_image.setdefault(row.picture, {})[row.question_id] = row.read_with(readers[row.question_id])
    for image, answers in by_image.items():
        image_choices = choices_of(questions, answers)
        if image_choices is not None:
            choices[image] = image_choices
    return ModelAnswers(by_image=by_image, choices=choices, failed=failed)
