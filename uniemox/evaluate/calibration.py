"""Calibration of probabilities, and the temperature that improves it (Guo et al., arXiv 1706.04599)."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import NEW_RULES, AnswerRules, ClassifierInfo
from uniemox.evaluate.metrics import Array, Labels, check_finite
from uniemox.predict.confidence import familiarity_of, log_softmax, probabilities_of, set_probabilities_of

BINS = 15
MAX_SCORES = 2000  # maximum number of stored scores for likely labels
MANY = 40  # fewer samples determine the temperature only roughly
ROUGH = 4.0  # maximum factor by which they raise it; more would make all probabilities nearly equal
TEMPERATURES = (0.01, 100.0)  # lowest and highest; cosines as logits need 0.01


def reliability(probabilities: Array, labels: Labels, bins: int = BINS) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return mean top probability, accuracy and number of samples in bins of equal width, (bins,) each.

    Bin i of n holds the top probabilities above i/n, up to (i+1)/n. The means of a bin without samples are nan.

    Args:
        probabilities: (N, E), 0 to 1.
        labels: (N,).
    """
    top = probabilities.max(axis=1).astype(np.float64)  # (N,)
    is_right = probabilities.argmax(axis=1) == labels  # (N,)
    place = np.digitize(top, np.linspace(0, 1, bins + 1)[1:-1], right=True)  # (N,)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, top, minlength=bins) / count
        accuracy = np.bincount(place, is_right, minlength=bins) / count
    return confidence, accuracy, count


def expected_calibration_error(probabilities: Array, labels: Labels, bins: int = BINS) -> float:
    """Return the mean over samples of the gap between confidence and accuracy of their bin (equation 3).

    Args:
        probabilities: (N, E), 0 to 1.
        labels: (N,).

    Returns:
        0 to 1; biased upwards if bins have few samples.

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence, accuracy, count = reliability(probabilities, labels, bins)
    return float((np.nan_to_num(np.abs(accuracy - confidence)) * count).sum() / count.sum())


def fit_temperature(
    logits: Array, target: Array, familiarity: NDArray[np.float64] | None = None, rules: AnswerRules = NEW_RULES
) -> float:
    """Return the temperature that minimises the mean negative log-likelihood (section 4.2).

    if every sample is right, because there is no optimum then, and 1 if the temperature has no effect.

    Args:
        logits: (N, E), of images that are not scored later.
        target: (N, E) distributions.
        familiarity: (N,); the probabilities of less familiar images move towards equal values (`probabilities_of`),
            before the likelihood is computed.
        rules: Of the smoothing.

    Returns:
        0.01 to 100: 0.01.

    Raises:
        DataError: For no sample, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - an ONNX file is evaluated without scipy

    check_finite(logits)
    shares = np.asarray(target, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        if familiarity is None:
            log_p = log_softmax(np.asarray(logits, np.float64) / temperature)
        else:
            shares_of_labels = probabilities_of(logits, temperature, familiarity, rules)
            log_p = np.log(np.maximum(shares_of_labels, np.finfo(np.float64).tiny))
        return float(-(shares * log_p).sum(axis=1).mean())

    # The loss is convex in 1 / T, so it also has a single minimum in log T.
    bounds = tuple(math.log(temperature) for temperature in TEMPERATURES)
    optimum = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    ends = [0.0, *bounds, optimum]  # the first of equal ones
    return math.exp(min(ends, key=loss))


def calibrated(info: ClassifierInfo, logits: Array, distances: Array | None, target: Array) -> ClassifierInfo:
    """Return the classifier's metadata after calibration: temperature, distances, conformal scores.

    Existing distances stay, because they refer to the network's own training images.
    Fewer than 40 samples leave the temperature (1 if unset) if all are right, and raise it by a factor of 4 at most.
    For task affect (valence and arousal) only distances are stored.

    Args:
        logits: (N, E).
        distances: (N,) from the training images; None: the network has none.
        target: (N, E).
    """
    train_distances = info.distances
    if distances is not None and not train_distances:
        finite = distances[np.isfinite(distances)]  # a blank image has an infinite one
        train_distances = tuple(round(float(value), 3) for value in quantiles(finite))
    info = replace(info, distances=train_distances)
    if info.task == "affect":
        return info
    temperature = info.temperature or 1.0
    is_rough = len(logits) < MANY
    if not is_rough or (logits.argmax(axis=1) != target.argmax(axis=1)).any():
        fitted = fit_temperature(logits, target, familiarity_of(distances, train_distances), info.rules)
        if is_rough:
            temperature = min(fitted, temperature * ROUGH)
        else:
            temperature = fitted
    info = replace(info, temperature=temperature)
    return replace(info, conformal_scores=conformal_scores(set_probabilities_of(info, logits, distances), target))


def conformal_scores(probabilities: Array, target: Array) -> tuple[float, ...]:
    """Return 1 - p(true label) of held-out samples, sorted, 5 digits, for choosing likely labels.

    More than 2,000 are reduced by `quantiles`.

    Args:
        probabilities: (N, E); the true label is the target's maximum.
        target: (N, E); the true label is the target's maximum.
    """
    truth = target.argmax(axis=1)
    scores = quantiles(1 - probabilities[np.arange(len(truth)), truth])
    return tuple(round(float(score), 5) for score in scores.clip(0, 1))


def quantiles(values: Array) -> Array:
    """Return values (N,), sorted; more than 2,000 are reduced to 2,000 of them, equally spaced in rank."""
    values = np.sort(values)
    if len(values) <= MAX_SCORES:
        return values
    levels = np.arange(1, MAX_SCORES + 1) / (MAX_SCORES + 1)
    return values[np.ceil((len(values) + 1) * levels).astype(int).clip(1, len(values)) - 1]
