"""Calibration of several labels: a probability of each, and a threshold above which the label is given."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.evaluate.metrics import Array, check_finite
from uniemox.predict.confidence import sigmoid

# Lowest and highest temperature.
TEMPERATURES = (0.01, 100.0)
# Largest size of an offset, in logits.
MAX_OFFSET = 20.0
NEVER = 1.0
"""Threshold that no probability exceeds."""


class LabelCalibration(NamedTuple):
    """Parameters of the probabilities 1 / (1 + exp(-(logit / temperature + offset)))."""

    temperature: float
    offsets: NDArray[np.float64]
    """(E,)."""

    def probabilities(self, logits: Array) -> NDArray[np.float64]:
        """Return probabilities (N, E) of logits (N, E)."""
        return sigmoid(np.asarray(logits, np.float64) / self.temperature + self.offsets)


def calibrated_labels(info: ClassifierInfo, logits: Array, is_present: Array) -> ClassifierInfo:
    """Return the metadata of a classifier of several labels with temperature, offsets and thresholds.

    Args:
        info: Metadata before the calibration.
        logits: (N, E), of held-out images.
        is_present: (N, E), 1 or True for the labels that an image has.
    """
    fitted = fit_labels(logits, is_present)
    thresholds = fit_thresholds(fitted.probabilities(logits), np.asarray(is_present) > 0)
    return replace(
        info,
        temperature=fitted.temperature,
        offsets=tuple(fitted.offsets.tolist()),
        thresholds=tuple(thresholds.tolist()),
    )


def fit_labels(logits: Array, is_present: Array) -> LabelCalibration:
    """Fit one temperature for all labels, and an offset for each, as Platt scaling with a common slope.

    They minimise the binary cross-entropy, summed over images and labels, plus half of the squares of log-temperature
    and offsets. With few images, this penalty keeps the network's own probabilities; with many, it has no effect.

    Args:
        logits: (N, E), of images that are not scored later.
        is_present: (N, E), 1 or True for the labels that an image has.

    Raises:
        DataError: If there is no sample, or if a logit is not finite.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - an ONNX file is evaluated without scipy

    check_finite(logits)
    z = np.asarray(logits, np.float64)
    y = np.asarray(is_present, np.float64)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_temperature = parameters[0]
        offsets = parameters[1:]
        scaled = z * math.exp(-log_temperature)
        shifted = scaled + offsets
        value = np.logaddexp(0, shifted).sum() - (y * shifted).sum() + 0.5 * np.square(parameters).sum()
        errors = sigmoid(shifted) - y
        gradient = np.concatenate([[-(errors * scaled).sum()], errors.sum(axis=0)]) + parameters
        return float(value), gradient

    low, high = TEMPERATURES
    bounds = [(math.log(low), math.log(high)), *[(-MAX_OFFSET, MAX_OFFSET)] * z.shape[1]]
    fitted = minimize(loss, np.zeros(1 + z.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return LabelCalibration(math.exp(fitted[0]), fitted[1:])


def fit_thresholds(probabilities: Array, is_present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the threshold of each label at which precision equals recall (Kosti et al., TPAMI 2020): (E,).

    Both are equal if as many images get the label as have it; with equal probabilities, fewer may get it. A label that
    no image has gets `NEVER`.

    Args:
        probabilities: (N, E), of images that are not scored later.
        is_present: (N, E), True for the labels that an image has.

    >>> fit_thresholds(np.array([[0.9], [0.5], [0.1]]), np.array([[False], [True], [False]])).tolist()
    [0.7]
    """
    thresholds = np.full(probabilities.shape[1], NEVER)
    for i, count in enumerate(is_present.sum(axis=0)):
        descending = np.sort(probabilities[:, i])[::-1]
        if count == len(descending):
            # Every image has the label.
            thresholds[i] = descending[-1] / 2
        elif count:
            thresholds[i] = (descending[count - 1] + descending[count]) / 2
    return thresholds
