"""Position tables for another input size, each as its method's own fine-tuning resizes it.

The rules differ visibly: DINO's scale factor is not MAE's size, BEiT's spline runs over a geometric grid where MixMAE's
bicubic does not, and CAE starts anew. All tables are float32.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
EXTRA_ROWS = 3  # of a BEiT table: CLS to token, token to CLS, CLS to CLS


def resize_position(table: Tensor, grid: Grid, *, extra: int = 1) -> Tensor:
    """Bicubic, to a size; `extra` leading rows are kept. MAE, dBOT, SiameseIM, TinyMIM, DeiT (MoCo v3), MixMAE.

    table: (1, extra + L, C), L a square.  Returns (1, extra + rows * columns, C).
    Source: facebookresearch/mae, util/pos_embed.py; Sense-X/MixMIM, util/pos_embed.py (extra = 0).
    """
    return _resize(table, extra, lambda x: F.interpolate(x, size=grid, mode="bicubic", align_corners=False))


def resize_position_dino(table: Tensor, grid: Grid) -> Tensor:
    """Bicubic, by a scale factor that is a tenth of a patch too large. DINO.

    table: (1, 1 + L, C), L a square.  Returns (1, 1 + rows * columns, C).
    Source: facebookresearch/dino, vision_transformer.py, interpolate_pos_encoding.
    """
    side = math.sqrt(table.shape[1] - 1)
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    return _resize(table, 1, lambda x: F.interpolate(x, scale_factor=scale, mode="bicubic"))


def _resize(table: Tensor, extra: int, interpolate: Callable[[Tensor], Tensor]) -> Tensor:
    side = math.isqrt(table.shape[1] - extra)
    kept, patches = table[:, :extra], table[:, extra:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
    patches = interpolate(patches.float()).flatten(2).transpose(1, 2)  # (1, rows * columns, C)
    return torch.cat([kept, patches], dim=1)


def resize_bias_bicubic(table: Tensor, rows: int) -> Tensor:
    """A relative-position table by plain bicubic interpolation. MixMAE.

    table: (S*S, heads); rows: D*D.  Returns (rows, heads).  Source: Sense-X/MixMIM, util/pos_embed.py.
    """
    source, target = math.isqrt(len(table)), math.isqrt(rows)
    x = table.T.reshape(1, -1, source, source).float()  # (1, heads, S, S)
    x = F.interpolate(x, size=(target, target), mode="bicubic", align_corners=False)
    return x.flatten(2)[0].T.contiguous()  # (D*D, heads)


def resize_bias_geometric(table: Tensor, rows: int, *, extra: int = 0) -> Tensor:
    """A relative-position table by a cubic spline over distances that grow as q^k. BEiT, SimMIM.

    table: (S*S + extra, heads); rows: D*D + extra; the last `extra` rows are kept.  Returns (rows, heads).
    Distances beyond the source grid take its border value, as scipy's interp2d did, whose place RectBivariateSpline
    takes as scipy documents.  Source: microsoft/unilm, beit/run_class_finetuning.py; microsoft/SimMIM, utils.py.
    """
    from scipy.interpolate import RectBivariateSpline  # noqa: PLC0415 - a quarter of a second to import

    body, kept = table[: len(table) - extra], table[len(table) - extra :]
    source, target = math.isqrt(len(body)), math.isqrt(rows - extra)
    if source == target:
        return table
    if table.is_meta:  # where only shapes are asked for
        return table.new_empty(rows, table.shape[1])
    distances = np.cumsum(_growth(source // 2, target // 2) ** np.arange(source // 2))
    x = np.concatenate([-distances[::-1], [0.0], distances])  # (S,)
    wanted = np.arange(-(target // 2), target // 2 + 1)  # (D,)
    heads = body.float().reshape(source, source, -1).numpy()
    resized = [RectBivariateSpline(x, x, heads[:, :, i])(wanted, wanted).ravel() for i in range(heads.shape[2])]
    return torch.cat([torch.from_numpy(np.stack(resized, axis=1)).float(), kept.float()])


def _growth(source: int, target: int) -> float:
    """q such that 1 + q + ... + q^(source - 1) is close to target, by the official bisection, its bounds included."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**source) / (1 - q) > target:
            high = q
        else:
            low = q
    return q
