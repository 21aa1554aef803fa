"""What all methods that relate regions have in common.

With `skip` the normed features of whole views go straight to the head, beside what the method makes of the regions. No
paper of these methods has that; it lets a method on a frozen encoder start as a linear probe. Without it the head reads
what the paper's reads.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from uniemox.model.regions import CLASSES, Group, RegionReader, Regions, shares_of_present

GroupedRegions = Mapping[Group, Regions]


class Relation(nn.Module):
    """From regions to what the head reads, (N, `width`).

    Its last features may be logits of its own, which `own_loss` compares with the target; the head reads them too.
    """

    groups: ClassVar[tuple[Group, ...]]
    """The regions that it relates."""
    hides_person: ClassVar[bool] = False
    """Whether the person is blacked out of the scene view."""
    width: int
    linear: int
    """Number of first features that are the skip, so that a head on these is a linear probe; 0 without it."""
    reader: RegionReader
    """Which cuts these regions out of the views; whoever builds a method gives it one."""

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Returns (N, width)."""
        raise NotImplementedError

    def own_loss(self, logits: Tensor, features: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """What is added to the cross-entropy.

        logits: (N, E) of the head.  features: (N, width).  target: (N, E).  weight: (N,), how much an image counts.
        """
        del features, target, weight
        return logits.new_zeros(())


class Embed(nn.Module):
    """Regions as vectors: (N, T, D) features, with the detector's classes and the place, to (N, T, C)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))
        self.semantic = nn.Linear(CLASSES, channels, bias=False)
        self.place = nn.Linear(4, channels, bias=False)

    def forward(self, regions: Regions) -> Tensor:
        """Returns (N, T, C)."""
        x = self.visual(regions.features) + self.semantic(regions.classes.to(regions.features.dtype))
        return torch.relu(x + self.place(regions.boxes.to(x.dtype)))


class Attention(nn.Module):
    """The mean of vectors, weighted by how well each fits a question: softmax_i(q(question) · k(x_i) / √C)."""

    def __init__(self, question: int, channels: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(question, channels), nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)

    def forward(self, question: Tensor, x: Tensor, regions: Regions) -> Tensor:
        """question: (N, Q).  x: (N, T, C).  regions: whose presence counts.  Returns (N, C)."""
        fits = (self.key(x) @ self.query(question)[..., None])[..., 0] / x.shape[2] ** 0.5  # (N, T)
        shares = shares_of_present(fits, regions.presence)
        return (shares[..., None] * self.value(x)).sum(dim=1)
