"""Answers in the labels of another set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import LabelError
from uniemox.labels import LabelMap, LabelSet, find_label_set, in_kind_of, label_map

MIN_REACHED = 2


@dataclass(frozen=True, slots=True)
class LabelMapping:
    """How a network's probabilities become named ones.

    labels, name: of the set that the answer is given in.  mapping: to it; None: the network's own.
    """

    labels: tuple[str, ...]
    name: str
    mapping: LabelMap | None = None

    @property
    def dropped(self) -> tuple[str, ...]:
        """Labels of the network without a counterpart in the set."""
        return () if self.mapping is None else self.mapping.dropped

    def named(self, probabilities: NDArray[np.float64]) -> dict[str, float]:
        """Probability by label.  probabilities: (E,).

        Those of labels that become one add up; of what is left without the dropped ones the sum is 1 again.
        """
        if self.mapping is None:
            return {label: float(p) for label, p in zip(self.labels, probabilities, strict=True)}
        sums = dict.fromkeys(self.labels, 0.0)
        for i, p in enumerate(probabilities):
            label = self.mapping.pairs[self.mapping.source.labels[i]]
            if label is not None:
                sums[label] += float(p)
        total = max(sum(sums.values()), np.finfo(np.float64).tiny)
        return {label: value / total for label, value in sums.items()}

    def likely(self, places: list[int], named: dict[str, float]) -> tuple[str, ...]:
        """The set's labels, most probable first.  places: of the network's labels.  named: of `named`."""
        if self.mapping is None:
            found = {self.labels[i] for i in places}
        else:
            found = {self.mapping.pairs[self.mapping.source.labels[i]] or "" for i in places} - {""}
        return tuple(sorted(found, key=lambda label: -named[label]))


def answers_in(source: LabelSet, target: str | None) -> LabelMapping:
    """How answers in `source` become answers in the set of that name; None: as they are.

    Labels that nothing becomes are left out.
    Raises LabelError where there is no such set or no map to it, where one is evoked and the other felt, or where only
    one label is reached, which would always have probability 1.
    """
    if target is None:
        return LabelMapping(source.labels, source.name)
    mapping = label_map(source, find_label_set(target))
    reached = tuple(label for label in mapping.target.labels if label not in mapping.unreached)
    if len(reached) < MIN_REACHED:
        what = f"only {reached[0]} is" if reached else "no label is"
        raise LabelError(f"of {target} {what} reached by {', '.join(source.labels)}; answer in them (no other labels)")
    return LabelMapping(reached, mapping.target.name, mapping)


def has_answers_in(source: LabelSet, target: str) -> bool:
    """Whether a set's kind allows it to be mapped to the set of that name."""
    return in_kind_of(find_label_set(target), source).kind == source.kind
