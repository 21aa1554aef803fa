"""What follows a frozen encoder: logistic regression, ridge regression, nearest neighbours; or fusion and head."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from uniemox.finetune.config import Task
from uniemox.finetune.step import Objective
from uniemox.model.classifier import Classifier, NeighbourHead

PENALTIES = tuple(10.0**power for power in range(-4, 3))  # sklearn's C, or ridge's alpha
FOLDS, ITERATIONS = 5, 2000
BATCH, RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 256, 4e-3, 0.05, 1.0  # of fusion and head
MAX_STEPS, MIN_STEPS, IMAGES_OF_A_STEP = 1000, 100, 2  # all steps from 2,000 images on
WATCHED = 10  # times that held-out images are scored
LOW_RATE = 1e-3  # tried as well where held-out images choose


class KeptWeights(NamedTuple):
    """The weights that held-out images chose."""

    step: int
    """0: those that it began with."""
    lr: float


def fit_head(
    features: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    task: Task,
    seed: int,
    class_weights: NDArray[np.float32] | None = None,
) -> tuple[nn.Linear, float]:
    """A linear head on features, and its penalty, which cross-validation inside these samples chooses.

    features: (N, C).  target: (N, E), rows that sum to 1, or (N, 2) valence and arousal.
    class_weights: (E,), how much a sample of each class counts; None: all the same.
    Features are standardised for the fit; the head takes them as they are.
    """
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = (features - mean) / std
    if task == "affect":
        ridge = RidgeCV(alphas=[1 / penalty for penalty in PENALTIES]).fit(x, target)
        return _linear(ridge.coef_, ridge.intercept_, mean, std), float(ridge.alpha_)
    weights = np.ones(target.shape[1]) if class_weights is None else class_weights
    best = _best_penalty(x, target, weights, seed)
    coefficients, offsets = _fit(x, target, weights, best)
    return _linear(coefficients, offsets, mean, std), best


def fit_neighbours(features: NDArray[np.float32], target: NDArray[np.float32]) -> NeighbourHead:
    """The 20 nearest neighbours among these samples. Shapes as `fit_head`."""
    return NeighbourHead(torch.from_numpy(features), torch.from_numpy(target))


def fit_fusion(
    classifier: Classifier,
    encoded: Tensor,
    target: Tensor,
    objective: Objective,
    seed: int,
    words: Tensor | None = None,
    score: Callable[[], float] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> KeptWeights | None:
    """Train all that follows the encoder of a classifier, in place; the encoder is not asked.

    encoded: of `Classifier.encode`, of N images.  target: (N, E), or (N, 2) valence and arousal.  words: (N, V), with
    which method eap aligns the images in the first half of the steps.  score: of images that are held out, asked
    before the first step and ten times with each of two learning rates; the weights with the highest stay. None: the
    last ones, with one rate.
    on_progress: called with steps done and steps in all.
    Returns the moment that the score chose; None without a score.
    A linear head alone would not do: what scene and person say together is in no weighted sum of what each says.
    A few seconds to a few minutes; the same on every process.
    """
    parameters = classifier.after_encoder()
    device = parameters[0].device
    encoded, target = encoded.to(device), target.to(device)
    words = None if words is None else words.to(device)
    start = _copies(parameters)
    best, kept, chosen = -math.inf if score is None else score(), start, KeptWeights(0, 0.0)
    classifier.train()
    rates, steps = (RATE,) if score is None else (RATE, LOW_RATE), steps_for(len(encoded))
    for place, rate in enumerate(rates):
        _put(start, parameters)
        for done in _fit_steps(classifier, parameters, encoded, target, objective, seed, words, rate):
            on_progress(place * steps + done, len(rates) * steps)
            if score is not None and done % (steps // WATCHED) == 0 and (found := score()) > best:
                best, kept, chosen = found, _copies(parameters), KeptWeights(done, rate)
    if score is None:
        return None
    _put(kept, parameters)
    return chosen


def steps_for(images: int) -> int:
    """Steps that fusion and head are trained for: fewer for fewer images, a multiple of `WATCHED`."""
    return max(MIN_STEPS, min(MAX_STEPS, images // IMAGES_OF_A_STEP)) // WATCHED * WATCHED


def _fit_steps(
    classifier: Classifier,
    parameters: list[nn.Parameter],
    encoded: Tensor,
    target: Tensor,
    objective: Objective,
    seed: int,
    words: Tensor | None,
    rate: float,
) -> Iterator[int]:
    """Train with one learning rate; gives the number of steps done after each."""
    steps = steps_for(len(encoded))
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    draws = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(encoded), (BATCH,), generator=draws).to(encoded.device)
        features = classifier.fuse(encoded[rows])
        said = None if words is None or 2 * step >= steps else words[rows]
        loss = objective(classifier.head(features), target[rows], features, said)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        yield step + 1
    optimizer.zero_grad()


def _copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _put(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _best_penalty(x: NDArray, target: NDArray, weights: NDArray, seed: int) -> float:
    """The penalty with the lowest weighted cross-entropy over the folds.

    Penalties are tried from strong to weak, until two in a row are worse than the best: the weakest, which separate the
    training samples, take by far the longest to fit.
    """
    classes = target.argmax(axis=1)
    folds = min(FOLDS, np.bincount(classes)[np.unique(classes)].min())
    if folds < 2:
        return 1e-2
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, classes))
    losses: list[float] = []
    for penalty in PENALTIES:
        loss = 0.0
        for train, held in splits:
            coefficients, offsets = _fit(x[train], target[train], weights, penalty)
            logits = x[held] @ coefficients.T + offsets
            shares = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            loss -= float((target[held] * weights * shares).sum())
        losses.append(loss)
        if len(losses) > 2 and min(losses[-2:]) > min(losses):
            break
    return PENALTIES[int(np.argmin(losses))]


def _fit(x: NDArray, target: NDArray, weights: NDArray, penalty: float) -> tuple[NDArray, NDArray]:
    """Coefficients (E, C) and offsets (E,); a class that is never seen has none and a very low offset.

    A sample with shares of several classes counts as one of each, by its shares.
    """
    rows, columns = np.nonzero(target * weights)
    present = np.unique(columns)
    coefficients, offsets = np.zeros((target.shape[1], x.shape[1])), np.full(target.shape[1], -20.0)
    if len(present) < 2:
        offsets[present] = 0
        return coefficients, offsets
    model = LogisticRegression(C=penalty, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties, which are not chosen
        model.fit(x[rows], columns, sample_weight=(target * weights)[rows, columns])
    if len(present) == 2:  # one row of coefficients, for the second class
        coefficients[present[1]], offsets[present[0]], offsets[present[1]] = model.coef_[0], 0, model.intercept_[0]
    else:
        coefficients[present], offsets[present] = model.coef_, model.intercept_
    return coefficients, offsets


def _linear(coefficients: NDArray, offsets: NDArray, mean: NDArray, std: NDArray) -> nn.Linear:
    """A layer that takes features as they are."""
    head = nn.Linear(coefficients.shape[1], coefficients.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(coefficients / std))
        head.bias.copy_(torch.from_numpy(offsets - (coefficients / std) @ mean))
    return head
