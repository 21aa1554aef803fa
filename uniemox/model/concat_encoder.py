"""Several encoders that look at the same view: their features one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from uniemox.errors import ConfigError
from uniemox.views.pixels import IMAGENET, PixelStats


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
