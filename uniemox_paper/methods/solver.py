"""SOLVER: objects in an emotion graph, weighted by the scene (Yang et al., TIP 2021, arXiv 2110.12334).

Nodes are objects, described by appearance and class. The graph's edges are learned, A = softmax(φ(V) ψ(V)ᵀ). A graph
convolution (arXiv 1609.02907) passes messages along them, V' = V + ReLU(A V W). The scene's feature s then attends to
the objects, a_i = softmax_i(wᵀ tanh(W_s s + W_o v_i)), and is concatenated with their weighted sum.

A region is the mean of the encoder's feature map inside a box, where the paper uses a detector's own feature. With the
skip the scene part is the encoder's features, without it W_s s.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniemox.model import Embed, GroupedRegions, Relation, softmax_over_present

# Number of graph convolutions.
LAYERS = 2


class EmotionGraph(nn.Module):
    """Graph convolution with learned edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.source = nn.Linear(channels, channels)
        self.target = nn.Linear(channels, channels)
        self.message = nn.Linear(channels, channels, bias=False)

    def forward(self, nodes: Tensor, presence: Tensor) -> Tensor:
        """Return updated nodes (N, T, C).  nodes: (N, T, C).  presence: (N, T)."""
        scores = self.target(nodes) @ self.source(nodes).transpose(1, 2) / nodes.shape[2] ** 0.5  # (N, T, T)
        edges = softmax_over_present(scores, presence[:, None])  # (N, T, T) A
        return nodes + torch.relu(edges @ self.message(nodes))  # (N, T, C)


class Solver(Relation):
    """Region method SOLVER: the scene concatenated with the objects that it attends to."""

    groups = ("scene", "objects")
    takes_categories = True

    def __init__(self, width: int, channels: int, _labels: Sequence[str], *, skip: bool) -> None:
        super().__init__()
        self.linear = width if skip else 0
        self.width = (self.linear or channels) + channels
        self.scene_norm = nn.LayerNorm(width)
        self.embed = Embed(width, channels)
        self.graph = nn.ModuleList(EmotionGraph(channels) for _ in range(LAYERS))
        self.of_scene = nn.Linear(width, channels)
        self.of_objects = nn.Linear(channels, channels, bias=False)
        self.score = nn.Linear(channels, 1, bias=False)

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features, see `Relation`."""
        scene = self.scene_norm(regions["scene"].features[:, 0])  # (N, D)
        objects = regions["objects"]
        nodes = self.embed(objects)  # (N, T, C)
        for layer in self.graph:
            nodes = layer(nodes, objects.presence)
        embedded = self.of_scene(scene)  # (N, C)
        scores = self.score(torch.tanh(embedded[:, None] + self.of_objects(nodes)))[..., 0]  # (N, T)
        weights = softmax_over_present(scores, objects.presence)  # (N, T)
        attended = (weights[..., None] * nodes).sum(dim=1)  # (N, C)
        return torch.cat([scene if self.linear else embedded, attended], dim=1)  # (N, width)
