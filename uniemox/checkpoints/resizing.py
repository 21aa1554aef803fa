"""Position tables of published networks at another image size, by each method's own rule."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns of patches."""


def resize_position(table: Tensor, grid: Grid, *, extra: int = 1, antialias: bool = False) -> Tensor:
    """Resize a table bicubically; `extra` leading rows stay.

    This is the rule of MAE, dBOT, SiameseIM, TinyMIM, DeiT (MoCo v3) and MixMAE.
    Source: facebookresearch/mae, util/pos_embed.py; Sense-X/MixMIM, util/pos_embed.py (extra = 0);
    facebookresearch/dinov2, hub/backbones.py (interpolate_antialias=True, interpolate_offset=0.0).

    Args:
        table: (1, extra + L, C), L a square.
        grid: Rows and columns of the new size.
        extra: Number of leading rows that belong to no patch.
        antialias: Filter when shrinking, as timm does, and DINOv2 with registers.

    Returns:
        (1, extra + rows * columns, C).
    """
    if table.is_meta:
        # For the shape alone, torch would run its interpolation in Python, which is slow.
        return table.new_empty(1, extra + math.prod(grid), table.shape[2])
    return resample_abs_pos_embed(table, list(grid), num_prefix_tokens=extra, antialias=antialias)


def resize_position_dino(table: Tensor, grid: Grid) -> Tensor:
    """Resize a table bicubically by a scale factor that is a tenth of a patch too large, as DINO does.

    Source: facebookresearch/dino, vision_transformer.py, interpolate_pos_encoding.

    Args:
        table: (1, 1 + L, C), L a square.
        grid: Rows and columns of the new size.

    Returns:
        (1, 1 + rows * columns, C).
    """
    side = math.isqrt(table.shape[1] - 1)
    return _interpolate(table, scale_factor=((grid[0] + 0.1) / side, (grid[1] + 0.1) / side))


def resize_position_torchvision(table: Tensor, grid: Grid) -> Tensor:
    """Resize a table bicubically so that its corners stay, as torchvision does.

    Source: pytorch/vision, models/vision_transformer.py, interpolate_embeddings.

    Args:
        table: (1, 1 + L, C), L a square.
        grid: Rows and columns of the new size.

    Returns:
        (1, 1 + rows * columns, C).
    """
    return _interpolate(table, size=grid, align_corners=True)


def _interpolate(table: Tensor, **options: Any) -> Tensor:
    """Resize a table, (1, 1 + L, C), bicubically; the first row stays.  options: of torch's `interpolate`."""
    side = math.isqrt(table.shape[1] - 1)
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
    patches = F.interpolate(patches.float(), mode="bicubic", **options)  # (1, C, rows, columns)
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)  # (1, 1 + rows * columns, C)


def resize_bias_bicubic(table: Tensor, rows: int) -> Tensor:
    """Resize a relative-position table by plain bicubic interpolation, as MixMAE does.

    Source: Sense-X/MixMIM, util/pos_embed.py.

    Args:
        table: (S*S, heads).
        rows: D*D, number of rows of the new table.

    Returns:
        (rows, heads).
    """
    side = math.isqrt(rows)
    return resize_position(table[None], (side, side), extra=0)[0]


def resize_bias_geometric(table: Tensor, rows: int, *, extra: int = 0) -> Tensor:
    """Resize a relative-position table by a cubic spline over distances that grow as q^k, as BEiT and SimMIM do.

    Distances beyond the source grid get its border value, as in scipy's interp2d; RectBivariateSpline replaces it, as
    scipy documents. Source: microsoft/unilm, beit/run_class_finetuning.py; microsoft/SimMIM, utils.py.

    Args:
        table: (S*S + extra, heads).
        rows: D*D + extra, number of rows of the new table.
        extra: Number of last rows, which stay unchanged.

    Returns:
        (rows, heads).
    """
    # Takes a quarter of a second to import.
    from scipy.interpolate import RectBivariateSpline  # noqa: PLC0415

    # On the meta device only the shape matters, and numpy can't read the values.
    if table.is_meta:
        return table.new_empty(rows, table.shape[1])
    grid_rows = table[: len(table) - extra]  # (S*S, heads)
    extra_rows = table[len(table) - extra :]  # (extra, heads)
    source = math.isqrt(len(grid_rows))
    target = math.isqrt(rows - extra)
    distances = np.cumsum(growth(source // 2, target // 2) ** np.arange(source // 2))
    x = np.concatenate([-distances[::-1], [0.0], distances])  # (S,)
    new_x = np.arange(-(target // 2), target // 2 + 1)  # (D,)
    values = grid_rows.float().reshape(source, source, -1).numpy()  # (S, S, heads)
    resized = [RectBivariateSpline(x, x, values[:, :, i])(new_x, new_x).ravel() for i in range(values.shape[2])]
    resized_rows = torch.from_numpy(np.stack(resized, axis=1)).float()  # (D*D, heads)
    return torch.cat([resized_rows, extra_rows.float()])  # (rows, heads)


def growth(source: int, target: int) -> float:
    """Return q such that 1 + q + ... + q^(source - 1) is close to target, by the official bisection and its bounds."""
    low = 1.01
    high = 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**source) / (1 - q) > target:
            high = q
        else:
            low = q
    return q
