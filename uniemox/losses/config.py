"""Weights of the pre-training losses."""

from dataclasses import dataclass, fields

from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weight of each loss, 0 or more. 0 turns the loss off, with every computation that only it needs."""

    scene_reconstruction: float = 1.0
    """Weight of L1 of the scene, the reconstruction of hidden scene patches."""
    person_reconstruction: float = 1.0
    """w, weight of L1 of the person, the reconstruction of hidden person patches. The authors' code used 0."""
    contrastive_feature_alignment: float = 1.0
    """Weight of L2, which matches fused features with text features of the teacher."""
    semantic_visual_alignment: float = 1.0
    """Weight of L3, which matches fused features with image features of the teacher."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"losses.{name} must be a finite number of at least 0, got {value}")
        if not any(values.values()):
            raise ConfigError(f"every loss is turned off; give one of {', '.join(values)} a weight above 0")
