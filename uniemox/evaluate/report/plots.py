"""Drawings of a report: curves over the steps, and the reliability diagram. They follow the page into the dark."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uniemox.evaluate.calibration import Reliability
from uniemox.evaluate.metrics import Array
from uniemox.io.html import Html, inline_image

MAX_POINTS = 1000  # of a curve: more than a screen has
SMOOTHED = 30  # a mean goes over this part of a curve
MIN_SMOOTHED = 20  # points; shorter curves are drawn as they are
INK = "#010203"  # no colour of its own: the page's, which is another one in the dark
BLUE, ORANGE = "#4a80d9", "#d9773f"  # are seen on both
THEME = "<style>svg{color:#1c2024}@media(prefers-color-scheme:dark){svg{color:#e4e7eb}}</style>"
LOOK: Mapping[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "font.size": 9,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "uniemox",
}


def curve(steps: NDArray[np.int64], values: Array, alt: str, *, size: tuple[float, float]) -> Html:
    """One value over the steps: every step faintly, and a running mean where there are enough of them.

    steps, values: (S,), S at least 1; values that are not finite are left out.  size: width and height in inches.
    """
    shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_POINTS)).round().astype(int))
    has_mean = len(steps) >= MIN_SMOOTHED
    raw = np.where(np.isfinite(values), values, np.nan)
    with mpl.rc_context(dict(LOOK)):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        marker = "." if len(steps) == 1 else None
        axes.plot(
            steps[shown],
            raw[shown],
            color=BLUE,
            alpha=0.3 if has_mean else 1,
            lw=0.8 if has_mean else 1.6,
            marker=marker,
        )
        if has_mean:
            axes.plot(steps[shown], running_mean(raw, len(raw) // SMOOTHED)[shown], color=BLUE)
        axes.set_xlabel("step")
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        return _drawn(figure, alt)


def running_mean(values: Array, reach: int) -> Array:
    """The mean of every value and of `reach` values on each side, as far as they are there; nan is left out.

    values: (S,).  Returns (S,), nan where there is no value in reach.

    >>> running_mean(np.array([1.0, 2.0, np.nan, 6.0]), 1).tolist()
    [1.5, 1.5, 4.0, 6.0]
    """
    is_there = np.isfinite(values)
    window = np.ones(2 * reach + 1)
    places = slice(reach, reach + len(values))
    total = np.convolve(np.where(is_there, values, 0.0), window)[places]
    count = np.convolve(is_there.astype(np.float64), window)[places].round()
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def reliability_diagram(found: Reliability, alt: str) -> Html:
    """Accuracy by confidence against the diagonal, where what is said is true, above the samples of each bin."""
    bins = len(found.count)
    middles, is_there = (np.arange(bins) + 0.5) / bins, found.count > 0
    with mpl.rc_context(dict(LOOK)):
        figure = Figure(figsize=(3.8, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        above.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", alpha=0.6)
        confidence, accuracy = found.confidence[is_there], found.accuracy[is_there]
        above.vlines(confidence, np.minimum(confidence, accuracy), np.maximum(confidence, accuracy), color=ORANGE, lw=2)
        above.plot(confidence, accuracy, color=BLUE, marker="o", ms=5)
        above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="fraction right")
        above.grid(color=INK, alpha=0.12, lw=0.6)
        below.bar(middles, found.count, width=0.9 / bins, color=BLUE, alpha=0.6)
        below.set(xlabel="probability of the answer", ylabel="images")
        return _drawn(figure, alt)


def _drawn(figure: Figure, alt: str) -> Html:
    """The same bytes for the same drawing."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    head, tag, rest = buffer.getvalue().partition("<defs>")
    drawing = (head + THEME + tag + rest).replace(INK, "currentColor")
    return inline_image(drawing.encode(), "image/svg+xml", alt)
