"""One step of fine-tuning: augmentation, forward, backward, update."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.finetune.affect_step import AffectBatch, AffectStep
from uniemox.finetune.augmentation import augment_views, prepare_targets
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.finetune.mixing import Mixing
from uniemox.losses.objective import soft_target_cross_entropy
from uniemox.losses.tasks import affect_loss, distribution_loss, multilabel_loss
from uniemox.model.config import Precision
from uniemox.model.methods.relation import Relation
from uniemox.training.hardware import autocast
from uniemox.training.optimization import train_step
from uniemox.training.processes import rank
from uniemox.views.patches import PixelStats
from uniemox.views.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneBatch:
    """N samples with their targets."""

    scene: Tensor | None  # (N, 3, S, S) uint8, RGB
    person: Tensor | None
    target: Tensor  # (N, E), or (N, 2) valence and arousal
    batch_targets: Tensor | None = None  # (N, ...), the method's own targets, see `Relation.batch_targets`


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Training loss: equation 12 for labels, KL for votes, MSE with CCC for valence and arousal, binary cross-entropy.

    The loss is a sum of terms. A term is a mean over images, weighted by `class_weights`. A step with several batches
    or processes divides each term by the sum of weights over all its images, see `term_weights`. Only the CCC is no
    such mean; see `AffectStep`.
    """

    task: Task
    class_weights: Tensor | None = None
    """(E,), weight of an image of each class; None: equal weights."""
    label_weights: Tensor | None = None
    """(E,), weight of each label in task multilabel; None: equal weights."""
    method: Relation | None = None
    """Method whose loss replaces the classification loss."""

    def terms(
        self,
        output: Tensor,
        target: Tensor,
        features: Tensor | None = None,
        batch_targets: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the terms of the loss of one batch, (T,); T is 1 without a method.

        Args:
            output: (N, E) logits, or (N, 2) valence and arousal.
            target: (N, E), or (N, 2) valence and arousal.
            features: (N, C), the head's input, if there is a method.
            batch_targets: (N, ...), the method's own targets, if it has any.
            weight: (N,), see `image_weights`; None: that of the targets, which are not smoothed.
        """
        if self.task == "affect":
            return affect_loss(output, target)[None]
        if weight is None:
            weight = self.image_weights(target)
        loss = self._loss_of_task(output, target, weight)
        if self.method is None or features is None:
            return loss[None]
        arguments: dict[str, Any] = {"logits": output, "features": features, "target": target, "weight": weight}
        if self.task == "multilabel":
            # Only methods that take categories get here, and know this argument.
            arguments["has_categories"] = True
        return self.method.loss(loss, **arguments, batch_targets=batch_targets).reshape(-1)

    def _loss_of_task(self, output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss of logits, (N, E), without that of a method."""
        if self.task == "label":
            return soft_target_cross_entropy(output, target, weight)
        if self.task == "distribution":
            return distribution_loss(output, target, weight)
        label_weights = None if self.label_weights is None else to_device(self.label_weights, target.device)
        return multilabel_loss(output, target, label_weights, weight)

    def term_weights(self, target: Tensor, batch_targets: Tensor | None = None) -> Tensor:
        """Return the sum of the images' weights by which each term is divided, (T,).

        Args:
            target: See `image_weights`.
            batch_targets: (N, ...), the method's own targets, if it has any.
        """
        weight = None if self.task == "affect" else self.image_weights(target)  # (N,)
        if weight is None:
            weight = target.new_ones(len(target))
        if self.task == "affect" or self.method is None:
            return weight.sum()[None]
        return self.method.term_weights(weight, batch_targets)

    def image_weights(self, target: Tensor) -> Tensor | None:
        """Return the weight of each image, (N,); None for equal weights.

        Args:
            target: (N, E), mixed, but not smoothed. A smoothed target would give each image a part of the weights of
                rare classes, so that frequent classes would count more than they should.
        """
        if self.class_weights is None:
            return None
        return target @ to_device(self.class_weights, target.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class _PreparedBatch:
    """A batch whose targets are final."""

    batch: FinetuneBatch
    augment: AugmentConfig
    target: Tensor  # (N, E), smoothed and mixed, or (N, 2) mixed
    unsmoothed: Tensor  # the same, only mixed
    mixing: Mixing | None

    @classmethod
    def of(cls, batch: FinetuneBatch, objective: Objective, augment: AugmentConfig) -> "_PreparedBatch":
        """Draw the batch's mixing."""
        if batch.batch_targets is not None:
            # A method has no own targets for a mixture of two images.
            augment = replace(augment, mixup=0.0, cutmix=0.0)
        target, mixing = prepare_targets(batch.scene, batch.person, batch.target, augment, objective.task)
        unsmoothed = batch.target.float()
        if mixing is not None:
            unsmoothed = mixing.mix_targets(unsmoothed)
        return cls(batch=batch, augment=augment, target=target, unsmoothed=unsmoothed, mixing=mixing)

    @property
    def batch_targets(self) -> Tensor | None:
        """(N, ...), the method's own targets; None if it has none."""
        return self.batch.batch_targets

    def views(self, device: torch.device, stats: PixelStats) -> tuple[Tensor | None, Tensor | None]:
        """Return scene and person on the device, see `augment_views`."""
        return augment_views(self.batch.scene, self.batch.person, self.augment, self.mixing, device=device, stats=stats)


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
    """Run forward and backward over the batches of all processes, then update the weights once.

    Args:
        model: A Classifier, or DistributedDataParallel around it.
        optimizer: Optimizer of the model's parameters.
        batches: One, or several whose gradients accumulate; loss and gradient are those of the joined batch of all
            processes, up to rounding. With task affect and several batches, each batch is passed forward twice.
        objective: Training loss.
        augment: Settings of the augmentation.
        stats: Normalisation of the encoder's pixels.
        precision: Precision of matrix products and activations.
        max_grad_norm: L2 norm to which the gradient is clipped; None: no clipping.

    Returns:
        "loss" and "grad_norm" of the joined batch.

    Raises:
        NonFiniteLossError: If the loss or the gradient is not finite, before any weight changes.
        ConfigError: On all processes, if batches are empty or differ in number.
    """
    device = next(model.parameters()).device
    prepared = [_PreparedBatch.of(batch, objective, augment) for batch in batches]

    def forward(scene: Tensor | None, person: Tensor | None) -> tuple[Tensor, Tensor]:
        with autocast(device, precision):
            output, features = model(scene=scene, person=person, with_features=True)
        return output.float(), features.float()

    def size_of(batch: AffectBatch | _PreparedBatch) -> int:
        return len(batch.target)

    if objective.task == "affect":
        affect_batches = [
            _affect_batch(to_device(batch.target, device), batch.views(device, stats), forward) for batch in prepared
        ]
        step = AffectStep(model, affect_batches)
        return train_step(model, optimizer, affect_batches, size_of, step.losses_of, max_grad_norm)

    def losses_of(batch: _PreparedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        output, features = forward(*batch.views(device, stats))
        batch_targets = None if batch.batch_targets is None else to_device(batch.batch_targets, device)
        weight = objective.image_weights(batch.unsmoothed)
        if weight is not None:
            weight = to_device(weight, device)
        terms = objective.terms(output, to_device(batch.target, device), features, batch_targets, weight)
        return terms, {"loss": terms}

    def weights_of(batch: _PreparedBatch) -> Tensor:
        return objective.term_weights(batch.unsmoothed, batch.batch_targets)

    return train_step(model, optimizer, prepared, size_of, losses_of, max_grad_norm, weights_of=weights_of)


def _affect_batch(
    target: Tensor,
    views: tuple[Tensor | None, Tensor | None],
    forward: Callable[[Tensor | None, Tensor | None], tuple[Tensor, Tensor]],
) -> AffectBatch:
    return AffectBatch(lambda: forward(*views)[0], target)


def seed_step(seed: int, done: int) -> None:
    """Seed torch, numpy and Python for a step by the run's seed, the number of steps done, and the process."""
    step_seed = int(np.random.SeedSequence([seed, done, rank()]).generate_state(1)[0])
    torch.manual_seed(step_seed)
    np.random.seed(step_seed)
    random.seed(step_seed)
