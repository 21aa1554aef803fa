"""Fit the parts of a network around its training steps: the layers after the encoder before them, logits after them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.classifier_info import TASKS_WITH_SHARES
from uniemox.data.sample import Sample
from uniemox.evaluate.calibration import fit_temperature
from uniemox.evaluate.multilabel_fit import fit_labels
from uniemox.evaluate.outputs import units_of
from uniemox.finetune.augmentation import smooth
from uniemox.finetune.mean import check_same_division, mean_head
from uniemox.finetune.run_state import FinetuneRun
from uniemox.finetune.step import Objective
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_names import Init
from uniemox.model.classifier import Classifier, NeighbourHead
from uniemox.model.distance import MIN_IMAGES, Distance
from uniemox.model.eval_mode import eval_mode
from uniemox.model.methods.ccim import Ccim
from uniemox.teacher.prototypes import scale_of, text_prototypes
from uniemox.training.hardware import precision_of
from uniemox.views.transfer import to_device

# Training of fusion and head.
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
MAX_DISTANCE_IMAGES = 4_000
"""Maximum number of training images that the distance is fitted on."""
MAX_SURROUNDINGS = 20_000
"""Maximum number of training images that a dictionary of confounders is fitted on."""
ENCODING_TRAIN = "features of the training images"

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


def fit_fusion(
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


def fit_method(run: FinetuneRun, out: Path) -> ChosenWeights | None:
    """Fit the layers after the encoder with the run's method.

    Args:
        run: The run.
        out: Folder of the run.

    Returns:
        The weights that held-out images chose; None if they chose nothing.
    """
    config = run.config
    model = run.model
    if config.fit == "mean":
        sources = Init.parse(config.init).networks
        check_same_division(out, sources)
        model.head.load_state_dict(mean_head(sources, run.describe().labels, config.view).state_dict())
        return None
    if config.fit == "prototypes":
        _fit_prototypes(run)
        return None
    if config.fit == "knn":
        outputs = run.encode(run.parts.train, ENCODING_TRAIN)
        model.head = NeighbourHead(fused(model, torch.from_numpy(outputs.values)), run.target(outputs.samples))
        model.head.to(run.device)
        return None
    return fit_after_encoder(run, run.parts.selection if config.chooses_epoch else ())


@torch.no_grad()
def _fit_prototypes(run: FinetuneRun) -> None:
    """Let the head compare features with the texts of the run's CLIP, and fit it to the training images."""
    from uniemox.finetune.prototypes import fit_prototypes  # noqa: PLC0415 - sklearn takes a second
    from uniemox.teacher.clip_encoder import open_clip_teacher  # noqa: PLC0415 - so does open_clip

    clip = open_clip_teacher(run.config.init)
    prototypes = text_prototypes(clip, run.data.labels)  # (E, C)
    scale = scale_of(clip)
    weight = scale * prototypes
    if not run.config.zero_shot:
        outputs = run.encode(run.parts.train, ENCODING_TRAIN)
        run.encoded = outputs
        class_weights = run.objective.class_weights
        fitted, _ = fit_prototypes(
            fused(run.model, torch.from_numpy(outputs.values)).numpy(),
            run.target(outputs.samples).numpy(),
            prototypes.numpy(),
            scale,
            seed=run.config.seed,
            class_weights=None if class_weights is None else class_weights.numpy(),
            groups=units_of(outputs.samples),
        )
        weight = torch.from_numpy(fitted)
    head: Any = run.model.head
    head.weight.copy_(weight)
    head.bias.zero_()


def fit_after_encoder(run: FinetuneRun, selection: Sequence[Sample] = ()) -> ChosenWeights | None:
    """Fit the layers after the frozen encoder in place, because an optimiser may hold their parameters.

    Args:
        run: The run.
        selection: Held-out images whose score chooses the weights; empty: use the last weights.

    Returns:
        The weights that held-out images chose; None if they chose nothing.
    """
    config = run.config
    model = run.model
    objective = run.objective
    outputs = run.encode(run.parts.train, ENCODING_TRAIN)
    run.encoded = None if config.trains_in_steps else outputs
    target = run.target(outputs.samples)
    weights = objective.class_weights

    def probe(features: NDArray[np.float32]) -> nn.Linear:
        from uniemox.finetune.heads import fit_head  # noqa: PLC0415 - sklearn takes a second

        by_class = None if weights is None else weights.numpy()
        head, _ = fit_head(
            features,
            target.numpy(),
            task=config.task,
            seed=config.seed,
            class_weights=by_class,
            groups=units_of(outputs.samples),
        )
        return head

    if model.fusion is None and model.method is None and isinstance(model.head, nn.Linear):
        model.head.load_state_dict(probe(outputs.values[:, 0]).state_dict())
        return None
    encoded = torch.from_numpy(outputs.values)
    method = model.method
    image_weights = None if config.task == "affect" else objective.image_weights(target)
    smoothed = smooth(target, config.augment.smoothing) if config.task == "label" else target

    def targets_of_rows(rows: Tensor, progress: float) -> Tensor | None:
        assert method is not None
        return method.batch_targets([outputs.samples[row] for row in rows.tolist()], progress=progress)

    score = _scorer(run, selection) if selection else None
    # A method's skip features come first; a probe on them initialises their part of the head.
    if score is not None and method is not None and method.linear:
        start = probe(fused(model, encoded)[:, : method.linear].numpy())
        linear: Any = model.head.of_features if isinstance(model.head, Ccim) else model.head
        with torch.no_grad():
            linear.weight[:, : start.in_features] = start.weight.to(run.device)
            linear.bias.copy_(start.bias)
    return fit_fusion(
        model,
        HeadTrainingData(encoded, smoothed, weights=image_weights),
        objective=objective,
        seed=config.seed,
        targets_of_rows=None if method is None else targets_of_rows,
        score=score,
        on_progress=run.callback.progress,
    )


def _scorer(run: FinetuneRun, samples: Sequence[Sample]) -> Callable[[], float]:
    """Return a function that scores these images; their encoder features are computed once.

    The score is the mean log-likelihood at the best temperature. Accuracy on a few hundred images fluctuates by points
    between steps, so its maximum would be chosen by chance.
    """
    held_out = run.encode(samples, "features of held-out images")
    encoded = torch.from_numpy(held_out.values)
    target = run.target(held_out.samples)

    @torch.no_grad()
    def score() -> float:
        values = run.model.head(fused(run.model, encoded).to(run.device)).cpu()
        if run.config.task == "affect":
            return run.score_of(values, target)
        # This learning rate is too high; the other one may work.
        if not values.isfinite().all():
            return -math.inf
        if run.config.task == "multilabel":
            logits = values.numpy()
            probabilities = torch.from_numpy(fit_labels(logits, target.numpy()).probabilities(logits)).float()
            return -float(F.binary_cross_entropy(probabilities, target))
        temperature = fit_temperature(values.numpy(), target.numpy())
        log_shares = (values / temperature).log_softmax(dim=1)
        return float((target * log_shares).sum(dim=1).mean())

    return score


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


def prepare_network(run: FinetuneRun, *, is_new: bool) -> None:
    """Let a method read the training samples; fit a new run's dictionary of surroundings (CCIM).

    Surroundings are encoded with the run's own initial encoder; the paper of CCIM uses a network trained on places.
    """
    model = run.model
    head = model.head
    train = run.parts.train
    if model.method is not None:
        model.method.prepare(train, run.data.labels)
    if is_new and isinstance(head, Ccim):
        alone = Classifier(model.encoder, feature_width=head.confounders.shape[1], outputs=1, streams="scene")
        view = replace(run.config.view, hide_person=True)
        chosen = _sample_subset(train, MAX_SURROUNDINGS, run.config.seed)
        outputs = run.encode(chosen, "encoding surroundings", model=alone.to(run.device), view=view)
        head.fit_surroundings(outputs.values[:, 0], run.config.seed)


@torch.no_grad()
def adjust_logits(run: FinetuneRun) -> None:
    """Adjust logits so that rare classes are predicted more often, if set (arXiv 2007.07314, equation 9)."""
    head = run.model.head
    strength = run.config.logit_adjustment
    if strength > 0 and isinstance(head, nn.Linear):
        target = run.target(run.readable_train)  # (N, E)
        # A class without images counts as one image, because log(0) is not finite.
        shares = target.mean(dim=0).clamp(min=1 / len(target))  # (E,)
        head.bias.sub_(strength * shares.log().to(head.bias.device))


def fit_distance(run: FinetuneRun) -> None:
    """Fit the distance from the training images, on up to 4,000 of them."""
    samples = _sample_subset(run.parts.train, MAX_DISTANCE_IMAGES, run.config.seed)
    model = run.model
    if len(samples) < MIN_IMAGES:
        return
    if run.encoded is None or precision_of(run.config.hardware) != "float32":
        # The ONNX file computes in float32.
        work = "fitting the distance from the training images"
        values = run.encode(samples, work, precision="float32").values
    else:
        chosen = {sample.key for sample in samples}
        values = run.encoded.values[[sample.key in chosen for sample in run.encoded.samples]]
    features = fused(model, torch.from_numpy(values))
    # Some of the samples may be unreadable.
    if len(features) >= MIN_IMAGES:
        logits = None
        # Of several labels, the sum of their odds says nothing.
        if run.config.task in TASKS_WITH_SHARES:
            with torch.no_grad():
                logits = model.head(features.to(run.device))
        model.distance = Distance.fit(features, logits).to(run.device)


def _sample_subset(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return a random selection of at most this many samples, in their order."""
    rows = np.random.default_rng(seed).permutation(len(samples))[:count]
    return [samples[int(i)] for i in np.sort(rows)]
