"""A batch as a step of fine-tuning prepares it."""

import torch
from torch import Tensor

from uniemox.finetune.augmentation import augment_views, prepare_targets
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.views.patches import IMAGENET, PixelStats


def augment_batch(
    scene: Tensor | None,
    person: Tensor | None,
    targets: Tensor,
    config: AugmentConfig,
    *,
    task: Task,
    stats: PixelStats = IMAGENET,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Scene, person and targets, augmented alike, on the CPU."""
    mixed_targets, mixing = prepare_targets(scene, person, targets, config, task)
    views = augment_views(scene, person, config, mixing, device=torch.device("cpu"), stats=stats)
    return (*views, mixed_targets)
