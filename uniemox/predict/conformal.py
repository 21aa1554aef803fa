"""Sets of labels that hold the true one as often as asked: split conformal prediction (arXiv 2107.07511, section 1).

The score of a held-out image is 1 - p(its true label) (LAC, Sadinle et al., JASA 2019). A label is in the set where
its own score is not above the quantile of the held-out ones.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError

ROUNDING = 1e-5  # stored scores are rounded to 5 digits


def score_limit(scores: Sequence[float], coverage: float) -> float:
    """The score up to which a label is in the set: the ⌈(n + 1) · coverage⌉-th of the n scores.

    scores: sorted, of held-out images.  coverage: share of images whose true label shall be in its set, 0 to 1.
    Raises ConfigError for another coverage, or if the scores are none or too few for it.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie strictly between 0 and 1, got {coverage}; try 0.9")
    if not scores:
        raise ConfigError(
            "this model keeps no scores of held-out images, so it can't say which labels are likely; leave coverage "
            "out, or fine-tune it again"
        )
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)  # a product such as 0.9 · 10 may lie a bit above 9
    if place > len(scores):
        raise ConfigError(
            f"coverage {coverage} can't be had from {len(scores)} held-out images; they do for at most "
            f"{len(scores) / (len(scores) + 1):.3f}"
        )
    return scores[place - 1]


def likely_labels(probabilities: NDArray[np.floating], limit: float) -> list[int]:
    """Places of the labels in the set, most probable first; the first is always in.

    probabilities: (E,).  limit: of `score_limit`.
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(i) for n, i in enumerate(order) if n == 0 or 1 - probabilities[i] <= limit + ROUNDING]


def likely_sets(
    scores: Sequence[float], coverage: float, answers: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[float, float]:
    """Measure how often the sets of likely labels hold the true one, and their mean size.

    scores, coverage: as `score_limit`, which tells the errors.  answers: (N, E) probabilities.  truth: (N,).
    """
    limit = score_limit(scores, coverage)
    sets = [likely_labels(row, limit) for row in answers]
    held = [label in likely for label, likely in zip(truth, sets, strict=True)]
    return float(np.mean(held)), float(np.mean([len(likely) for likely in sets]))
