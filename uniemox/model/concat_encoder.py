"""Concatenation of several encoders into one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from uniemox.errors import ConfigError
from uniemox.views.patches import IMAGENET, PixelStats

HEAD = "head of the encoder"
"""Name of no parameter."""


class ConcatEncoder(nn.Module):
    """Concatenation of several encoders: (N, 3, H, W) -> (N, D1 + D2 + ...).

    Args:
        encoders: Networks of timm, with features (N, D).
        stats: Pixel normalisation that each encoder expects. The input has ImageNet's, and is converted.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoders: Sequence[nn.Module], stats: Sequence[PixelStats]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        mean = torch.tensor([pixels.mean for pixels in stats])  # (K, 3) of K encoders
        std = torch.tensor([pixels.std for pixels in stats])  # (K, 3)
        input_mean = torch.tensor(IMAGENET.mean)
        input_std = torch.tensor(IMAGENET.std)
        # (x * input_std + input_mean - mean) / std = x * scale + shift
        self.register_buffer("scale", (input_std / std)[..., None, None], persistent=False)  # (K, 3, 1, 1)
        self.register_buffer("shift", ((input_mean - mean) / std)[..., None, None], persistent=False)  # (K, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, D1 + D2 + ...).  x: (N, 3, H, W), ImageNet-normalised."""
        features = [encoder(pixels) for encoder, pixels in zip(self.encoders, self.inputs(x), strict=True)]
        return torch.cat(features, dim=1)  # (N, D1 + D2 + ...)

    def inputs(self, x: Tensor) -> list[Tensor]:
        """Return the pixels as each encoder expects them, (N, 3, H, W) each.  x: (N, 3, H, W), ImageNet-normalised."""
        return [x * self.scale[i] + self.shift[i] for i in range(len(self.encoders))]

    def group_matcher(self, coarse: bool = False, *, aligned_at_end: bool = False) -> Callable[[str], int]:
        """Return a function from a parameter's name to the number of its layer.

        Args:
            coarse: Count stages, see timm.
            aligned_at_end: True: the last layers of all encoders have the same number, so that layer-wise decay counts
                down from the head in each. False: their first layers have.
        """
        numbers: list[dict[str, int]] = []
        heads: list[int] = []
        encoder: Any
        for i, encoder in enumerate(self.encoders):
            if not hasattr(encoder, "group_matcher"):
                raise ConfigError(
                    f"layer_decay and frozen_layers need encoders of timm, which name their layers; "
                    f"{type(encoder).__name__} doesn't"
                )
            # A name that no layer has counts as the head, and so do tensors that timm does not name.
            named = [*encoder.named_parameters(), (HEAD, None)]
            layer_of = group_with_matcher(named, encoder.group_matcher(coarse=coarse), reverse=True)
            heads.append(layer_of.pop(HEAD))
            numbers.append({f"encoders.{i}.{name}": layer for name, layer in layer_of.items()})
        last = max(heads, default=0)
        layers: dict[str, int] = {}
        for of_encoder, head in zip(numbers, heads, strict=True):
            missing = last - head if aligned_at_end else 0
            layers |= {name: layer + missing for name, layer in of_encoder.items()}
        return lambda name: layers.get(name, last)
