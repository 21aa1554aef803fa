"""From features to one number: equations 1, 7 to 10 and 12 of arXiv 2409.18877."""

from uniemox.losses.alignment import contrastive_feature_alignment, semantic_visual_alignment
from uniemox.losses.reconstruction import reconstruction_loss
from uniemox.losses.soft_target import soft_target_cross_entropy

__all__ = [
    "contrastive_feature_alignment",
    "reconstruction_loss",
    "semantic_visual_alignment",
    "soft_target_cross_entropy",
]
