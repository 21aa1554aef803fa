"""Mixup and CutMix of a batch with itself in reverse order, as in timm.

The mixing is drawn before any pixel is mixed: the targets of all batches of a step are then known before its first
forward pass, and with them the weights by which the step's loss is divided.
"""

from dataclasses import dataclass

import torch
from timm.data.mixup import Mixup, cutmix_bbox_and_lam, mixup_target
from torch import Tensor

from uniemox.finetune.config import AugmentConfig


@dataclass(frozen=True, slots=True)
class Mixing:
    """Mixing of the first `count` images of a batch, an even number, with the same images in reverse order."""

    count: int
    share: float
    """Share of an image's own pixels and target, 0 to 1."""
    box: tuple[int, int, int, int] | None
    """Rows y1 to y2 and columns x1 to x2 that CutMix replaces, px, y2 and x2 excluded; None: mixup."""

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return mixed targets, (N, E), for targets (N, E)."""
        rows = torch.arange(self.count, device=targets.device)
        shares = mixup_target(rows, self.count, self.share)  # (count, count): share of image j in image i
        return torch.cat([shares @ targets[: self.count], targets[self.count :]])

    def mix_pixels(self, pixels: Tensor) -> None:
        """Mix the pixels of a batch, (N, K, H, W), in place."""
        mixed = pixels[: self.count]
        if self.box is not None:
            y1, y2, x1, x2 = self.box
            mixed[:, :, y1:y2, x1:x2] = mixed.flip(0)[:, :, y1:y2, x1:x2]
        elif self.share < 1:
            reversed_part = mixed.flip(0).mul_(1 - self.share)
            mixed.mul_(self.share).add_(reversed_part)


def draw_mixing(count: int, size: tuple[int, int], config: AugmentConfig) -> Mixing | None:
    """Draw how a batch is mixed, from numpy's global generator, in the order of timm's own Mixup.

    Args:
        count: Number of images in the batch; the last one of an odd number stays unmixed.
        size: Height and width of the views, px.
        config: Settings of mixup and CutMix.

    Returns:
        How to mix the batch; None if nothing is mixed.
    """
    even = count // 2 * 2
    if even == 0 or (config.mixup == 0 and config.cutmix == 0):
        return None
    mixup = Mixup(config.mixup, config.cutmix)
    # This is the only part of timm's Mixup that does not need the pixels.
    share, uses_cutmix = mixup._params_per_batch()
    if not uses_cutmix or share == 1:
        return Mixing(even, share, None)
    (y1, y2, x1, x2), share = cutmix_bbox_and_lam(size, share)
    return Mixing(even, share, (int(y1), int(y2), int(x1), int(x2)))
