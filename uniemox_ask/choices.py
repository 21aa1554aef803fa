"""Choices of a model: the label that it names for an image, by each prompt and by all together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox_ask.forms import NO, YES, QuestionSet
from uniemox_ask.record import AnswerRow


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """Answer about an image."""

    labels: tuple[str, ...]
    """The label; several if they are equally probable; none if the answer names no label."""
    probabilities: NDArray[np.float64] | None
    """(E,) in the order of the labels, with sum 1; None if the answer names no label. Without log-probabilities, 1 for
    the label of the answer."""

    @property
    def label(self) -> str | None:
        """The label, if it is the only one."""
        return self.labels[0] if len(self.labels) == 1 else None

    def credit(self, truth: str) -> float:
        """Return 1 for the right label, 0 for a wrong one or none, and 1/k if it is one of k labels."""
        return 1 / len(self.labels) if truth in self.labels else 0.0


ImageChoices = Mapping[str, tuple[LabelChoice, ...]]
"""Choices by image, one of each prompt; images with an unanswered question are left out."""


def choices_of(questions: QuestionSet, rows: Mapping[str, AnswerRow]) -> tuple[LabelChoice, ...] | None:
    """Return the choice of each prompt about an image; None if the answer to one of the questions is missing.

    Args:
        questions: The questions.
        rows: The answers by `AskedQuestion.id`.
    """
    if any(question.id not in rows for question in questions.questions):
        return None
    choices = []
    for number in range(1, questions.prompts + 1):
        of_prompt = [rows[question.id] for question in questions.of_prompt(number)]
        if questions.form == "statements":
            choices.append(_of_statements(questions.labels, of_prompt))
        else:
            choices.append(_of_answer(questions.labels, of_prompt[0]))
    return tuple(choices)


def pooled(labels: Sequence[str], choices: Sequence[LabelChoice]) -> LabelChoice:
    """Return the choice of all prompts together: the label with the highest mean probability.

    Without log-probabilities, the mean probability of a label is the share of the prompts that name it. Prompts whose
    answer names no label are left out.

    Args:
        labels: E labels.
        choices: The choices of the prompts.
    """
    values = [choice.probabilities for choice in choices if choice.probabilities is not None]
    if not values:
        return LabelChoice((), None)
    mean = np.mean(values, axis=0)  # (E,)
    return LabelChoice(most_probable(labels, mean), mean)


def probability_rows(labels: Sequence[str], choices: Sequence[LabelChoice]) -> NDArray[np.float64]:
    """Return the (N, E) probabilities of choices; equal ones if a choice has no label.

    Args:
        labels: E labels.
        choices: Choices about N images.
    """
    equal = np.full(len(labels), 1 / len(labels))
    return np.stack([equal if choice.probabilities is None else choice.probabilities for choice in choices])


def yes_probability(row: AnswerRow) -> float:
    """Return the probability that a statement is true, 0 to 1.

    It is the share of yes among the probabilities of yes and no; without log-probabilities 1 for the answer yes and 0
    for any other.
    """
    if row.probabilities is not None:
        yes = row.probabilities.get(YES, 0.0)
        total = yes + row.probabilities.get(NO, 0.0)
        if total > 0:
            return yes / total
    return float(row.label == YES)


def _of_answer(labels: Sequence[str], row: AnswerRow) -> LabelChoice:
    """Return the choice of an answer that names a label."""
    if row.label is None:
        return LabelChoice((), None)
    values = np.array([float(label == row.label) for label in labels])  # (E,)
    if row.probabilities is not None:
        by_token = np.array([row.probabilities.get(label, 0.0) for label in labels])  # (E,)
        if by_token.sum() > 0:
            values = by_token / by_token.sum()
    return LabelChoice((row.label,), values)


def _of_statements(labels: Sequence[str], rows: Sequence[AnswerRow]) -> LabelChoice:
    """Return the choice of the answers about all labels: the label whose statement is most probably true."""
    values = np.array([yes_probability(row) for row in rows])  # (E,)
    if not values.sum():
        return LabelChoice((), None)
    return LabelChoice(most_probable(labels, values), values / values.sum())


def most_probable(labels: Sequence[str], values: NDArray[np.float64]) -> tuple[str, ...]:
    """Return the labels with the highest of (E,) values; sums in another order differ in the last digits."""
    is_highest = np.isclose(values, values.max(), rtol=1e-9, atol=0)
    return tuple(label for label, highest in zip(labels, is_highest, strict=True) if highest)
