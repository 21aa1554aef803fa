"""Label sets of emotion research, the kind of emotion that each describes, and maps between them.

Three kinds are never mixed: the emotion that an image evokes in its viewer, the emotion that a person in it feels, and
the expression of a face in it, which is not what the person feels.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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
_SIGN_OF: Mapping[str, str] = {label: sign for sign, labels in _DATA["polarities"].items() for label in labels}


def polarities(labels: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Return one row per polarity that occurs (negative, positive, neither), with 1 for its labels: (P, E).

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
    pairs: Mapping[str, str | None]  # every label of source; None: no counterpart

    @property
    def dropped(self) -> tuple[str, ...]:
        """Labels of source without a counterpart; images with these labels are left out of the data."""
        return tuple(label for label, other in self.pairs.items() if other is None)

    @property
    def merged(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of target to which several labels of source are mapped."""
        groups = {
            label: tuple(source for source, target in self.pairs.items() if target == label)
            for label in self.target.labels
        }
        return {label: group for label, group in groups.items() if len(group) > 1}

    @property
    def reached(self) -> tuple[str, ...]:
        """Labels of target to which a label is mapped."""
        return tuple(label for label in self.target.labels if label in self.pairs.values())

    @property
    def unreached(self) -> tuple[str, ...]:
        """Labels of target to which no label is mapped."""
        return tuple(label for label in self.target.labels if label not in self.pairs.values())

    def named(self, probabilities: Iterable[float]) -> dict[str, float]:
        """Return the probability of each reached label.

        Probabilities of labels that become one are added. If labels were dropped, the others are divided by their sum.

        Args:
            probabilities: (E,), in the order of the source's labels.
        """
        sums = dict.fromkeys(self.reached, 0.0)
        for label, p in zip(self.pairs.values(), probabilities, strict=True):
            if label is not None:
                sums[label] += float(p)
        # Without merged or dropped labels nothing changes: valence and arousal, too, must not be divided by a sum.
        if [*self.pairs.values()] == [*sums]:
            return sums
        total = max(sum(sums.values()), sys.float_info.min)
        return {label: value / total for label, value in sums.items()}

    def unmapped(self, probabilities: Iterable[float]) -> float:
        """Return the probability of the labels that have no counterpart, 0 to 1.  probabilities: (E,), of source."""
        pairs = zip(self.pairs.values(), probabilities, strict=True)
        return float(sum(p for label, p in pairs if label is None))

    def __call__(self, index: int) -> int | None:
        """Return the target class of a source class; None if there is no counterpart."""
        label = self.pairs[self.source.labels[index]]
        if label is None:
            return None
        return self.target.labels.index(label)

    def __str__(self) -> str:
        losses = [f"{' + '.join(group)} become {label}" for label, group in self.merged.items()]
        if self.dropped:
            losses.append(f"dropped: {', '.join(self.dropped)}")
        if self.unreached:
            losses.append(f"never reached: {', '.join(self.unreached)}")
        return f"{self.source.name} -> {self.target.name}: {'; '.join(losses) or 'nothing is lost'}"


def label_map(source: LabelSet, target: LabelSet) -> LabelMap:
    """Return the map from one set to another.

    A set mapped to polarity keeps its kind; Ekman's six become the kind of expressions. The map never guesses: joy has
    no counterpart among Mikels' eight, because it may be amusement, contentment or excitement, and surprise has no
    polarity.

    Raises:
        LabelError: If no map is known, or the sets are of different kinds.

    >>> print(label_map(MIKELS, EKMAN))
    mikels -> ekman: amusement + contentment + excitement become joy; dropped: awe; never reached: surprise
    """
    target = in_kind_of(target, source)
    if source.kind != target.kind:
        raise LabelError(
            f"{source.name} describes {source.kind} emotions, {target.name} {target.kind} ones: one kind does not "
            "determine the other, so there is no map"
        )
    pairs = _pairs_between(source, target)
    if pairs is None:
        raise _no_map(source, target)
    return LabelMap(source, target, pairs)


def _pairs_between(source: LabelSet, target: LabelSet) -> dict[str, str | None] | None:
    """Return the label of the target for each label of the source, by the first rule that fits; None if none does."""
    # The same labels, perhaps in another order.
    if set(source.labels) == set(target.labels):
        return {label: label for label in source.labels}
    # A person with several categories may have positive and negative ones.
    if target.name == POLARITY.name and source.name != EMOTIC.name:
        return {label: _SIGN_OF.get(label) for label in source.labels}
    # A custom set with some of a published set's labels.
    if source.name == CUSTOM:
        words = {label: target.aliases.get(label, label) for label in source.labels}
        if set(words.values()) <= set(target.labels):
            return dict(words)
    # A published set with all labels of a custom one.
    if target.name == CUSTOM:
        target_of = {source.aliases.get(word, word): word for word in target.labels}
        if len(target_of) == len(target) and target_of.keys() <= set(source.labels):
            return {label: target_of.get(label) for label in source.labels}
    same = {label: label if label in target.labels else None for label in source.labels}
    # A stored map between two published sets; labels that it does not name stay.
    if (bridge := _DATA["bridges"].get(f"{source.name} -> {target.name}")) is not None:
        return {label: bridge.get(label, same[label]) for label in source.labels}
    # A model of several data sets' labels chooses among the labels of the target alone.
    if source.name == JOINED and set(target.labels) <= set(source.labels):
        return same
    return None


def _no_map(source: LabelSet, target: LabelSet) -> LabelError:
    """Return the error for two sets without a map, with what can be done instead."""
    published = _published_superset(target, source)
    if published is not None:
        return LabelError(
            f"no map from {source.name} to {target.name} is known, but {_first_labels(target)} are labels of "
            f"{published}, to which there is one: read the data with these labels (folder:PATH?labels={published})"
        )
    template = ""
    if target.name == CUSTOM:
        template = " " + ",".join(f"{quoted(label)}=..." for label in target.labels)
    # A set of the user's own labels has no name that a command takes.
    known = " or ".join(labels.name for labels in (source, target) if labels.name != CUSTOM) or "one set"
    return LabelError(
        f"no map from {source.name} to {target.name} is known: {_first_labels(source)} can't become "
        f"{_first_labels(target)}; use labels of {known}, give a map of your own to score "
        f"with (--map{template} of uniemox evaluate, compare and calibrate; label_pairs in Python), or train a model "
        "on these"
    )


def _published_superset(labels: LabelSet, source: LabelSet) -> str | None:
    """Return the name of a published set with a map from `source` that has all labels of a custom set; None: none."""
    if labels.name != CUSTOM:
        return None
    for other in LABEL_SETS:
        is_superset = labels.kind == other.kind and set(labels.labels) <= set(other.labels)
        if is_superset and f"{source.name} -> {other.name}" in _DATA["bridges"]:
            return other.name
    return None


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


@dataclass(frozen=True)
class ScoredLabels:
    """Label set in which a model is scored on a data set, with the maps of both to it."""

    of_model: LabelMap
    of_data: LabelMap

    @property
    def labels(self) -> LabelSet:
        """Label set of the scores."""
        return self.of_model.target

    @property
    def absent(self) -> tuple[str, ...]:
        """Scored labels that the data set does not have; the model may still predict them."""
        return self.of_data.unreached

    @cached_property
    def predictable(self) -> frozenset[int | None]:
        """Scored classes that the model can predict."""
        return frozenset(map(self.of_model, range(len(self.of_model.source)))) - {None}

    @property
    def choices(self) -> tuple[str, ...]:
        """Scored labels that the model can predict."""
        return tuple(label for i, label in enumerate(self.labels.labels) if i in self.predictable)

    def truth(self, index: int | None) -> int | None:
        """Return the scored class of a class of the data set; None if there is none, or the model can't predict it."""
        scored_class = None if index is None else self.of_data(index)
        return scored_class if scored_class in self.predictable else None


def scored_labels(model: LabelSet, data: LabelSet) -> ScoredLabels:
    """Choose the label set in which a model is scored on a data set.

    It is usually the data set's, to which the model's labels are mapped (`label_map`). If the data set has only some of
    the model's labels, it is the model's: an image may be mistaken for a class that the data set lacks, and removing
    these classes from the answers would make the scores too high. A map between two published sets comes first. A model
    of joined labels (`join_labels`) is scored in the whole set of each published data set.

    Raises:
        LabelError: If there is no map, or if one set describes felt and the other evoked emotions.

    >>> three = LabelSet("custom", ("awe", "fear", "sadness"), "evoked")
    >>> scored_labels(MIKELS, three).labels.name, scored_labels(MIKELS, three).absent[:2]
    ('mikels', ('amusement', 'anger'))
    """
    # label_map gives polarity the model's kind, but the data's labels have their own.
    if model.kind != data.kind:
        raise LabelError(
            f"the model predicts {model.kind} emotions, the data's labels are {data.kind} ones: one kind does not "
            "determine the other"
        )
    words = _as_subset_of(data, model)
    is_mapped = f"{model.name} -> {data.name}" in _DATA["bridges"] or (
        model.name == JOINED and data.name not in (CUSTOM, JOINED)
    )
    if words is not None and not is_mapped:
        return ScoredLabels(identity_map(model), LabelMap(data, model, words))
    to_data = identity_map(data) if model.labels == data.labels else label_map(model, data)
    return ScoredLabels(replace(to_data, source=model), identity_map(to_data.target))


def identity_map(labels: LabelSet) -> LabelMap:
    """Return the map of a set to itself."""
    return LabelMap(labels, labels, {label: label for label in labels.labels})


def _as_subset_of(subset: LabelSet, superset: LabelSet) -> dict[str, str | None] | None:
    """Return the label of the larger set that each label means; None unless all have one of their own."""
    # A label of the larger set by itself and by its alias in the smaller one.
    label_of = {subset.aliases.get(label, label): label for label in superset.labels}
    label_of |= {label: label for label in superset.labels}
    words = {label: label_of.get(label) or label_of.get(superset.aliases.get(label, label)) for label in subset.labels}
    reached = set(words.values())
    is_subset = len(subset) < len(superset) and None not in reached and len(reached) == len(subset)
    return dict(words) if is_subset else None


def _first_labels(labels: LabelSet) -> str:
    """Return the first eight labels, for a message."""
    return ", ".join(map(quoted, labels.labels[:8])) + (", …" if len(labels) > 8 else "")


def in_kind_of(target: LabelSet, source: LabelSet) -> LabelSet:
    """Return the target with the source's kind if its words fit both.

    Polarity fits all kinds, and Ekman's six fit expressions.
    """
    is_open = target.name == POLARITY.name or (source.kind == "expressed" and target.name == EKMAN.name)
    if is_open:
        return replace(target, kind=source.kind)
    return target


def find_label_set(name: str) -> LabelSet:
    """Return the published label set of this name, in any case.

    Raises:
        LabelError: With all names, if there is no such set.
    """
    sets = {label_set.name: label_set for label_set in LABEL_SETS}
    if name.lower() not in sets:
        raise LabelError(f"there is no label set {name!r}; there are {', '.join(sets)}")
    return sets[name.lower()]


def recognise(words: Sequence[str], kind: Kind | None = None, requested: str | None = None) -> LabelSet:
    """Return the published set that has these class names, else a sorted set named "custom".

    Args:
        words: Class names of any case. A published set matches if more than half of them are its labels or aliases, and
            there are not more classes than it has names. Numbers match no set.
        kind: Kind of the labels, if known. None: the published set's kind, or "evoked" for a custom set.
        requested: Name of a published set to use, or your own classes, separated by commas; a class that contains a
            comma in double quotes.

    Raises:
        LabelError: If there is no set of that name.
    """
    if requested is not None and "," in requested:
        names_of_classes = next(csv.reader([requested], skipinitialspace=True))
        classes = tuple(clean(word) for word in names_of_classes if clean(word))
        if not classes:
            raise LabelError(f"labels={requested} names no class; give names, separated by commas")
        return LabelSet(CUSTOM, classes, kind or "evoked")
    if requested is not None:
        return _of_kind(find_label_set(requested), kind)
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


def one_label_twice(labels: LabelSet) -> tuple[LabelSet, tuple[str, ...]] | None:
    """Return the published set of a custom set's classes if several are names of one of its labels, and these.

    Because of them, `recognise` has not found the published set. None if there are none.

    >>> classes = LabelSet("custom", ("awe", "content", "contentment", "disgust", "fear", "sad"), "evoked")
    >>> one_label_twice(classes)[1]
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
