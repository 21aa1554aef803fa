"""EAP: emotion-aware pre-training on words (Zhang et al., IJCAI 2022), then fine-tuning.

In the first half of the steps each image is aligned with its words (`word_alignment_terms`): the emotion, and the
objects and attributes in its annotation. In the second half it learns the label. Word vectors are random at first,
because the paper's text encoder and its millions of tagged images are not public. If images have no words but their
labels, this is a classifier with class prototypes, and says nothing about the paper's method.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.data import Sample, plain
from uniemox.labels import LabelSet
from uniemox.losses import images_with_words, word_alignment_terms
from uniemox.model import GroupedRegions, Relation

# CLIP's initial value.
TEMPERATURE = 0.07
# Share of the steps that align images with words.
ALIGNED_SHARE = 0.5
# Number of the most frequent words of a kind that are used.
MAX_WORDS = 1000
# Fields of an annotation that are attributes.
ATTRIBUTES = ("scene", "facial_expression", "human_action")


class WordLists:
    """Words of a run: labels, objects and attributes; the last two are sorted.

    Objects and attributes are the most frequent ones in the annotations of the training samples (EmoSet's, or those
    written by `uniemox data describe`). A kind without any has one placeholder that no image has.
    """

    def __init__(self, samples: Sequence[Sample], labels: LabelSet) -> None:
        lists = [_most_frequent(map(words_of, samples)) for words_of in (_objects, _attributes)]
        self.counts = [len(labels), *(max(1, len(words)) for words in lists)]
        # Columns are ordered by kind: labels, objects, attributes.
        starts = (self.counts[0], sum(self.counts[:2]))
        self.columns = [
            {word: start + i for i, word in enumerate(words)} for start, words in zip(starts, lists, strict=True)
        ]

    def rows(self, samples: Sequence[Sample]) -> Tensor:
        """Return (N, V), 1 for the words of each sample, else 0."""
        rows = torch.zeros(len(samples), sum(self.counts))
        for row, sample in zip(rows, samples, strict=True):
            if sample.label is not None and sample.label < self.counts[0]:
                row[sample.label] = 1
            for words, columns in zip((_objects(sample), _attributes(sample)), self.columns, strict=True):
                row[[columns[word] for word in words if word in columns]] = 1
        return rows


def _objects(sample: Sample) -> list[str]:
    """Return the objects in a sample's annotation."""
    words = (sample.annotation or {}).get("object") or ()
    return [plain(word) for word in words if isinstance(word, str)]


def _attributes(sample: Sample) -> list[str]:
    """Return the attributes in a sample's annotation."""
    values = [(sample.annotation or {}).get(name) for name in ATTRIBUTES]
    return [plain(word) for word in values if isinstance(word, str) and word]


def has_words(samples: Iterable[Sample]) -> bool:
    """Return True if an annotation names an object or an attribute."""
    return any(_objects(sample) or _attributes(sample) for sample in samples)


def _most_frequent(lists: Iterable[list[str]]) -> tuple[str, ...]:
    """Return the words that most lists contain, sorted."""
    counts = Counter(word for words in lists for word in set(words))
    # Words of one count are ordered by name, so that the choice does not depend on the order of the samples.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(sorted(ranked[:MAX_WORDS]))


class Eap(Relation):
    """Region method EAP. Its last V features are cosines of image and words divided by the temperature.

    Without skip the head reads the aligned vectors and the cosines.

    Args:
        width: D, channels of the encoder's features.
        channels: C of the vectors.
        labels: E names of classes.
        skip: Features of the whole view go to the head instead of the vectors.
        word_counts: Number of words of each kind, V in all; empty: only the labels.
    """

    groups = ("scene",)
    reads_texts = True
    word_lists: WordLists | None = None

    def __init__(
        self, width: int, channels: int, labels: Sequence[str], *, skip: bool, word_counts: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.kinds = kinds = tuple(word_counts) or (len(labels),)
        self.linear = width if skip else 0
        self.width = (self.linear or channels * len(self.kinds)) + sum(kinds)
        self.norm = nn.LayerNorm(width)
        self.project = nn.ModuleList(nn.Linear(width, channels) for _ in kinds)
        self.words = nn.ParameterList(nn.Parameter(torch.randn(count, channels) / channels**0.5) for count in kinds)

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        scene = self.norm(regions["scene"].features[:, 0])  # (N, D)
        vectors = [layer(scene) for layer in self.project]  # (N, C) each
        # bfloat16 has steps of 0.004 near 1, which the temperature would turn into steps of 0.06 in the logits.
        with torch.autocast(scene.device.type, enabled=False):
            cosines = [
                F.normalize(vector.float(), dim=1) @ F.normalize(words, dim=1).T
                for vector, words in zip(vectors, self.words, strict=True)
            ]  # (N, words of the kind) each
        visual = [scene] if self.linear else vectors
        return torch.cat([*visual, *(cosine / TEMPERATURE for cosine in cosines)], dim=1)  # (N, width)

    @classmethod
    def options_for(cls, samples: Sequence[Sample], labels: LabelSet) -> dict[str, Any]:
        """Return the number of words of each kind."""
        return {"word_counts": WordLists(samples, labels).counts}

    def prepare(self, samples: Sequence[Sample], labels: LabelSet) -> None:
        """Store the words of the training samples."""
        self.word_lists = WordLists(samples, labels)

    def batch_targets(self, samples: Sequence[Sample], *, progress: float) -> Tensor | None:
        """Return (N, V), 1 for the words of each image, in the first half of the steps."""
        if self.word_lists is None or progress >= ALIGNED_SHARE:
            return None
        return self.word_lists.rows(samples)

    def loss(
        self, classification: Tensor, *, logits: Tensor, features: Tensor, batch_targets: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Return the alignment loss of each kind of words; without batch_targets, the classification loss."""
        if batch_targets is None:
            return classification[None]
        cosines = features[:, -sum(self.kinds) :].float()
        terms = word_alignment_terms(cosines, batch_targets, self.kinds)  # (T,), one for each kind
        # The head gets a gradient of zeros, because DistributedDataParallel waits for all gradients.
        return terms + 0 * logits.sum()

    def term_weights(self, weight: Tensor, batch_targets: Tensor | None) -> Tensor:
        """Return the number of images that have words of each kind; without batch_targets, the sum of weights."""
        if batch_targets is None:
            return super().term_weights(weight, batch_targets)
        return images_with_words(batch_targets, self.kinds)
