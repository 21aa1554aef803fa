"""Settings of the model."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from uniemox.errors import ConfigError
from uniemox.losses.config import LossWeights
from uniemox.views.config import MaskConfig

Precision = Literal["float32", "bfloat16"]

FusionName = Literal["static", "dynamic", "attention", "gated", "scaled_attention"]
"""The paper's Γ4, Γ1, Γ2 and Γ3; scaled_attention is Γ2 with products that keep the scale of its inputs (ours)."""
RegionMethod = Literal["solver", "stimuli", "mdan", "eap", "rrla", "emoticon"]
"""Methods that relate regions of an image, see model/methods."""


def check_fusion(name: str, channels: int, heads: int) -> None:
    """Raise ConfigError unless there is such a fusion."""
    if name not in get_args(FusionName):
        raise ConfigError(f"there is no fusion {name!r}; choose one of {', '.join(get_args(FusionName))}")
    if channels < 1 or heads < 1:
        raise ConfigError(f"fusion needs at least one channel and one head, got channels={channels}, heads={heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Size of the decoder; its width is also that of α, β and Υ."""

    width: int = 512
    """C3, channels; a multiple of 4 and of heads. 512 is also the width of CLIP ViT-B's features."""
    depth: int = 8
    """Blocks."""
    heads: int = 16
    """Attention heads of a block."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4 or self.depth < 1 or self.heads < 1 or self.width % self.heads:
            raise ConfigError(
                f"decoder.width must be a positive multiple of 4 and of decoder.heads, and decoder.depth at least 1; "
                f"got width={self.width}, heads={self.heads}, depth={self.depth}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What the model computes. Every ablation of tables IV to VI of the paper is one of these settings."""

    fusion: FusionName | None = "attention"
    """How α and β become Υ; None: Υ = α, the scene alone."""
    fusion_heads: int = 3
    """κ, sets of fusion weights."""
    norm_pix: bool = False
    """Reconstruct each patch's standardised pixels (MAE's option) instead of its pixels."""
    temperature: float = 14.2857
    """τ of equation 8, positive. It cancels in equation 9; CLIP's start value, 1 / 0.07."""
    teacher_width: int | None = None
    """Channels of the teacher's features. None: those of the decoder; another width adds a learned projection of Υ."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.fusion is not None:
            check_fusion(self.fusion, self.decoder.width, self.fusion_heads)
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"model.temperature must be positive and finite, got {self.temperature}")
        if self.teacher_width is not None and self.teacher_width < 1:
            raise ConfigError(f"model.teacher_width must be at least 1, got {self.teacher_width}")

    @property
    def needs_image_features(self) -> bool:
        """Whether a loss needs the teacher's Ω."""
        return self.needs_text_features or self.losses.semantic_visual_alignment > 0

    @property
    def needs_text_features(self) -> bool:
        """Whether a loss needs the teacher's Λ."""
        return self.losses.contrastive_feature_alignment > 0

    @property
    def needs_person(self) -> bool:
        """Whether the person view is used: reconstructed, or fused into a Υ that a loss reads."""
        return self.losses.person_reconstruction > 0 or (self.fusion is not None and self.needs_image_features)
