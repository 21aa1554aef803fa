"""EmotiCon: three contexts of a person's emotion (Mittal et al., CVPR 2020, arXiv 2003.06692).

First context: the person, in two modalities, face and body. (The paper has a skeleton where this has the body's
feature, because there is no pose estimator.) Each modality predicts the emotion separately, and `multiplicative_loss`
trains mainly the more certain one; with several labels (EMOTIC), for each label alone. Second context: the scene
without the person, with an attention branch (arXiv 1812.10025). Third context: distances between people, in a graph
convolution with edges exp(-distance), and none beyond half of the image. (The paper's alternative, a depth map, needs a
depth network.) The head reads all three contexts, concatenated.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.losses import multiplicative_label_loss, multiplicative_loss
from uniemox.model import Embed, Group, GroupedRegions, Regions, Relation

# Maximum distance of neighbours, as a share of the image's side.
NEAR = 0.5
MODALITIES: tuple[Group, ...] = ("face", "person")


class EmotiCon(Relation):
    """Region method EmotiCon: three concatenated contexts. The last 2 E features are the logits of face and body."""

    groups = ("face", "person", "scene", "cells", "people")
    hides_person = True
    takes_categories = True

    def __init__(self, width: int, channels: int, labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        outputs = len(labels)
        self.outputs = outputs
        self.linear = 2 * width if skip else 0
        self.width = self.linear + 4 * channels + len(MODALITIES) * outputs
        self.skipped: tuple[Group, ...] = ("person", "scene") if skip else ()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in self.skipped})
        self.embed = nn.ModuleDict({name: Embed(width, channels) for name in (*MODALITIES, "cells", "people")})
        self.look = nn.Linear(channels, 1)
        self.messages = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.classify = nn.ModuleDict({name: nn.Linear(channels, outputs) for name in MODALITIES})

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        modalities = {name: self.embed[name](regions[name])[:, 0] for name in MODALITIES}  # (N, C) each
        # A face that was not found has no feature.
        modalities["face"] = modalities["face"] * (regions["face"].presence > 0).to(modalities["face"].dtype)
        cells = self.embed["cells"](regions["cells"])  # (N, T, C)
        attention = 1 + self.look(cells).sigmoid()  # (N, T, 1)
        scene = (cells * attention).mean(dim=1)  # (N, C)
        people = self._people_context(regions["people"])  # (N, C)
        views = [self.norms[name](regions[name].features[:, 0]) for name in self.skipped]  # (N, D) each
        logits = [self.classify[name](modalities[name]) for name in MODALITIES]  # (N, E) each
        return torch.cat([*views, *modalities.values(), scene, people, *logits], dim=1)  # (N, width)

    def _people_context(self, people: Regions) -> Tensor:
        """Return the third context, (N, C): the mean of the people after the graph convolutions."""
        nodes = self.embed["people"](people)  # (N, T, C)
        edges = proximity(people)  # (N, T, T)
        for layer in self.messages:
            nodes = torch.relu(edges.to(nodes.dtype) @ layer(nodes))
        is_present = (people.presence > 0).to(nodes.dtype)[..., None]  # (N, T, 1)
        return (nodes * is_present).sum(dim=1) / is_present.sum(dim=1).clamp(min=1)  # (N, C)

    def loss(
        self,
        classification: Tensor,
        *,
        features: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        has_categories: bool = False,
        **_: Any,
    ) -> Tensor:
        """Return the classification loss plus the multiplicative loss of the modalities' predictions."""
        logits = features[:, -len(MODALITIES) * self.outputs :].float()  # (N, 2 E)
        logits = logits.unflatten(1, (len(MODALITIES), self.outputs))  # (N, 2, E)
        if has_categories:
            return classification + multiplicative_label_loss(logits, target, weight=weight)
        return classification + multiplicative_loss(logits, target, weight=weight)


def proximity(people: Regions) -> Tensor:
    """Return edges exp(-distance) between centres of people nearer than `NEAR`, with row sums 1: (N, T, T).

    Absent people have no neighbours; everyone else is their own neighbour.
    """
    centres = (people.boxes[..., :2] + people.boxes[..., 2:]) / 2  # (N, T, 2)
    offsets = centres[:, :, None] - centres[:, None]  # (N, T, T, 2)
    distance = offsets.square().sum(dim=-1).clamp(min=1e-12).sqrt()  # (N, T, T)
    is_present = people.presence[:, None] > 0  # (N, 1, T)
    is_self = torch.eye(distance.shape[-1], device=distance.device, dtype=torch.bool)  # (T, T)
    edges = torch.where((distance < NEAR) & is_present | is_self, (-distance).exp(), 0.0)
    return edges / edges.sum(dim=2, keepdim=True)
