"""Maps between label sets, and the set in which a model is scored on a data set."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from uniemox.errors import LabelError
from uniemox.labels.sets import BRIDGES, CUSTOM, EKMAN, EMOTIC, JOINED, LABEL_SETS, POLARITY, SIGN_OF, LabelSet, quoted


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

    >>> from uniemox.labels import EKMAN, MIKELS
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
        return {label: SIGN_OF.get(label) for label in source.labels}
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
    if (bridge := BRIDGES.get(f"{source.name} -> {target.name}")) is not None:
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
        if is_superset and f"{source.name} -> {other.name}" in BRIDGES:
            return other.name
    return None


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

    >>> from uniemox.labels import MIKELS
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
    is_mapped = f"{model.name} -> {data.name}" in BRIDGES or (
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
