"""From features to one number: equations 1, 7 to 10 and 12 of arXiv 2409.18877, and losses of methods beside it.

Each name is imported when it is first used: `losses.config` is read where torch is not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.losses.methods import (
        hierarchical_cross_entropy,
        multiplicative_loss,
        polarity_loss,
        word_alignment_loss,
    )
    from uniemox.losses.objective import (
        contrastive_feature_alignment,
        reconstruction_loss,
        semantic_visual_alignment,
        soft_target_cross_entropy,
    )

__all__ = [
    "contrastive_feature_alignment",
    "hierarchical_cross_entropy",
    "multiplicative_loss",
    "polarity_loss",
    "reconstruction_loss",
    "semantic_visual_alignment",
    "soft_target_cross_entropy",
    "word_alignment_loss",
]
_MODULES = {
    "contrastive_feature_alignment": "uniemox.losses.objective",
    "hierarchical_cross_entropy": "uniemox.losses.methods",
    "multiplicative_loss": "uniemox.losses.methods",
    "polarity_loss": "uniemox.losses.methods",
    "reconstruction_loss": "uniemox.losses.objective",
    "semantic_visual_alignment": "uniemox.losses.objective",
    "soft_target_cross_entropy": "uniemox.losses.objective",
    "word_alignment_loss": "uniemox.losses.methods",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
