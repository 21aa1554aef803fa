"""Encoders of classifiers: networks of timm, MixMAE's, a colour histogram, or a concatenation of several."""

from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from uniemox.errors import CheckpointError
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.network_spec import EncoderSpec, NetworkSpec
from uniemox.views.patches import PixelStats

# Names of the encoders that timm does not have.
MIXMAE = "mixmae"
COLOUR_HISTOGRAM = "colour_histogram"

# Options that a file may set. Others, such as checkpoint_path, could make timm open another file.
ALLOWED_OPTIONS = {
    "num_classes",
    "img_size",
    "patch_size",
    "embed_dim",
    "depth",
    "depths",
    "num_heads",
    "global_pool",
    "init_values",
    "qkv_bias",
    "mlp_ratio",
    "use_abs_pos_emb",
    "window_size",
    "pad_type",
    "conv_head",
    "reg_tokens",
    "no_embed_class",
}


def build_encoders(spec: NetworkSpec) -> nn.Module:
    """Build the encoder of a classifier with random weights; several become a `ConcatEncoder`.

    Raises:
        CheckpointError: For names or options that could make timm open other files.
    """
    if len(spec.encoders) == 1:
        return _build_encoder(spec.encoders[0])
    stats = [PixelStats(*(encoder.pixels or (spec.mean, spec.std))) for encoder in spec.encoders]
    return ConcatEncoder([_build_encoder(encoder) for encoder in spec.encoders], stats)


def _build_encoder(spec: EncoderSpec) -> nn.Module:
    """Build one encoder with random weights.

    Raises:
        CheckpointError: For a name or an option that could make timm open other files.
    """
    refused = spec.options.keys() - ALLOWED_OPTIONS
    if spec.name == MIXMAE and not refused:
        return MixMAEEncoder(**spec.options)
    if spec.name == COLOUR_HISTOGRAM and not spec.options:
        return ColourHistogram()
    if refused or not timm.is_model(spec.name):
        raise CheckpointError(
            f"its encoder {spec.name!r} with {', '.join(sorted(refused)) or 'its options'} is not in timm"
        )
    return build_timm(spec.name, **spec.options)


def build_timm(name: str, *, conv_head: str = "", **options: Any) -> nn.Module:
    """Build a network of timm; conv_head="none" leaves out the last convolution.

    Raises:
        CheckpointError: If the network has no such convolution.
    """
    network: Any = timm.create_model(name, **options)
    if conv_head:
        if not hasattr(network, "conv_head"):
            raise CheckpointError(f"{name} has no convolution conv_head to leave out")
        network.prune_intermediate_layers(prune_head=True)
        network.reset_classifier(0, "avg")
    return network


class MixMAEEncoder(SwinTransformer):
    """Swin without shifted windows, with an absolute position table (Sense-X/MixMIM, models_mixmim_ft.py)."""

    def __init__(self, **shape: object) -> None:
        super().__init__(**shape)
        rows, columns = self.patch_embed.grid_size
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, rows * columns, self.embed_dim), requires_grad=False)
        # Without a shift no window joins parts of the image that are apart, so none needs a mask.
        for stage in self.layers:
            for block in stage.blocks:
                block.shift_size = (0, 0)
                block.attn_mask = None

    def forward_features(self, x: Tensor) -> Tensor:
        """Return a feature map (N, H / 32, W / 32, C).  x: (N, 3, H, W)."""
        x = self.patch_embed(x)  # (N, H / 4, W / 4, C / 8)
        x = x + self.absolute_pos_embed.view(1, *x.shape[1:])
        return self.norm(self.layers(x))
