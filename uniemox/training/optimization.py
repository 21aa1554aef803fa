"""AdamW, learning rates and weight decay per parameter, the schedule, and the update at the end of a step."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import timm.optim
import torch
from timm.models._manipulate import group_with_matcher
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from uniemox.errors import ConfigError, NonFiniteLossError, OutOfMemoryError
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.plurals import counted
from uniemox.training.config import ScheduleConfig
from uniemox.training.processes import gather_numbers, sum_over_processes, world_size
from uniemox.training.sharding import gather_shards

Batch = TypeVar("Batch")


def build_optimizer(
    model: Any,
    *,
    lr: float,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.95),
    layer_decay: float | None = None,
    encoder_lr_scale: float = 1.0,
    head_lr_scale: float | None = None,
) -> torch.optim.AdamW:
    """Build fused AdamW for the trained parameters, see `parameter_groups`.

    Args:
        model: Has an `encoder`.
        lr: Maximum learning rate, not base_lr.
        weight_decay: Weight decay of matrices.
        betas: AdamW's decay rates.
        layer_decay: As for `parameter_groups`.
        encoder_lr_scale: As for `parameter_groups`.
        head_lr_scale: As for `parameter_groups`.
    """
    groups = parameter_groups(model, weight_decay, layer_decay, head_lr_scale, encoder_lr_scale=encoder_lr_scale)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def parameter_groups(
    model: Any,
    weight_decay: float,
    layer_decay: float | None = None,
    head_lr_scale: float | None = None,
    *,
    encoder_lr_scale: float = 1.0,
) -> list[dict[str, Any]]:
    """Return torch parameter groups: every trained parameter once, with "weight_decay" and "lr_scale".

    Biases, norms, tokens and position tables are not decayed.

    Args:
        model: Has an `encoder`.
        weight_decay: Weight decay of matrices.
        layer_decay: Above 0, at most 1. A layer's learning rate is multiplied by layer_decay to the power of its
            number, counted down from the head (BEiT, arXiv 2106.08254); the factor after the encoder's blocks is 1.
            None: all factors are 1.
        head_lr_scale: Additional factor for parameters outside of the encoder; None: 1.
        encoder_lr_scale: Additional factor for the encoder's trained parameters.

    Raises:
        ConfigError: If layer_decay is out of range, or if the encoder is not timm's and does not name its layers.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay must be above 0 and at most 1, got {layer_decay}; None turns it off")
    encoder = model.encoder
    if layer_decay is not None and not hasattr(encoder, "group_matcher"):
        raise ConfigError(
            f"layer_decay needs an encoder of timm, which names its layers; {type(encoder).__name__} doesn't. "
            "None turns it off"
        )

    # timm finds the encoder's layers by the encoder's own names; other names match no pattern and count as the head.
    named = {
        name.removeprefix("encoder.") if name.startswith("encoder.") else f"after the encoder: {name}": parameter
        for name, parameter in model.named_parameters()
    }
    layer_of = getattr(encoder, "group_matcher", None)
    if isinstance(encoder, ConcatEncoder):
        layer_of = partial(encoder.group_matcher, aligned_at_end=True)
    named_model: Any = SimpleNamespace(named_parameters=named.items, group_matcher=layer_of)
    tables = encoder.no_weight_decay() if hasattr(encoder, "no_weight_decay") else ()
    tokens = [name for name in named if name.endswith(("_token", "pos_embed"))]
    undecayed = {"no_weight_decay_list": {*tables, *tokens}}
    if layer_decay is None:
        groups = timm.optim.param_groups_weight_decay(named_model, weight_decay, **undecayed)
    else:
        groups = timm.optim.param_groups_layer_decay(named_model, weight_decay, **undecayed, layer_decay=layer_decay)

    if layer_decay is None and head_lr_scale is None and encoder_lr_scale == 1:
        return [{**group, "lr_scale": 1.0} for group in groups]
    encoder_ids = {id(parameter) for parameter in encoder.parameters()}
    head_scale = 1.0 if head_lr_scale is None else head_lr_scale
    result = []
    for group in groups:
        for scale, is_encoder in ((encoder_lr_scale, True), (head_scale, False)):
            parameters = [parameter for parameter in group["params"] if (id(parameter) in encoder_ids) == is_encoder]
            if parameters:
                result.append({**group, "params": parameters, "lr_scale": scale * group.get("lr_scale", 1.0)})
    return result


def build_grouped_optimizer(
    parts: Sequence[tuple[Iterable[nn.Parameter], float]],
    *,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """Build fused AdamW for a model without timm's names, such as a teacher or a person detector.

    Args:
        parts: Parameters with their "lr_scale"; parameters that are not trained are left out.
        weight_decay: Weight decay of matrices; all else has none.
        betas: AdamW's decay rates.
    """
    groups: list[dict[str, Any]] = []
    for parameters, scale in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for is_matrix, decay in ((True, weight_decay), (False, 0.0)):
            members = [parameter for parameter in trained if (parameter.ndim > 1) == is_matrix]
            if members:
                groups.append({"params": members, "weight_decay": decay, "lr_scale": scale})
    # The schedule sets the learning rate before each step.
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


def freeze_layers(encoder: Any, layers: int) -> None:
    """Freeze the first layers of a timm encoder, or of each of several concatenated ones, counted from its input.

    Raises:
        ConfigError: If the encoder has fewer layers, or if it is not timm's and does not name them.
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


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """Build timm's schedule over steps; `step_update(n)` sets the rates after n steps and depends only on n.

    A parameter group's rate is multiplied by its lr_scale.
    """
    steps = config.steps(steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        # timm warns of a cycle of 1; a single step has the maximum rate anyway.
        t_initial=max(steps, 2),
        lr_min=config.min_lr,
        warmup_t=min(round(config.warmup_epochs * steps_per_epoch), steps - 1),
        t_in_epochs=False,
    )


def warmup_cosine(optimizer: torch.optim.Optimizer, lr: float, *, steps: int, warmup: float) -> Callable[[int], None]:
    """Return a function that sets the learning rates after n steps: linear warm-up, then half a cosine to 0.

    Unlike in `build_schedule`, the cosine begins at its maximum, after the warm-up.

    Args:
        optimizer: Its parameter groups have an "lr_scale".
        lr: Maximum learning rate; groups multiply it by their lr_scale.
        steps: Number of steps of the run.
        warmup: Share of the steps in which the rate rises, 0 to 1.
    """
    warmup_steps = max(1, round(warmup * steps))

    def set_lr(done: int) -> None:
        if done < warmup_steps:
            factor = (done + 1) / warmup_steps
        else:
            factor = (1 + math.cos(math.pi * (done - warmup_steps) / max(1, steps - warmup_steps))) / 2
        for group in optimizer.param_groups:
            group["lr"] = lr * factor * group["lr_scale"]

    return set_lr


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    size_of: Callable[[Batch], int],
    losses_of: Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]],
    max_grad_norm: float | None,
    *,
    weights_of: Callable[[Batch], Tensor] | None = None,
) -> dict[str, float]:
    """Run forward and backward over the batches of all processes, then update the weights once, see `update`.

    Args:
        model: The model, in its wrapper for several processes if there is one.
        optimizer: The optimizer of its parameters.
        batches: One, or several whose gradients accumulate; every process gives the same number.
        size_of: Number of images in a batch.
        losses_of: Forward pass; returns the loss, and further values by name. Each is a scalar, or T terms (T,) that
            are added: means over the batch's images.
        max_grad_norm: L2 norm to which the gradient is clipped; None: no clipping.
        weights_of: Sum of the images' weights in each of these means, (T,); None: every image counts the same. A term
            of the step is divided by the sum of weights over all batches of all processes, so that it does not depend
            on how the images are divided into batches.

    Returns:
        The values of the joined batch of all processes, and the norm of the gradient.

    Raises:
        NonFiniteLossError: If a value or the gradient is not finite, before any weight changes.
        ConfigError: On all processes, if batches are empty or differ in number.
        OutOfMemoryError: If the GPU has too little memory for a batch.
    """
    sizes = [size_of(batch) for batch in batches]
    _check_sizes(sizes)
    if weights_of is None:
        weights = torch.tensor(sizes, dtype=torch.double)[:, None]  # (B, 1)
    else:
        weights = torch.stack([weights_of(batch).double() for batch in batches])  # (B, T)
    shares = _shares_of_step(weights)  # (B, T)

    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    try:
        for i, batch in enumerate(batches):
            with _gradient_exchange(model, is_last=i == len(batches) - 1):
                loss, values = losses_of(batch)
                part_of_step = _weighted_sum(loss, shares[i])
                # DistributedDataParallel takes the mean of the gradients over processes; the step needs their sum.
                (part_of_step * world_size()).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + _weighted_sum(value.detach().float(), shares[i])
        return update(model, optimizer, sums, max_grad_norm)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"the GPU has too little memory for a batch of {counted(max(sizes), 'image')}: "
            f"{str(error).split('. ')[0]}. Give a larger --accumulation (the step is divided into "
            f"{len(sizes)} batches now), --hardware.grad-checkpointing, or a smaller --batch-size"
        ) from error


def _check_sizes(sizes: Sequence[int]) -> None:
    """Raise ConfigError on all processes unless all have the same number of batches, none of them empty."""
    counts, smallest = zip(*gather_numbers(len(sizes), min(sizes, default=0)), strict=True)
    if min(smallest) < 1 or len(set(counts)) > 1:
        raise ConfigError(
            "a step needs at least one batch, the same number on every process, and an image in each; "
            f"got {list(counts)} batches, the smallest of {list(smallest)} images"
        )


def _shares_of_step(weights: Tensor) -> Tensor:
    """Return the share of each batch in each term of the step, (B, T), for the weights of this process, (B, T)."""
    total = sum_over_processes(weights.sum(dim=0))  # (T,)
    # A term without any weight is 0 in every batch.
    return (weights / torch.where(total > 0, total, 1.0)).float()


def _weighted_sum(terms: Tensor, shares: Tensor) -> Tensor:
    """Return the sum of terms times their shares.

    Args:
        terms: Scalar or (T,).
        shares: (T,), may be on the CPU while terms are on a GPU: scalars are passed without waiting for the GPU.
    """
    products = [term * share for term, share in zip(terms.reshape(-1), shares, strict=True)]
    return torch.stack(products).sum()


def _gradient_exchange(model: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Let DistributedDataParallel, or FSDP2, exchange gradients only after the last batch of a step."""
    # torch.compile keeps the wrapped module under this name.
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(is_last)
    if isinstance(inner, DistributedDataParallel) and not is_last:
        return inner.no_sync()
    return nullcontext()


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor], max_grad_norm: float | None
) -> dict[str, float]:
    """Update the weights if every gradient is finite.

    Args:
        losses: Scalars by name, this process's part of each mean.
        max_grad_norm: L2 norm to which the gradient is clipped; None: no clipping.

    Returns:
        The losses summed over all processes, "grad_norm", and with max_grad_norm "clipped", 1 if the gradient was
        clipped, else 0.

    Raises:
        NonFiniteLossError: If a loss or the norm is not finite; names it, before any weight changes.
    """
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    summed = sum_over_processes(torch.stack(list(losses.values())))
    # The only point in a step at which the host waits for the device.
    results = dict(zip((*losses, "grad_norm"), torch.cat([summed, gather_shards(norm)[None]]).tolist(), strict=True))
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
