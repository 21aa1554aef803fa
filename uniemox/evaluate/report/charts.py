"""Charts of the report as data for its templates: curves of training and the reliability diagram."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.evaluate.calibration import reliability
from uniemox.evaluate.metrics import Array
from uniemox.evaluate.run_records import Predictions
from uniemox.io.html import UNKNOWN, number, percent

# A chart on a screen can't show more points than this.
MAX_POINTS = 150
# The running mean reaches one part in 30 of a curve to each side.
REACH_DIVISOR = 30
MIN_SMOOTHED = REACH_DIVISOR
"""Minimum number of values for a running mean; with fewer, it would reach no neighbour."""
# Larger values, and those that are not finite, can't be drawn.
MAX_DRAWN = 1e100
# Values below this are drawn as 0.
SMALLEST_SPAN = 1e-300
# Rows of the table behind the curves.
MAX_ROWS = 20
Curve = tuple[NDArray[np.int64], Array]
"""Steps, (S,), and the values at them, (S,)."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Point of `ui.lines`."""

    x: float
    """Place of the step, in percent of the width."""
    value: float
    """Mean of the neighbouring values, or the value if there are few."""
    bounds: tuple[float, float] | None
    """Lowest and highest of the neighbouring values; None if there are few values."""
    words: str


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Data of `ui.lines` for a curve."""

    points: list[CurvePoint]
    scale: tuple[float, float]
    ticks: list[tuple[float, str]]
    """Grid lines: value and words."""
    ends: tuple[str, str]
    """First and last step in words."""
    has_points: bool
    """True to draw each point, because there are few."""
    undrawn: int
    """Number of values that can't be drawn."""


def curve_chart(curve: Curve) -> CurveChart:
    """Return the chart of one value over the steps: a running mean in a band, or each value if there are few."""
    steps, values = curve
    points = curve_points(curve)
    bounds = [point.bounds or (point.value, point.value) for point in points]
    lowest = min((low for low, _ in bounds), default=0.0)
    highest = max((high for _, high in bounds), default=1.0)
    ticks = ticks_of(lowest, highest)
    return CurveChart(
        points=points,
        scale=(ticks[0], ticks[-1]),
        ticks=list(zip(ticks, tick_words(ticks), strict=True)),
        ends=(f"step {steps[0]:,}", f"step {steps[-1]:,}"),
        has_points=len(steps) < MIN_SMOOTHED,
        undrawn=len(values) - int(_are_drawable(values).sum()),
    )


def curve_points(curve: Curve) -> list[CurvePoint]:
    """Return at most MAX_POINTS points of a curve, among them its ends.

    From MIN_SMOOTHED values on, a point is the mean of the values within a reach of one part in 30 of the curve to
    each side, and has their lowest and highest value as bounds. Values that can't be drawn are left out.
    """
    steps, values = curve
    is_smoothed = len(steps) >= MIN_SMOOTHED
    # Without a reach, a mean is the value itself.
    reach = 0
    if is_smoothed:
        reach = len(steps) // REACH_DIVISOR
    span = max(int(steps[-1] - steps[0]), 1)
    points = []
    for index in _spread(len(steps), MAX_POINTS):
        near = values[max(0, index - reach) : index + reach + 1]
        near = near[_are_drawable(near)]
        if not len(near):
            continue
        mean = float(near.mean())
        bounds = None
        if is_smoothed:
            bounds = (float(near.min()), float(near.max()))
        x = 100 * int(steps[index] - steps[0]) / span
        points.append(CurvePoint(x, mean, bounds, words=f"step {steps[index]:,}: {mean:.4g}"))
    return points


def _are_drawable(values: Array) -> NDArray[np.bool_]:
    return np.isfinite(values) & (np.abs(values) < MAX_DRAWN)


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` indices of `count`, evenly spread, among them the first and the last.

    >>> _spread(9, 3), _spread(2, 3), _spread(0, 3)
    ([0, 4, 8], [0, 1], [])
    """
    indices = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    return [int(index) for index in indices]


def ticks_of(low: float, high: float) -> list[float]:
    """Return two to five round values in equal steps that enclose both values.

    >>> ticks_of(0.13, 4.0), ticks_of(7, 7)
    ([0.0, 2.0, 4.0], [5.0, 10.0])
    """
    largest = max(abs(low), abs(high))
    span = high - low
    # Nearly equal values would need more digits than a float has.
    if span <= max(1e-9 * largest, SMALLEST_SPAN):
        span = largest if largest > SMALLEST_SPAN else 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 3))
    step = next(factor * magnitude for factor in (1, 2, 5, 10, 20) if factor * magnitude >= span / 3)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [i * step for i in range(first, last + 1)]


def tick_words(ticks: list[float]) -> list[str]:
    """Return the words of grid lines, short enough for the margin of a chart.

    >>> tick_words([0.0, 0.5, 1.0]), tick_words([0.0, 0.0005, 0.001])
    (['0.0', '0.5', '1.0'], ['0', '5e-4', '1e-3'])
    """
    step = ticks[1] - ticks[0]
    largest = max(abs(tick) for tick in ticks)
    if 0.01 <= largest < 100_000:
        digits = max(-math.floor(math.log10(step) + 1e-9), 0)
        return [f"{tick:.{digits}f}" for tick in ticks]
    words = []
    for tick in ticks:
        if tick == 0:
            words.append("0")
            continue
        mantissa, exponent = f"{tick:.2e}".split("e")
        words.append(f"{float(mantissa):g}e{int(exponent)}")
    return words


def curve_rows(curves: Iterable[Curve]) -> list[list[str]]:
    """Return the rows of the table behind curves: a step, and the value of each curve at it.

    The steps are evenly spread over all, with those of curves that have few values, such as a score per epoch.
    """
    values_by_step = [dict(zip(steps.tolist(), values.tolist(), strict=True)) for steps, values in curves]
    steps = sorted({step for values in values_by_step for step in values})
    chosen = {steps[index] for index in _spread(len(steps), MAX_ROWS)}
    for values in values_by_step:
        if len(values) <= MAX_ROWS:
            chosen.update(values)
    return [[f"{step:,}", *(_cell(values, step) for values in values_by_step)] for step in sorted(chosen)]


def _cell(values: Mapping[int, float], step: int) -> str:
    if step in values:
        return f"{values[step]:.4g}"
    return UNKNOWN


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of a bin of the reliability diagram; at least one."""

    low: float
    """Lower end of the bin, 0 to 1."""
    width: float
    probability: float
    """Mean probability of the predicted label, 0 to 1."""
    accuracy: float
    """Fraction of correct predictions, 0 to 1."""
    count: int

    @property
    def cells(self) -> list[str]:
        """Row of the table behind the diagram."""
        ends = f"{percent(self.low).removesuffix(' %')} to {percent(self.low + self.width)}"
        return [ends, f"{self.count:,}", number(self.probability), number(self.accuracy)]


def reliability_bins(predictions: Predictions) -> list[ReliabilityBin]:
    """Return the bins of the reliability diagram that have predictions, see `reliability`."""
    probability, accuracy, count = reliability(predictions.probabilities, predictions.labels)
    width = 1 / len(count)
    return [
        ReliabilityBin(i * width, width, float(probability[i]), float(accuracy[i]), int(count[i]))
        for i in np.nonzero(count)[0]
    ]
