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

MAX_POINTS = 1000  # maximum points of a curve, more than a screen can show
SMOOTHED = 30  # the running mean covers one part in 30 of a curve
MIN_SMOOTHED = 20  # minimum number of points for a running mean
INK = "#010203"  # replaced by the page's text colour, which differs in dark mode
# visible in light and dark mode
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
        steps: (S,), S at least 1; values that are not finite are left out.
        values: (S,), S at least 1; values that are not finite are left out.
        size: Width and height in inches.
    """
    indices = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_POINTS)).round().astype(int))
    has_mean = len(steps) >= MIN_SMOOTHED
    raw = np.where(np.isfinite(values), values, np.nan)
    with mpl.rc_context(dict(LOOK)):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        look: dict[str, Any]
        if has_mean:
            look = {"alpha": 0.3, "lw": 0.8}
        else:
            look = {"marker": "." if len(steps) == 1 else None}
        axes.plot(steps[indices], raw[indices], color=BLUE, **look)
        if has_mean:
            axes.plot(steps[indices], running_mean(raw, len(raw) // SMOOTHED)[indices], color=BLUE)
        axes.set_xlabel("step")
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        return _drawn(figure)


def running_mean(values: Array, reach: int) -> Array:
    """Return the mean of every value and of up to `reach` values on each side, without nan.

    Args:
        values: (S,).

    Returns:
        (S,), nan if there is no value in reach.

    >>> running_mean(np.array([1.0, 2.0, np.nan, 6.0]), 1).tolist()
    [1.5, 1.5, 4.0, 6.0]
    """
    is_there = np.isfinite(values)
    window = np.ones(2 * reach + 1)
    places = slice(reach, reach + len(values))
    total = np.convolve(np.where(is_there, values, 0.0), window)[places]
    count = np.convolve(is_there.astype(np.float64), window)[places].round()
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def reliability_url(confidence: Array, accuracy: Array, count: NDArray[np.int64]) -> str:
    """Draw accuracy by confidence with the diagonal of a calibrated model, above the number of samples per bin."""
    bins = len(count)
    is_there = count > 0
    middles = (np.arange(bins) + 0.5) / bins
    confidence = confidence[is_there]
    accuracy = accuracy[is_there]
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
    head, tag, rest = buffer.getvalue().partition("<defs>")
    drawing = (head + THEME + tag + rest).replace(INK, "currentColor")
    return data_url(drawing.encode(), "image/svg+xml")


SHOWN = 6  # number of right examples, and of wrong ones
MAX_SIDE_PX = 320  # twice the displayed width, for high-resolution screens
TOP = 3  # probabilities under an image


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
        places = surest(predictions, chosen)
        examples = [_example(int(place), predictions, labels, samples.get(predictions.keys[place])) for place in places]
        there = [example for example in examples if example is not None]
        result.append((title, there, len(examples) - len(there)))
    return result


def surest(predictions: Predictions, chosen: np.ndarray) -> np.ndarray:
    """Return the indices of the most confident predictions among the chosen; ties go to the first.

    Args:
        chosen: (N,) of bool.

    Returns:
        At most SHOWN indices.
    """
    places = np.nonzero(chosen)[0]
    if len(places):
        top = predictions.probabilities[places].max(axis=1)
    else:
        top = np.empty(0)
    return places[np.argsort(-top, kind="stable")[:SHOWN]]


def _example(place: int, predictions: Predictions, labels: list[str], sample: Sample | None) -> dict[str, Any] | None:
    """Return an image with its label, and its most probable labels; None if it can't be read."""
    if sample is None:
        return None
    try:
        image, full = decode_sample(sample, lambda width, height: max(width, height) / MAX_SIDE_PX)
    except ImageError:
        return None
    shares = predictions.probabilities[place]
    return {
        "key": sample.key,
        "url": jpeg_url(_framed(image, full, sample), max_side_px=MAX_SIDE_PX),
        "true": labels[predictions.labels[place]],
        "predicted": labels[predictions.predicted[place]],
        "shares": [(labels[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")[:TOP]],
    }


def _framed(image: Image.Image, full: tuple[int, int], sample: Sample) -> Image.Image:
    """Draw a frame around the target person if the data set has one; other people of the image are other samples."""
    box = sample.target_box
    if box is None:
        return image
    across = image.width / full[0]
    up = image.height / full[1]
    corners = [(box.x1 * across, box.y1 * up), (box.x2 * across, box.y2 * up)]
    ImageDraw.Draw(image).rectangle(corners, outline="#ffd400", width=max(2, image.width // 100))
    return image
