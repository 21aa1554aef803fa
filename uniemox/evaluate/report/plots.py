"""Plots and example images of the report."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.errors import ImageError, UniemoxError
from uniemox.evaluate.metrics import Array
from uniemox.evaluate.run_records import Predictions
from uniemox.io.html import data_url, jpeg_url
from uniemox.io.sized_image import SizedImage

# A screen can't show more points of a curve than this.
MAX_POINTS = 1000
# The running mean reaches one part in 30 of a curve to each side.
REACH_DIVISOR = 30
MIN_SMOOTHED = 20
"""Minimum number of points for a running mean."""
# This colour is replaced by the page's text colour, which differs in dark mode.
INK = "#010203"
# These colours are visible in light and dark mode.
BLUE = "#4a80d9"
ORANGE = "#d9773f"
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


def curve_url(steps: NDArray[np.int64], values: Array, *, size: tuple[float, float]) -> str:
    """Draw one value over the steps: every step faintly, and a running mean if there are enough steps.

    Args:
        steps: (S,), S at least 1.
        values: (S,) values at these steps; values that are not finite are left out.
        size: Width and height in inches.

    Returns:
        A data URL.
    """
    indices = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_POINTS)).round().astype(int))
    has_mean = len(steps) >= MIN_SMOOTHED
    raw = np.where(np.isfinite(values), values, np.nan)
    with mpl.rc_context(dict(LOOK)):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        look: dict[str, Any] = {}
        if has_mean:
            look = {"alpha": 0.3, "lw": 0.8}
        elif len(steps) == 1:
            # A line through one point is invisible.
            look = {"marker": "."}
        axes.plot(steps[indices], raw[indices], color=BLUE, **look)
        if has_mean:
            axes.plot(steps[indices], running_mean(raw, len(raw) // REACH_DIVISOR)[indices], color=BLUE)
        axes.set_xlabel("step")
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        return _drawn(figure)


def running_mean(values: Array, reach: int) -> Array:
    """Return the mean of every value and of up to `reach` values on each side, without nan.

    Args:
        values: (S,); values that are not finite are left out.
        reach: Number of values on each side.

    Returns:
        (S,), nan if there is no value in reach.

    >>> running_mean(np.array([1.0, 2.0, np.nan, 6.0]), 1).tolist()
    [1.5, 1.5, 4.0, 6.0]
    """
    is_finite = np.isfinite(values)
    window = np.ones(2 * reach + 1)
    # The full convolution is longer than the values by the reach on each side.
    inner = slice(reach, reach + len(values))
    total = np.convolve(np.where(is_finite, values, 0.0), window)[inner]
    count = np.convolve(is_finite.astype(np.float64), window)[inner].round()
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def reliability_url(confidence: Array, accuracy: Array, count: NDArray[np.int64]) -> str:
    """Draw accuracy by confidence with the diagonal of a calibrated model, above the number of samples per bin.

    Args:
        confidence: (bins,) mean top probability, see `reliability`.
        accuracy: (bins,).
        count: (bins,) number of samples.

    Returns:
        A data URL.
    """
    bins = len(count)
    has_samples = count > 0
    middles = (np.arange(bins) + 0.5) / bins
    confidence = confidence[has_samples]
    accuracy = accuracy[has_samples]
    with mpl.rc_context(dict(LOOK)):
        figure = Figure(figsize=(3.8, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        above.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", alpha=0.6)
        above.vlines(confidence, np.minimum(confidence, accuracy), np.maximum(confidence, accuracy), color=ORANGE, lw=2)
        above.plot(confidence, accuracy, color=BLUE, marker="o", ms=5)
        above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="fraction right")
        above.grid(color=INK, alpha=0.12, lw=0.6)
        below.bar(middles, count, width=0.9 / bins, color=BLUE, alpha=0.6)
        below.set(xlabel="probability of the predicted label", ylabel="images")
        return _drawn(figure)


def _drawn(figure: Figure) -> str:
    """Return the drawing as a data URL; the same drawing has the same bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue().replace("<defs>", f"{THEME}<defs>", 1).replace(INK, "currentColor")
    return data_url(drawing.encode(), "image/svg+xml")


MAX_EXAMPLES = 6
"""Number of right examples, and of wrong ones."""
# Twice the displayed width, for high-resolution screens.
MAX_SIDE_PX = 320
TOP_LABELS = 3
"""Number of probabilities under an image."""


def open_samples(source: str) -> Mapping[str, Sample] | str:
    """Return the samples of a scored data set by key; if it can't be opened any more, the reason."""
    try:
        return {sample.key: sample for sample in open_data(source, with_texts=False, from_file=True).samples}
    except (UniemoxError, OSError) as error:
        return str(error)


def examples_of(
    predictions: Predictions, labels: list[str], samples: Mapping[str, Sample]
) -> list[tuple[str, list[dict[str, Any]], int]]:
    """Return the most confident right and wrong predictions: a title, images, and the number of unreadable ones."""
    result = []
    for title, chosen in (("Surest and right", predictions.is_right), ("Surest and wrong", ~predictions.is_right)):
        rows = surest(predictions, chosen)
        examples = [_example(int(row), predictions, labels, samples.get(predictions.keys[row])) for row in rows]
        readable = [example for example in examples if example is not None]
        result.append((title, readable, len(examples) - len(readable)))
    return result


def surest(predictions: Predictions, chosen: np.ndarray) -> np.ndarray:
    """Return the indices of the most confident predictions among the chosen; ties go to the first.

    Args:
        predictions: The predictions.
        chosen: (N,) of bool.

    Returns:
        At most MAX_EXAMPLES indices.
    """
    rows = np.nonzero(chosen)[0]
    # The maximum over no rows would be an error.
    top = predictions.probabilities[rows].max(axis=1) if len(rows) else np.empty(0)
    return rows[np.argsort(-top, kind="stable")[:MAX_EXAMPLES]]


def _example(row: int, predictions: Predictions, labels: list[str], sample: Sample | None) -> dict[str, Any] | None:
    """Return an image with its label, and its most probable labels; None if it can't be read."""
    if sample is None:
        return None
    try:
        sized = decode_sample(sample, lambda width, height: max(width, height) / MAX_SIDE_PX)
    except ImageError:
        return None
    shares = predictions.probabilities[row]
    return {
        "key": sample.key,
        "url": jpeg_url(_framed(sized, sample), max_side_px=MAX_SIDE_PX),
        "true": labels[predictions.labels[row]],
        "predicted": labels[predictions.predicted[row]],
        "shares": [(labels[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")[:TOP_LABELS]],
    }


def _framed(sized: SizedImage, sample: Sample) -> Image.Image:
    """Draw a frame around the target person if the data set has one; other people of the image are other samples."""
    image = sized.image
    box = sample.target_box
    if box is None:
        return image
    scale_x, scale_y = sized.scale
    corners = [(box.x1 * scale_x, box.y1 * scale_y), (box.x2 * scale_x, box.y2 * scale_y)]
    ImageDraw.Draw(image).rectangle(corners, outline="#ffd400", width=max(2, image.width // 100))
    return image
