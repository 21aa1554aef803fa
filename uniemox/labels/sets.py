"""Label sets of emotion research, and the kind of emotion that each describes.

Three kinds are never mixed: the emotion that an image evokes in its viewer, the emotion that a person in it feels, and
the expression of a face in it, which is not what the person feels.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from uniemox.errors import LabelError
from uniemox.spelling import QUOTES, spelled, spelled_alike

Kind = Literal["evoked", "felt", "expressed"]
KINDS: tuple[Kind, ...] = ("evoked", "felt", "expressed")
AFFECT = ("valence", "arousal")
"""Outputs that replace labels for task affect, 1 to 9."""
DOMINANCE = "dominance"
"""Third output of task affect, 1 (not in control) to 9 (in control), where all data have it."""
AXES = (*AFFECT, DOMINANCE)
"""Outputs that are ratings of 1 to 9, and no probabilities."""
MAX_LABELS = 1_000
"""Maximum number of classes: readers look labels up one by one, and messages list them."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Emotion classes in a fixed order, lower-case and in the spelling of `uniemox.spelling`."""

    name: str
    labels: tuple[str, ...]
    kind: Kind
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other spellings in data sets, lower-case, by which label they mean."""
    definitions: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Meaning of each label in a few words; empty for sets without definitions."""

    def __post_init__(self) -> None:
        if len(self.labels) > MAX_LABELS:
            raise LabelError(f"{self.name}: {len(self.labels):,} classes; expected at most {MAX_LABELS:,}")
        for label in self.labels:
            # Labels in a file may have any type.
            if not isinstance(label, str):
                raise LabelError(f"{self.name}: expected the names of classes, got {label!r}; write them as text")
        repeated = next((label for i, label in enumerate(self.labels) if label in self.labels[:i]), None)
        if repeated is not None:
            raise LabelError(f"{self.name}: the label {repeated!a} occurs twice; give every class its own name")
        if same := spelled_alike(self.labels):
            raise LabelError(
                f"{self.name}: the labels {same[0]!a} and {same[1]!a} differ only in blanks, invisible "
                "characters or the form of accents; give them one name"
            )
        # Files of older versions have other spellings.
        object.__setattr__(self, "labels", tuple(map(spelled, self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, word: str) -> int:
        """Return the index of a label, ignoring case, quotes, aliases, and the spelling of blanks and accents.

        Raises:
            LabelError: With all labels, if the word is not in the set.

        >>> MIKELS.index("'Content'")
        3
        """
        label = clean(word)
        label = self.aliases.get(label, label)
        if label not in self.labels:
            names = ", ".join(map(quoted, self.labels))
            raise LabelError(f"{word!r} is none of the {len(self)} labels of {self.name}: {names}")
        return self.labels.index(label)


_DATA: dict[str, Any] = json.loads(Path(__file__).with_name("label_sets.json").read_text("utf-8"))
"""Sets with their sources, label polarities, word maps between two sets, and norms."""

LABEL_SETS = tuple(
    LabelSet(name, tuple(values["labels"]), values["kind"], values["aliases"], values.get("definitions", {}))
    for name, values in _DATA["sets"].items()
)
MIKELS, EKMAN, UBE, CAER, HECO, FERPLUS, POLARITY, EMOTIC = LABEL_SETS
CUSTOM = "custom"
"""Name of a set that is not published."""
JOINED = "joined"
"""Name of a set with the labels of several sets."""
NO_LABELS = (
    "no image has a label: give the folder that contains a folder for each class, of two or more, or a table with "
    "labels (csv:TABLE)"
)
"""Fault and remedy of data without labels."""
WORD_NORMS: Mapping[str, Mapping[str, Sequence[float]]] = _DATA["word_norms"]
"""Valence and arousal of a set's labels as words, 0 to 1, as people rated them: NRC-VAD (Mohammad, ACL 2018)."""
BRIDGES: Mapping[str, Mapping[str, str | None]] = _DATA["bridges"]
"""Label of one published set for each label of another, by "source -> target"; None: no counterpart."""
SIGN_OF: Mapping[str, str] = {label: sign for sign, labels in _DATA["polarities"].items() for label in labels}
"""Polarity of each label that has one: negative or positive."""


def polarities(labels: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Return one row per polarity that occurs (negative, positive, neither), with 1 for its labels: (P, E).

    >>> polarities(["awe", "fear", "surprise"])
    ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    """
    signs = [SIGN_OF.get(label, "neither") for label in labels]
    rows = (tuple(float(sign == polarity) for sign in signs) for polarity in ("negative", "positive", "neither"))
    return tuple(row for row in rows if any(row))


def join_labels(sets: Sequence[LabelSet]) -> LabelSet:
    """Return one set with every label of several sets; labels with the same word become one.

    Args:
        sets: At least one, all of one kind.

    Returns:
        The set itself if all have the same labels, else a set named "joined", in the order of first occurrence.

    Raises:
        LabelError: If the sets describe different kinds of emotions.

    >>> join_labels([EKMAN, UBE]).labels
    ('anger', 'disgust', 'fear', 'joy', 'sadness', 'surprise', 'love')
    """
    first = sets[0]
    other = next((labels for labels in sets if labels.kind != first.kind), None)
    if other is not None:
        raise LabelError(
            f"{first.name} describes {first.kind} emotions, {other.name} {other.kind} ones: these are never joined; "
            "give data sets of one kind"
        )
    if all(set(labels.labels) == set(first.labels) for labels in sets):
        return first
    words = tuple(dict.fromkeys(word for labels in sets for word in labels.labels))
    return LabelSet(JOINED, words, first.kind)


def find_label_set(name: str) -> LabelSet:
    """Return the published label set of this name, in any case.

    Raises:
        LabelError: With all names, if there is no such set.
    """
    sets = {label_set.name: label_set for label_set in LABEL_SETS}
    if name.lower() not in sets:
        raise LabelError(f"there is no label set {name!r}; there are {', '.join(sets)}")
    return sets[name.lower()]


def requested_label_set(text: str, kind: Kind | None = None) -> LabelSet:
    """Return the published set of a name, or the set of your own classes.

    Args:
        text: Name of a published set, or classes separated by commas; a class that contains a comma in double quotes.
        kind: Kind of the labels, if known. None: the published set's kind, or "evoked" for your own.

    Raises:
        LabelError: If there is no set of that name, or no class.
    """
    if "," not in text:
        return _of_kind(find_label_set(text), kind)
    names_of_classes = next(csv.reader([text], skipinitialspace=True))
    classes = tuple(clean(word) for word in names_of_classes if clean(word))
    if not classes:
        raise LabelError(f"labels={text} names no class; give names, separated by commas")
    return LabelSet(CUSTOM, classes, kind or "evoked")


def recognise_labels(words: Sequence[str], kind: Kind | None = None) -> LabelSet:
    """Return the published set that has these class names, else a sorted set named "custom".

    Args:
        words: Class names of any case. A published set matches if more than half of them are its labels or aliases, and
            there are not more classes than it has names. Numbers match no set.
        kind: Kind of the labels, if known. None: the published set's kind, or "evoked" for a custom set.
    """
    names = sorted({clean(word) for word in words})
    for label_set in LABEL_SETS:
        labels = {label_set.aliases.get(name, name) for name in names if not name.isdigit()}
        is_majority = len(labels) * 2 > len(label_set)
        if is_majority and labels <= set(label_set.labels) and len(labels) == len(names):
            match = _of_kind(label_set, kind)
            if len(labels) == len(label_set):
                return match
            return replace(match, name=CUSTOM, labels=tuple(label for label in label_set.labels if label in labels))
    return LabelSet(CUSTOM, tuple(names), kind or "evoked")


def names_of_one_label(labels: LabelSet) -> tuple[LabelSet, tuple[str, ...]] | None:
    """Return the published set of a custom set's classes if several are names of one of its labels, and these.

    Because of them, `recognise_labels` has not found the published set. None if there are none.

    >>> classes = LabelSet("custom", ("awe", "content", "contentment", "disgust", "fear", "sad"), "evoked")
    >>> names_of_one_label(classes)[1]
    ('content', 'contentment')
    """
    if labels.name != CUSTOM:
        return None
    for label_set in LABEL_SETS:
        names_of: dict[str, list[str]] = {}
        for name in labels.labels:
            names_of.setdefault(label_set.aliases.get(name, name), []).append(name)
        if set(names_of) <= set(label_set.labels) and len(names_of) * 2 > len(label_set):
            repeated = next((names for names in names_of.values() if len(names) > 1), None)
            return None if repeated is None else (label_set, tuple(repeated))
    return None


def _of_kind(label_set: LabelSet, kind: Kind | None) -> LabelSet:
    """Return a set with this kind; None: with its own."""
    if kind in (None, label_set.kind):
        return label_set
    return replace(label_set, kind=kind)


def quoted(label: str) -> str:
    """Return a label as lists and maps of labels have it: in double quotes if it contains a separator.

    >>> quoted("awe"), quoted("joy, love")
    ('awe', '"joy, love"')
    """
    return f'"{label}"' if re.search("[,=+]", label) else label


def clean(word: str) -> str:
    """Return the form of a class name that is compared: `spelled`, in lower case, without quotes around it."""
    return spelled(spelled(word).strip(QUOTES).strip().lower())
