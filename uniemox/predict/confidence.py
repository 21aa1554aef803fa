"""From logits to predictions: calibrated probabilities, familiarity of the image, and sets of likely labels."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import NEW_RULES, AnswerRules, ClassifierInfo, to_affect
from uniemox.errors import ConfigError
from uniemox.intervals import LEVEL, Interval
from uniemox.plurals import counted

Array = NDArray[np.floating]
# Familiarity below which images are flagged; one in twenty images that are like the training images is flagged too.
UNFAMILIAR = 0.05
# With fewer held-out images, no familiarity of an image that is not blank is that low.
MIN_TO_FLAG = math.ceil(1 / UNFAMILIAR)
COVERAGE = 0.9
"""Share of images whose label is in their set of likely labels, for the sets that evaluations and runs report on."""
# Stored conformal scores are rounded to 5 digits.
ROUNDING = 1e-5
# With fewer held-out images, likely sets for 90 % may hold the label of 83 % of new images, or of 95 %.
MIN_FOR_SETS = 100
# Halvings of the range from 0 to 1 in which a quantile lies; more don't change a double.
BISECTIONS = 60


def is_unfamiliar(familiarity: float | None) -> bool:
    """Return True if an image is unlike the training images, so that its answer is a guess; None: it is not known."""
    return familiarity is not None and familiarity < UNFAMILIAR


def flag_note(info: ClassifierInfo) -> str | None:
    """Return a sentence about a model whose few held-out images can't flag unfamiliar ones; None for other models."""
    held_out = len(info.distances)
    if held_out == 0 or held_out >= MIN_TO_FLAG:
        return None
    return (
        f"the model has only {counted(held_out, 'held-out image')} to compare with, so of unfamiliar images it flags "
        f"only blank ones; {MIN_TO_FLAG} are needed: train with more images, or with a larger val part"
    )


def unflagged_note(info: ClassifierInfo) -> str | None:
    """Return a sentence about a model that flags no unfamiliar images, or only blank and tiny ones; else None."""
    if not info.distances:
        return "the model can't compare images with its training images, so it flags none as unfamiliar"
    return flag_note(info)


def familiarity_of(distances: Array | None, held_out: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the share of held-out images that are at least as far from the training images, for each image.

    The image itself counts as one of the held-out images. This is the conformal p-value of "this image is like them"
    (arXiv 2107.07511, section 4.4).

    Args:
        distances: Distances from the training images, (N,).
        held_out: Sorted distances of held-out images.

    Returns:
        Shares, (N,), 0 to 1; 0 for an infinite distance, as blank and tiny images have. None without distances or
        held_out.

    >>> familiarity_of(np.array([1.0, 2.0, 9.0]), (1.0, 2.0, 3.0, 4.0)).tolist()
    [1.0, 0.8, 0.2]
    """
    if distances is None or not held_out:
        return None
    nearer = np.searchsorted(np.asarray(held_out), np.asarray(distances, np.float64))  # (N,)
    return np.where(np.isinf(distances), 0.0, (len(held_out) - nearer + 1) / (len(held_out) + 1))


def set_note(info: ClassifierInfo, coverage: float) -> str | None:
    """Return a sentence about likely sets that may miss their coverage; None for other models.

    Args:
        info: Metadata of the classifier.
        coverage: Coverage of the sets, 0 to 1.
    """
    scores = info.conformal_scores
    if not scores or score_rank(len(scores), coverage) > len(scores):
        return None
    if info.calibration_images == "seen":
        return (
            "likely sets may be too small: they are fitted to images that the model, or its initial weights, were "
            "trained on, or to copies of these; fit them to images that are new to it (uniemox calibrate)"
        )
    count = info.held_out_count or len(scores)
    if count >= MIN_FOR_SETS:
        return None
    low, high = coverage_range(count, coverage)
    return (
        f"likely sets are fitted to {count} held-out images: of other images like these, the sets for {coverage:.0%} "
        f"hold the label of {low:.0%} to {high:.0%} (with a probability of 95%); more images narrow this range "
        "(uniemox calibrate)"
    )


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Return log-probabilities (N, E) of logits (N, E)."""
    values = np.asarray(logits, np.float64)
    # Without the largest value, no exponential overflows.
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def probabilities_of(
    logits: Array, temperature: float | None, familiarity: Array | None = None, rules: AnswerRules = NEW_RULES
) -> NDArray[np.float64]:
    """Return calibrated probabilities (N, E), rows of sum 1.

    Args:
        logits: (N, E).
        temperature: Divisor of the logits (arXiv 1706.04599); None: 1.
        familiarity: (N,), 0 to 1; None: no smoothing. Below `rules.trusted_familiarity`, t, the network's probabilities
            have the weight familiarity / t, at least `rules.min_weight`; the rest is distributed equally over all
            labels.
        rules: Rules in the model's file.

    >>> probabilities_of(np.log([[1.0, 3.0]]), None, np.array([0.075])).tolist()
    [[0.375, 0.625]]
    """
    values = np.asarray(logits, np.float64) / (temperature or 1.0)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    if familiarity is None:
        return shares
    weight = np.clip(familiarity / rules.trusted_familiarity, rules.min_weight, 1.0)[:, None]  # (N, 1)
    return weight * shares + (1 - weight) / shares.shape[1]


def sigmoid(values: Array) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) of values of any shape."""
    # exp of a large number would overflow.
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def answers_of(info: ClassifierInfo, logits: Array, distances: Array | None = None) -> NDArray[np.float64]:
    """Return calibrated probabilities (N, E), or for task affect valence and arousal (N, 2), 1 to 9.

    Those of task multilabel have no sum, and are not smoothed for unfamiliar images.

    Args:
        info: Metadata of the classifier.
        logits: (N, E), or (N, 2) for task affect.
        distances: Distances from the training images, (N,); None: the network has no distance.
    """
    if info.task == "affect":
        return to_affect(np.asarray(logits, np.float64))
    if info.task == "multilabel":
        offsets = np.array(info.offsets) if info.offsets else 0.0
        return sigmoid(np.asarray(logits, np.float64) / (info.temperature or 1.0) + offsets)
    return probabilities_of(logits, info.temperature, familiarity_of(distances, info.distances), info.rules)


def set_probabilities_of(info: ClassifierInfo, logits: Array, distances: Array | None = None) -> NDArray[np.float64]:
    """Return the probabilities by which likely labels are chosen, (N, E), of a classifier of labels.

    They are the network's own, before the smoothing: smoothing gives every label a probability above the limit of high
    coverages, and would make sets smaller at low ones. Files with the older rule
    `sets_from="answer"` use those after the smoothing.
    Takes the arguments of `answers_of`.
    """
    if info.rules.sets_from == "answer" or info.task == "multilabel":
        return answers_of(info, logits, distances)
    return probabilities_of(logits, info.temperature)


def score_limit(scores: Sequence[float], coverage: float) -> float:
    """Return the maximum score of a likely label: the ⌈(n + 1) · coverage⌉-th of n sorted held-out scores.

    Split conformal prediction (arXiv 2107.07511, section 1). The score of a held-out image is 1 - p(true label) (LAC,
    Sadinle et al., JASA 2019).

    Args:
        scores: Scores of held-out images, in ascending order.
        coverage: Share of images whose set must contain the true label.

    Raises:
        ConfigError: For a coverage that is not between 0 and 1, or for too few scores.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie strictly between 0 and 1, got {coverage}; try 0.9")
    if not scores:
        raise ConfigError(
            "this model has no scores of held-out images, so it can't select likely labels; leave coverage "
            "out, or fine-tune it again"
        )
    rank = score_rank(len(scores), coverage)
    if rank > len(scores):
        raise ConfigError(
            f"coverage {coverage} is impossible with {len(scores)} held-out images; they allow at most "
            f"{max_coverage(scores):.3f}; give a lower coverage, or calibrate with more images (uniemox calibrate)"
        )
    return scores[rank - 1]


def score_rank(count: int, coverage: float) -> int:
    """Return ⌈(n + 1) · coverage⌉, the rank of the score that limits likely labels; a rank above n is impossible.

    Args:
        count: n, number of held-out images.
        coverage: Share of images whose set must contain the true label, 0 to 1.
    """
    # In floating point, 0.9 · 10 may be slightly above 9, and its ceiling 10.
    return math.ceil((count + 1) * coverage - 1e-9)


def coverage_range(count: int, coverage: float) -> Interval:
    """Return the range that contains the true coverage of likely sets with a probability of 95 %.

    The true coverage is that over all images like the held-out ones. If sets are fitted to n images, it has the
    distribution Beta(k, n + 1 - k), where k is the rank of the limiting score (Vovk, ACML 2012; Angelopoulos & Bates,
    arXiv 2107.07511, section 3.2).

    Args:
        count: n, number of held-out images that are independent of each other.
        coverage: Coverage to which the sets are fitted. If n images do not allow it (`max_coverage`), the range belongs
            to the highest coverage that they allow.

    Returns:
        Both ends, 0 to 1. Equal scores, and sets that always have a label, can only raise the coverage.

    >>> tuple(round(end, 3) for end in coverage_range(1000, 0.9))
    (0.881, 0.918)
    """
    rank = min(score_rank(count, coverage), count)
    tail = (1 - LEVEL) / 2
    return _beta_quantile(rank, count, tail), _beta_quantile(rank, count, 1 - tail)


def _beta_quantile(rank: int, count: int, level: float) -> float:
    """Return the quantile of Beta(rank, count + 1 - rank), without scipy.

    Its distribution function at x is the probability that a binomial variable of `count` draws, each with probability
    x, is at least `rank`.
    """
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # (count + 1,)
    successes = np.arange(rank, count + 1)
    log_choices = log_factorials[count] - log_factorials[successes] - log_factorials[count - successes]
    low = 0.0
    high = 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        log_terms = log_choices + successes * math.log(middle) + (count - successes) * math.log1p(-middle)
        if np.exp(log_terms).sum() < level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def max_coverage(scores: Sequence[float]) -> float:
    """Return the maximum coverage that these held-out scores allow for likely labels; 0 without scores."""
    return len(scores) / (len(scores) + 1)


def likely_labels(probabilities: NDArray[np.floating], limit: float) -> list[int]:
    """Return the indices of the likely labels, most probable first; the first is always included.

    Args:
        probabilities: (E,).
        limit: From `score_limit`.
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(i) for rank, i in enumerate(order) if rank == 0 or 1 - probabilities[i] <= limit + ROUNDING]


def likely_sets(
    scores: Sequence[float], coverage: float, answers: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[float, float]:
    """Measure how often the likely labels contain the true one, and the mean number of likely labels.

    Args:
        scores: Scores of held-out images, see `score_limit`.
        coverage: Share of images whose set must contain the true label, see `score_limit`.
        answers: Probabilities, (N, E).
        truth: Index of each image's true label, (N,).

    Returns:
        Share of images whose likely labels contain the true one, and mean number of likely labels.

    Raises:
        ConfigError: For a coverage that is not between 0 and 1, or for too few scores.
    """
    limit = score_limit(scores, coverage)
    sets = [likely_labels(row, limit) for row in answers]
    contains_truth = [label in likely for label, likely in zip(truth, sets, strict=True)]
    return float(np.mean(contains_truth)), float(np.mean([len(likely) for likely in sets]))
