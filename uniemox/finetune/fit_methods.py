"""Methods that fit the layers after the encoder once: probe, knn, prototypes, the mean of runs, and region methods."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.data.sample import Sample, units_of
from uniemox.evaluate.calibration import fit_temperature
from uniemox.evaluate.multilabel_fit import fit_labels
from uniemox.finetune.augmentation import smooth
from uniemox.finetune.head_training import ChosenWeights, HeadTrainingData, fused, train_after_encoder
from uniemox.finetune.mean import check_same_division, mean_head
from uniemox.finetune.run_state import FinetuneRun
from uniemox.io.weight_names import Init
from uniemox.model.classifier import Classifier, NeighbourHead
from uniemox.model.methods.ccim import Ccim
from uniemox.teacher.prototypes import scale_of, text_prototypes

ENCODING_TRAIN = "features of the training images"


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
    if model.fusion is None and model.method is None and isinstance(model.head, nn.Linear):
        probe = _fit_probe(run, outputs.values[:, 0], target, outputs.samples)
        model.head.load_state_dict(probe.state_dict())
        return None
    encoded = torch.from_numpy(outputs.values)
    method = model.method
    image_weights = None if config.task == "affect" else objective.image_weights(target)
    smoothed = smooth(target, config.augment.smoothing) if config.task == "label" else target

    def targets_of_rows(rows: Tensor, progress: float) -> Tensor | None:
        assert method is not None
        return method.batch_targets([outputs.samples[row] for row in rows.tolist()], progress=progress)

    score = _scorer(run, selection) if selection else None
    if score is not None and method is not None and method.linear:
        # A method's skip features come first.
        skip_features = fused(model, encoded)[:, : method.linear].numpy()
        _start_head_from(_fit_probe(run, skip_features, target, outputs.samples), model)
    return train_after_encoder(
        model,
        HeadTrainingData(encoded, smoothed, weights=image_weights),
        objective=objective,
        seed=config.seed,
        targets_of_rows=None if method is None else targets_of_rows,
        score=score,
        on_progress=run.callback.progress,
    )


def _fit_probe(run: FinetuneRun, features: NDArray[np.float32], target: Tensor, samples: Sequence[Sample]) -> nn.Linear:
    """Fit a linear head to features of N images, (N, C), with the run's task and class weights.  target: (N, E)."""
    from uniemox.finetune.heads import fit_head  # noqa: PLC0415 - sklearn takes a second

    class_weights = run.objective.class_weights
    head, _ = fit_head(
        features,
        target.numpy(),
        task=run.config.task,
        seed=run.config.seed,
        class_weights=None if class_weights is None else class_weights.numpy(),
        groups=units_of(samples),
    )
    return head


@torch.no_grad()
def _start_head_from(probe: nn.Linear, model: Classifier) -> None:
    """Copy a probe's weights to the columns of the first features in the model's head, which reads more features."""
    head: Any = model.head.of_features if isinstance(model.head, Ccim) else model.head
    head.weight[:, : probe.in_features] = probe.weight.to(head.weight.device)
    head.bias.copy_(probe.bias)


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
