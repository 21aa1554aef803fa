"""RRLA: the person's body, its parts and the objects around it (Li, Dong and Wang, IEEE TAC 2023).

Body-object attention: the body asks which objects matter to it. Body-part attention: parts of the body, cells of the
person view, are weighed by the body too, and their channels recalibrated (arXiv 1709.01507). The paper's third part,
the dependency of labels that occur together, needs images with several labels, which no data set here has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniemox.model.methods.relation import Attention, Embed, GroupedRegions, Relation

NARROWER = 4  # times, inside the recalibration


class Rrla(Relation):
    """The objects and the parts of the body that matter to the person."""

    groups = ("scene", "person", "body", "objects")

    def __init__(self, width: int, channels: int, _labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        self.linear = 2 * width if skip else 0
        self.width = self.linear + 2 * channels
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(width) for name in ("scene", "person") if skip or name != "scene"}
        )
        self.parts, self.objects = Embed(width, channels), Embed(width, channels)
        self.to_objects, self.to_parts = Attention(width, channels), Attention(width, channels)
        narrow = max(1, channels // NARROWER)
        self.recalibrate = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid()
        )

    def forward(self, regions: GroupedRegions) -> Tensor:
        """See Relation."""
        person = self.norms["person"](regions["person"].features[:, 0])
        around = self.to_objects(person, self.objects(regions["objects"]), regions["objects"])
        parts = self.parts(regions["body"])
        parts = parts * self.recalibrate(parts.mean(dim=1))[:, None]
        related = [around, self.to_parts(person, parts, regions["body"])]
        if self.linear:
            related = [self.norms["scene"](regions["scene"].features[:, 0]), person, *related]
        return torch.cat(related, dim=1)
