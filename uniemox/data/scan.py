"""One look at every picture of a data set, in several processes: is it whole, what is it, what does it look like."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.data.colour import brightness, colorfulness, colour_histogram
from uniemox.data.processes import map_samples
from uniemox.data.sample import Sample
from uniemox.errors import ImageError
from uniemox.images import ENDINGS, count_frames, decode, open_picture

THUMB = 32  # side of the small picture by which near duplicates are found, px
DECODED_PX = 64  # short side at which a JPEG is decoded for all this
PLAIN_MODES = ("RGB", "L")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a picture shows."""

    sha256: str
    """Of the file; empty if it can't be read."""
    problem: str = ""
    """Why it can't be decoded; empty if it can. The fields below are only filled if it can."""
    wrong_ending: str = ""
    """The format that the ending does not tell."""
    odd_mode: str = ""
    """Anything but 8-bit colour or grey, or an animation."""
    size: tuple[int, int] = (0, 0)
    """Width and height when upright, px."""
    thumb: NDArray[np.uint8] | None = None
    """(32, 32, 3)."""
    histogram: NDArray[np.float32] | None = None
    """(48,), see data/colour.py."""
    brightness: float = 0.0
    """0 to 1."""
    colorfulness: float = 0.0
    """0 to 1."""


def scan(
    samples: Sequence[Sample], workers: int | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> list[Look]:
    """A look at every sample's picture, in their order.

    workers: processes; None: one a core.  on_progress: called with the number of pictures done.
    """
    return map_samples(_look_at_all, samples, workers=workers, on_progress=on_progress)


def _look_at_all(samples: Sequence[Sample]) -> list[Look]:
    return [look_at(sample) for sample in samples]


def look_at(sample: Sample) -> Look:
    """One picture."""
    name = str(sample.picture)
    try:
        data = sample.picture.read()
    except OSError as error:
        return Look("", f"can't be read ({error.strerror or error})")
    digest = hashlib.sha256(data).hexdigest()
    try:
        header = open_picture(data, name)
        image, size = decode(data, name, shrink=lambda width, height: min(width, height) / DECODED_PX)
        frames = count_frames(header, name)
    except ImageError as error:
        return Look(digest, str(error).removeprefix(f"{name}: "))
    pixels = np.asarray(image)
    thumb = image.resize((THUMB, THUMB), Image.Resampling.BICUBIC, reducing_gap=2.0)
    odd = header.mode if header.mode not in PLAIN_MODES else f"{frames} frames" if frames > 1 else ""
    return Look(
        digest,
        wrong_ending=_wrong_ending(sample.picture_key, header),
        odd_mode=odd,
        size=size,
        thumb=np.asarray(thumb),
        histogram=colour_histogram(pixels),
        brightness=brightness(pixels),
        colorfulness=colorfulness(pixels),
    )


def _wrong_ending(key: str, header: Image.Image) -> str:
    """The format of a file whose ending tells another; an MPO is a JPEG with more pictures behind the first."""
    told = ENDINGS.get(PurePath(key).suffix.lower())
    found = "JPEG" if header.format == "MPO" else header.format
    return "" if told in (None, found) else str(header.format)
