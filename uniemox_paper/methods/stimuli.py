"""Stimuli-aware: whole image, objects and face, each with its own branch (Yang et al., TIP 2021, arXiv 2109.01812).

An LSTM reads the objects by falling confidence. Its last state is concatenated with the vectors of the whole image and
of the face, as in the authors' code. An error across polarity costs more: `polarity_loss`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.data import Sample
from uniemox.labels import LabelSet
from uniemox.losses import polarity_loss
from uniemox.model import Embed, GroupedRegions, Relation, polarity_matrix

# Weight of the polarity in the loss. The paper's factor is not published; 1 is our choice.
STRENGTH = 1.0


class StimuliAware(Relation):
    """Region method Stimuli-aware: the vectors of image, objects and face concatenated, after those of the skip."""

    groups = ("scene", "objects", "face")
    polarity: Tensor

    def __init__(
        self, width: int, channels: int, labels: Sequence[str], *, skip: bool, concatenates: bool = False
    ) -> None:
        """Build the branches.

        Args:
            width: D, channels of the encoder's features.
            channels: C of the vectors.
            labels: E names of classes.
            skip: The head also reads the features of the whole view.
            concatenates: False is the form of files written until 27 November 2026, whose LSTM reads all branches.
        """
        super().__init__()
        self.linear = width if skip else 0
        self.concatenates = concatenates
        self.width = self.linear + (len(self.groups) if concatenates else 1) * channels
        self.register_buffer("polarity", polarity_matrix(labels))
        self.scene_norm = nn.LayerNorm(width) if skip else None
        self.branches = nn.ModuleDict({name: Embed(width, channels) for name in self.groups})
        self.join = nn.LSTM(channels, channels, batch_first=True)

    @classmethod
    def options_for(cls, _samples: Sequence[Sample], _labels: LabelSet) -> dict[str, Any]:
        """Return the form of new networks."""
        return {"concatenates": True}

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        # Regions that were not found have zeros.
        vectors = {
            name: self.branches[name](regions[name]) * regions[name].presence[..., None] for name in self.groups
        }  # (N, T, C) each
        if self.concatenates:
            states, _ = self.join(vectors["objects"])  # (N, T, C)
            features = [vectors["scene"][:, 0], states[:, -1], vectors["face"][:, 0]]
        else:
            states, _ = self.join(torch.cat([*vectors.values()], dim=1))  # (N, T of all groups, C)
            features = [states[:, -1]]
        if self.scene_norm is not None:
            features.insert(0, self.scene_norm(regions["scene"].features[:, 0]))
        return torch.cat(features, dim=1)  # (N, width)

    def loss(
        self, classification: Tensor, *, logits: Tensor, target: Tensor, weight: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Return the hierarchical cross-entropy of labels and polarity."""
        return classification + STRENGTH * polarity_loss(logits, target, self.polarity, weight)
