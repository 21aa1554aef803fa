"""Weights, gradients and moments divided over the processes (FSDP2), and their tensors whole again for files."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from uniemox.training.distributed import world_size


def shard(model: nn.Module, device: torch.device) -> None:
    """Divide a model over all processes, in place, a transformer block at a time.

    Each process then keeps one part of every tensor and gathers a block's weights while it computes the block. What
    comes out is that of DistributedDataParallel, up to rounding. Every process must call the model alike.
    """
    # The losses change nothing in place: they are those of DistributedDataParallel, which tests compare.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world_size(),))
    for module in [part for part in model.modules() if isinstance(part, Block)]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has divided a model."""
    return isinstance(model, FSDPModule)


def kept_parameters(model: nn.Module) -> list[Tensor]:
    """The parameters, of divided ones the part that this process keeps."""
    return [one.to_local() if isinstance(one, DTensor) else one for one in model.parameters()]


def whole(value: Any) -> Any:
    """Dicts, lists and tensors, with every divided tensor gathered; all processes must ask alike."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list) else value


def divided(values: Mapping[Any, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """Whole tensors by name, those whose namesake in `like` is divided as that is."""
    return {name: _divide(value, like.get(name)) for name, value in values.items()}


def divided_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with whole tensors, those as large as their parameter divided as it is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        place: {name: _divide(value, parameters[place]) for name, value in of_one.items()}
        for place, of_one in state["state"].items()
    }
    return {**state, "state": moments}


def _divide(value: Any, like: Any) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
