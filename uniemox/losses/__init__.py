"""Losses: equations 1, 7 to 10 and 12 of arXiv 2409.18877, and losses of other methods.

Each name is imported at first use, so `losses.config` can be read without torch.
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


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name in __all__:
        for module in ("objective", "methods"):
            names = vars(import_module(f"{__name__}.{module}"))
            if name in names:
                return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
