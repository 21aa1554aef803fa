"""Encoders of a classifier, by their spec: networks of timm, MixMAE, a colour histogram, or several side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from timm.models._manipulate import group_with_matcher
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from uniemox.classifier_info import EncoderSpec, NetworkSpec
from uniemox.errors import CheckpointError, ConfigError
from uniemox.views.pixels import IMAGENET, PixelStats

MIXMAE, COLOUR_HISTOGRAM = "mixmae", "colour_histogram"  # encoders that timm does not have
OPTIONS = {
    *("num_classes", "img_size", "patch_size", "embed_dim", "depth", "depths", "num_heads", "global_pool"),
    *("init_values", "qkv_bias", "mlp_ratio", "use_abs_pos_emb", "window_size", "pad_type"),
    "conv_head",
}
HUES, SATURATIONS, VALUES = 8, 4, 4  # bins of HSV, 128 together
THUMBNAIL = 6  # cells of a side
FEATURES = HUES * SATURATIONS * VALUES + 3 * THUMBNAIL**2


def build_encoders(spec: NetworkSpec) -> nn.Module:
    """Build the encoder of a classifier with random weights; several become a `ConcatEncoder`.

    Raises CheckpointError for names or options that could make timm open other files.
    """
    if len(spec.encoders) == 1:
        return _build_one(spec.encoders[0])
    stats = [PixelStats(*(one.pixels or (spec.mean, spec.std))) for one in spec.encoders]
    return ConcatEncoder([_build_one(one) for one in spec.encoders], stats)


def _build_one(spec: EncoderSpec) -> nn.Module:
    foreign = spec.options.keys() - OPTIONS
    if spec.name == MIXMAE and not foreign:
        return MixMAEEncoder(**spec.options)
    if spec.name == COLOUR_HISTOGRAM and not spec.options:
        return ColourHistogram()
    if foreign or not timm.is_model(spec.name):
        raise CheckpointError(
            f"its encoder {spec.name!r} with {', '.join(sorted(foreign)) or 'its options'} is none of timm's"
        )
    return build_timm(spec.name, **spec.options)


def build_timm(name: str, *, conv_head: str = "", **options: Any) -> nn.Module:
    """Build a network of timm; conv_head="none" leaves out the last convolution.

    Raises CheckpointError where a network has no such convolution.
    """
    network: Any = timm.create_model(name, **options)
    if conv_head:
        if not hasattr(network, "conv_head"):
            raise CheckpointError(f"{name} has no convolution conv_head to leave out")
        network.prune_intermediate_layers(prune_head=True)
        network.reset_classifier(0, "avg")
    return network


class ConcatEncoder(nn.Module):
    """(N, 3, H, W) -> (N, D1 + D2 + ...); each encoder gets its pixels in its own normalisation.

    encoders: of timm, with features (N, D).  stats: what each one's pixels are normalised with; the views come in
    ImageNet's normalisation.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoders: Sequence[nn.Module], stats: Sequence[PixelStats]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        mean, std = (torch.tensor([getattr(one, name) for one in stats]) for name in PixelStats._fields)  # (K, 3)
        own_mean, own_std = torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)
        self.register_buffer("scale", (own_std / std)[..., None, None], persistent=False)  # (K, 3, 1, 1)
        self.register_buffer("shift", ((own_mean - mean) / std)[..., None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W).  Returns (N, D)."""
        features = [encoder(x * self.scale[i] + self.shift[i]) for i, encoder in enumerate(self.encoders)]
        return torch.cat(features, dim=1)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """From a parameter's name to the number of its layer in its own encoder, for timm's layer-wise decay."""
        layers: dict[str, int] = {}
        encoder: Any
        for i, encoder in enumerate(self.encoders):
            if not hasattr(encoder, "group_matcher"):
                raise ConfigError(f"layer_decay needs encoders of timm; {type(encoder).__name__} is none")
            own = group_with_matcher(encoder.named_parameters(), encoder.group_matcher(coarse=coarse), reverse=True)
            layers |= {f"encoders.{i}.{name}": layer for name, layer in own.items()}
        last = max(layers.values(), default=0)
        return lambda name: layers.get(name, last + 1)


class MixMAEEncoder(SwinTransformer):
    """A Swin without shifted windows and with an absolute position table (Sense-X/MixMIM, models_mixmim_ft.py)."""

    def __init__(self, **shape: object) -> None:
        super().__init__(**shape)
        rows, columns = self.patch_embed.grid_size
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, rows * columns, self.embed_dim), requires_grad=False)
        for stage in self.layers:
            for block in stage.blocks:
                block.shift_size, block.attn_mask = (0, 0), None

    def forward_features(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W).  Returns (N, H / 32, W / 32, C)."""
        x = self.patch_embed(x)  # (N, H / 4, W / 4, C / 8)
        x = x + self.absolute_pos_embed.view(1, *x.shape[1:])
        return self.norm(self.layers(x))


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
