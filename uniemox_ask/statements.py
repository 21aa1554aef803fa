"""Scores of judged statements: how often a model calls "this image evokes fear" true, rightly and wrongly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """Scores of the statements about one label. Undefined values are None."""

    n: int
    """Number of images with this label."""
    n_others: int
    """Number of images with another label."""
    yes: float | None
    """Share of the images with this label for which the answer is yes."""
    yes_others: float | None
    """Share of the other images for which the answer is yes."""
    auc: float | None
    """Area under the ROC curve of the probability of yes: the probability that it is higher for an image with this
    label than for another one; ties count one half."""


def score_statements(
    labels: Sequence[str], truths: Sequence[str], says_yes: NDArray[np.float64], values: NDArray[np.float64]
) -> dict[str, StatementResult]:
    """Return the scores by label.

    Args:
        labels: E labels.
        truths: (N,) labels of the images.
        says_yes: (N, E) share of the prompts with the answer yes, 0 to 1.
        values: (N, E) mean probability of yes over the prompts, 0 to 1.
    """
    results = {}
    for column, label in enumerate(labels):
        has_label = np.array([truth == label for truth in truths], dtype=bool)  # (N,)
        results[label] = StatementResult(
            n=int(has_label.sum()),
            n_others=int((~has_label).sum()),
            yes=_mean(says_yes[has_label, column]),
            yes_others=_mean(says_yes[~has_label, column]),
            auc=_auc(values[has_label, column], values[~has_label, column]),
        )
    return results


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _auc(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float | None:
    """Return the share of the pairs of a positive and a negative in which the positive is higher.

    Args:
        positives: (P,) values.
        negatives: (Q,) values.
    """
    if not len(positives) or not len(negatives):
        return None
    differences = positives[:, None] - negatives[None, :]  # (P, Q)
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))
