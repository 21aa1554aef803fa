"""EAP: emotion-aware pre-training on words (Zhang et al., IJCAI 2022), then fine-tuning.

In the first half of the steps images learn to lie near their own words, the emotion, the objects and the attributes
that people or models noted (`losses/triplet_words.py`); in the second half the labels. Words have vectors of their own,
which start at random: the paper's text encoder, and its millions of tagged images, are not public. Where images have no
words but their labels, this is a classifier by class prototypes, and says nothing about the paper's method.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.losses.methods import word_alignment_loss
from uniemox.model.methods.relation import GroupedRegions, Relation

TEMPERATURE = 0.07  # CLIP's at its start


class Eap(Relation):
    """width: D, of the regions' features.  channels: C, of its vectors.  kinds: words of each kind; together V.

    Its last V features are the cosines of image and words over the temperature.
    skip: see `relation`; without it the head reads the vectors that were aligned, and the cosines.
    """

    groups = ("scene",)

    def __init__(self, width: int, channels: int, kinds: Sequence[int], *, skip: bool) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.linear = width if skip else 0
        self.width = (self.linear or channels * len(self.kinds)) + sum(kinds)
        self.norm = nn.LayerNorm(width)
        self.project = nn.ModuleList(nn.Linear(width, channels) for _ in kinds)
        self.words = nn.ParameterList(nn.Parameter(torch.randn(count, channels) / channels**0.5) for count in kinds)

    def forward(self, regions: GroupedRegions) -> Tensor:
        """See Relation."""
        scene = self.norm(regions["scene"].features[:, 0])
        vectors = [layer(scene) for layer in self.project]  # (N, C) each
        cosines = [
            F.normalize(vector, dim=1) @ F.normalize(words, dim=1).T
            for vector, words in zip(vectors, self.words, strict=True)
        ]
        read = [scene] if self.linear else vectors
        return torch.cat([*read, *(one / TEMPERATURE for one in cosines)], dim=1)

    def alignment_loss(self, features: Tensor, words: Tensor) -> Tensor:
        """features: (N, width).  words: (N, V), 1 for those that an image has."""
        return word_alignment_loss(features[:, -sum(self.kinds) :].float(), words, self.kinds)
