"""Settings of the network that is pre-trained, and names of fusions and region methods."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from uniemox.bounds import check_numbers
from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.plugins import plugins_of
from uniemox.losses.config import LossWeights
from uniemox.views.config import MaskConfig

Precision = Literal["float32", "bfloat16"]
AdaptedLayers = Literal["attention", "all"]
"""Linear layers of an encoder that method lora changes: those of the attention, or all."""

FUSIONS: dict[str, str] = {
    "static": "uniemox.model.fusion:StaticFusion",
    "dynamic": "uniemox.model.fusion:DynamicFusion",
    "attention": "uniemox.model.fusion:AttentionFusion",
    "gated": "uniemox.model.fusion:GatedFusion",
    "scaled_attention": "uniemox.model.fusion:scaled_attention",
}
"""Fusions by name: the paper's Γ4, Γ1, Γ2, Γ3, and our scaled_attention, a Γ2 that keeps the scale of its inputs."""
REGION_METHODS: dict[str, str] = {name: entry.value for name, entry in plugins_of("uniemox.methods").items()}
"""Methods that relate regions of an image, of installed packages: those that the paper compares with, and others."""
ALLOW = "UNIEMOX_ALLOW_PACKAGES"


def check_fusion(name: str, channels: int, heads: int) -> None:
    """Check the settings of a fusion.

    Args:
        name: One of FUSIONS, or mypackage.module:MyFusion.
        channels: C, number of channels of the features.
        heads: κ, number of sets of fusion weights.

    Raises:
        ConfigError: For another name, or for numbers below 1.
    """
    check_import_name(name, FUSIONS, "fusion")
    if channels < 1 or heads < 1:
        raise ConfigError(f"fusion needs at least one channel and one head, got channels={channels}, heads={heads}")


def check_import_name(name: str, table: Iterable[str], kind: str) -> None:
    """Check the name of a class.

    Args:
        name: A key of the table, or mypackage.module:Name.
        table: Names of our own classes.
        kind: What the class is, for the message.

    Raises:
        ConfigError: For any other name.
    """
    if name not in table and not is_foreign(name):
        raise ConfigError(
            f"there is no {kind} {name!r}; choose one of {', '.join(table)}, or name a class of your own as "
            "mypackage.module:Name"
        )


def is_foreign(name: str | None) -> bool:
    """Return True for a name of the form mypackage.module:Name, a class outside of uniemox."""
    return bool(name and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name))


def import_named(name: str, table: Mapping[str, str]) -> Any:
    """Import an object by its name in the table, or by mypackage.module:Name.

    Raises:
        ConfigError: If the module or the object can't be imported.
    """
    module, _, attribute = table.get(name, name).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name} can't be imported: {error}; install its package, or put the package's folder into PYTHONPATH"
        ) from error


def refuse_foreign(names: Iterable[str | None], allow: Collection[str] = ()) -> None:
    """Refuse saved networks that name a class of a package that the user does not allow.

    Args:
        names: Classes that the network names; None and our own names are allowed.
        allow: Names of packages, in addition to those that the environment variable UNIEMOX_ALLOW_PACKAGES lists.

    Raises:
        CheckpointError: If loading would run code of another package.
    """
    allowed = {*allow, *os.environ.get(ALLOW, "").split(",")}
    for name in names:
        package = (name or "").partition(":")[0].partition(".")[0]
        # Importing a module runs its code, so a file must not choose which one is imported.
        if name is not None and is_foreign(name) and package not in allowed:
            raise CheckpointError(
                f"the model needs {name}: loading it runs code of the package {package}, which is not part of uniemox; "
                f"if you trust the package, set {ALLOW}={package}, or pass allow=({package!r},) to load_classifier"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Size of the decoder. Its width is also the width of α, β and Υ."""

    width: int = 512
    """C3, number of channels; a multiple of 4 and of heads. The default is also the width of CLIP ViT-B's features."""
    depth: int = 8
    """Number of decoder blocks, at least 1."""
    heads: int = 16
    """Number of attention heads per block; must divide width."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4 or self.depth < 1 or self.heads < 1 or self.width % self.heads:
            raise ConfigError(
                f"decoder.width must be a positive multiple of 4 and of decoder.heads, and decoder.depth at least 1; "
                f"got width={self.width}, heads={self.heads}, depth={self.depth}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Settings of the network. Every ablation of tables IV to VI of the paper changes one of these settings."""

    fusion: str | None = "attention"
    """Fusion of the scene feature α and the person feature β into Υ: static, dynamic, attention, gated,
    scaled_attention, or your own class as mypackage.module:MyFusion. None: Υ = α, the scene alone."""
    fusion_heads: int = 3
    """κ, number of heads of the fusion, each with its own weights, at least 1."""
    norm_pix: bool = False
    """Reconstruct the standardised pixels of each patch, an option of MAE, instead of the raw pixels."""
    temperature: float = 14.2857
    """τ of equation 8, above 0; it has no effect on equation 9. The default is CLIP's initial value, 1 / 0.07."""
    teacher_width: int | None = None
    """Channels of the teacher's features. None: the decoder's width. Another number adds a learned projection of Υ."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.fusion is not None:
            check_fusion(self.fusion, self.decoder.width, self.fusion_heads)
        check_numbers(self, "model.", above={"temperature": 0}, at_least={"teacher_width": 1})

    @property
    def needs_image_features(self) -> bool:
        """True if a loss needs the teacher's image features Ω."""
        return self.needs_text_features or self.losses.semantic_visual_alignment > 0

    @property
    def needs_text_features(self) -> bool:
        """True if a loss needs the teacher's text features Λ."""
        return self.losses.contrastive_feature_alignment > 0

    @property
    def needs_person(self) -> bool:
        """True if the person view is needed: for its reconstruction, or for a fused Υ that a loss reads."""
        return self.losses.person_reconstruction > 0 or (self.fusion is not None and self.needs_image_features)
