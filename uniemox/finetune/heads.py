"""Linear heads on frozen features: logistic regression for labels, ridge regression for valence and arousal."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits
from torch import nn

from uniemox.finetune.config import Task
from uniemox.predict.confidence import log_softmax

# Values of sklearn's C; ridge regression uses their inverses as alpha.
PENALTIES = tuple(10.0**power for power in range(-4, 3))
# For samples that are too few to hold some out.
PENALTY_WITHOUT_FOLDS = 1e-2
FOLDS = 5
ITERATIONS = 2000


def fit_head(
    features: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    task: Task,
    seed: int,
    class_weights: NDArray[np.float32] | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[nn.Linear, float]:
    """Fit a linear head on features; cross-validation on these samples chooses its penalty.

    Features are standardised for the fit. The returned head includes this and takes unscaled features.

    Args:
        features: (N, C).
        target: (N, E), rows that sum to 1; ones for several labels; or (N, 2) valence and arousal.
        task: Task of the head; "affect" fits ridge regression, others logistic regression, "multilabel" one for each
            label.
        seed: Random seed of the folds.
        class_weights: (E,), weight of a sample of each class; None: equal weights.
        groups: (N,), group of each sample, such as its image; the samples of one are fitted or held out together. None:
            each sample alone.

    Returns:
        The head and its penalty.
    """
    numbers = group_numbers(groups, len(features))
    mean = features.mean(axis=0)
    # A constant feature must not divide by 0.
    std = features.std(axis=0) + 1e-6
    x = (features - mean) / std
    if task == "affect":
        best_alpha = _best_alpha(x, target, numbers)
        ridge = Ridge(best_alpha).fit(x, target)
        return _linear(ridge.coef_, ridge.intercept_, mean, std), best_alpha
    # Threads wait for each other longer than they compute, and far longer on busy cores. The limit is set once for all
    # fits, because finding the libraries that have threads takes longer than a fit of few samples.
    with threadpool_limits(1, user_api="blas"):
        if task == "multilabel":
            best = _best_label_penalty(x, target, numbers, seed)
            return _linear(*_fit_labels(x, target, best), mean, std), best
        weights = np.ones(target.shape[1]) if class_weights is None else class_weights
        best = _best_penalty(x, target, weights, numbers, seed)
        coefficients, offsets = _fit(x, target, weights, best)
        return _linear(coefficients, offsets, mean, std), best


def group_numbers(groups: Sequence[str] | None, count: int) -> NDArray[np.intp]:
    """Return the number of each sample's group, (N,); without groups, each sample is one."""
    if groups is None:
        return np.arange(count)
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _best_alpha(x: NDArray, target: NDArray, groups: NDArray[np.intp]) -> float:
    """Return the alpha of ridge regression with the lowest squared error of samples that are held out.

    Groups are held out in at most 5 folds; samples without a group, or all of one group, each alone.
    """
    count = len(np.unique(groups))
    alphas = [1 / penalty for penalty in PENALTIES]
    if count in (1, len(groups)):
        return float(RidgeCV(alphas).fit(x, target).alpha_)
    folds = list(GroupKFold(min(FOLDS, count)).split(x, groups=groups))

    def loss_of(alpha: float) -> float:
        # The error is over all samples. A mean over folds would weight a sample by the size of its fold.
        predicted = cross_val_predict(Ridge(alpha), x, target, cv=folds)
        return float(np.square(predicted - target).sum())

    return min(alphas, key=loss_of)


def _best_penalty(x: NDArray, target: NDArray, weights: NDArray, groups: NDArray[np.intp], seed: int) -> float:
    """Return the penalty with the lowest weighted cross-entropy over the folds."""
    splits = stratified_folds(target, groups, seed)
    if not splits:
        return PENALTY_WITHOUT_FOLDS

    def loss_of(penalty: float) -> float:
        loss = 0.0
        for train, held_out in splits:
            coefficients, offsets = _fit(x[train], target[train], weights, penalty)
            log_shares = log_softmax(x[held_out] @ coefficients.T + offsets)
            loss -= float((target[held_out] * weights * log_shares).sum())
        return loss

    return _lowest(loss_of)


def stratified_folds(
    target: NDArray, groups: NDArray[np.intp], seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the training and held-out rows of each of at most 5 folds; none if a class has a single sample.

    Args:
        target: (N, E), shares of the classes; the most probable class of a sample counts.
        groups: (N,), number of each sample's group. Samples of one are in one fold, unless all of a class are of one.
        seed: Random seed.
    """
    classes = target.argmax(axis=1)
    folds = min(FOLDS, *(len(np.unique(groups[classes == label])) for label in np.unique(classes)))
    if folds < 2:
        groups = np.arange(len(classes))
        folds = min(FOLDS, int(np.bincount(classes)[np.unique(classes)].min()))
    if folds < 2:
        return []
    if len(np.unique(groups)) == len(groups):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(target, classes))
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(target, classes, groups))


def _lowest(loss_of: Callable[[float], float]) -> float:
    """Return the penalty with the lowest loss.

    Penalties are tried from strong to weak, until two in a row are worse than the best. The weakest ones separate the
    training samples and take by far the longest to fit.
    """
    losses: list[float] = []
    for penalty in PENALTIES:
        losses.append(loss_of(penalty))
        if len(losses) > 2 and min(losses[-2:]) > min(losses):
            break
    return PENALTIES[int(np.argmin(losses))]


def _fit(x: NDArray, target: NDArray, weights: NDArray, penalty: float) -> tuple[NDArray, NDArray]:
    """Fit logistic regression: coefficients (E, C) and offsets (E,). A class without samples has a very low offset.

    A sample with shares of several classes counts as one sample of each class, weighted by the shares.
    """
    rows, columns = np.nonzero(target * weights)
    present = np.unique(columns)
    coefficients = np.zeros((target.shape[1], x.shape[1]))
    offsets = np.full(target.shape[1], -20.0)
    offsets[present] = 0
    if len(present) < 2:
        return coefficients, offsets
    model = LogisticRegression(C=penalty, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        # Only weak penalties do not converge, and they are not chosen anyway.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[rows], columns, sample_weight=(target * weights)[rows, columns])
    # For two classes, sklearn returns one row, which belongs to the second class.
    fitted = present[-len(model.coef_) :]
    coefficients[fitted] = model.coef_
    offsets[fitted] = model.intercept_
    return coefficients, offsets


def _best_label_penalty(x: NDArray, target: NDArray, groups: NDArray[np.intp], seed: int) -> float:
    """Return the penalty with the lowest binary cross-entropy on a fifth of the groups, which are not fitted.

    There are no folds: every label needs its own fit.
    """
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    count = len(order) // FOLDS
    if count == 0:
        return PENALTY_WITHOUT_FOLDS
    is_held_out = np.isin(groups, order[:count])
    held_out = np.flatnonzero(is_held_out)
    train = np.flatnonzero(~is_held_out)

    def loss_of(penalty: float) -> float:
        coefficients, offsets = _fit_labels(x[train], target[train], penalty)
        logits = x[held_out] @ coefficients.T + offsets
        return float((np.logaddexp(0, logits) - target[held_out] * logits).sum())

    return _lowest(loss_of)


def _fit_labels(x: NDArray, target: NDArray, penalty: float) -> tuple[NDArray, NDArray]:
    """Fit a logistic regression for each label: coefficients (E, C) and offsets (E,).

    Args:
        x: (N, C).
        target: (N, E), 1 for the labels that a sample has, else 0.
        penalty: sklearn's C.
    """
    coefficients = np.zeros((target.shape[1], x.shape[1]))
    offsets = np.zeros(target.shape[1])
    for i in range(target.shape[1]):
        is_label = np.stack([1 - target[:, i], target[:, i]], axis=1)
        # The logits of absence and of presence; a label without samples, or without others, has a low or high offset.
        both_coefficients, both_offsets = _fit(x, is_label, np.ones(2), penalty)
        coefficients[i] = both_coefficients[1] - both_coefficients[0]
        offsets[i] = both_offsets[1] - both_offsets[0]
    return coefficients, offsets


def _linear(coefficients: NDArray, offsets: NDArray, mean: NDArray, std: NDArray) -> nn.Linear:
    """Return a linear layer that takes unstandardised features."""
    head = nn.Linear(coefficients.shape[1], coefficients.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(coefficients / std))
        head.bias.copy_(torch.from_numpy(offsets - (coefficients / std) @ mean))
    return head
