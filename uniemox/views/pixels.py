"""Pixels as the encoder takes them."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from uniemox.errors import ShapeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of pixels in [0, 1], by channel
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelStats(NamedTuple):
    """What pixels in [0, 1] are normalised with, by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = PixelStats(IMAGENET_MEAN, IMAGENET_STD)


def normalise(images: Tensor, device: torch.device, stats: PixelStats = IMAGENET) -> Tensor:
    """Images on the device, normalised.

    images: (N, 3, H, W) uint8, RGB.  Returns float32 of the same shape. Raises ShapeError for another type.
    """
    if images.dtype != torch.uint8:
        raise ShapeError(f"expected images as uint8, 0 to 255, got {str(images.dtype).removeprefix('torch.')}")
    middle, scale = _constants(stats, device)
    return images.to(device, non_blocking=True).float().sub_(middle).div_(scale)


@cache
def _constants(stats: PixelStats, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixels of 0 to 255, (3, 1, 1): made once, as each copy to a GPU makes the host wait."""
    with torch.inference_mode(False):
        middle, scale = (torch.tensor(values).view(3, 1, 1) * 255 for values in stats)
    return middle.to(device), scale.to(device)
