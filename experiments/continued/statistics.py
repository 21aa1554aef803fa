"""Differences of arms over starts or seeds: t intervals and tests of equivalence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["helps", "harms", "no effect above the bound", "undecided"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences, in points or nats."""

    mean: float
    interval: tuple[float, float]
    """95 %, t over the values."""
    equivalence: float
    """p of the larger of two one-sided t tests against ± the smallest effect of interest."""
    values: tuple[float, ...]

    @property
    def is_effect(self) -> bool:
        """True if the interval excludes 0."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def verdicts(self, level: float = 0.05) -> list[Verdict]:
        """Return the verdict of the rule, or two if an effect is real and small."""
        verdicts: list[Verdict] = []
        if self.is_effect:
            verdicts.append("helps" if self.mean > 0 else "harms")
        if self.equivalence < level:
            verdicts.append("no effect above the bound")
        return verdicts or ["undecided"]


def difference(values: Sequence[float], smallest_effect: float) -> Difference:
    """Test paired differences, one per independent repetition.

    Args:
        values: At least two differences.
        smallest_effect: Smallest effect of interest, in the same unit.

    Returns:
        Mean, 95 % interval, and the p value of equivalence (two one-sided t tests; Schuirmann 1987).
    """
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    error = float(array.std(ddof=1)) / len(array) ** 0.5
    freedom = len(array) - 1
    if error == 0:
        equivalence = 0.0 if abs(mean) < smallest_effect else 1.0
        return Difference(mean, (mean, mean), equivalence, tuple(array.tolist()))
    margin = float(stats.t.ppf(0.975, freedom)) * error
    # One-sided p values: the effect is at most -smallest_effect, or at least +smallest_effect.
    above = float(stats.t.sf((mean + smallest_effect) / error, freedom))
    below = float(stats.t.cdf((mean - smallest_effect) / error, freedom))
    return Difference(mean, (mean - margin, mean + margin), max(above, below), tuple(array.tolist()))
