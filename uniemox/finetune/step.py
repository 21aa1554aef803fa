"""One step of fine-tuning: augmentation, logits, loss, gradients, update."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.finetune.augment import augment_batch
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.losses.affect import affect_loss, distribution_loss
from uniemox.losses.soft_target import soft_target_cross_entropy
from uniemox.model.config import Precision
from uniemox.model.methods.relation import Relation
from uniemox.training.distributed import gather_numbers, rank, world_size
from uniemox.training.update import gradients, update
from uniemox.views.pixels import PixelStats


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneBatch:
    """N samples with their targets."""

    scene: Tensor | None  # (N, 3, S, S) uint8, RGB
    person: Tensor | None
    target: Tensor  # (N, E), or (N, 2) valence and arousal
    own: Tensor | None = None  # (N, ...), the method's own targets, see `Relation.batch_targets`


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The loss: equation 12 for labels, KL for votes, MSE with CCC for valence and arousal."""

    task: Task
    class_weights: Tensor | None = None
    """(E,), weight of an image of each class; None: all the same."""
    method: Relation | None = None
    """Method whose loss takes the place of the classification's."""

    def __call__(
        self, output: Tensor, target: Tensor, features: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        """Return the loss.

        output, target: (N, E), or (N, 2) valence and arousal.  features: (N, C) that the head has read, where there is
        a method.  own: the method's own targets.
        """
        if self.task == "affect":
            return affect_loss(output, target)
        weight = None if self.class_weights is None else target @ self.class_weights.to(target.device)  # (N,)
        loss = (soft_target_cross_entropy if self.task == "label" else distribution_loss)(output, target, weight)
        if self.method is None or features is None:
            return loss
        return self.method.loss(loss, logits=output, features=features, target=target, weight=weight, batch_targets=own)


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
    images = sum(count for [count] in gather_numbers(sum(len(batch.target) for batch in batches)))
    optimizer.zero_grad(set_to_none=True)
    seen = torch.zeros((), device=device)
    for i, batch in enumerate(batches):
        share = len(batch.target) / images
        with gradients(model, synchronise=i == len(batches) - 1):
            if batch.own is not None:  # a mixture of two images has no targets of its own
                augment = replace(augment, mixup=0.0, cutmix=0.0)
            scene, person, target = augment_batch(
                batch.scene, batch.person, batch.target, augment, task=objective.task, device=device, stats=stats
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                output, features = model(scene=scene, person=person, with_features=True)
            own = None if batch.own is None else batch.own.to(device)
            loss = objective(output.float(), target, features.float(), own)
            (loss * share * world_size()).backward()  # DDP takes the mean over processes
        seen += loss.detach() * share
    return update(model, optimizer, {"loss": seen}, max_grad_norm)


def seed_step(seed: int, done: int) -> None:
    """Let the draws of a step be a function of the run's seed, of the steps that are done, and of the process."""
    state = int(np.random.SeedSequence([seed, done, rank()]).generate_state(1)[0])
    for draw in (torch.manual_seed, np.random.seed, random.seed):
        draw(state)
