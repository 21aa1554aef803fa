"""The words of an image with which method eap aligns it: its emotion, its objects, its attributes."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from uniemox.data.prompts import plain
from uniemox.data.sample import Sample
from uniemox.labels import LabelSet

MAX_WORDS = 1000  # of a kind, the most frequent ones
ATTRIBUTES = ("scene", "facial_expression", "human_action")


class WordLists:
    """The words that a run knows: labels, objects, attributes, the last two sorted.

    labels: the first words.  objects, attributes: those of the training samples' annotations (EmoSet's, or what
    `uniemox data describe` found), each the most frequent ones; where there are none, one word that no image has.
    """

    def __init__(self, samples: Sequence[Sample], labels: LabelSet) -> None:
        objects, attributes = (_frequent(map(words, samples)) for words in (_objects, _attributes))
        self.counts = [len(labels), max(1, len(objects)), max(1, len(attributes))]
        self.places = {("object", word): self.counts[0] + i for i, word in enumerate(objects)}
        start = sum(self.counts[:2])
        self.places |= {("attribute", word): start + i for i, word in enumerate(attributes)}

    def rows(self, samples: Sequence[Sample]) -> Tensor:
        """(N, V), 1 for the words of each sample."""
        rows = torch.zeros(len(samples), sum(self.counts))
        for row, sample in zip(rows, samples, strict=True):
            if sample.label is not None and sample.label < self.counts[0]:
                row[sample.label] = 1
            said = [("object", word) for word in _objects(sample)]
            said += [("attribute", word) for word in _attributes(sample)]
            row[[self.places[one] for one in said if one in self.places]] = 1
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
