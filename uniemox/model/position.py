"""Fixed sine-cosine position tables."""

import torch
from torch import Tensor


def sincos_position(channels: int, grid: tuple[int, int], *, rows_first: bool = False) -> Tensor:
    """Sines and cosines of the column, then of the row; a zero row for the CLS token comes first.

    channels: C, a multiple of 4.  grid: rows and columns.  Returns (1, 1 + rows * columns, C).
    rows_first: the row, then the column: MoCo v3, CAE and SiameseIM, where MAE, dBOT, TinyMIM and MixMAE begin with the
    column.  Source: facebookresearch/mae, util/pos_embed.py; facebookresearch/moco-v3, vits.py.
    """
    rows, columns = grid
    bands = 10000.0 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))  # (C/4,)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = (row, column) if rows_first else (column, row)
    angles = [place.flatten()[:, None] * bands for place in places]  # 2 x (L, C/4)
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)  # (L, C)
    return torch.cat([table.new_zeros(1, channels), table])[None].float()
