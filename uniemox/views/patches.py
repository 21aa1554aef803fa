"""Pixels, patches and masks of a view."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uniemox.errors import ConfigError, ShapeError
from uniemox.network_spec import IMAGENET_MEAN, IMAGENET_STD
from uniemox.views.transfer import to_device


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return the number of rows and columns of patches.

    Args:
        image_size: Height and width in px.
        patch_size: Side of a patch in px.

    Raises:
        ShapeError: If the patch does not divide the image.
    """
    height, width = image_size
    if height % patch_size or width % patch_size:
        raise ShapeError(
            f"an image of {height} x {width} px cannot be cut into patches of {patch_size} px; "
            f"choose a size that {patch_size} divides, e.g. {max(1, round(height / patch_size)) * patch_size} px"
        )
    return height // patch_size, width // patch_size


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, row by row; within a patch pixels run by row, column, channel.

    Source: facebookresearch/mae, models_mae.py.

    Args:
        images: (N, 3, H, W), H and W multiples of patch_size.
        patch_size: p, side of a patch in px.

    Returns:
        (N, L, P), P = patch_size**2 * 3.

    Raises:
        ShapeError: For other shapes.

    >>> import torch
    >>> patchify(torch.zeros(2, 3, 32, 48), 16).shape
    torch.Size([2, 6, 768])
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"expected images of shape (N, 3, H, W), got {tuple(images.shape)}")
    count, channels, height, width = images.shape
    rows, columns = patch_grid((height, width), patch_size)
    x = images.reshape(count, channels, rows, patch_size, columns, patch_size)  # (N, 3, rows, p, columns, p)
    x = x.permute(0, 2, 4, 3, 5, 1)  # (N, rows, columns, p, p, 3)
    return x.reshape(count, rows * columns, patch_size**2 * channels)  # (N, L, P)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Put patches together: the inverse of `patchify`.

    Args:
        patches: (N, L, P), P = patch_size**2 * 3.
        patch_size: p, side of a patch in px.
        grid: Rows and columns of patches, L = rows * columns.

    Returns:
        (N, 3, H, W).

    Raises:
        ShapeError: If the patches do not fit the grid or the patch size.
    """
    rows, columns = grid
    count, length, pixels = patches.shape
    if length != rows * columns or pixels != patch_size**2 * 3:
        raise ShapeError(
            f"expected patches of shape (N, {rows * columns}, {patch_size**2 * 3}) for a {rows} x {columns} grid "
            f"of {patch_size} px patches, got {tuple(patches.shape)}"
        )
    x = patches.reshape(count, rows, columns, patch_size, patch_size, 3)  # (N, rows, columns, p, p, 3)
    x = x.permute(0, 5, 1, 3, 2, 4)  # (N, 3, rows, p, columns, p)
    return x.reshape(count, 3, rows * patch_size, columns * patch_size)  # (N, 3, H, W)


class Mask(NamedTuple):
    """Mask of a batch. K patches are visible, L - K hidden."""

    visible: Tensor  # (N, K) indices of the visible patches, in the encoder's order
    hidden: Tensor  # (N, L) float32, 1 hidden, 0 visible


def random_mask(noise: Tensor, ratio: float) -> Mask:
    """Hide the patches with the largest noise, per image.

    Args:
        noise: (N, L) random numbers; the same noise gives the same mask.
        ratio: μ, share of hidden patches, between 0 and 1.

    Raises:
        ConfigError: If no patch would be visible, or none hidden.
    """
    length = noise.shape[1]
    keep = int(length * (1 - ratio)) if 0 < ratio < 1 else 0  # K
    if not 0 < keep < length:
        raise ConfigError(
            f"mask ratio {ratio} of {length} patches leaves {keep} visible and {length - keep} to reconstruct; "
            "both must be at least 1: change the ratio, strictly between 0 and 1, or use more patches"
        )
    # A stable sort, so that equal noise gives the same mask on every device.
    visible = noise.argsort(dim=1, stable=True)[:, :keep]  # (N, K)
    hidden = torch.ones(noise.shape, device=noise.device).scatter(1, visible, 0)  # (N, L)
    return Mask(visible, hidden)


def mask_noise(keys: Sequence[str], length: int, *, seed: int, epoch: int, stream: str) -> Tensor:
    """Draw noise for `random_mask`; it depends only on seed, epoch, sample and stream, not on the order of work.

    Args:
        keys: N names of samples.
        length: L, number of patches per image.
        seed: Random seed of the run.
        epoch: Number of the epoch.
        stream: "scene" or "person".

    Returns:
        (N, L) float32 in [0, 1).
    """
    rows = np.empty((len(keys), length), np.float32)
    for row, key in zip(rows, keys, strict=True):
        # Names of files may hold surrogates, which stand for bytes that are not UTF-8.
        name = f"{seed}/{epoch}/{stream}/{key}".encode("utf-8", "surrogatepass")
        state = int.from_bytes(hashlib.sha256(name).digest()[:16], "big")
        row[:] = np.random.Generator(np.random.PCG64(state)).random(length, np.float32)
    return torch.from_numpy(rows)  # (N, L)


class PixelStats(NamedTuple):
    """Mean and standard deviation that normalise pixels in [0, 1], by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = PixelStats(IMAGENET_MEAN, IMAGENET_STD)


def normalise(images: Tensor, device: torch.device, stats: PixelStats = IMAGENET) -> Tensor:
    """Move images to the device and normalise them.

    Args:
        images: (N, 3, H, W) uint8, RGB.
        device: Device of the result.
        stats: Mean and standard deviation of pixels on a scale of 0 to 1.

    Returns:
        (N, 3, H, W) float32.

    Raises:
        ShapeError: For images of another type than uint8.
    """
    if images.dtype != torch.uint8:
        raise ShapeError(f"expected images as uint8, 0 to 255, got {str(images.dtype).removeprefix('torch.')}")
    mean, std = pixel_constants(stats, device, maximum=255)  # (3, 1, 1) each
    return to_device(images, device).float().sub_(mean).div_(std)


@cache
def pixel_constants(stats: PixelStats, device: torch.device, maximum: int = 1) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of pixels, (3, 1, 1) float32; cached, because the host waits for each copy.

    Args:
        stats: Mean and standard deviation on a scale of 0 to 1.
        device: Device of the result.
        maximum: Value of white, 1 or 255.
    """
    # Autograd refuses tensors that were made or copied in inference mode, and a later call may train with these.
    with torch.inference_mode(False):
        mean, std = ((torch.tensor(values).view(3, 1, 1) * maximum).to(device) for values in stats)
    return mean, std
