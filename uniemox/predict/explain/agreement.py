"""Whether two maps of the same answer point at the same places."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from uniemox.predict.explain.explanation import Array, Explanation, enlarged

GRID = 14  # places a side on which maps are compared
UNLIKE = 0.2  # maps of two different images are as alike half of the time (docs/explain.md)


def map_agreement(one: Explanation, other: Explanation) -> float:
    """Spearman's rank correlation of two maps of one image, -1 to 1; 0 where one of them says nothing."""
    ranks = [_ranks(enlarged(each.heat, (GRID, GRID)).ravel()) for each in (one, other)]
    a, b = (values - values.mean() for values in ranks)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def _ranks(values: Array) -> NDArray[np.float64]:
    """Places in order, (N,); equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def compared(row: Sequence[Explanation]) -> list[Explanation]:
    """Maps that come in twos, of one answer by two methods, each with how far it agrees with the other."""
    pairs = [(pair, map_agreement(*pair)) for pair in zip(row[::2], row[1::2], strict=True)]
    return [replace(one, agreement=agreement) for pair, agreement in pairs for one in pair]


def is_unlike(explanation: Explanation) -> bool:
    """Whether it was compared with another map, and points elsewhere."""
    return explanation.agreement is not None and explanation.agreement < UNLIKE
