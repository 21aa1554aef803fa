"""Text prototypes: the direction of each label in a CLIP's space, from sentences about its words."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from uniemox.labels import Kind, LabelSet
from uniemox.teacher.sources import ClipTeacher
from uniemox.teacher.zero_shot import PROMPT

PROMPTS: Mapping[Kind, str] = {
    "evoked": PROMPT,
    "felt": "A photo of a person who feels {word}.",
    "expressed": "A photo of a face that shows {word}.",
}
"""Sentence about a word, by the kind of its label."""
# Names of classes in data sets that are not words of a sentence.
ABBREVIATIONS = frozenset({"neg", "pos"})


def words_of(labels: LabelSet) -> dict[str, tuple[str, ...]]:
    """Return the words for each label: the label, then the other names that its set knows.

    Numbers and abbreviations are left out, because texts about images don't have them.

    >>> from uniemox.labels import MIKELS
    >>> words_of(MIKELS)["sadness"]
    ('sadness', 'sad')
    """
    words = {label: [label] for label in labels.labels}
    for alias, label in labels.aliases.items():
        if label in words and not alias.isdigit() and alias not in ABBREVIATIONS:
            words[label].append(alias)
    return {label: tuple(dict.fromkeys(names)) for label, names in words.items()}


def text_prototypes(clip: ClipTeacher, labels: LabelSet) -> Tensor:
    """Return the mean direction of the sentences about each label's words (arXiv 2103.00020, section 3.1.4).

    Args:
        clip: CLIP whose text encoder is used.
        labels: E labels.

    Returns:
        (E, C) float32, rows of length 1.
    """
    rows = []
    for words in words_of(labels).values():
        sentences = [PROMPTS[labels.kind].format(word=word) for word in words]
        directions = F.normalize(clip.text_features(sentences), dim=-1)  # (words, C)
        rows.append(directions.mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def scale_of(clip: ClipTeacher) -> float:
    """Return CLIP's own factor of the cosines, the inverse of its temperature."""
    return float(clip.model.logit_scale.exp())
