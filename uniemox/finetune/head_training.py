"""Training of the layers after an encoder, on features that are computed once."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uniemox.finetune.step import Objective
from uniemox.io.progress import Progress, silent
from uniemox.model.classifier import Classifier
from uniemox.model.eval_mode import eval_mode
from uniemox.views.transfer import to_device

BATCH = 256
HIGH_LR = 4e-3
# This second learning rate is tried if held-out images choose the weights.
LOW_LR = 1e-3
WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 1.0
# Two images give one step more, up to the maximum at 2,000 images.
MIN_STEPS = 100
MAX_STEPS = 1000
IMAGES_PER_STEP = 2
SCORINGS = 10
"""Number of times that held-out images are scored during a training."""

BatchTargets = Callable[[Tensor, float], Tensor | None]
"""Function from rows, (N,), and progress, 0 to 1, to a method's targets for them."""


class ChosenWeights(NamedTuple):
    """Weights that held-out images chose."""

    step: int
    """Number of training steps; 0: the initial weights."""
    lr: float


@dataclass(frozen=True, slots=True)
class HeadTrainingData:
    """N images as an encoder returns them, with what the layers after it learn."""

    encoded: Tensor
    """(N, ...), output of `Classifier.encode`."""
    target: Tensor
    """(N, E), or (N, 2) valence and arousal."""
    weights: Tensor | None = None
    """(N,), see `Objective.image_weights`; None: those of the targets, which are not smoothed."""

    def to(self, device: torch.device) -> "HeadTrainingData":
        """Return the same on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return HeadTrainingData(self.encoded.to(device), self.target.to(device), weights)


def train_after_encoder(
    classifier: Classifier,
    images: HeadTrainingData,
    *,
    objective: Objective,
    seed: int,
    targets_of_rows: BatchTargets | None = None,
    score: Callable[[], float] | None = None,
    on_progress: Progress = silent,
) -> ChosenWeights | None:
    """Train the layers after a classifier's encoder, in place; the encoder is not run.

    A linear head alone is not enough: it can't use information that only scene and person together contain.
    Takes a few seconds to a few minutes; the result is the same on every process.

    Args:
        classifier: Classifier whose layers are trained.
        images: What the encoder returned for N images, and their targets.
        objective: Training loss.
        seed: Random seed of the batches.
        targets_of_rows: Function for the method's own targets of some rows; None: the method has none.
        score: Function that scores held-out images, called before the first step and ten times with each of two
            learning rates; the weights with the highest score are used. None: the last weights of one rate.
        on_progress: Called after every step.

    Returns:
        The weights that the score chose; None without a score.
    """
    parameters = [
        parameter
        for name, parameter in classifier.named_parameters()
        if parameter.requires_grad and not name.startswith("encoder.")
    ]
    device = parameters[0].device
    images = images.to(device)
    start = _copies(parameters)
    best_score = -math.inf if score is None else score()
    best_weights = start
    chosen = ChosenWeights(0, 0.0)
    classifier.train()
    lrs = (HIGH_LR,) if score is None else (HIGH_LR, LOW_LR)
    steps = steps_for(len(images.encoded))
    for number, lr in enumerate(lrs):
        _restore(start, parameters)
        fitting = _fit_steps(
            classifier, parameters, images, objective=objective, seed=seed, targets_of_rows=targets_of_rows, lr=lr
        )
        for done in fitting:
            on_progress("training the head", number * steps + done, len(lrs) * steps)
            if score is not None and done % (steps // SCORINGS) == 0 and (value := score()) > best_score:
                best_score = value
                best_weights = _copies(parameters)
                chosen = ChosenWeights(done, lr)
    if score is None:
        return None
    _restore(best_weights, parameters)
    return chosen


def steps_for(images: int) -> int:
    """Return the number of training steps for fusion and head: fewer for fewer images, a multiple of `SCORINGS`."""
    return max(MIN_STEPS, min(MAX_STEPS, images // IMAGES_PER_STEP)) // SCORINGS * SCORINGS


def _fit_steps(
    classifier: Classifier,
    parameters: list[nn.Parameter],
    images: HeadTrainingData,
    *,
    objective: Objective,
    seed: int,
    targets_of_rows: BatchTargets | None,
    lr: float,
) -> Iterator[int]:
    """Train with one learning rate; yields the number of steps done after each."""
    encoded = images.encoded
    weights = images.weights
    steps = steps_for(len(encoded))
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        drawn = torch.randint(len(encoded), (BATCH,), generator=generator)
        rows = to_device(drawn, encoded.device)
        features = classifier.fuse(encoded[rows])
        batch_targets = None if targets_of_rows is None else targets_of_rows(drawn, step / steps)
        if batch_targets is not None:
            batch_targets = to_device(batch_targets, encoded.device)
        weight = None if weights is None else weights[rows]
        loss = objective.terms(classifier.head(features), images.target[rows], features, batch_targets, weight).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        yield step + 1
    # Free the gradients of the last step.
    optimizer.zero_grad()


def _copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _restore(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def fused(model: Classifier, encoded: Tensor) -> Tensor:
    """Return the head's input in evaluation, (N, C), on the CPU.

    Args:
        model: The classifier.
        encoded: Output of `Classifier.encode` for N images.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        return torch.cat([model.fuse(part.to(device)).cpu() for part in encoded.split(BATCH)])
