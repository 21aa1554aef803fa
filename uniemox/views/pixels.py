"""Pixels as the encoder takes them."""

import torch
from torch import Tensor

from uniemox.errors import ShapeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of pixels in [0, 1], by channel
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, device: torch.device) -> Tensor:
    """Pictures on the device, ImageNet-normalised.

    images: (N, 3, H, W) uint8, RGB.  Returns float32 of the same shape. Raises ShapeError for another type.
    """
    if images.dtype != torch.uint8:
        raise ShapeError(f"expected pictures as uint8, 0 to 255, got {str(images.dtype).removeprefix('torch.')}")
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1) * 255
    return images.to(device, non_blocking=True).float().sub_(mean).div_(std)
