"""Accuracy, recall, scores of distributions and of axes; those with intervals are functions of means over samples."""

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.labels import CUSTOM, POLARITY, LabelSet, label_map

Array = NDArray[np.floating]
Labels = NDArray[np.integer]
# A variance below this share of the mean square is rounding.
CONSTANT = 1e-12


def check_finite(values: NDArray[np.generic]) -> None:
    """Raise DataError if there is no sample, or if a value of (N, ...) is not finite."""
    if not len(values):
        raise DataError("there is no sample to score; was the split empty?")
    is_finite = np.isfinite(np.asarray(values, dtype=np.float64)).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"{(~is_finite).sum()} of {len(values)} samples, first number {is_finite.argmin()}, are not finite; "
            "did the network diverge? Otherwise leave out samples without an annotation"
        )


def macro_f1(hits: Array, labelled: Array, predicted: Array) -> Array:
    """Return the mean over classes of F1, the harmonic mean of precision and recall: (...,).

    A class that occurs neither as label nor as prediction is left out of the mean (as in scikit-learn without named
    labels); one that occurs but was never right counts 0.

    Args:
        hits: (..., E), number of each class's samples that were right, or their share of all samples.
        labelled: (..., E), number or share of the samples that have the label.
        predicted: (..., E), number or share of the samples for which the label was predicted.

    Returns:
        (...,), 0 to 1; nan without samples.
    """
    occurrences = np.add(labelled, predicted, dtype=np.float64)  # (..., E)
    f1 = ratio(np.multiply(hits, 2.0), occurrences)  # (..., E)
    return ratio(np.nan_to_num(f1).sum(axis=-1), (occurrences > 0).sum(axis=-1))


def top_k_accuracy(scores: Array, labels: Labels, k: int) -> float:
    """Return the share of samples whose label is among the k most probable classes; ties go to the first class.

    Args:
        scores: (N, E) probabilities or logits.
        labels: (N,), indices of the true labels.
        k: Number of classes.

    >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([1, 0]), k=2)
    0.5
    """
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (N, k)
    return float((first == labels[:, None]).any(axis=1).mean())


def polarity_accuracy(probabilities: Array, labels: Labels, label_set: LabelSet) -> float | None:
    """Return the share of samples with the right polarity, by the summed probabilities of positive and negative
    classes.

    In a published set, samples whose label has no polarity (surprise, neutral) are left out, and so is the probability
    of such classes. Equal sums count as negative.

    Args:
        probabilities: (N, E), 0 to 1.
        labels: (N,), indices in the label set.
        label_set: The labels.

    Returns:
        0 to 1; None if the set or the samples lack a polarity, and for own labels of which one has no polarity.
    """
    to_polarity = label_map(label_set, POLARITY)
    # -1 marks a class without polarity.
    polarity = np.array([-1 if (p := to_polarity(i)) is None else p for i in range(len(label_set))])  # (E,)
    # Of own labels, the words alone tell the polarity of some, which would leave out whole classes.
    if label_set.name == CUSTOM and -1 in polarity:
        return None
    has_polarity = polarity[labels] >= 0  # (N,)
    if not {0, 1} <= set(polarity.tolist()) or not has_polarity.any():
        return None
    sums = np.stack([probabilities[:, polarity == p].sum(axis=1) for p in (0, 1)], axis=1)  # (N, 2)
    return float((sums.argmax(axis=1) == polarity[labels])[has_polarity].mean())


def distribution_measures(target: Array, pred: Array) -> dict[str, Array]:
    """Compare distributions t and p.

    Args:
        target: (N, E), t, rows of sum 1.
        pred: (N, E), p, rows of sum 1.

    Returns:
        Measures by name, (N,) each. Higher is better for cosine and intersection, lower for the others.

        - kl: Σ t ln(t / p), in nats; p of exactly 0 counts as the smallest normal float64.
        - cosine: Σ t p / (|t| |p|).
        - clark: √ Σ (t - p)² / (t + p)², 0 to √E, not divided by √E.
        - canberra: Σ |t - p| / (t + p), 0 to E, not divided by E.
        - chebyshev: max |t - p|.
        - intersection: Σ min(t, p).
    """
    t = np.asarray(target, dtype=np.float64)
    p = np.asarray(pred, dtype=np.float64)
    distance = np.abs(t - p)
    relative = distance / np.where(t + p > 0, t + p, 1)
    # 0 ln 0 is 0.
    log_t = np.log(np.where(t > 0, t, 1))
    return {
        "kl": (t * (log_t - np.log(np.maximum(p, np.finfo(np.float64).tiny)))).sum(axis=1),
        "cosine": (t * p).sum(axis=1) / (np.linalg.norm(t, axis=1) * np.linalg.norm(p, axis=1)),
        "clark": np.sqrt(np.square(relative).sum(axis=1)),
        "canberra": relative.sum(axis=1),
        "chebyshev": distance.max(axis=1),
        "intersection": np.minimum(t, p).sum(axis=1),
    }


def moments(target: Array, pred: Array) -> Array:
    """Return the columns t, p, t², p², t p of the correlations, after subtracting the mean of t from both.

    Args:
        target: (N,), t.
        pred: (N,), p.

    Returns:
        (N, 5).
    """
    # Squares of large values would lose digits of the variance.
    mean_target = np.mean(target, dtype=np.float64)
    t = target - mean_target
    p = pred - mean_target
    return np.stack([t, p, t * t, p * p, t * p], axis=1)


def pearson(means: Array) -> Array:
    """Return Pearson's correlation of two axes.

    Args:
        means: (..., 5), means of `moments`.

    Returns:
        (...,), -1 to 1; nan if an axis is constant, as with one sample.
    """
    variance_t, variance_p, covariance, _ = _central(means)
    return np.clip(ratio(covariance, np.sqrt(variance_t * variance_p)), -1, 1)


def concordance(means: Array) -> Array:
    """Return Lin's concordance: 2 cov / (var t + var p + (mean t - mean p)²) (Biometrics 45, 1989).

    Variances are over N, as in the paper.

    Args:
        means: (..., 5), means of `moments`.

    Returns:
        (...,), -1 to 1; 0 if one axis is constant (no agreement beyond the mean), and nan if both are the same
        constant: 0/0.
    """
    variance_t, variance_p, covariance, shift = _central(means)
    return np.clip(ratio(2 * covariance, variance_t + variance_p + shift**2), -1, 1)


def _central(means: Array) -> tuple[Array, Array, Array, Array]:
    """Return variances, covariance and difference of the means; exactly 0 for constant values."""
    t, p, tt, pp, tp = np.moveaxis(means, -1, 0)
    variance_t = np.where(tt - t * t > CONSTANT * tt, tt - t * t, 0)
    variance_p = np.where(pp - p * p > CONSTANT * pp, pp - p * p, 0)
    covariance = np.where((variance_t > 0) & (variance_p > 0), tp - t * p, 0)
    return variance_t, variance_p, covariance, t - p


def ratio(part: NDArray[np.generic], total: NDArray[np.generic]) -> Array:
    """Return part / total; nan for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(part, total)
