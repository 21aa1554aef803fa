"""Example images of the report."""

import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.sample import ImageFile, Sample, decode_sample
from uniemox.data.source import open_data, paths_of
from uniemox.errors import ImageError, UniemoxError
from uniemox.evaluate.run_records import Predictions
from uniemox.io.borders import shorten
from uniemox.io.html import jpeg_url
from uniemox.io.sized_image import SizedImage

MAX_EXAMPLES = 6
"""Number of right examples, and of wrong ones."""
# Twice the displayed width, for high-resolution screens.
MAX_SIDE_PX = 320
TOP_LABELS = 3
"""Number of probabilities under an image."""


def open_samples(source: str, run: Path, named: Collection[str] = ()) -> Mapping[str, Sample] | str:
    """Return the samples of a scored data set by key, or the reason why they are not shown.

    A run from a stranger must not bring private images into the page. So the data have to be in the folder of the run
    or in the working folder, unless the user has named them.

    Args:
        source: Name of the data in the run.
        run: Folder of the run.
        named: Names of data from the user.
    """
    try:
        if source not in named:
            outside = next((path for path in paths_of(source) if not _is_inside(path, run)), None)
            if outside is not None:
                return (
                    f"{shorten(str(outside))} is neither in the run's folder nor in the working folder; if you trust "
                    f"the run, name the data: --data {shlex.quote(source)} (data=[...] in Python)"
                )
        samples = open_data(source, with_texts=False, from_file=True).samples
        return {sample.key: sample for sample in samples if source in named or not _leaves_run(sample, run)}
    except (UniemoxError, OSError) as error:
        return str(error)


def _is_inside(path: Path, run: Path) -> bool:
    """Return True for a path in the run's folder or the working folder.

    Links of the user lead out of the working folder, but those in the run's folder are the stranger's.
    """
    if path.resolve().is_relative_to(run.resolve()):
        return True
    absolute = Path(os.path.abspath(path))
    return absolute.is_relative_to(Path.cwd()) and not absolute.is_relative_to(Path(os.path.abspath(run)))


def _leaves_run(sample: Sample, run: Path) -> bool:
    """Return True for an image in the run's folder that is a link to a file elsewhere."""
    if not isinstance(sample.image, ImageFile):
        return False
    path = sample.image.path
    folder = os.path.abspath(run)
    return os.path.abspath(path).startswith(f"{folder}{os.sep}") and not path.resolve().is_relative_to(run.resolve())


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
