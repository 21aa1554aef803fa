"""LoRA: low-rank changes of frozen linear layers (Hu et al., arXiv 2106.09685).

A layer's weight W is replaced by W + B A with A of rank r. Only A and B are trained. After training the sum takes the
place of W, so the network has its old form, with nothing of ours in it.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from uniemox.errors import ConfigError
from uniemox.model.config import AdaptedLayers

# timm's names of an attention module.
ATTENTION = frozenset({"attn", "attention"})


class LowRankChange(nn.Module):
    """Parametrisation that adds B A to a frozen weight; it begins as the unchanged weight, because B is 0.

    A is drawn as the reference code draws it (microsoft/LoRA, layers.py): uniform within 1 / sqrt(inputs).

    Args:
        weight: (outputs, inputs), weight of the linear layer.
        rank: r, number of rows of A, at least 1.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, inputs))  # A, (r, inputs)
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))  # B, (outputs, r)
        limit = inputs**-0.5
        nn.init.uniform_(self.down, -limit, limit)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight, (outputs, inputs)."""
        # In float32 also under autocast, so that merged and unmerged weights are the same.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.up @ self.down


def add_adapters(encoder: nn.Module, *, rank: int, layers: AdaptedLayers) -> None:
    """Freeze an encoder, and add trained low-rank changes to its linear layers, in place.

    The change is a parametrisation of the weight. It therefore also works where timm reads a layer's weight without
    calling the layer, as in BEiT's attention.

    Args:
        encoder: Network of timm, or several in a `ConcatEncoder`.
        rank: r, at least 1.
        layers: attention: projections of queries, keys and values, and of the output. all: every linear layer.

    Raises:
        ConfigError: If the encoder has no such layer.
    """
    encoder.requires_grad_(False)
    for layer in find_layers(encoder, layers):
        # `unsafe` skips a call that would only check shapes.
        parametrize.register_parametrization(layer, "weight", LowRankChange(layer.weight, rank), unsafe=True)


def find_layers(encoder: nn.Module, layers: AdaptedLayers) -> list[nn.Linear]:
    """Return the linear layers of an encoder that get changes; see `add_adapters` for the arguments.

    Raises:
        ConfigError: If there is none.
    """
    adapted = [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and (layers == "all" or not ATTENTION.isdisjoint(name.split(".")))
    ]
    if not adapted:
        kind = "linear layer in its attention" if layers == "attention" else "linear layer"
        raise ConfigError(
            f"method lora adapts vision transformers; {type(encoder).__name__} has no {kind}. Give a ViT (--init), "
            "--lora.layers all, or --method full or probe"
        )
    return adapted


def merge_adapters(encoder: nn.Module) -> None:
    """Replace every changed weight by the sum, in place; an encoder without changes stays unchanged."""
    for module in encoder.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
