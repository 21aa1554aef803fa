"""Settings of the model."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from uniemox.errors import CheckpointError, ConfigError
from uniemox.losses.config import LossWeights
from uniemox.views.config import MaskConfig

Precision = Literal["float32", "bfloat16"]

FUSIONS: dict[str, str] = {
    "static": "uniemox.model.fusion:StaticFusion",
    "dynamic": "uniemox.model.fusion:DynamicFusion",
    "attention": "uniemox.model.fusion:AttentionFusion",
    "gated": "uniemox.model.fusion:GatedFusion",
    "scaled_attention": "uniemox.model.fusion:scaled_attention",
}
"""The paper's Γ4, Γ1, Γ2 and Γ3; scaled_attention is Γ2 with products that keep the scale of its inputs (ours)."""
REGION_METHODS: dict[str, str] = {
    "solver": "uniemox.model.methods.solver:Solver",
    "stimuli": "uniemox.model.methods.stimuli:StimuliAware",
    "mdan": "uniemox.model.methods.mdan:Mdan",
    "eap": "uniemox.model.methods.eap:Eap",
    "rrla": "uniemox.model.methods.rrla:Rrla",
    "emoticon": "uniemox.model.methods.emoticon:EmotiCon",
}
"""Methods that relate regions of an image."""
ALLOW = "UNIEMOX_ALLOW_PACKAGES"


def check_fusion(name: str, channels: int, heads: int) -> None:
    """Raise ConfigError for numbers below 1, or unless the name is a fusion's or mypackage.module:MyFusion."""
    check_name(name, FUSIONS, "fusion")
    if channels < 1 or heads < 1:
        raise ConfigError(f"fusion needs at least one channel and one head, got channels={channels}, heads={heads}")


def check_name(name: str, table: Iterable[str], kind: str) -> None:
    """Raise ConfigError unless the name is in a table, or has the form mypackage.module:Name."""
    if name not in table and not is_foreign(name):
        raise ConfigError(
            f"there is no {kind} {name!r}; choose one of {', '.join(table)}, or name a class of your own as "
            "mypackage.module:Name"
        )


def is_foreign(name: str | None) -> bool:
    """Return True for mypackage.module:Name, a class outside of uniemox."""
    return bool(name and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name))


def import_named(name: str, table: Mapping[str, str]) -> Any:
    """Import what a name of a table, or mypackage.module:Name, refers to. Raises ConfigError if it is not there."""
    module, _, attribute = table.get(name, name).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name} can't be imported: {error}; install its package, or put the package's folder into PYTHONPATH"
        ) from error


def refuse_foreign(names: Iterable[str | None], allow: Collection[str] = ()) -> None:
    """Raise CheckpointError if a saved network names a class of a package that the user does not allow.

    allow: names of packages, in addition to those that the environment variable UNIEMOX_ALLOW_PACKAGES lists.
    """
    allowed = {*allow, *os.environ.get(ALLOW, "").split(",")}
    for name in names:
        package = (name or "").partition(":")[0].partition(".")[0]
        if name is not None and is_foreign(name) and package not in allowed:
            raise CheckpointError(
                f"it needs {name}, and loading it runs code of the package {package}, which is not uniemox's; if you "
                f"trust that package, set {ALLOW}={package}, or pass allow=({package!r},) to load_classifier"
            )


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
    """Settings of the model. Every ablation of tables IV to VI of the paper is one of these settings."""

    fusion: str | None = "attention"
    """Fusion of α and β into Υ: static, dynamic, attention, gated, scaled_attention, or a class of your own as
    mypackage.module:MyFusion. None: Υ = α, the scene alone."""
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
        """Return whether a loss needs the teacher's Ω."""
        return self.needs_text_features or self.losses.semantic_visual_alignment > 0

    @property
    def needs_text_features(self) -> bool:
        """Return whether a loss needs the teacher's Λ."""
        return self.losses.contrastive_feature_alignment > 0

    @property
    def needs_person(self) -> bool:
        """Return whether the person view is used: reconstructed, or fused into a Υ that a loss reads."""
        return self.losses.person_reconstruction > 0 or (self.fusion is not None and self.needs_image_features)
