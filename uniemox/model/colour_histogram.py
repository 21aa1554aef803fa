"""Encoder without weights, for the trivial baseline: shares of colours and a thumbnail."""

import torch
from torch import Tensor, nn

from uniemox.views.patches import IMAGENET

# Numbers of bins: 8 * 4 * 4 = 128 in all.
HUES = 8
SATURATIONS = 4
VALUES = 4
# Cells per side, of which the mean colours are features.
THUMBNAIL = 6
HISTOGRAM_WIDTH = HUES * SATURATIONS * VALUES + 3 * THUMBNAIL**2


class ColourHistogram(nn.Module):
    """Encoder without weights: roots of 128 HSV bin shares, then mean colours of 6 x 6 cells; (N, 3, H, W) -> (N, 236).

    The root balances rare and frequent colours (Hellinger kernel); the squares of the roots sum to 1.
    Mean colours are 0 to 1, channel by channel, row by row. Always computed in float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET.mean)[:, None, None], persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(IMAGENET.std)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 236).  x: (N, 3, H, W), ImageNet-normalised."""
        with torch.autocast(x.device.type, enabled=False):
            # Whole numbers, so that rounding errors of the normalisation do not move a pixel to another bin.
            rgb = ((x.float() * self.std + self.mean) * 255).round().clamp(0, 255)  # (N, 3, H, W)
            bins = hsv_bins(rgb).flatten(1)  # (N, HW)
            counts = rgb.new_zeros(rgb.shape[0], HUES * SATURATIONS * VALUES)  # (N, 128)
            counts = counts.scatter_add(1, bins, torch.ones_like(bins, dtype=counts.dtype))
            rows, columns = (cell_weights(side, x.device) for side in rgb.shape[-2:])  # (6, H), (6, W)
            cells = rows @ rgb @ columns.T / 255  # (N, 3, 6, 6)
            return torch.cat([(counts / bins.shape[1]).sqrt(), cells.flatten(1)], dim=1)  # (N, 236)


def hsv_bins(rgb: Tensor) -> Tensor:
    """Return the bin of every pixel, 0 to 127, in equal steps of hue, saturation and value.

    Grey has hue 0, black saturation 0.

    Args:
        rgb: (N, 3, H, W), whole numbers 0 to 255.

    Returns:
        (N, H, W) int64.
    """
    red, green, blue = rgb.unbind(dim=1)  # (N, H, W) each
    value = rgb.amax(dim=1)
    minimum = rgb.amin(dim=1)
    spread = value - minimum
    # A pixel that is not grey has a spread of at least 1, so this changes grey ones only.
    divisor = spread.clamp(min=1)
    if_red = (green - blue) / divisor
    if_green = 2 + (blue - red) / divisor
    if_blue = 4 + (red - green) / divisor
    hue = torch.where(value == red, if_red, torch.where(value == green, if_green, if_blue))
    hue = torch.where(hue < 0, hue + 6, hue)  # 0 to below 6
    hues = (hue * (HUES / 6)).floor().clamp(max=HUES - 1)
    saturations = (SATURATIONS * spread / value.clamp(min=1)).floor().clamp(max=SATURATIONS - 1)
    values = (VALUES * value / 256).floor()
    return ((hues * SATURATIONS + saturations) * VALUES + values).long()  # (N, H, W)


def cell_weights(side: int, device: torch.device) -> Tensor:
    """Return the weight of each of `side` pixels in the means of 6 cells of equal width: (6, side)."""
    edges = torch.arange(THUMBNAIL + 1, device=device) * (side / THUMBNAIL)  # (7,)
    pixels = torch.arange(side, device=device)
    start = torch.maximum(edges[:-1, None], pixels)  # (6, side)
    end = torch.minimum(edges[1:, None], pixels + 1)  # (6, side)
    overlap = (end - start).clamp(min=0)
    return overlap * (THUMBNAIL / side)
