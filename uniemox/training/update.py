"""The end of a step that pre-training and fine-tuning share: exchange gradients, check every number, update."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from uniemox.errors import NonFiniteLossError
from uniemox.training.distributed import sum_over_processes
from uniemox.training.sharding import whole


def gradients(model: nn.Module, *, synchronise: bool) -> AbstractContextManager[None]:
    """Let DistributedDataParallel, or FSDP2, exchange gradients only after the last batch of a step."""
    inner = getattr(model, "_orig_mod", model)  # inside torch.compile
    if isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(synchronise)
    if isinstance(inner, DistributedDataParallel) and not synchronise:
        return inner.no_sync()
    return nullcontext()


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor], max_grad_norm: float | None
) -> dict[str, float]:
    """Update the weights by the gradients that are there, if every number is finite.

    losses: scalars by name, this process's part of each mean.  max_grad_norm: L2 norm to which the gradient is clipped;
    None does not clip.  Returns the losses summed over all processes, "grad_norm", and with max_grad_norm "clipped",
    which is 1 if the gradient was clipped and 0 if not.
    Raises NonFiniteLossError, with the name of the number, before any weight changes.
    """
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    summed = sum_over_processes(torch.stack(list(losses.values())))
    # The one time in a step that the host waits for the device.
    results = dict(zip((*losses, "grad_norm"), torch.cat([summed, whole(norm)[None]]).tolist(), strict=True))
    for name, value in results.items():
        if not math.isfinite(value):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(
                f"{name} is {value}; no weight was changed. Lower the learning rate (optimizer.base_lr), clip the "
                "gradient (optimizer.max_grad_norm), or look at the images of this batch"
            )
    if max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
        results["clipped"] = float(results["grad_norm"] > max_grad_norm)
    optimizer.step()
    return results
