"""Plan of a project: labels, the search words of each, styles, questions. The default is Emo8's (table I)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError, LabelError
from uniemox.io import read_json
from uniemox.labels import CUSTOM, MIKELS, Kind, LabelSet, clean, recognise_labels
from uniemox.paper import paper_tables
from uniemox.spelling import spelled, spelled_alike
from uniemox_curate.questions import STRICT, Question, known_questions

# Styles of Emo8 (arXiv 2409.18877, section IV).
STYLES = ("cartoon", "natural", "realistic", "science fiction", "advertising")
Rule = Literal["both", "majority", "soft"]
"""Rule by which images are kept, see annotate.verdicts.decide."""
# Minimum number of answers that a rule needs; a release can ask for more.
MIN_ANSWERS = 2
MAX_LABELS = 20
# Answers that are not labels.
RESERVED = ("none", "skip")
# Maximum number of characters.
MAX_TEXT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """Questions to annotators besides the label, and the texts shown to them first."""

    several: bool = False
    """Allow several labels; the first one counts as the answer."""
    intensity: bool = False
    """Ask for the strength of the emotion, 1 to 9."""
    affect: bool = False
    """Ask for valence, 1 (unpleasant) to 9 (pleasant), and arousal, 1 (calm) to 9 (excited)."""
    comment: bool = False
    """Offer a field for comments; releases do not contain them."""
    questions: tuple[str | Question, ...] = ()
    """Further questions: names of `uniemox_curate.questions.QUESTIONS`, or questions of the plan's own."""
    instructions: str = ""
    """Text shown before the first image."""
    consent: str = ""
    """Text that annotators have to agree to before the first image."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if max(len(self.instructions), len(self.consent)) > MAX_TEXT:
            raise ConfigError(f"answer: instructions and consent may have {MAX_TEXT:,} letters each")
        known_questions(self.questions)

    @property
    def known(self) -> tuple[Question, ...]:
        """Questions that an answer may hold an answer to, in the order of tables."""
        return known_questions(self.questions)

    @property
    def asked(self) -> tuple[Question, ...]:
        """Questions that the page asks."""
        return tuple(question for question in self.known if self._asks(question))

    def _asks(self, question: Question) -> bool:
        if question.asked_by and getattr(self, question.asked_by):
            return True
        return question in self.questions or question.name in self.questions


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionPlan:
    """Search words, and how images are tagged and answered."""

    keywords: Mapping[str, tuple[str, ...]]
    """Search words of each label."""
    kind: Kind = "evoked"
    """Meaning of the labels: what an image evokes, or what a person in it feels."""
    styles: tuple[str, ...] = STYLES
    """Tags for images while screening; folder names in the release."""
    answers_per_picture: int | None = None
    """Number of annotators who see one image; None: all of them."""
    check_every: int = 40
    """Number of images from one attention check to the next; 0: no checks."""
    answer: AnswerForm = AnswerForm()

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if same := spelled_alike(self.keywords):
            raise ConfigError(
                f"keywords: {same[0]!a} and {same[1]!a} differ only in blanks, invisible characters or the "
                "form of accents; give one label"
            )
        object.__setattr__(self, "keywords", {spelled(label): words for label, words in self.keywords.items()})
        if not 2 <= len(self.keywords) <= MAX_LABELS:
            raise ConfigError(f"keywords: expected 2 to {MAX_LABELS} labels, got {len(self.keywords)}")
        label_of: dict[str, str] = {}
        for label, words in self.keywords.items():
            if not _is_name(label) or clean(label) != label:
                raise ConfigError(f"keywords: a label must be lower-case words, not a path, got {label!r}")
            if label in RESERVED:
                raise ConfigError(f"keywords: {label!r} can't be a label, because pages use it; choose another word")
            if not all(word.strip() for word in words):
                raise ConfigError(f"keywords: every search word of {label} must be a text that is not empty")
            for word in words:
                other = label_of.setdefault(clean(word), label)
                # Its results would count for only one of the labels.
                if other != label:
                    raise ConfigError(f"keywords: {word!r} is searched for {other} and for {label}; leave it to one")
        if not all(_is_name(style) for style in self.styles) or len(self.styles) > MAX_LABELS:
            raise ConfigError(f"styles must be at most {MAX_LABELS} names of folders, got {self.styles}")
        check_numbers(self, at_least={"answers_per_picture": 1, "check_every": 0})

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted(self.keywords))

    @property
    def label_set(self) -> LabelSet:
        """Published label set with these labels, else a custom one."""
        published = recognise_labels(self.labels, self.kind)
        if set(published.labels) == set(self.labels):
            return published
        return LabelSet(CUSTOM, self.labels, self.kind)

    def label_of(self, word: str) -> str | None:
        """Return the label that a word names, by its own name or an alias of the published set."""
        try:
            return self.label_set.labels[self.label_set.index(word)]
        except LabelError:
            return None

    def to_json(self) -> str:
        """Return the content of a plan file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def paper_plan() -> CollectionPlan:
    """Return eight labels with ten words each (table I of arXiv 2409.18877)."""
    table = paper_tables()["table1_keywords"]
    return CollectionPlan(keywords={label: tuple(table[label]) for label in MIKELS.labels})


def read_plan(path: Path) -> CollectionPlan:
    """Read a plan file: {"keywords": {label: [word, ...]}, ...} with the fields of CollectionPlan, or keywords alone.

    Raises:
        DataError: If the file can't be read as JSON.
        ConfigError: If its content is no plan.
    """
    return plan_of(read_json(path, Any, remedy="correct the plan, or make it again"), str(path))


def plan_of(content: object, where: str) -> CollectionPlan:
    """Return the plan of a JSON value.

    Args:
        content: JSON value.
        where: Name of the source, for messages.

    Raises:
        ConfigError: If it is no plan.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - an extra

    is_complete = isinstance(content, dict) and "keywords" in content
    fields = content if is_complete else {"keywords": content}
    try:
        return TypeAdapter(CollectionPlan).validate_json(json.dumps(fields))
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        names = ", ".join(CollectionPlan.__dataclass_fields__)
        raise ConfigError(f"{where}: {field}: {error.errors()[0]['msg']}; a plan has {names}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_name(text: str) -> bool:
    """Return True if a text is a valid folder name on every system."""
    is_plain = text.isprintable() and text == text.strip(" .") and not set(text) & set('/\\:*?"<>|')
    return 0 < len(text) <= 60 and is_plain
