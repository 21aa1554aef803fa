"""Differences of arms over seeds: intervals, tests with Holm's correction, and what the experiment can see."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from experiments.continued.statistics import Difference, difference

Verdict = Literal["helps", "harms", "no effect above the bound", "undecided"]
LEVEL = 0.05
POWER = 0.8
# The bound of equivalence, as a share of what labels of the same images add.
BOUND_SHARE = 0.5


def p_value(result: Difference) -> float:
    """Return p of the two-sided t test against no difference."""
    if np.ptp(result.values) == 0:
        return 1.0 if result.mean == 0 else 0.0
    return float(stats.ttest_1samp(result.values, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the same order.

    >>> holm([0.02, 0.03])
    [0.04, 0.04]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda row: p_values[row])
    for rank, row in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[row]))
        corrected[row] = largest
    return corrected


def smallest_detectable(values: Sequence[float]) -> float:
    """Return the difference that a two-sided test at 5 % detects in four of five experiments like this one."""
    count = len(values)
    error = float(np.std(values, ddof=1)) / count**0.5
    return error * float(stats.t.ppf(1 - LEVEL / 2, count - 1) + stats.t.ppf(POWER, count - 1))


def verdict(values: Sequence[float], corrected_p: float, bound: float) -> list[Verdict]:
    """Return the verdict of the rule, or two if an effect is real and small.

    Args:
        values: Paired differences, one per seed.
        corrected_p: p of no difference, corrected for the number of claims.
        bound: Smallest effect of interest, above 0.
    """
    result = difference(values, bound)
    verdicts: list[Verdict] = []
    if corrected_p < LEVEL:
        verdicts.append("helps" if result.mean > 0 else "harms")
    if result.equivalence < LEVEL:
        verdicts.append("no effect above the bound")
    return verdicts or ["undecided"]
