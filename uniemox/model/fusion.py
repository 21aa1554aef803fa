"""Γ1 to Γ4: four ways to fuse the scene feature α and the person feature β into Υ (arXiv 2409.18877, equations 2 to 6).

We add scaled_attention, a Γ2 whose offset does not come to dominate.

All fusions compute in the precision of their input; the models pass float32.
"""

import torch
from torch import Tensor, nn

from uniemox.errors import ShapeError
from uniemox.model.config import FUSIONS, check_fusion, import_named

# Initial value of the learned offsets b and ε.
OFFSET = 1e-5


def build_fusion(name: str, channels: int, heads: int = 3) -> nn.Module:
    """Build a fusion: a module that takes scene (N, C) and person (N, C) and returns the fused feature (N, C).

    Args:
        name: "static" (Γ4), "dynamic" (Γ1), "attention" (Γ2), "gated" (Γ3), "scaled_attention" (ours), or
            "mypackage.module:MyFusion", a module whose constructor takes channels and heads.
        channels: C.
        heads: κ, number of sets of fusion weights; the paper does not say how many (docs/paper-vs-code.md). The static
            fusion has none.

    Raises:
        ConfigError: For another name or numbers below 1. The module raises ShapeError for features of other shapes.

    >>> build_fusion("attention", channels=8)(torch.zeros(2, 8), torch.zeros(2, 8)).shape
    torch.Size([2, 8])
    """
    check_fusion(name, channels, heads)
    return import_named(name, FUSIONS)(channels, heads)


def scaled_attention(channels: int, heads: int) -> "AttentionFusion":
    """Build Γ2 with a scale at which the weights of all κ heads average 1 (ours)."""
    return AttentionFusion(channels, heads, scale=channels / heads)


class StaticFusion(nn.Module):
    """Γ4: Υ = λ ⊙ α + β (equation 2). λ is not learned: a buffer, ones by default."""

    weight: Tensor

    def __init__(self, channels: int, _heads: int = 0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))  # (C,) λ

    def forward(self, scene: Tensor, person: Tensor) -> Tensor:
        """Return the fused feature (N, C).  scene, person: (N, C)."""
        _check(scene, person, self.weight.shape[0])
        return self.weight * scene + person  # (N, C) eq 2


class DynamicFusion(nn.Module):
    """Γ1: Υ = LayerNorm(Σ_i (α_i ⊙ α + β_i ⊙ β)) + b (equations 3 and 4).

    The sum is linear in α and β, so κ sets of weights can express no more than one; they only change the training.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.scene_weight = nn.Parameter(torch.empty(heads, channels).normal_(1 / heads, 0.02))  # (κ, C)
        self.person_weight = nn.Parameter(torch.empty(heads, channels).normal_(1 / heads, 0.02))  # (κ, C)
        self.norm = nn.LayerNorm(channels)
        self.bias = nn.Parameter(torch.full((channels,), OFFSET))  # b

    def forward(self, scene: Tensor, person: Tensor) -> Tensor:
        """Return the fused feature (N, C).  scene, person: (N, C)."""
        _check(scene, person, self.bias.shape[0])
        # The sum over i is taken of the weights first, which is the same and needs no (N, κ, C).
        mixed = self.scene_weight.sum(dim=0) * scene + self.person_weight.sum(dim=0) * person  # (N, C)
        return self.norm(mixed) + self.bias  # eq 3, its norm eq 4


class AttentionFusion(nn.Module):
    """Γ2: Υ = Swish(s Σ_i (softmax(α η_i) ⊙ α + softmax(β ξ_i) ⊙ β)) + ε (equation 5, in which s = 1).

    Each softmax runs over the channels of one sample, so its weights average 1/C and the products are about C times
    smaller than α and β. With s = 1 the learned offset ε, which all samples share, therefore grows to dominate Υ.

    Args:
        scale: s; C/κ makes the weights of all κ heads together average 1 ("scaled_attention").
    """

    def __init__(self, channels: int, heads: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.scene_proj = _projections(channels, heads)  # (κ, C, C) η
        self.person_proj = _projections(channels, heads)  # (κ, C, C) ξ
        self.bias = nn.Parameter(torch.full((channels,), OFFSET))  # ε

    def forward(self, scene: Tensor, person: Tensor) -> Tensor:
        """Return the fused feature (N, C).  scene, person: (N, C)."""
        _check(scene, person, self.bias.shape[0])
        attended = _attend(scene, self.scene_proj) + _attend(person, self.person_proj)  # (N, κ, C)
        mixed = attended.sum(dim=1)  # (N, C)
        return nn.functional.silu(self.scale * mixed) + self.bias  # eq 5


class GatedFusion(nn.Module):
    """Γ3: attention as in Γ2, concatenated, mixed by a small network and filtered by a gate (equations 6a to 6e).

    The softmax makes the features about C times smaller. torch's default biases would dominate them, so that Υ of all
    samples would be nearly the same at first (mean cosine 0.998 at C = 512). So biases are initialised to zero, and
    rows of W2 that sum to zero cancel what the first ReLU adds to all samples. The mean cosine of unrelated samples is
    then 1/π, the minimum for a ReLU.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.scene_proj = _projections(channels, heads)  # (κ, C, C) φ
        self.person_proj = _projections(channels, heads)  # (κ, C, C) ψ
        self.hidden = nn.Linear(heads * channels, channels)  # W1, b1
        self.project = nn.Linear(channels, channels)  # W2, b2
        self.gate = nn.Linear(channels, channels)  # W3, b3
        self.bias = nn.Parameter(torch.full((channels,), OFFSET))  # ε
        for layer in (self.hidden, self.project, self.gate):
            nn.init.zeros_(layer.bias)
        # Rows of W2 that sum to zero remove what the ReLU before it adds to every sample.
        with torch.no_grad():
            self.project.weight -= self.project.weight.mean(dim=1, keepdim=True)

    def forward(self, scene: Tensor, person: Tensor) -> Tensor:
        """Return the fused feature (N, C).  scene, person: (N, C)."""
        _check(scene, person, self.bias.shape[0])
        attended = _attend(scene, self.scene_proj) + _attend(person, self.person_proj)  # (N, κ, C) eq 6a
        concatenated = attended.flatten(1)  # (N, κ*C) eq 6b
        mixed = self.project(self.hidden(concatenated).relu())  # (N, C) eq 6c
        gated = mixed * self.gate(mixed).sigmoid()  # eq 6d
        return (mixed * gated.sigmoid()).relu() + self.bias  # eq 6e


def _projections(channels: int, heads: int) -> nn.Parameter:
    """Return random (κ, C, C) matrices that keep the scale of their input."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, channels, channels), std=channels**-0.5))


def _attend(x: Tensor, proj: Tensor) -> Tensor:
    """Compute softmax(x proj_i) ⊙ x for every i.

    Args:
        x: (N, C) α or β.
        proj: (κ, C, C).

    Returns:
        (N, κ, C).
    """
    scores = torch.einsum("nc,kcd->nkd", x, proj)  # (N, κ, C)
    return scores.softmax(dim=-1) * x[:, None]


def _check(scene: Tensor, person: Tensor, channels: int) -> None:
    """Raise ShapeError unless both features are (N, channels)."""
    if scene.ndim != 2 or scene.shape != person.shape or scene.shape[1] != channels:
        raise ShapeError(
            f"scene {tuple(scene.shape)} and person {tuple(person.shape)} must both be (N, {channels}), "
            "the width this fusion was built for"
        )
