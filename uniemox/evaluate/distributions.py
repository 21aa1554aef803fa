"""How far predictions are from votes: distributions over emotions, and places on the axes of valence and arousal.

The six measures of distributions are those of label distribution learning (Geng, TKDE 28, 2016, arXiv 1408.6027); for
each sample, target t and prediction p, with sums over the E classes. Terms 0/0 count 0.
"""

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.evaluate.metrics import Array, check_distributions, check_finite

CONSTANT = 1e-12  # share of the mean square below which a variance is rounding


def kl_divergence(target: Array, pred: Array) -> Array:
    """Σ t ln(t / p), in nats, from 0, lower is better.

    target, pred: (N, E), rows of sum 1.  Returns (N,). A prediction of exactly 0 counts as the least normal float64
    (about 2e-308), so that the result stays finite; a softmax in float64 does not come near.
    Raises ShapeError and DataError as `check_distributions`.
    """
    t, p = _pair(target, pred)
    t_or_1 = np.where(t > 0, t, 1)  # 0 ln 0 is 0
    return (t * (np.log(t_or_1) - np.log(np.maximum(p, np.finfo(np.float64).tiny)))).sum(axis=1)


def cosine_similarity(target: Array, pred: Array) -> Array:
    """Σ t p / (|t| |p|), 0 to 1, higher is better. Shapes and errors as `kl_divergence`."""
    t, p = _pair(target, pred)
    return (t * p).sum(axis=1) / (np.linalg.norm(t, axis=1) * np.linalg.norm(p, axis=1))


def clark(target: Array, pred: Array) -> Array:
    """√ Σ (t - p)² / (t + p)², 0 to √E, lower is better: the plain form, not the one divided by √E.

    Shapes and errors as `kl_divergence`.
    """
    return np.sqrt(np.square(_relative(*_pair(target, pred))).sum(axis=1))


def canberra(target: Array, pred: Array) -> Array:
    """Σ |t - p| / (t + p), 0 to E, lower is better: the plain form, not the one divided by E.

    Shapes and errors as `kl_divergence`.
    """
    return _relative(*_pair(target, pred)).sum(axis=1)


def chebyshev(target: Array, pred: Array) -> Array:
    """max |t - p|, 0 to 1, lower is better. Shapes and errors as `kl_divergence`."""
    t, p = _pair(target, pred)
    return np.abs(t - p).max(axis=1)


def intersection(target: Array, pred: Array) -> Array:
    """Σ min(t, p), 0 to 1, higher is better. Shapes and errors as `kl_divergence`."""
    return np.minimum(*_pair(target, pred)).sum(axis=1)


def mean_absolute_error(target: Array, pred: Array) -> float:
    """The mean of |t - p| over samples, in the unit of the axis. target, pred: (N,).

    Raises ShapeError for other shapes, DataError for no sample or values that are not finite.
    """
    check_axis(target, pred)
    return float(np.abs(np.subtract(target, pred, dtype=np.float64)).mean())


def pearson(target: Array, pred: Array) -> float:
    """The correlation of two axes, -1 to 1; nan where one of them is constant, as one sample is.

    target, pred: (N,).  Raises as `mean_absolute_error`.
    """
    return float(pearson_of_moments(moments(target, pred).mean(axis=0)))


def concordance(target: Array, pred: Array) -> float:
    """Lin's concordance: 2 cov / (var t + var p + (mean t - mean p)²), -1 to 1 (Lin, Biometrics 45, 1989).

    target, pred: (N,).  Variances are over N, as in the paper. It is 0 where one axis is constant (no agreement beyond
    the mean), and nan where both are the same constant: 0/0.  Raises as `mean_absolute_error`.
    """
    return float(concordance_of_moments(moments(target, pred).mean(axis=0)))


def moments(target: Array, pred: Array) -> Array:
    """What the correlations are made of: columns t, p, t², p², t p, after the mean of t is taken from both.

    target, pred: (N,).  Returns (N, 5).  Raises as `mean_absolute_error`.
    """
    check_axis(target, pred)
    middle = np.mean(target, dtype=np.float64)  # squares of values far from 0 would round
    t, p = target - middle, pred - middle
    return np.stack([t, p, t * t, p * p, t * p], axis=1)


def pearson_of_moments(means: Array) -> Array:
    """`pearson` of many resamples at once. means: (..., 5), means of `moments`.  Returns (...,)."""
    variance_t, variance_p, covariance, _ = _central(means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(covariance / np.sqrt(variance_t * variance_p), -1, 1)


def concordance_of_moments(means: Array) -> Array:
    """`concordance` of many resamples at once. means: (..., 5), means of `moments`.  Returns (...,)."""
    variance_t, variance_p, covariance, shift = _central(means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(2 * covariance / (variance_t + variance_p + shift**2), -1, 1)


def check_axis(target: Array, pred: Array) -> None:
    """Refuse values of an axis that are not both (N,), finite, and at least one; raises ShapeError or DataError."""
    if target.ndim != 1 or target.shape != pred.shape:
        raise ShapeError(f"target {target.shape} and prediction {pred.shape} must both be (N,)")
    check_finite(target)
    check_finite(pred)


def _central(means: Array) -> tuple[Array, Array, Array, Array]:
    """Variances, covariance and difference of the means, exactly 0 where the values are constant."""
    t, p, tt, pp, tp = np.moveaxis(means, -1, 0)
    variance_t = np.where(tt - t * t > CONSTANT * tt, tt - t * t, 0)
    variance_p = np.where(pp - p * p > CONSTANT * pp, pp - p * p, 0)
    covariance = np.where((variance_t > 0) & (variance_p > 0), tp - t * p, 0)
    return variance_t, variance_p, covariance, t - p


def _relative(t: Array, p: Array) -> Array:
    """|t - p| / (t + p), (N, E)."""
    both = t + p
    return np.abs(t - p) / np.where(both > 0, both, 1)


def _pair(target: NDArray[np.generic], pred: NDArray[np.generic]) -> tuple[Array, Array]:
    check_distributions(target)
    check_distributions(pred)
    if target.shape != pred.shape:
        raise ShapeError(f"target {target.shape} and prediction {pred.shape} must both be (N, E)")
    return np.asarray(target, dtype=np.float64), np.asarray(pred, dtype=np.float64)
