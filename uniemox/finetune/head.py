"""What is fitted around the steps: all that follows the encoder before them, logits and distance after them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.data.sample import Sample
from uniemox.evaluate.calibration import fit_temperature
from uniemox.finetune.augment import smooth
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.evaluator import Evaluator
from uniemox.finetune.step import Objective
from uniemox.finetune.words import WordLists
from uniemox.model.classifier import Classifier
from uniemox.model.distance import MIN_IMAGES, Distance
from uniemox.model.methods.ccim import Ccim

if TYPE_CHECKING:
    from uniemox.finetune.probe import KeptWeights

BATCH = 256
MAX_FITTED = 4_000  # training images that the distance is fitted on
FEATURES = "features of the training images"


def fit_after_encoder(
    model: Classifier,
    evaluator: Evaluator,
    train: Sequence[Sample],
    objective: Objective,
    words: WordLists | None = None,
    selection: Sequence[Sample] = (),
) -> "KeptWeights | None":
    """Fit all that follows to the frozen encoder, in place: an optimiser may hold these parameters.

    words: of method eap.  selection: held-out images by whose score the weights are chosen; none: the last ones stay.
    Returns what held-out images chose; None where they chose nothing.
    """
    from uniemox.finetune.probe import fit_fusion  # noqa: PLC0415 - sklearn, a second to import

    config = evaluator.config
    found = evaluator.outputs(model, train, encoded=True, what=FEATURES)
    evaluator.encoded = None if config.trains_in_steps else found
    target, weights = evaluator.target(found.samples), objective.class_weights
    if model.fusion is None and model.method is None and isinstance(model.head, nn.Linear):
        model.head.load_state_dict(_linear_probe(found.values[:, 0], target, weights, config).state_dict())
        return None
    encoded = torch.from_numpy(found.values)
    smoothed = smooth(target, config.augment.smoothing) if config.task == "label" else target
    said = None if words is None else words.rows(found.samples)
    score = _scorer(model, evaluator, selection) if selection else None
    if score is not None and model.method is not None and model.method.linear:
        _start_as_probe(model, _linear_probe(fused(model, encoded)[:, : model.method.linear], target, weights, config))
    reported = partial(evaluator.callback.progress, "fitting what follows the encoder")
    return fit_fusion(model, encoded, smoothed, objective, config.seed, said, score, reported)


def _linear_probe(features: Any, target: Tensor, weights: Tensor | None, config: FinetuneConfig) -> nn.Linear:
    """features: (N, C), array or tensor.  target: (N, E).  weights: (E,), of the classes; None: all the same."""
    from uniemox.finetune.probe import fit_head  # noqa: PLC0415 - sklearn, a second to import

    class_weights = None if weights is None else weights.numpy()
    head, _ = fit_head(
        np.asarray(features), target.numpy(), task=config.task, seed=config.seed, class_weights=class_weights
    )
    return head


@torch.no_grad()
def _start_as_probe(model: Classifier, probe: nn.Linear) -> None:
    """Let a method that relates regions start as a linear probe of its first features, and add to it."""
    linear: Any = model.head.of_features if isinstance(model.head, Ccim) else model.head
    linear.weight[:, : probe.in_features] = probe.weight.to(linear.weight.device)
    linear.bias.copy_(probe.bias)


@torch.no_grad()
def fused(model: Classifier, encoded: Tensor) -> Tensor:
    """What the head reads in evaluation, (N, C), on the CPU.  encoded: of N images, see `Classifier.encode`."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    features = torch.cat([model.fuse(part.to(device)).cpu() for part in encoded.split(BATCH)])
    model.train(was_training)
    return features


def _scorer(model: Classifier, evaluator: Evaluator, samples: Sequence[Sample]) -> Callable[[], float]:
    """What scores these images, whose encoder's features are computed once.

    The score is their mean log-likelihood at the temperature that suits them: of a few hundred images the share of
    right answers differs by points from one moment to the next by chance alone, and the best of many moments is chosen
    for its luck.
    """
    held_out = evaluator.outputs(model, samples, encoded=True, what="features of held-out images")
    encoded, target = torch.from_numpy(held_out.values), evaluator.target(held_out.samples)

    @torch.no_grad()
    def score() -> float:
        values = model.head(fused(model, encoded).to(next(model.parameters()).device)).cpu()
        if evaluator.config.task == "affect":
            return evaluator.score_of(values, target)
        if not values.isfinite().all():  # a rate that is too high; the others may be fine
            return -math.inf
        shares = (values / fit_temperature(values.numpy(), target.numpy())).log_softmax(dim=1)
        return float((target * shares).sum(dim=1).mean())

    return score


def fit_neighbour_head(model: Classifier, evaluator: Evaluator, train: Sequence[Sample]) -> None:
    """Let the 20 nearest training images answer."""
    from uniemox.finetune.probe import fit_neighbours  # noqa: PLC0415 - sklearn, a second to import

    found = evaluator.outputs(model, train, encoded=True, what=FEATURES)
    features = fused(model, torch.from_numpy(found.values)).numpy()
    model.head = fit_neighbours(features, evaluator.target(found.samples).numpy()).to(next(model.parameters()).device)


@torch.no_grad()
def adjust_logits(head: nn.Module, target: Tensor, strength: float) -> None:
    """Let rare classes be named more often (arXiv 2007.07314, equation 9).

    target: (N, E), of the training images.  strength: τ, of at least 0.
    """
    if strength > 0 and isinstance(head, nn.Linear):
        shares = target.mean(dim=0).clamp(min=1 / len(target))  # (E,)
        head.bias.sub_(strength * shares.log().to(head.bias.device))


def fit_distance(model: Classifier, evaluator: Evaluator, train: Sequence[Sample]) -> None:
    """Let the classifier know what its training images are like, from up to 4,000 of them."""
    order = np.random.default_rng(evaluator.config.seed).permutation(len(train))[:MAX_FITTED]
    known = [train[int(i)] for i in np.sort(order)]
    if len(known) < MIN_IMAGES:
        return
    if evaluator.encoded is None:
        values = evaluator.outputs(model, known, what="what the training images are like", encoded=True).values
    else:
        chosen = {sample.key for sample in known}
        values = evaluator.encoded.values[[sample.key in chosen for sample in evaluator.encoded.samples]]
    features, device = fused(model, torch.from_numpy(values)), next(model.parameters()).device
    if len(features) < MIN_IMAGES:
        return
    with torch.no_grad():
        logits = None if evaluator.config.task == "affect" else model.head(features.to(device))
    model.distance = Distance.fit(features, logits).to(device)
