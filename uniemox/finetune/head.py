"""What is fitted around the steps: all that follows the encoder before them, logits and distance after them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.data.sample import Sample
from uniemox.finetune.augment import smooth
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.evaluator import Evaluator
from uniemox.finetune.step import Objective
from uniemox.finetune.words import WordLists
from uniemox.model.classifier import Classifier
from uniemox.model.distance import MIN_IMAGES, Distance
from uniemox.model.methods.ccim import Ccim

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
) -> None:
    """Fit all that follows to the frozen encoder, in place: an optimiser may hold these parameters.

    words: of method eap.  selection: held-out images by whose score the weights are chosen; none: the last ones stay.
    """
    from uniemox.finetune.probe import fit_fusion, fit_head  # noqa: PLC0415 - sklearn, a second to import

    config = evaluator.config
    found = evaluator.outputs(model, train, encoded=True, what=FEATURES)
    evaluator.encoded = None if config.trains_in_steps else found
    target, weights = evaluator.target(found.samples), objective.class_weights
    if model.fusion is None and model.method is None and isinstance(model.head, nn.Linear):
        head, _ = fit_head(
            found.values[:, 0],
            target.numpy(),
            task=config.task,
            seed=config.seed,
            class_weights=None if weights is None else weights.numpy(),
        )
        model.head.load_state_dict(head.state_dict())
        return
    smoothed = smooth(target, config.augment.smoothing) if config.task == "label" else target
    said = None if words is None else words.rows(found.samples)
    score = _scorer(model, evaluator, selection) if selection else None
    if score is not None and model.method is not None:
        _start_as_probe(model, torch.from_numpy(found.values), target, weights, config)
    fit_fusion(model, torch.from_numpy(found.values), smoothed, objective, config.seed, said, score)


@torch.no_grad()
def _start_as_probe(
    model: Classifier, encoded: Tensor, target: Tensor, weights: Tensor | None, config: FinetuneConfig
) -> None:
    """Let a method that relates regions start as the linear probe of the whole views, and add to it."""
    from uniemox.finetune.probe import fit_head  # noqa: PLC0415 - sklearn, a second to import

    assert model.method is not None
    device, was_training, used = next(model.parameters()).device, model.training, model.method.linear
    model.eval()
    features = torch.cat([model.fuse(part.to(device))[:, :used].cpu() for part in encoded.split(BATCH)])
    model.train(was_training)
    probe, _ = fit_head(
        features.numpy(),
        target.numpy(),
        task=config.task,
        seed=config.seed,
        class_weights=None if weights is None else weights.numpy(),
    )
    linear: Any = model.head.of_features if isinstance(model.head, Ccim) else model.head
    linear.weight[:, :used] = probe.weight.to(device)
    linear.bias.copy_(probe.bias)


def _scorer(model: Classifier, evaluator: Evaluator, samples: Sequence[Sample]) -> Callable[[], float]:
    """What scores these images, whose encoder's features are computed once."""
    held_out = evaluator.outputs(model, samples, encoded=True, what="features of held-out images")
    encoded, target = torch.from_numpy(held_out.values), evaluator.target(held_out.samples)

    @torch.no_grad()
    def score() -> float:
        device, was_training = next(model.parameters()).device, model.training
        model.eval()
        logits = torch.cat([model.head(model.fuse(part.to(device))).cpu() for part in encoded.split(BATCH)])
        model.train(was_training)
        return evaluator.score_of(logits, target)

    return score


def fit_neighbour_head(model: Classifier, evaluator: Evaluator, train: Sequence[Sample]) -> None:
    """Let the 20 nearest training images answer."""
    from uniemox.finetune.probe import fit_neighbours  # noqa: PLC0415 - sklearn, a second to import

    found = evaluator.outputs(model, train, encoded=True, what=FEATURES)
    device = next(model.parameters()).device
    with torch.no_grad():
        features = model.fuse(torch.from_numpy(found.values).to(device)).cpu().numpy()
    model.head = fit_neighbours(features, evaluator.target(found.samples).numpy()).to(device)


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
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    with torch.no_grad():
        features = torch.cat([model.fuse(part.to(device)) for part in torch.from_numpy(values).split(BATCH)])
        logits = None if evaluator.config.task == "affect" else model.head(features)
    model.train(was_training)
    if len(features) >= MIN_IMAGES:
        model.distance = Distance.fit(features, logits).to(device)
