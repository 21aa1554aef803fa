"""Which learning rate and which weight decay each parameter of an encoder, and of what follows it, gets."""

from collections.abc import Iterator
from typing import Any

import timm.optim
from timm.models._manipulate import group_with_matcher
from torch import nn

from uniemox.errors import ConfigError


def parameter_groups(
    model: Any, weight_decay: float, layer_decay: float | None, head_lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser of torch: every parameter that trains, once, with "weight_decay" and "lr_scale".

    model: with an `encoder`.  Biases, norms, tokens and position tables are not decayed.
    layer_decay: with it a layer of the encoder, counted down from the head, gets the learning rate times layer_decay to
    the power of its number (BEiT, arXiv 2106.08254); what follows the encoder's blocks has 1. Above 0, at most 1.
    None: "lr_scale" is 1 everywhere.
    head_lr_scale: by which the learning rate of what is not the encoder's is multiplied in addition.
    Raises ConfigError for another layer_decay, and if the encoder, not being timm's, doesn't say what its layers are.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay must be above 0 and at most 1, got {layer_decay}; None turns it off")
    if layer_decay is not None and not hasattr(model.encoder, "group_matcher"):
        raise ConfigError(
            f"layer_decay needs an encoder of timm, which names its layers; {type(model.encoder).__name__} doesn't. "
            "None turns it off"
        )
    seen = _SeenByTimm(model)
    if layer_decay is None:
        groups = timm.optim.param_groups_weight_decay(seen, weight_decay, no_weight_decay_list=seen.undecayed())
    else:
        groups = timm.optim.param_groups_layer_decay(
            seen, weight_decay, no_weight_decay_list=seen.undecayed(), layer_decay=layer_decay
        )
    of_encoder = {id(parameter) for parameter in model.encoder.parameters()}
    result = []
    for group in groups:
        for scale, inside in ((1.0, True), (head_lr_scale, False)):
            own = [parameter for parameter in group["params"] if (id(parameter) in of_encoder) == inside]
            if own:
                result.append({**group, "params": own, "lr_scale": scale * group.get("lr_scale", 1.0)})
    return result


def freeze_layers(encoder: Any, layers: int) -> None:
    """Let the first layers of an encoder of timm get no gradients, counted as for `layer_decay`.

    Raises ConfigError for more layers than there are, and if the encoder, not being timm's, doesn't say what they are.
    """
    if layers == 0:
        return
    if not hasattr(encoder, "group_matcher"):
        raise ConfigError(f"frozen_layers needs an encoder of timm, which names its layers; got {layers}, give 0")
    layer_of = group_with_matcher(encoder.named_parameters(), encoder.group_matcher(coarse=False), reverse=True)
    count = max(layer_of.values()) + 1
    if not 0 < layers <= count:
        raise ConfigError(f"frozen_layers must lie between 0 and {count}, the encoder's layers, got {layers}")
    for name, parameter in encoder.named_parameters():
        if layer_of[name] < layers:
            parameter.requires_grad_(False)


class _SeenByTimm:
    """A network with an encoder as timm's functions read it.

    The encoder's parameters have the encoder's own names, so that its own patterns find their layers. All others have
    names that no pattern finds, which makes them the head.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.group_matcher = getattr(model.encoder, "group_matcher", None)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters, those of the encoder first."""
        for name, parameter in self.model.named_parameters():
            inner = name.removeprefix("encoder.")
            yield (f"after the encoder: {name}" if inner == name else inner), parameter

    def undecayed(self) -> set[str]:
        """Names of tokens and tables; what has one axis is left out of the decay by timm."""
        encoder: Any = self.model.encoder
        own = encoder.no_weight_decay() if hasattr(encoder, "no_weight_decay") else set()
        return {*own, *(name for name, _ in self.named_parameters() if name.endswith(("_token", "pos_embed")))}
