"""Scores a frozen encoder by logistic probes on a tenth of the labels, and on all of them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits
from torch import nn

from experiments.continued.tensors import Images, resize_whole
from uniemox.views.patches import normalise

# Values of sklearn's C.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
TENTHS = 10
FOLDS = 5
INNER_FOLDS = 3
BATCH = 256
Answers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of N images, means over the probes that scored them."""

    log_likelihood: NDArray[np.float64]
    """Log-probability of the true label, (N,)."""
    hit: NDArray[np.float64]
    """Share of probes that named the true label, (N,)."""


@torch.inference_mode()
def features_of(encoder: nn.Module, images: Images, side: int, *, grey: bool = False) -> NDArray[np.float64]:
    """Return the CLS token and the mean patch token of whole images, (N, 2 D), in float32."""
    vit: Any = encoder
    was_training = vit.training
    vit.eval()
    rows = []
    for pixels in images.pixels.split(BATCH):
        views = normalise(resize_whole(pixels, side, grey=grey), pixels.device)
        tokens = vit.forward_features(views)  # (n, 1 + L, D)
        rows.append(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1).float().cpu())
    vit.train(was_training)
    return torch.cat(rows).double().numpy()


def standardised(features: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that standardises features with the mean and deviation of these."""
    mean = features.mean(axis=0)
    deviation = features.std(axis=0) + 1e-6
    return lambda values: (values - mean) / deviation


def fit(features: NDArray[np.float64], labels: NDArray[np.int64], penalty: float) -> LogisticRegression:
    """Fit a logistic regression with equal class weights."""
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=300, tol=1e-3)
    with warnings.catch_warnings():
        # Fits with the weakest penalties do not always converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def log_probabilities(model: LogisticRegression, features: NDArray[np.float64], classes: int) -> Answers:
    """Return log-probabilities, (N, E); very low ones for classes without training images."""
    rows = np.full((len(features), classes), np.log(1e-12))
    rows[:, model.classes_] = np.maximum(model.predict_log_proba(features), np.log(1e-12))
    return rows


def best_penalty(features: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> float:
    """Return the penalty with the highest balanced log-likelihood in a cross-validation inside these images."""
    smallest = int(np.bincount(labels, minlength=classes)[np.unique(labels)].min())
    folds = min(INNER_FOLDS, smallest)
    if folds < 2:
        return PENALTIES[1]
    totals = dict.fromkeys(PENALTIES, 0.0)
    for fit_rows, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels):
        for penalty in PENALTIES:
            rows = log_probabilities(fit(features[fit_rows], labels[fit_rows], penalty), features[held_out], classes)
            totals[penalty] += balanced(rows[np.arange(len(held_out)), labels[held_out]], labels[held_out])
    return max(totals, key=lambda penalty: totals[penalty])


def _score(
    features: NDArray[np.float64],
    scored_features: NDArray[np.float64],
    labels: NDArray[np.int64],
    fit_rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit on some rows of the features, and return log-likelihood and hits of other rows of `scored_features`."""
    classes = int(labels.max()) + 1
    scale = standardised(features[fit_rows])
    x = scale(features[fit_rows])
    # Once for all fits: finding the libraries of a process takes as long as a small fit.
    with threadpool_limits(limits=1):
        model = fit(x, labels[fit_rows], best_penalty(x, labels[fit_rows], classes))
        rows = log_probabilities(model, scale(scored_features[held_out]), classes)
    truth = labels[held_out]
    return rows[np.arange(len(held_out)), truth], rows.argmax(axis=1) == truth


def score(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    tenths: bool,
    scored_features: NDArray[np.float64] | None = None,
    jobs: int = 1,
) -> Scores:
    """Score images by probes that did not read them.

    Args:
        features: Features of the images, (N, D).
        labels: Labels of the images, (N,).
        tenths: Fit on each tenth and score the other nine; otherwise fit on four fifths and score the fifth.
        scored_features: Features of changed copies of the images, which are scored instead; None: the same images.
        jobs: Number of processes.
    """
    folds = StratifiedKFold(TENTHS if tenths else FOLDS, shuffle=True, random_state=0)
    splits = list(folds.split(features, labels))
    # With tenths, the small part of each split is fitted on and the large part is scored.
    if tenths:
        splits = [(small, large) for large, small in splits]
    if scored_features is None:
        scored_features = features
    scored = Parallel(n_jobs=jobs)(
        delayed(_score)(features, scored_features, labels, fit_rows, held_out) for fit_rows, held_out in splits
    )
    total = np.zeros(len(labels))
    hits = np.zeros(len(labels))
    times = np.zeros(len(labels))
    for (_, held_out), (log_likelihood, is_hit) in zip(splits, scored, strict=True):
        total[held_out] += log_likelihood
        hits[held_out] += is_hit
        times[held_out] += 1
    return Scores(total / times, hits / times)


def balanced(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean over classes of the mean over a class's images.

    >>> balanced(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 1]))
    0.5
    """
    return float(np.mean([values[labels == label].mean() for label in np.unique(labels)]))


def cross_fitted_recall(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean recall of a probe with all labels, in percent."""
    return 100 * balanced(score(features, labels, tenths=False).hit, labels)
