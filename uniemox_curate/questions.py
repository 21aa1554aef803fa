"""Questions to annotators besides the label, defined once.

The annotators' page, the checks of answers, exports, releases, agreement and the datasheet derive from this list, and
from the questions that a project's plan adds (docs/extending/question.md).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from uniemox.errors import ConfigError

# Settings of pydantic for plan files: no unknown fields, no converted types.
STRICT = {"extra": "forbid", "strict": True}
ENGLISH = "en"
MAX_QUESTIONS = 20
MAX_STEPS = 9
# Maximum number of characters of a question, and of an answer in words.
MAX_QUESTION = 200
MAX_WORDS = 2000
# Columns of exports and releases, fields of an answer, and names that the models of answers need.
_TAKEN = frozenset(
    (
        *("id", "task", "label", "labels", "seconds", "skip", "suggested"),
        *("sha256", "title", "annotator", "at", "path", "answers"),
        *("fits", "details", "copy", "dict", "json", "schema", "schema_json", "construct", "validate", "from_orm"),
        *("max_fields", "parse_file", "parse_obj", "parse_raw", "update_forward_refs"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionTexts:
    """Texts of a question in one language."""

    ask: str
    low: str = ""
    """Name of the lowest value of a scale."""
    high: str = ""
    """Name of the highest value."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to annotators besides the label."""

    name: str
    """Column of tables, and field of an answer."""
    texts: Mapping[str, QuestionTexts]
    """Texts by language, with English for all others: en, de, zh."""
    scale: int | None = MAX_STEPS
    """Values of a scale, from 1 to this one, which must be answered unless no label fits; None: words."""
    published: bool = True
    """Releases have the answers, not only exports."""
    figure: Literal["bar", "face", "burst"] = "bar"
    """What the page draws for each value of a scale: a growing bar, a face that frowns or smiles, or one that sleeps or
    bursts."""
    asked_by: str = ""
    """Field of AnswerForm that asks it, if it has one; its field `questions` names the others."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        where = f"questions: {self.name!r}"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", self.name) or self.name.startswith("model_"):
            raise ConfigError(f"{where}: a name has up to 40 small letters, digits and _, such as dominance")
        if self.name in _TAKEN:
            raise ConfigError(f"{where}: tables already have a column or field of this name; choose another one")
        if ENGLISH not in self.texts:
            raise ConfigError(f"{where}: texts need an entry {ENGLISH}, which is shown where a language has none")
        lengths = [len(text) for wording in self.texts.values() for text in (wording.ask, wording.low, wording.high)]
        if max(lengths) > MAX_QUESTION or not all(wording.ask.strip() for wording in self.texts.values()):
            raise ConfigError(f"{where}: ask must be a text of up to {MAX_QUESTION} letters, as low and high")
        if self.scale is not None and not 2 <= self.scale <= MAX_STEPS:
            raise ConfigError(f"{where}: scale must be 2 to {MAX_STEPS}, or null for words, got {self.scale}")


QUESTIONS = (
    Question(
        name="intensity",
        texts={
            "en": QuestionTexts(ask="How strong is it?", low="weak", high="strong"),
            "de": QuestionTexts(ask="Wie stark ist es?", low="schwach", high="stark"),
            "zh": QuestionTexts(ask="强度如何？", low="弱", high="强"),
        },
        asked_by="intensity",
    ),
    Question(
        name="valence",
        texts={
            "en": QuestionTexts(ask="How pleasant is it?", low="unpleasant", high="pleasant"),
            "de": QuestionTexts(ask="Wie angenehm ist es?", low="unangenehm", high="angenehm"),
            "zh": QuestionTexts(ask="愉悦程度如何？", low="不愉快", high="愉快"),
        },
        figure="face",
        asked_by="affect",
    ),
    Question(
        name="arousal",
        texts={
            "en": QuestionTexts(ask="How exciting is it?", low="calm", high="excited"),
            "de": QuestionTexts(ask="Wie aufregend ist es?", low="ruhig", high="aufgeregt"),
            "zh": QuestionTexts(ask="激动程度如何？", low="平静", high="激动"),
        },
        figure="burst",
        asked_by="affect",
    ),
    Question(
        name="comment",
        texts={
            "en": QuestionTexts(ask="Comment; only the owner of the project reads it"),
            "de": QuestionTexts(ask="Bemerkung; nur wer das Projekt führt, liest sie"),
            "zh": QuestionTexts(ask="备注（只有项目负责人会看到）"),
        },
        scale=None,
        published=False,
        asked_by="comment",
    ),
)
"""Questions that every project knows, in the order of the page and of tables."""


def known_questions(asked: Sequence[str | Question]) -> tuple[Question, ...]:
    """Return all questions that a plan knows: QUESTIONS, then its own.

    Args:
        asked: Questions of the plan: names of QUESTIONS, or questions of its own.

    Raises:
        ConfigError: For an unknown name, a name that occurs twice, or too many questions.
    """
    of_plan = tuple(question for question in asked if isinstance(question, Question))
    known = (*QUESTIONS, *of_plan)
    names = [question.name for question in known]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"questions: two have the name {name!r}; rename one of them")
    for question in asked:
        if isinstance(question, str) and question not in names:
            raise ConfigError(f"questions: there is no question {question!r}; there are {', '.join(names)}")
    if len(of_plan) > MAX_QUESTIONS:
        raise ConfigError(f"questions: a plan may have {MAX_QUESTIONS}, got {len(of_plan)}")
    return known


def scales_of(questions: Sequence[Question]) -> tuple[str, ...]:
    """Return the names of the questions that are answered on a scale."""
    return tuple(question.name for question in questions if question.scale is not None)


def detail_names(questions: Sequence[Question]) -> tuple[str, ...]:
    """Return the fields of an answer besides the label, in the order of tables."""
    return ("labels", *(question.name for question in questions), "skip", "suggested")


def published_names(questions: Sequence[Question]) -> tuple[str, ...]:
    """Return the fields of an answer besides the label that a release has, in the order of tables."""
    return ("labels", *(question.name for question in questions if question.published), "suggested")
