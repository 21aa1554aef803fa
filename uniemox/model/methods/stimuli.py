"""Stimuli-aware: whole image, objects and face, each with its own branch (Yang et al., TIP 2021, arXiv 2109.01812).

An LSTM reads the branches' vectors: the whole image, then the objects by falling confidence, then the face. Its last
state is concatenated with the whole image's feature. (In the authors' code the LSTM reads only the objects, and the
branches are concatenated.) An error across polarity costs more: `polarity_loss`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.losses.methods import polarity_loss
from uniemox.model.methods.relation import Embed, GroupedRegions, Relation, polarity_matrix

STRENGTH = 1.0  # weight of the polarity in the loss


class StimuliAware(Relation):
    """Region method Stimuli-aware: the LSTM's last state, with skip after the whole image's feature."""

    groups = ("scene", "objects", "face")
    polarity: Tensor

    def __init__(self, width: int, channels: int, labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        self.linear = width if skip else 0
        self.width = self.linear + channels
        self.register_buffer("polarity", polarity_matrix(labels))
        self.scene_norm = nn.LayerNorm(width) if skip else None
        self.branches = nn.ModuleDict({name: Embed(width, channels) for name in self.groups})
        self.join = nn.LSTM(channels, channels, batch_first=True)

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        seen = [self.branches[name](regions[name]) * regions[name].presence[..., None] for name in self.groups]
        states, _ = self.join(torch.cat(seen, dim=1))  # (N, T, C)
        if self.scene_norm is None:
            return states[:, -1]
        return torch.cat([self.scene_norm(regions["scene"].features[:, 0]), states[:, -1]], dim=1)

    def loss(
        self, classification: Tensor, *, logits: Tensor, target: Tensor, weight: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Return the hierarchical cross-entropy of labels and polarity."""
        return classification + STRENGTH * polarity_loss(logits, target, self.polarity, weight)
