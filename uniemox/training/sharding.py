"""Sharding, over all processes, of a model that is too large for one device."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from uniemox.training.processes import rank, world_size


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard a model over all processes, in place, one transformer block at a time.

    Each process then holds one part of every tensor, and gathers a block's weights to compute the block. Results are
    those of DistributedDataParallel, up to rounding. Every process must call the model.
    """
    # Losses change nothing in place, so the warning is harmless; tests compare with DistributedDataParallel.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world_size(),))
    for module in [part for part in model.modules() if isinstance(part, Block)]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Return True if the model is sharded."""
    return isinstance(model, FSDPModule)


def local_parameters(model: nn.Module) -> list[Tensor]:
    """Return the parameters; of sharded ones only the part on this process."""
    parameters = model.parameters()
    return [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in parameters]


def gather_shards(x: Tensor) -> Tensor:
    """Gather a tensor if it is sharded; all processes must call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def copy_to_host(value: Any) -> Any:
    """Copy the tensors in dicts and lists to the CPU of the first process, gathering sharded ones one at a time.

    All processes must call it; the others get None in place of tensors. So no GPU ever holds more than one whole
    tensor, even if the model is too large for it.
    """
    if isinstance(value, Tensor):
        gathered = gather_shards(value.detach())
        if rank() == 0:
            return gathered.to("cpu", copy=True)
        return None
    if isinstance(value, Mapping):
        return {key: copy_to_host(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copy_to_host(part) for part in value]
    return value


def shard_like(values: Mapping[Any, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """Shard whole tensors by name in the same way as the tensors of the same name in `like`."""
    return {name: _shard_value(value, like.get(name)) for name, value in values.items()}


def shard_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard an optimiser's state: whole tensors with the shape of their parameter are sharded like the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: _shard_value(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def _shard_value(value: Any, like: Any) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Every process has read the whole tensor, so none has to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
