"""Accuracy, recall, calibration error, and scores of distributions."""

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError, LabelError, ShapeError
from uniemox.labels import POLARITY, LabelSet, label_map

Array = NDArray[np.floating]
Labels = NDArray[np.integer]


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Count how often each class was predicted as each.

    labels, predicted: (N,) classes from 0, N may be 0.  Returns (E, E) counts: rows are the true classes, columns the
    predicted ones. Raises ShapeError if the two differ in length, LabelError for what is no class.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if labels.ndim != 1 or labels.shape != predicted.shape:
        raise ShapeError(f"labels {labels.shape} and predictions {predicted.shape} must both be (N,)")
    _check_range(labels, classes)
    _check_range(predicted, classes)
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class_recall(confusion: NDArray[np.integer]) -> Array:
    """The fraction of each true class that was recognised; nan for a class without samples.

    confusion: (E, E), rows true.  Returns (E,).
    """
    return recall_from_counts(confusion.diagonal(), confusion.sum(axis=1))


def macro_f1(confusion: NDArray[np.integer]) -> float:
    """The mean over classes of F1, the harmonic mean of precision and recall.

    confusion: (E, E), rows true. A class that occurs neither as label nor as prediction is left out of the mean (as
    scikit-learn does when no labels are named); one that occurs but was never right counts 0. nan without samples.
    """
    return float(macro_f1_from_counts(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)))


def recall_from_counts(hits: NDArray[np.generic], labelled: NDArray[np.generic]) -> Array:
    """`per_class_recall` of many resamples at once; numbers or shares of samples.

    hits: (..., E) recognised samples of each class.  labelled: (..., E) all of them.  Returns (..., E).
    """
    return _ratio(hits, labelled)


def macro_f1_from_counts(
    hits: NDArray[np.generic], labelled: NDArray[np.generic], predicted: NDArray[np.generic]
) -> Array:
    """`macro_f1` of many resamples at once; numbers or shares of samples.

    hits, labelled, predicted: (..., E), for each class those that were right, that carry it, that were given it.
    Returns (...,).
    """
    together = np.add(labelled, predicted, dtype=np.float64)
    f1 = _ratio(np.multiply(hits, 2.0), together)  # (..., E)
    return _ratio(np.nan_to_num(f1).sum(axis=-1), (together > 0).sum(axis=-1))


def top_k_accuracy(probabilities: Array, labels: Labels, k: int) -> float:
    """The fraction of samples whose label is among the k most probable classes.

    probabilities: (N, E), or logits.  labels: (N,).  Of equal classes the first goes first, as argmax has it; k of E or
    more is always 1. Raises ConfigError for k below 1, else as `check_labels`.

    >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([1, 0]), k=2)
    0.5
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    check_labels(probabilities, labels)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)  # (N, 1)
    is_earlier = np.arange(probabilities.shape[1]) < labels[:, None]  # (N, E)
    rank = ((probabilities > own) | ((probabilities == own) & is_earlier)).sum(axis=1)  # (N,)
    return float((rank < k).mean())


def polarity_accuracy(probabilities: Array, labels: Labels, label_set: LabelSet) -> float | None:
    """The fraction of samples whose sign is right: the probabilities of positive and of negative classes are summed.

    probabilities: (N, E).  labels: (N,).  Samples whose label has no sign (surprise, neutral) are left out, and so is
    the probability of such classes; equal sums count as negative. None where the set does not have both signs, or no
    sample has one. Raises as `check_labels`.
    """
    check_labels(probabilities, labels, label_set)
    to_sign = label_map(label_set, POLARITY)
    signs = [to_sign(i) for i in range(len(label_set))]
    sign = np.array([-1 if s is None else s for s in signs])  # (E,)
    is_signed = sign[labels] >= 0  # (N,)
    if not {0, 1} <= set(signs) or not is_signed.any():
        return None
    sums = np.stack([probabilities[:, sign == s].sum(axis=1) for s in (0, 1)], axis=1)  # (N, 2)
    return float((sums.argmax(axis=1) == sign[labels])[is_signed].mean())


def check_labels(scores: NDArray[np.generic], labels: Labels, label_set: LabelSet | None = None) -> None:
    """Refuse scores and labels that do not belong together.

    scores: (N, E) probabilities or logits.  labels: (N,).
    Raises ShapeError for other shapes, DataError for no sample or a score that is not finite, LabelError for a label
    that is none of the E classes.
    """
    if scores.ndim != 2 or not scores.shape[1] or labels.shape != scores.shape[:1]:
        raise ShapeError(f"scores {scores.shape} and labels {labels.shape} must be (N, E) and (N,)")
    if label_set is not None and len(label_set) != scores.shape[1]:
        raise ShapeError(f"scores of {scores.shape[1]} classes do not fit {label_set.name}, which has {len(label_set)}")
    check_finite(scores)
    _check_range(labels, scores.shape[1])


def check_finite(values: NDArray[np.generic]) -> None:
    """Raise DataError where there is no sample, or where one holds a number that is not finite. values: (N, ...)."""
    if not len(values):
        raise DataError("there is no sample to score; was the split empty?")
    is_finite = np.isfinite(np.asarray(values, dtype=np.float64)).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"{(~is_finite).sum()} of {len(values)} samples, first number {is_finite.argmin()}, hold what is not "
            "finite; look for a network that has diverged, or leave out samples without an annotation"
        )


def check_distributions(shares: NDArray[np.generic]) -> None:
    """Refuse what is no table of distributions: (N, E), at least 0, with rows of sum 1 to within 0.001.

    Raises ShapeError for another shape, DataError for other values.
    """
    if shares.ndim != 2 or not shares.shape[1]:
        raise ShapeError(f"distributions {shares.shape} must be (N, E)")
    check_finite(shares)
    sums = np.asarray(shares, dtype=np.float64).sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if np.min(shares) < 0 or abs(sums[worst] - 1) > 1e-3:
        raise DataError(
            f"a distribution must be at least 0 with sum 1; the least value is {np.min(shares):.3g}, and sample "
            f"{worst} has the sum {sums[worst]:.4g}. Divide votes by their sum, take the softmax of logits"
        )


def _check_range(labels: Labels, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise LabelError(f"labels must be whole numbers, the places of classes, got {labels.dtype}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise LabelError(f"labels go from {labels.min()} to {labels.max()}, but there are classes 0 to {classes - 1}")


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Array:
    """part / whole; nan for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(part, whole)


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
    """Return the columns t, p, t², p², t p of the correlations, after subtracting the mean of t from both.

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
