"""Calibration of probabilities, and the temperature that improves it (Guo et al., arXiv 1706.04599)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import NEW_RULES, AnswerRules, ClassifierInfo
from uniemox.evaluate.metrics import Array, Labels, check_finite
from uniemox.evaluate.multilabel_fit import calibrated_labels
from uniemox.intervals import Interval, paired_bootstrap
from uniemox.predict.confidence import answers_of, familiarity_of, log_softmax, probabilities_of, set_probabilities_of
from uniemox.resampling import folds_of

Value = TypeVar("Value", bound=np.generic)
BINS = 15
MAX_SCORES = 2000
"""Maximum number of stored scores for likely labels."""
# Fewer samples determine the temperature only roughly. They do not lower it, because a few right answers would make the
# model sure of everything, and raise it by this factor at most, because more would make all probabilities nearly equal.
MIN_SAMPLES = 40
MAX_ROUGH_FACTOR = 4.0
# Lowest and highest temperature; cosines as logits need 0.01.
TEMPERATURES = (0.01, 100.0)
# Points between them at which a loss with several minima is computed first.
GRID = 33
# Parts of the cross-validation of the log loss.
FOLDS = 10


def reliability(probabilities: Array, labels: Labels, bins: int = BINS) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return mean top probability, accuracy and number of samples in bins of equal width, (bins,) each.

    Bin i of n holds the top probabilities above i/n, up to (i+1)/n. The means of a bin without samples are nan.

    Args:
        probabilities: (N, E), 0 to 1.
        labels: (N,), indices of the true labels.
        bins: Number of bins.
    """
    top = probabilities.max(axis=1).astype(np.float64)  # (N,)
    is_right = probabilities.argmax(axis=1) == labels  # (N,)
    bin_of = np.digitize(top, np.linspace(0, 1, bins + 1)[1:-1], right=True)  # (N,)
    count = np.bincount(bin_of, minlength=bins)
    # Bins without samples divide 0 by 0.
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_of, top, minlength=bins) / count
        accuracy = np.bincount(bin_of, is_right, minlength=bins) / count
    return confidence, accuracy, count


def expected_calibration_error(probabilities: Array, labels: Labels, bins: int = BINS) -> float:
    """Return the mean over samples of the gap between confidence and accuracy of their bin (equation 3).

    Args:
        probabilities: (N, E), 0 to 1.
        labels: (N,), indices of the true labels.
        bins: Number of bins.

    Returns:
        0 to 1; biased upwards if bins have few samples.

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence, accuracy, count = reliability(probabilities, labels, bins)
    return float((np.nan_to_num(np.abs(accuracy - confidence)) * count).sum() / count.sum())


def fit_temperature(
    logits: Array,
    target: Array,
    familiarity: NDArray[np.float64] | None = None,
    rules: AnswerRules = NEW_RULES,
    *,
    any_of: NDArray[np.bool_] | None = None,
) -> float:
    """Return the temperature that minimises the mean negative log-likelihood (section 4.2).

    Args:
        logits: (N, E), of images that are not scored later.
        target: (N, E) distributions.
        familiarity: (N,); the probabilities of less familiar images move towards equal values (`probabilities_of`),
            before the likelihood is computed. None: they do not.
        rules: Rules of this smoothing.
        any_of: (N, E), labels of which each is right; the likelihood of a sample is the sum of their probabilities, and
            the target is not used. None: the target is used.

    Returns:
        0.01 to 100: 0.01 if every sample is right, because there is no optimum then, and 1 if the temperature has no
        effect.

    Raises:
        DataError: If there is no sample, or if a logit is not finite.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - an ONNX file is evaluated without scipy

    check_finite(logits)
    target = np.asarray(target, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        if familiarity is None:
            log_p = log_softmax(np.asarray(logits, np.float64) / temperature)
        else:
            probabilities = probabilities_of(logits, temperature, familiarity, rules)
            log_p = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        if any_of is not None:
            return float(-np.logaddexp.reduce(np.where(any_of, log_p, -np.inf), axis=1).mean())
        return float(-(target * log_p).sum(axis=1).mean())

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    # The plain loss is convex in 1 / T, so it has a single minimum in log T. With smoothing, or for a sum of
    # probabilities, it may have several: search around the lowest point of a grid.
    if any_of is not None or familiarity is not None:
        grid = np.linspace(*bounds, GRID)
        lowest = int(np.argmin([loss(float(point)) for point in grid]))
        bounds = (float(grid[max(lowest - 1, 0)]), float(grid[min(lowest + 1, GRID - 1)]))
    optimum = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    # min returns the first of equal candidates, so that a temperature without effect becomes 1.
    candidates = [0.0, *bounds, optimum]
    return math.exp(min(candidates, key=loss))


def calibrated(
    info: ClassifierInfo,
    logits: Array,
    distances: Array | None,
    target: Array,
    *,
    any_of: NDArray[np.bool_] | None = None,
    is_rough: bool | None = None,
) -> ClassifierInfo:
    """Return the classifier's metadata after calibration: temperature, distances, conformal scores.

    Existing distances stay, because they refer to the network's own training images.
    Fewer than 40 samples do not lower the temperature (1 if unset), and raise it by a factor of 4 at most.
    For task affect (valence and arousal) only distances are stored. For task multilabel, `calibrated_labels` fits the
    rest, and there are no conformal scores.

    Args:
        info: Metadata before calibration.
        logits: (N, E), of held-out images.
        distances: (N,) from the training images; None: the network has none.
        target: (N, E) distributions; for task multilabel 1 for the labels that an image has, else 0.
        any_of: As for `fit_temperature`. The target must then be 1 at the most probable of these labels, because a set
            is right if it has one of them.
        is_rough: True to limit the temperature as for fewer than 40 samples; None: if there are fewer.
    """
    train_distances = info.distances
    if distances is not None and not train_distances:
        # The distance of a blank or tiny image is infinite.
        finite = distances[np.isfinite(distances)]
        train_distances = tuple(round(float(value), 3) for value in quantiles(finite))
    info = replace(info, distances=train_distances)
    if info.task == "affect":
        return info
    if info.task == "multilabel":
        return calibrated_labels(info, logits, target)
    temperature = info.temperature or 1.0
    familiarity = familiarity_of(distances, train_distances)
    fitted = fit_temperature(logits, target, familiarity, info.rules, any_of=any_of)
    if is_rough is None:
        is_rough = len(logits) < MIN_SAMPLES
    if is_rough:
        fitted = min(max(fitted, temperature), temperature * MAX_ROUGH_FACTOR)
    return with_likely_sets(replace(info, temperature=fitted), logits, distances, target)


def with_likely_sets(info: ClassifierInfo, logits: Array, distances: Array | None, target: Array) -> ClassifierInfo:
    """Return the classifier's metadata with conformal scores of these images, for its own temperature.

    Args:
        info: Metadata with temperature and distances.
        logits: (N, E), of held-out images.
        distances: (N,) from the training images; None: the network has none.
        target: (N, E) distributions.
    """
    return replace(info, conformal_scores=conformal_scores(set_probabilities_of(info, logits, distances), target))


def conformal_scores(probabilities: Array, target: Array) -> tuple[float, ...]:
    """Return 1 - p(true label) of held-out samples, sorted, 5 digits, for choosing likely labels.

    More than 2,000 are reduced by `quantiles`.

    Args:
        probabilities: (N, E), 0 to 1.
        target: (N, E) distributions; the true label is the target's maximum.
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


@dataclass(frozen=True, slots=True)
class LogLossChange:
    """Mean of -log p(true label) before and after calibration, of images that the calibration did not use."""

    before: float
    after: float
    interval: Interval
    """95 % interval of after minus before."""

    @property
    def change(self) -> float:
        """After minus before; negative is better."""
        return self.after - self.before

    @property
    def is_within_noise(self) -> bool:
        """True if the interval contains 0, so that the change may be due to chance."""
        low, high = self.interval
        return low <= 0 <= high

    @property
    def is_gain(self) -> bool:
        """True if the loss falls, beyond chance."""
        return self.interval[1] < 0


def log_loss_change(
    info: ClassifierInfo,
    logits: Array,
    distances: Array | None,
    truth: Labels,
    units: Sequence[str],
    *,
    any_of: NDArray[np.bool_] | None = None,
) -> LogLossChange | None:
    """Measure what calibration does to the log loss, in ten-fold cross-validation.

    On the images to which a temperature is fitted, the loss can only fall. So each tenth of the units is scored with
    the temperature of the others.

    Args:
        info: Metadata before calibration.
        logits: (N, E), of held-out images.
        distances: (N,) from the training images; None: the network has none.
        truth: (N,), indices of the true labels.
        units: N names; images with the same name are held out together.
        any_of: As for `calibrated`.

    Returns:
        The change; None if there is only one unit, which can't be held out.
    """
    unit_count = len(set(units))
    if unit_count < 2:
        return None
    target = np.eye(logits.shape[1])[truth]
    is_right = target if any_of is None else any_of.astype(np.float64)
    fold = folds_of(units, FOLDS)
    before = _log_losses(info, logits, distances, is_right)
    after = np.empty_like(before)
    # Nine tenths of 44 images are fewer than 40, but stand for the calibration with all 44. A part without a large
    # group may be far smaller.
    fewest = len(logits) if len(logits) < MIN_SAMPLES else MIN_SAMPLES * (FOLDS - 1) // FOLDS
    for i in range(min(FOLDS, unit_count)):
        is_scored = fold == i
        is_fitted = ~is_scored
        fitted = calibrated(
            info,
            logits[is_fitted],
            _rows(distances, is_fitted),
            target[is_fitted],
            any_of=_rows(any_of, is_fitted),
            is_rough=bool(is_fitted.sum() < fewest),
        )
        after[is_scored] = _log_losses(fitted, logits[is_scored], _rows(distances, is_scored), is_right[is_scored])
    change = paired_bootstrap(after, before, units)
    assert change.interval is not None  # one row of each has an interval
    return LogLossChange(float(before.mean()), float(after.mean()), change.interval)


def _rows(values: NDArray[Value] | None, is_selected: NDArray[np.bool_]) -> NDArray[Value] | None:
    """Return the selected rows of values that may be missing."""
    if values is None:
        return None
    return values[is_selected]


def _log_losses(info: ClassifierInfo, logits: Array, distances: Array | None, is_right: Array) -> NDArray[np.float64]:
    """Return -log p(right labels) of each image, (N,).  is_right: (N, E), 1 for right labels, else 0."""
    probabilities = (answers_of(info, logits, distances) * is_right).sum(axis=1)
    return -np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
