"""Example images of the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.errors import ImageError, UniemoxError
from uniemox.evaluate.run_records import Predictions
from uniemox.io.html import jpeg_url
from uniemox.io.sized_image import SizedImage

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


def examples_of(predictions: Predictions, samples: Mapping[str, Sample]) -> list[tuple[str, list[dict[str, Any]], int]]:
    """Return the most confident right and wrong predictions: a title, images, and the number of unreadable ones."""
    result = []
    for title, chosen in (("Surest and right", predictions.is_right), ("Surest and wrong", ~predictions.is_right)):
        rows = surest(predictions, chosen)
        examples = [_example(int(row), predictions, samples.get(predictions.keys[row])) for row in rows]
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


def _example(row: int, predictions: Predictions, sample: Sample | None) -> dict[str, Any] | None:
    """Return an image with its label, and its most probable labels; None if it can't be read."""
    if sample is None:
        return None
    try:
        sized = decode_sample(sample, lambda width, height: max(width, height) / MAX_SIDE_PX)
    except ImageError:
        return None
    labels = predictions.scored_labels
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
