"""The person finder: a small convolutional network, a neck that brings its maps together, and two heads.

A person is a peak of a heat map (CenterNet, arXiv 1904.07850); the box is read there as four distances.
"""

import math
from collections.abc import Mapping
from typing import Any

import timm
import timm.models
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from uniemox.checkpoints.timm_networks import TIMM, TimmSource, check_hub
from uniemox.errors import CheckpointError
from uniemox.persons.layouts import STRIDE

# Strides of the maps that may be used.
LEVELS = (STRIDE, 2 * STRIDE, 4 * STRIDE)
# Heat before training: most cells contain nobody (arXiv 1708.02002, section 4.1).
INITIAL_HEAT = 0.01


class FinderNetwork(nn.Module):
    """Finder of people over a timm network.

    Args:
        body: Network with features at strides 8, 16 and possibly 32, as returned by `load_body`.
        channels: Channels of these features.
        width: Channels of neck and heads.
    """

    def __init__(self, body: nn.Module, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.body = body
        self.lateral = nn.ModuleList(_convolution(count, width, 1) for count in channels)
        self.context = nn.Sequential(_separable(width, 5), _separable(width, 5))
        self.smooth = nn.ModuleList(_separable(width, 3) for _ in channels[:-1])
        self.heat = _head(width, 1, initial_bias=-math.log(1 / INITIAL_HEAT - 1))
        self.box = _head(width, 4, initial_bias=1.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return heat and boxes for normalised pixels (N, 3, H, W), with H and W multiples of 32.

        Returns:
            Logits of the heat (N, H/8, W/8), and distances (N, 4, H/8, W/8) from the middle of each cell to left, top,
            right and bottom of the box, px, above 0; both float32.
        """
        maps = [
            layer(features) for layer, features in zip(self.lateral, self.body(pixels), strict=True)
        ]  # (N, width, H/s, W/s)
        x = self.context(maps[-1])
        for finer, smooth in zip(maps[-2::-1], reversed(self.smooth), strict=True):
            x = smooth(finer + F.interpolate(x, scale_factor=2.0))
        heat = self.heat(x).float()
        box = self.box(x).float()
        return heat[:, 0], torch.exp(box.clamp(max=6.0)) * STRIDE

    def train(self, mode: bool = True) -> "FinderNetwork":
        """Set the mode of all but the body, whose batch norms keep the statistics of far more images."""
        super().train(mode)
        self.body.eval()
        return self


def load_body(
    start: str, coarsest: int = LEVELS[-1]
) -> tuple[Any, tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """Load a timm network with maps at strides 8, 16 and 32.

    The layers before stride 8 are frozen.

    Args:
        start: timm:NAME with its published weights, or timm:NAME@FILE.
        coarsest: Stride of the last map, 16 or 32.

    Returns:
        The network, the channels of its maps, and mean and standard deviation of its pixels.

    Raises:
        CheckpointError: If there is no such network, it has no such maps, or the file is another network's.
    """
    if not start.startswith(TIMM):
        raise CheckpointError(f"a finder starts from timm:NAME or timm:NAME@FILE, got {start!r}")
    source = TimmSource.parse(start)
    name = source.name
    options = source.options
    pixels = source.pixels
    file = source.file
    try:
        all_maps: Any = timm.create_model(name, features_only=True, **options)
        strides = all_maps.feature_info.reduction()
        needed = [stride for stride in LEVELS if stride <= coarsest]
        if not set(needed) <= set(strides):
            raise CheckpointError(f"{name} has maps at strides {strides}; a finder needs {needed}, as mobilenetv2_100")
        levels = [strides.index(stride) for stride in needed]
        if not file:
            check_hub(name)
        body: Any = timm.create_model(name, pretrained=not file, features_only=True, out_indices=levels, **options)
        if file:
            _load(body, file)
        # timm keeps the blocks behind the last map, and would compute them.
        if hasattr(body, "_stage_out_idx"):
            body.blocks = body.blocks[: max(body._stage_out_idx)]
    except (RuntimeError, OSError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{start} could not be built with its weights: {error}") from error
    _freeze_before(body, name, levels[0], options)
    mean, std = (pixels[key] if key in pixels else body.default_cfg[key] for key in ("mean", "std"))
    return body, tuple(body.feature_info.channels()), tuple(mean), tuple(std)


def _load(body: nn.Module, file: str) -> None:
    """Load weights of the whole network; those behind the last map are ignored.

    Raises:
        RuntimeError: If weights are missing.
    """
    state = timm.models.load_state_dict(file, weights_only=True)
    missing = body.load_state_dict(state, strict=False).missing_keys
    # The counter of batches is not used, and some files lack it.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise RuntimeError(f"it lacks {', '.join(missing[:4])}")


def _freeze_before(body: Any, name: str, level: int, options: Mapping[str, str]) -> None:
    """Freeze the layers that the maps finer than stride 8 depend on: edges and textures need no training."""
    if level == 0:
        return
    stem = timm.create_model(name, features_only=True, out_indices=range(level), **options).eval()
    stem_parameters = dict(stem.named_parameters())
    # A parameter that such a map depends on gets a gradient.
    sum(features.sum() for features in stem(torch.zeros(1, 3, 64, 64))).backward()
    for key, parameter in body.named_parameters():
        if key in stem_parameters and stem_parameters[key].grad is not None:
            parameter.requires_grad_(False)


def _convolution(inputs: int, outputs: int, size: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
        # The large epsilon keeps a channel that hardly varies from being amplified.
        nn.BatchNorm2d(outputs, eps=1e-3),
    )


def _separable(width: int, size: int) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution."""
    return nn.Sequential(
        _convolution(width, width, size, groups=width), nn.ReLU(), _convolution(width, width, 1), nn.ReLU()
    )


def _head(width: int, outputs: int, *, initial_bias: float) -> nn.Sequential:
    """Return two convolutions and an output layer, whose bias has an initial value."""
    last = nn.Conv2d(width, outputs, 1)
    nn.init.constant_(last.get_parameter("bias"), initial_bias)
    return nn.Sequential(_separable(width, 3), _separable(width, 3), last)
