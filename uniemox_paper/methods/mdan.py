"""MDAN: levels of emotion that depend on each other, bottom-up and top-down (Xu et al., CVPR 2022, arXiv 2203.13443).

Bottom-up, the whole image predicts labels, and a polarity's probability is the sum of its labels', so that the two
never contradict each other. Top-down, a separate classifier predicts the polarity first, from features with attention
across channels (MHCCA). Its class activation (level-dependent, L-CAM: M = Σ_c p_c Σ_k w_ck F_k) weights the input of
the next level. Each level has its own supervised classifier. The head reads the last level's features and the logits of
all levels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.losses import polarity_loss, soft_target_cross_entropy
from uniemox.model import GRID, Embed, GroupedRegions, Relation, polarity_matrix

# Heads of the attention, if they divide the channels.
HEADS = 8


class CrossChannelAttention(nn.Module):
    """Multi-head attention in which channels, not cells, attend to each other (MHCCA).

    Args:
        channels: C.
        cells: T, number of cells; the length of a channel's query, key and value.
    """

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(cells, cells) for _ in range(3))
        self.norm = nn.LayerNorm(channels)
        self.heads = HEADS if channels % HEADS == 0 else 1

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Attend from x to other.  x, other: (N, T, C).  Returns (N, T, C)."""
        rows = x.transpose(1, 2)  # (N, C, T)
        other_rows = other.transpose(1, 2)  # (N, C, T)
        q = self.query(rows).unflatten(1, (self.heads, -1))  # (N, heads, C / heads, T)
        k = self.key(other_rows).unflatten(1, (self.heads, -1))  # (N, heads, C / heads, T)
        v = self.value(other_rows).unflatten(1, (self.heads, -1))  # (N, heads, C / heads, T)
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)  # (N, heads, C / heads, C / heads)
        attended = (weights @ v).flatten(1, 2)  # (N, C, T)
        return self.norm(x + attended.transpose(1, 2))  # (N, T, C)


class Mdan(Relation):
    """Region method MDAN: two levels, labels and polarity, whose logits are the last E + P features."""

    groups = ("scene", "cells")
    polarity: Tensor

    def __init__(self, width: int, channels: int, labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        self.register_buffer("polarity", polarity_matrix(labels))  # (P, E)
        self.levels = len(self.polarity)
        self.linear = width if skip else 0
        self.width = self.linear + channels + self.levels + len(labels)
        self.scene_norm = nn.LayerNorm(width) if skip else None
        self.classify_labels = nn.Linear(channels, len(labels))
        self.embed = Embed(width, channels)
        self.first, self.second = (CrossChannelAttention(channels, GRID**2) for _ in range(2))
        self.classify_polarity = nn.Linear(channels, self.levels)

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        cells = self.embed(regions["cells"])  # (N, T, C)
        # The first level predicts the polarity, and its activation weights the input of the second.
        coarse = self.first(cells, cells)  # (N, T, C)
        polarity = self.classify_polarity(coarse.mean(dim=1))  # (N, P)
        weighted = cells * (1 + self._activation(coarse, polarity))  # (N, T, C)
        fine = self.second(weighted, coarse).mean(dim=1)  # (N, C)
        features = [fine, self.classify_labels(fine), polarity]
        if self.scene_norm is not None:
            features.insert(0, self.scene_norm(regions["scene"].features[:, 0]))
        return torch.cat(features, dim=1)  # (N, width)

    def _activation(self, coarse: Tensor, polarity: Tensor) -> Tensor:
        """Return L-CAM, the location of the predicted polarity, (N, T, 1), 0 to 1."""
        maps = coarse @ self.classify_polarity.weight.T  # (N, T, P)
        return (maps * polarity.softmax(dim=1)[:, None]).sum(dim=2, keepdim=True).sigmoid()

    def loss(
        self,
        classification: Tensor,
        *,
        logits: Tensor,
        features: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the losses of the labels and, bottom-up and top-down, of the polarity and each level's classifier."""
        polarity_logits = features[:, -self.levels :].float()  # (N, P)
        label_logits = features[:, -self.levels - target.shape[1] : -self.levels].float()  # (N, E)
        loss = polarity_loss(logits, target, self.polarity, weight)
        loss = loss + soft_target_cross_entropy(polarity_logits, target @ self.polarity.T, weight)
        return classification + (loss + soft_target_cross_entropy(label_logits, target, weight))
