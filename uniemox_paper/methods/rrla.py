"""RRLA: the person's body, its parts and the objects around it (Li, Dong and Wang, IEEE TAC 2023).

Body-object attention: the body's vector weights the objects. Body-part attention: the body's vector also weights the
body's parts, cells of the person view, whose channels are then recalibrated (arXiv 1709.01507). The paper's third part,
the dependency of labels by their meaning and co-occurrence, is missing: no source open to us has its equations or the
vectors of the words. The abstract (openreview.net/forum?id=-XAaK6gJO3) names only these two inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniemox.model import Attention, Embed, GroupedRegions, Relation

# Factor by which the recalibration's hidden layer is narrower.
NARROWER = 4


class Rrla(Relation):
    """Region method RRLA: attention of the person to objects and to parts of the body."""

    groups = ("scene", "person", "body", "objects")
    takes_categories = True

    def __init__(self, width: int, channels: int, _labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        self.linear = 2 * width if skip else 0
        self.width = self.linear + 2 * channels
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(width) for name in ("scene", "person") if skip or name != "scene"}
        )
        self.parts = Embed(width, channels)
        self.objects = Embed(width, channels)
        self.to_objects = Attention(width, channels)
        self.to_parts = Attention(width, channels)
        narrow = max(1, channels // NARROWER)
        self.recalibrate = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid()
        )

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        person = self.norms["person"](regions["person"].features[:, 0])  # (N, D)

        objects = self.objects(regions["objects"])  # (N, T, C)
        attended_objects = self.to_objects(person, objects, regions["objects"])  # (N, C)

        parts = self.parts(regions["body"])  # (N, T, C)
        parts = parts * self.recalibrate(parts.mean(dim=1))[:, None]
        attended_parts = self.to_parts(person, parts, regions["body"])  # (N, C)

        features = [attended_objects, attended_parts]
        if self.linear:
            scene = self.norms["scene"](regions["scene"].features[:, 0])  # (N, D)
            features = [scene, person, *features]
        return torch.cat(features, dim=1)  # (N, width)
