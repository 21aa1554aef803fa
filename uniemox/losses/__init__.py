"""From features to one number: equations 1, 7 to 10 and 12 of arXiv 2409.18877, and losses of methods beside it.

Each name is imported when it is first used: `losses.config` is read where torch is not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.losses.alignment import contrastive_feature_alignment, semantic_visual_alignment
    from uniemox.losses.hierarchy import hierarchical_cross_entropy, polarity_loss
    from uniemox.losses.multiplicative import multiplicative_loss
    from uniemox.losses.reconstruction import reconstruction_loss
    from uniemox.losses.soft_target import soft_target_cross_entropy
    from uniemox.losses.triplet_words import word_alignment_loss

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
    "contrastive_feature_alignment": "uniemox.losses.alignment",
    "hierarchical_cross_entropy": "uniemox.losses.hierarchy",
    "multiplicative_loss": "uniemox.losses.multiplicative",
    "polarity_loss": "uniemox.losses.hierarchy",
    "reconstruction_loss": "uniemox.losses.reconstruction",
    "semantic_visual_alignment": "uniemox.losses.alignment",
    "soft_target_cross_entropy": "uniemox.losses.soft_target",
    "word_alignment_loss": "uniemox.losses.triplet_words",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
