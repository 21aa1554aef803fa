"""One step of fine-tuning: augmentation, logits, loss, gradients, update."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uniemox.finetune.augment import augment_batch
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.losses.affect import affect_loss, distribution_loss
from uniemox.losses.soft_target import soft_target_cross_entropy
from uniemox.model.config import Precision
from uniemox.training.distributed import gather_rows, world_size
from uniemox.training.update import gradients, update
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
    """(E,), how much an image of each class counts; None: all the same."""

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
    Returns "loss" and "grad_norm": means over all images of all processes.
    Raises NonFiniteLossError before any weight changes.
    """
    device = next(model.parameters()).device
    sizes = torch.tensor([[float(sum(len(batch.target) for batch in batches))]], device=device)
    images = float(gather_rows(sizes).sum())
    optimizer.zero_grad(set_to_none=True)
    seen = torch.zeros((), device=device)
    for i, batch in enumerate(batches):
        share = len(batch.target) / images
        with gradients(model, synchronise=i == len(batches) - 1):
            scene, person, target = augment_batch(
                batch.scene, batch.person, batch.target, augment, task=objective.task, device=device, stats=stats
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                output = model(scene=scene, person=person)
            loss = objective(output.float(), target)
            (loss * share * world_size()).backward()  # DDP takes the mean over processes
        seen += loss.detach() * share
    return update(model, optimizer, {"loss": seen}, max_grad_norm)
