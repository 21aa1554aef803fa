"""What a project looks for: labels, the search words of each, styles; by default those of Emo8 (table I)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from uniemox.data.readers.tables import read_text
from uniemox.errors import ConfigError
from uniemox.labels import KINDS, MIKELS, Kind, LabelSet, clean, recognise
from uniemox.paper import paper_tables

STYLES = ("cartoon", "natural", "realistic", "science fiction", "advertising")  # of Emo8, section IV
MAX_LABELS = 20
RESERVED = ("none", "skip")  # answers that are no labels
SWITCHES, TEXTS = ("several", "intensity", "affect", "comment"), ("instructions", "consent")
MAX_TEXT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """What annotators are asked beside one label, and what they read before."""

    several: bool = False
    """Any number of labels, the first of which counts as the answer."""
    intensity: bool = False
    """How strong the emotion is, 1 to 9."""
    affect: bool = False
    """Valence, 1 (unpleasant) to 9 (pleasant), and arousal, 1 (calm) to 9 (excited), beside figures."""
    comment: bool = False
    """A field for words of their own; releases don't have them."""
    instructions: str = ""
    """Shown before the first image."""
    consent: str = ""
    """What annotators have to agree to before the first image."""

    def __post_init__(self) -> None:
        for name, kind in (*dict.fromkeys(SWITCHES, bool).items(), *dict.fromkeys(TEXTS, str).items()):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"answer: {name} must be {'true or false' if kind is bool else 'a text'}")
        if max(len(self.instructions), len(self.consent)) > MAX_TEXT:
            raise ConfigError(f"answer: instructions and consent may have {MAX_TEXT:,} letters each")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionPlan:
    """What to look for, and who says what is there."""

    keywords: Mapping[str, tuple[str, ...]]
    """Label to the words that are searched for it."""
    kind: Kind = "evoked"
    """What the labels name: what an image evokes, or what a person in it feels."""
    styles: tuple[str, ...] = STYLES
    """What an image may be tagged with while screening; folder names of the release."""
    answers_per_picture: int | None = None
    """Annotators that see one image; None: all of them."""
    check_every: int = 40
    """Images from one attention check to the next; 0: none."""
    answer: AnswerForm = AnswerForm()

    def __post_init__(self) -> None:
        if not 2 <= len(self.keywords) <= MAX_LABELS:
            raise ConfigError(f"keywords: expected 2 to {MAX_LABELS} labels, got {len(self.keywords)}")
        label_of: dict[str, str] = {}
        for label, words in self.keywords.items():
            if not _is_name(label) or clean(label) != label:
                raise ConfigError(f"keywords: a label must be lower-case words and no path, got {label!r}")
            if label in RESERVED:
                raise ConfigError(f"keywords: {label!r} can't be a label, because pages use it; take another word")
            if not all(isinstance(word, str) and word.strip() for word in words):
                raise ConfigError(f"keywords: every search word of {label} must be a text that is not empty")
            for word in words:
                other = label_of.setdefault(word.strip().lower(), label)
                if other != label:  # what it finds would count for one of them only
                    raise ConfigError(f"keywords: {word!r} is searched for {other} and for {label}; leave it to one")
        if self.kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not all(_is_name(style) for style in self.styles) or len(self.styles) > MAX_LABELS:
            raise ConfigError(f"styles must be at most {MAX_LABELS} names of folders, got {self.styles}")
        if self.answers_per_picture is not None and self.answers_per_picture < 1:
            raise ConfigError(f"answers_per_picture must be at least 1, got {self.answers_per_picture}")
        if self.check_every < 0:
            raise ConfigError(f"check_every must be at least 0, got {self.check_every}")

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted(self.keywords))

    @property
    def label_set(self) -> LabelSet:
        """The published set that the labels are, else one of their own."""
        return recognise(self.labels, self.kind)

    def to_json(self) -> str:
        """As a plan file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def paper_plan() -> CollectionPlan:
    """Eight labels with ten words each (table I of arXiv 2409.18877)."""
    table = paper_tables()["table1_keywords"]
    return CollectionPlan(keywords={label: tuple(table[label]) for label in MIKELS.labels})


def read_plan(path: Path) -> CollectionPlan:
    """A plan file: {"keywords": {label: [word, ...]}, ...} with the fields of CollectionPlan, or only label to words.

    Raises ConfigError, with the path, for anything else.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    return plan_of(content, str(path))


def plan_of(content: object, where: str) -> CollectionPlan:
    """The plan of a JSON value. Raises ConfigError, beginning with where, if it is none."""
    if not isinstance(content, dict):
        raise ConfigError(f'{where}: expected {{"keywords": {{label: [word, ...]}}}}, got {type(content).__name__}')
    fields = content if "keywords" in content else {"keywords": content}
    unknown = sorted(set(fields) - set(CollectionPlan.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"{where}: unknown field {unknown[0]!r}; known are {', '.join(CollectionPlan.__dataclass_fields__)}"
        )
    try:
        words = {label: _words(label, group) for label, group in fields["keywords"].items()}
        for name in ("answers_per_picture", "check_every"):
            _whole(name, fields.get(name))
        own = {"keywords": words, "styles": tuple(fields.get("styles", STYLES))}
        return CollectionPlan(**{**fields, **own, "answer": _form(fields.get("answer", {}))})
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: a value has the wrong type ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _words(label: str, group: object) -> tuple[str, ...]:
    if not isinstance(group, list | tuple):
        raise ConfigError(f"keywords: expected a list of words for {label}, got {group!r}")
    return tuple(group)


def _whole(name: str, value: object) -> None:
    """Raises ConfigError for anything but a whole number, or nothing."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")


def _form(content: object) -> AnswerForm:
    known = (*SWITCHES, *TEXTS)
    if not isinstance(content, dict) or set(content) - set(known):
        raise ConfigError(f"answer: expected an object with some of {', '.join(known)}, got {content!r}")
    return AnswerForm(**content)


def _is_name(text: object) -> bool:
    """Whether a text can be the name of a folder everywhere."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= 60
        and text == text.strip(" .")
        and text.isprintable()
        and not set(text) & set('/\\:*?"<>|')
    )
