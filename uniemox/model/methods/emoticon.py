"""EmotiCon: three contexts of a person's emotion (Mittal et al., CVPR 2020, arXiv 2003.06692).

The first is the person: face and body, multiplied. (The paper's second part of it is a skeleton; here it is the body's
feature, as there is no pose.) The second is the scene without the person, by an attention branch (arXiv 1812.10025).
The third is how people stand to each other: a graph convolution whose edges are exp(-distance), none beyond half of the
image. (The paper's other form of it, a map of depths, needs a depth network.) The three are multiplied, so that what
a face means may hang on where it is, and stand beside their product. Each context predicts the emotion on its own as
well, and learns where it is sure: `losses/multiplicative.py`.
"""

import torch
from torch import Tensor, nn

from uniemox.losses.multiplicative import multiplicative_loss
from uniemox.model.methods.relation import Embed, GroupedRegions, Relation
from uniemox.model.regions import Regions

NEAR = 0.5  # of the image's side: farther people are no neighbours
CONTEXTS = 3


class EmotiCon(Relation):
    """width: D, of the regions' features.  channels: C, of its vectors.  outputs: E."""

    groups = ("face", "person", "scene", "cells", "people")
    hides_person = True

    def __init__(self, width: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.outputs, self.linear = outputs, 2 * width
        self.width = 2 * width + (CONTEXTS + 1) * channels + CONTEXTS * outputs
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in ("person", "scene")})
        self.embed = nn.ModuleDict({name: Embed(width, channels) for name in ("face", "person", "cells", "people")})
        self.look = nn.Linear(channels, 1)
        self.messages = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.mix = nn.ModuleList(nn.Linear(channels, channels) for _ in range(CONTEXTS))
        self.classify = nn.ModuleList(nn.Linear(channels, outputs) for _ in range(CONTEXTS))

    def forward(self, regions: GroupedRegions) -> Tensor:
        """See Relation."""
        face, body = self.embed["face"](regions["face"])[:, 0], self.embed["person"](regions["person"])[:, 0]
        face = torch.where(regions["face"].presence > 0, face, torch.ones_like(face))  # no face: the body alone
        cells = self.embed["cells"](regions["cells"])  # (N, T, C)
        scene = (cells * (1 + self.look(cells).sigmoid())).mean(dim=1)
        contexts = [face * body, scene, self._together(regions["people"])]
        fused = torch.ones_like(scene)
        for layer, one in zip(self.mix, contexts, strict=True):
            fused = fused * (1 + torch.tanh(layer(one)))
        logits = [layer(one) for layer, one in zip(self.classify, contexts, strict=True)]  # (N, E) each
        whole_person = self.norms["person"](regions["person"].features[:, 0])
        whole_scene = self.norms["scene"](regions["scene"].features[:, 0])
        return torch.cat([whole_person, whole_scene, *contexts, fused, *logits], dim=1)

    def _together(self, people: Regions) -> Tensor:
        """The third context, (N, C)."""
        nodes, edges = self.embed["people"](people), proximity(people)  # (N, T, C), (N, T, T)
        for layer in self.messages:
            nodes = torch.relu(edges.to(nodes.dtype) @ layer(nodes))
        there = (people.presence > 0).to(nodes.dtype)[..., None]  # (N, T, 1)
        return (nodes * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)

    def own_loss(self, logits: Tensor, features: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """The multiplicative loss of what the contexts predict."""
        del logits
        of_contexts = features[:, -CONTEXTS * self.outputs :].float().unflatten(1, (CONTEXTS, self.outputs))
        return multiplicative_loss(of_contexts, target, weight=weight)


def proximity(people: Regions) -> Tensor:
    """Edges exp(-distance) between the middles of people nearer than `NEAR`, rows that sum to 1: (N, T, T).

    Nobody is a neighbour who is not there; everybody is their own.
    """
    middles = (people.boxes[..., :2] + people.boxes[..., 2:]) / 2  # (N, T, 2)
    apart = middles[:, :, None] - middles[:, None]  # (N, T, T, 2)
    distance = apart.square().sum(dim=-1).clamp(min=1e-12).sqrt()
    there = people.presence[:, None] > 0  # (N, 1, T)
    itself = torch.eye(distance.shape[-1], device=distance.device, dtype=torch.bool)
    edges = torch.where((distance < NEAR) & there | itself, (-distance).exp(), 0.0)
    return edges / edges.sum(dim=2, keepdim=True)
