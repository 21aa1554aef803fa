"""The words of an image with which method eap aligns it: its emotion, its objects, its attributes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniemox.data.prompts import plain
from uniemox.data.sample import Sample
from uniemox.labels import LabelSet

MAX_WORDS = 1000  # of a kind, the most frequent ones
ATTRIBUTES = ("scene", "facial_expression", "human_action")


@dataclass(frozen=True, slots=True)
class WordLists:
    """The words that a run knows: labels, objects, attributes; each list sorted, without what no image has."""

    labels: LabelSet
    objects: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample], labels: LabelSet) -> "WordLists":
        """Those of the training samples' annotations (EmoSet's, or what `uniemox data describe` found)."""
        return cls(labels, _frequent(map(_objects, samples)), _frequent(map(_attributes, samples)))

    @property
    def counts(self) -> list[int]:
        """Words of each kind, one for a kind without any, which no image has."""
        return [len(self.labels), max(1, len(self.objects)), max(1, len(self.attributes))]

    def rows(self, samples: Sequence[Sample]) -> Tensor:
        """(N, V), 1 for the words of each sample."""
        starts = (0, self.counts[0], self.counts[0] + self.counts[1])
        places = {("object", word): starts[1] + i for i, word in enumerate(self.objects)}
        places |= {("attribute", word): starts[2] + i for i, word in enumerate(self.attributes)}
        rows = torch.zeros(len(samples), sum(self.counts))
        for row, sample in zip(rows, samples, strict=True):
            if sample.label is not None and sample.label < len(self.labels):
                row[sample.label] = 1
            said = [*(("object", word) for word in _objects(sample))]
            said += [("attribute", word) for word in _attributes(sample)]
            for one in said:
                if one in places:
                    row[places[one]] = 1
        return rows


def _objects(sample: Sample) -> list[str]:
    words = (sample.annotation or {}).get("object") or ()
    return [plain(word) for word in words if isinstance(word, str)]


def _attributes(sample: Sample) -> list[str]:
    found = [(sample.annotation or {}).get(name) for name in ATTRIBUTES]
    return [plain(word) for word in found if isinstance(word, str) and word]


def _frequent(lists: Iterable[list[str]]) -> tuple[str, ...]:
    counts = Counter(word for words in lists for word in set(words))
    return tuple(sorted(word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MAX_WORDS]))
