"""The label sets of the field, what kind of emotion each one names, and the maps between them.

Three kinds are never mixed: what an image evokes in its viewer, what a person in it feels, and what a face in it shows
to others, which is not what its owner feels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from uniemox.errors import LabelError

Kind = Literal["evoked", "felt", "expressed"]
KINDS: tuple[Kind, ...] = ("evoked", "felt", "expressed")
AFFECT = ("valence", "arousal")
"""What is told in place of labels, 1 to 9."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Emotion classes in a fixed order, lower-case."""

    name: str
    labels: tuple[str, ...]
    kind: Kind
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other spellings that data sets use, lower-case, to labels."""

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, word: str) -> int:
        """The place of a label, whatever its case, quotes and alias.

        Raises LabelError, with all labels, if it is not one of the set.

        >>> MIKELS.index("'Content'")
        3
        """
        label = clean(word)
        label = self.aliases.get(label, label)
        if label not in self.labels:
            raise LabelError(f"{word!r} is none of the {len(self)} labels of {self.name}: {', '.join(self.labels)}")
        return self.labels.index(label)


_DATA: dict[str, Any] = json.loads(Path(__file__).with_name("label_sets.json").read_text("utf-8"))
"""The sets with their sources, polarities of labels, words that become others between two sets, and norms."""

LABEL_SETS = tuple(
    LabelSet(name, tuple(one["labels"]), one["kind"], one["aliases"]) for name, one in _DATA["sets"].items()
)
MIKELS, EKMAN, UBE, CAER, HECO, FERPLUS, POLARITY = LABEL_SETS
CUSTOM = "custom"  # name of a set of one's own
WORD_NORMS: Mapping[str, Mapping[str, Sequence[float]]] = _DATA["word_norms"]
"""Valence and arousal of a set's labels as words, 0 to 1, as people rated them: NRC-VAD (Mohammad, ACL 2018)."""
_SIGN_OF: Mapping[str, str] = {label: sign for sign, labels in _DATA["polarities"].items() for label in labels}


def polarities(labels: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """A row for each polarity that occurs, negative, positive, neither: 1 for the labels that are of it, (P, E).

    >>> polarities(["awe", "fear", "surprise"])
    ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    """
    signs = [_SIGN_OF.get(label, "neither") for label in labels]
    rows = (tuple(float(sign == polarity) for sign in signs) for polarity in ("negative", "positive", "neither"))
    return tuple(row for row in rows if any(row))


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Map from one label set to another, and what it loses."""

    source: LabelSet
    target: LabelSet
    pairs: Mapping[str, str | None]  # every label of source; None: there is no counterpart

    @property
    def dropped(self) -> tuple[str, ...]:
        """Labels of source without a counterpart: images that carry them leave the data."""
        return tuple(label for label, other in self.pairs.items() if other is None)

    @property
    def merged(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of target that several of source become one in."""
        groups = {label: tuple(k for k, v in self.pairs.items() if v == label) for label in self.target.labels}
        return {label: group for label, group in groups.items() if len(group) > 1}

    @property
    def unreached(self) -> tuple[str, ...]:
        """Labels of target that nothing becomes."""
        return tuple(label for label in self.target.labels if label not in self.pairs.values())

    def __call__(self, index: int) -> int | None:
        """The class of target for a class of source; None where it has none."""
        label = self.pairs[self.source.labels[index]]
        return None if label is None else self.target.labels.index(label)

    def __str__(self) -> str:
        losses = [f"{' + '.join(group)} become {label}" for label, group in self.merged.items()]
        losses += [f"dropped: {', '.join(self.dropped)}"] if self.dropped else []
        losses += [f"never reached: {', '.join(self.unreached)}"] if self.unreached else []
        return f"{self.source.name} -> {self.target.name}: {'; '.join(losses) or 'nothing is lost'}"


def label_map(source: LabelSet, target: LabelSet) -> LabelMap:
    """The map from one set to another.

    Polarity takes the kind of the set that is mapped to it, Ekman's six that of expressions. Nothing is guessed: joy
    has no counterpart among Mikels' eight, because it may be amusement, contentment or excitement; surprise has no
    sign.
    Raises LabelError where no map is known, or where the sets are of different kinds.

    >>> print(label_map(MIKELS, EKMAN))
    mikels -> ekman: amusement + contentment + excitement become joy; dropped: awe; never reached: surprise
    """
    target = in_kind_of(target, source)
    if source.kind != target.kind:
        raise LabelError(
            f"{source.name} says what is {source.kind}, {target.name} what is {target.kind}: one does not follow from "
            "the other, so there is no map"
        )
    if set(source.labels) == set(target.labels):
        return LabelMap(source, target, {label: label for label in source.labels})
    if target.name == POLARITY.name:
        return LabelMap(source, target, {label: _SIGN_OF.get(label) for label in source.labels})
    if source.name == CUSTOM:  # some of the other's labels, under no published set's name; below the reverse
        words = {label: target.aliases.get(label, label) for label in source.labels}
        if set(words.values()) <= set(target.labels):
            return LabelMap(source, target, words)
    if target.name == CUSTOM:
        own = {source.aliases.get(word, word): word for word in target.labels}
        if len(own) == len(target) and own.keys() <= set(source.labels):
            return LabelMap(source, target, {label: own.get(label) for label in source.labels})
    bridge = _DATA["bridges"].get(f"{source.name} -> {target.name}")
    if bridge is None:
        raise LabelError(f"no map from {source.name} to {target.name} is known")
    pairs = {label: bridge.get(label, label if label in target.labels else None) for label in source.labels}
    return LabelMap(source, target, pairs)


def in_kind_of(target: LabelSet, source: LabelSet) -> LabelSet:
    """A set as one of the other's kind where its words serve for both: polarity's for all, Ekman's for expressions."""
    is_open = target.name == POLARITY.name or (source.kind == "expressed" and target.name == EKMAN.name)
    return replace(target, kind=source.kind) if is_open else target


def find_label_set(name: str) -> LabelSet:
    """The label set of that name. Raises LabelError, with all names, if there is none."""
    sets = {label_set.name: label_set for label_set in LABEL_SETS}
    if name.lower() not in sets:
        raise LabelError(f"there is no label set {name!r}; there are {', '.join(sets)}")
    return sets[name.lower()]


def recognise(words: Sequence[str], kind: Kind | None = None, asked: str | None = None) -> LabelSet:
    """The published set that these class names are, else a set of their own, sorted, named "custom".

    words: class names of any case. More than half of a published set's have its spelling and kind, and no more classes
    than there are names. Numbers say nothing.
    kind: what the labels say, where that is known; None takes the published set's, and "evoked" for others.
    asked: the name of the published set to take. Raises LabelError if there is none of that name.
    """
    if asked is not None:
        return _of_kind(find_label_set(asked), kind)
    names = sorted({clean(word) for word in words})
    for label_set in LABEL_SETS:
        known = {label_set.aliases.get(name, name) for name in names if not name.isdigit()}
        if len(known) * 2 > len(label_set) and known <= set(label_set.labels) and len(known) == len(names):
            found = _of_kind(label_set, kind)
            if len(known) == len(label_set):
                return found
            return replace(found, name=CUSTOM, labels=tuple(one for one in label_set.labels if one in known))
    return LabelSet(CUSTOM, tuple(names), kind or "evoked")


def _of_kind(label_set: LabelSet, kind: Kind | None) -> LabelSet:
    return label_set if kind in (None, label_set.kind) else replace(label_set, kind=kind)


def clean(word: str) -> str:
    """A class name without case, quotes and outer blanks."""
    return word.strip().strip("'\"").strip().lower()
