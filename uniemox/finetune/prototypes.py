"""Method prototypes: a linear head on a CLIP's features of length 1 that starts from text prototypes.

The logits are s (z · t) + z · d for features z and the text prototype t of a label. The factor s, CLIP's inverse
temperature, and the change d are fitted together. Both have a prior: s stays near CLIP's own value, and d near 0. So
few images change little, and many images outweigh the priors.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from uniemox.finetune.heads import group_numbers, stratified_folds
from uniemox.predict.confidence import log_softmax

Array = NDArray[np.float64]
# Strengths of the prior on the changes, from weak to strong; infinity fits s alone.
PENALTIES = (0.01, 0.1, 1.0, 10.0, np.inf)
# For a class with a single image, which can't be held out.
PENALTY_OF_ONE = 1.0
ITERATIONS = 500


def fit_prototypes(
    features: NDArray[np.float32],
    target: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    scale: float,
    *,
    seed: int,
    class_weights: NDArray[np.float32] | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Fit the prototypes to images; cross-validation on them chooses how much the prototypes may change.

    Args:
        features: (N, C), rows of length 1.
        target: (N, E), rows that sum to 1.
        prototypes: (E, C), rows of length 1.
        scale: CLIP's own factor of the cosines.
        seed: Random seed of the folds.
        class_weights: (E,), weight of a sample of each class; None: equal weights.
        groups: (N,), group of each sample, see `fit_head`.

    Returns:
        Weight of the linear head, (E, C), and the chosen strength of the prior.
    """
    weights = np.ones(target.shape[1]) if class_weights is None else np.asarray(class_weights, dtype=np.float64)
    x = features.astype(np.float64)
    y = target.astype(np.float64) * weights
    start = scale * prototypes.astype(np.float64)
    # Threads wait for each other longer than they compute these small products.
    with threadpool_limits(1, user_api="blas"):
        penalty = _best_penalty(x, y, start, group_numbers(groups, len(x)), seed)
        return _fit(x, y, start, penalty).astype(np.float32), penalty


def _best_penalty(x: Array, y: Array, start: Array, groups: NDArray[np.intp], seed: int) -> float:
    """Return the strength with the lowest cross-entropy over the folds."""
    splits = stratified_folds(y, groups, seed)
    if not splits:
        return PENALTY_OF_ONE
    losses = dict.fromkeys(PENALTIES, 0.0)
    for penalty in PENALTIES:
        for train, held_out in splits:
            losses[penalty] += _cross_entropy(x[held_out] @ _fit(x[train], y[train], start, penalty).T, y[held_out])[0]
    return min(losses, key=losses.__getitem__)


def _fit(x: Array, y: Array, start: Array, penalty: float) -> Array:
    """Return the weight (E, C) with the highest posterior probability.

    Args:
        x: (N, C).
        y: (N, E), targets times the weights of their classes.
        start: (E, C), weight of the untrained head.
        penalty: Strength of the prior on the change; infinity: no change.
    """
    zero_shot = x @ start.T  # (N, E)
    is_fixed = np.isinf(penalty)

    def change_of(parameters: Array) -> Array:
        if is_fixed:
            return np.zeros_like(start)
        return parameters[1:].reshape(start.shape)

    def loss_and_gradient(parameters: Array) -> tuple[float, Array]:
        factor = parameters[0]
        change = change_of(parameters)
        loss, gradient = _cross_entropy(factor * zero_shot + x @ change.T, y)
        loss += 0.5 * (factor - 1) ** 2
        of_factor = (gradient * zero_shot).sum() + factor - 1
        if is_fixed:
            return loss, np.array([of_factor])
        loss += 0.5 * penalty * float((change**2).sum())
        of_change = gradient.T @ x + penalty * change
        return loss, np.concatenate([[of_factor], of_change.ravel()])

    initial = np.zeros(1 if is_fixed else 1 + start.size)
    initial[0] = 1.0
    best = minimize(loss_and_gradient, initial, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    return best[0] * start + change_of(best)


def _cross_entropy(logits: Array, y: Array) -> tuple[float, Array]:
    """Return the sum of the cross-entropies, and its gradient in the logits, (N, E)."""
    log_shares = log_softmax(logits)
    gradient = np.exp(log_shares) * y.sum(axis=1, keepdims=True) - y
    return -float((y * log_shares).sum()), gradient
