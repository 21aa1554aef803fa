"""Weights of the losses of pre-training."""

from dataclasses import dataclass, fields

from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weight of each loss. 0 turns it off, with everything that only it needs."""

    scene_reconstruction: float = 1.0
    """L1 of the scene."""
    person_reconstruction: float = 1.0
    """w, L1 of the person. The paper's released code used 0."""
    contrastive_feature_alignment: float = 1.0
    """L2."""
    semantic_visual_alignment: float = 1.0
    """L3."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"losses.{name} must be a finite number of at least 0, got {value}")
        if not any(values.values()):
            raise ConfigError(f"every loss is turned off; give one of {', '.join(values)} a weight above 0")
