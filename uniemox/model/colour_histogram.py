"""The least that a model must beat: what the colours of an image say, without any learned feature."""

import torch
from torch import Tensor, nn

from uniemox.views.pixels import IMAGENET

HUES, SATURATIONS, VALUES = 8, 4, 4  # bins of HSV, 128 together
THUMBNAIL = 6  # cells of a side
FEATURES = HUES * SATURATIONS * VALUES + 3 * THUMBNAIL**2


class ColourHistogram(nn.Module):
    """(N, 3, H, W) -> (N, 236): roots of the shares of pixels in 128 HSV bins, then the mean colours of 6 x 6 cells.

    It has no weights. The root evens out rare and frequent colours (the Hellinger kernel); its squares sum to 1.
    Mean colours are 0 to 1, channel by channel, row by row. In float32 whatever the precision around it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET.mean)[:, None, None], persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(IMAGENET.std)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W), ImageNet-normalised.  Returns (N, 236)."""
        with torch.autocast(x.device.type, enabled=False):
            rgb = ((x.float() * self.std + self.mean) * 255).round().clamp(0, 255)  # whole: no bin hangs on rounding
            bins = hsv_bins(rgb).flatten(1)  # (N, HW)
            counts = rgb.new_zeros(rgb.shape[0], HUES * SATURATIONS * VALUES)  # (N, 128)
            counts = counts.scatter_add(1, bins, torch.ones_like(bins, dtype=counts.dtype))
            rows, columns = (cell_means(side, x.device) for side in rgb.shape[-2:])
            cells = rows @ rgb @ columns.T / 255  # (N, 3, 6, 6)
            return torch.cat([(counts / bins.shape[1]).sqrt(), cells.flatten(1)], dim=1)  # (N, 236)


def hsv_bins(rgb: Tensor) -> Tensor:
    """The bin of every pixel, 0 to 127, of equal steps in hue, saturation and value.

    rgb: (N, 3, H, W), whole numbers 0 to 255.  Returns (N, H, W) int64. Grey has hue 0, black saturation 0.
    """
    red, green, blue = rgb.unbind(dim=1)  # (N, H, W) each
    value, minimum = rgb.amax(dim=1), rgb.amin(dim=1)
    spread = value - minimum
    safe = spread.clamp(min=1)  # the smallest spread of a pixel that is not grey
    of_green, of_blue = 2 + (blue - red) / safe, 4 + (red - green) / safe
    hue = torch.where(value == red, (green - blue) / safe, torch.where(value == green, of_green, of_blue))
    hue = torch.where(hue < 0, hue + 6, hue)  # 0 to below 6
    hues = (hue * (HUES / 6)).floor().clamp(max=HUES - 1)
    saturations = (SATURATIONS * spread / value.clamp(min=1)).floor().clamp(max=SATURATIONS - 1)
    values = (VALUES * value / 256).floor()
    return ((hues * SATURATIONS + saturations) * VALUES + values).long()


def cell_means(side: int, device: torch.device) -> Tensor:
    """How much each of `side` pixels counts in each of 6 cells of equal width, which may cut pixels: (6, side)."""
    edges = torch.arange(THUMBNAIL + 1, device=device) * (side / THUMBNAIL)  # (7,)
    pixels = torch.arange(side, device=device)
    last = torch.minimum(edges[1:, None], pixels + 1)  # (6, side)
    overlap = (last - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    return overlap * (THUMBNAIL / side)
