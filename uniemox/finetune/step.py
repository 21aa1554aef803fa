"""One step of fine-tuning: augmentation, logits, loss, gradients, update."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uniemox.errors import NonFiniteLossError
from uniemox.finetune.augment import AugmentConfig, augment_batch
from uniemox.finetune.targets import Task
from uniemox.losses.affect import affect_loss, distribution_loss
from uniemox.losses.soft_target import soft_target_cross_entropy
from uniemox.training.distributed import gather_rows, sum_over_processes, world_size
from uniemox.training.hardware import Precision
from uniemox.views.pixels import PixelStats


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneBatch:
    """N samples with their targets."""

    scene: Tensor | None  # (N, 3, S, S) uint8, RGB
    person: Tensor | None
    target: Tensor  # (N, E), or (N, 2) valence and arousal


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is learned: equation 12 for labels, KL for votes, MSE with CCC for valence and arousal."""

    task: Task
    class_weights: Tensor | None = None
    """(E,), how much a picture of each class counts; None: all the same."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss.  output, target: (N, E), or (N, 2) valence and arousal."""
        if self.task == "affect":
            return affect_loss(output, target)
        weight = None if self.class_weights is None else target @ self.class_weights.to(target.device)  # (N,)
        loss = soft_target_cross_entropy if self.task == "label" else distribution_loss
        return loss(output, target, weight)


def finetune_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[FinetuneBatch],
    *,
    objective: Objective,
    augment: AugmentConfig,
    stats: PixelStats,
    precision: Precision = "float32",
    max_grad_norm: float | None = None,
) -> dict[str, float]:
    """Forward and backward over the batches of all processes, then one update of the weights.

    model: a Classifier, or DistributedDataParallel around it.  batches: one, or several whose gradients accumulate.
    stats: what the encoder's pixels are normalised with.
    Returns "loss" and "grad_norm": means over all pictures of all processes.
    Raises NonFiniteLossError before any weight changes.
    """
    device = next(model.parameters()).device
    sizes = torch.tensor([[float(sum(len(batch.target) for batch in batches))]], device=device)
    pictures = float(gather_rows(sizes).sum())
    optimizer.zero_grad(set_to_none=True)
    seen = torch.zeros((), device=device)
    for i, batch in enumerate(batches):
        share = len(batch.target) / pictures
        with _gradients(model, synchronise=i == len(batches) - 1):
            scene, person, target = augment_batch(
                batch.scene, batch.person, batch.target, augment, task=objective.task, device=device, stats=stats
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                output = model(scene=scene, person=person)
            loss = objective(output.float(), target)
            (loss * share * world_size()).backward()  # DDP takes the mean over processes
        seen += loss.detach() * share
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    results = {"loss": float(sum_over_processes(seen)), "grad_norm": float(norm)}
    for name, value in results.items():
        if not math.isfinite(value):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(
                f"{name} is {value}; no weight was changed. Lower the learning rate (optimizer.base_rate), clip the "
                "gradient (optimizer.max_grad_norm), or look at the pictures of this batch"
            )
    if max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
    optimizer.step()
    return results


def _gradients(model: nn.Module, *, synchronise: bool) -> AbstractContextManager[None]:
    """Let DistributedDataParallel exchange gradients only after the last batch of a step."""
    inner = getattr(model, "_orig_mod", model)  # inside torch.compile
    if isinstance(inner, DistributedDataParallel) and not synchronise:
        return inner.no_sync()
    return nullcontext()
