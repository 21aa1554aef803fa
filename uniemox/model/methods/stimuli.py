"""Stimuli-aware: the whole image, its objects and a face, each by its own branch (Yang et al., TIP 2021).

arXiv 2109.01812. An LSTM reads the branches' vectors, the whole image first, then the objects from the most to the
least certain, then the face; its last state is joined with the whole image's feature. (In the authors' code an LSTM
reads the objects alone, and the branches are concatenated.) An error across polarity costs more: `polarity_loss`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.losses.methods import polarity_loss
from uniemox.model.methods.relation import Embed, GroupedRegions, Relation, polarity_matrix

STRENGTH = 1.0  # of the polarity in the loss


class StimuliAware(Relation):
    """The LSTM's last state, with skip behind the whole image's feature. The labels are of two polarities."""

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
        """See Relation."""
        seen = [self.branches[name](regions[name]) * regions[name].presence[..., None] for name in self.groups]
        states, _ = self.join(torch.cat(seen, dim=1))  # (N, T, C)
        if self.scene_norm is None:
            return states[:, -1]
        return torch.cat([self.scene_norm(regions["scene"].features[:, 0]), states[:, -1]], dim=1)

    def loss(
        self, classification: Tensor, *, logits: Tensor, target: Tensor, weight: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Return the hierarchical cross-entropy: of the labels and of their polarity."""
        return classification + STRENGTH * polarity_loss(logits, target, self.polarity, weight)
