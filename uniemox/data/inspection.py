"""Properties of images after one reading: hash, size, faults, thumbnail."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.data.colour import brightness, colorfulness, colour_histogram
from uniemox.data.processes import map_samples
from uniemox.data.sample import Sample
from uniemox.errors import ImageError
from uniemox.io.borders import image_border
from uniemox.io.decoding.pool import Decoded, DecoderPool, look_here
from uniemox.io.images import ENDINGS, MinSides
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent

THUMB = 32  # side of the thumbnails that show near duplicates, px
DECODED_PX = 64  # minimum short side of reduced JPEGs
PLAIN_MODES = ("RGB", "L")


@dataclass(frozen=True, slots=True)
class ImageProperties:
    """Properties of one image."""

    sha256: str
    """Hash of the file; empty if it can't be read."""
    problem: str = ""
    """Reason why it can't be decoded; empty if it can. Only then the fields below are filled."""
    wrong_ending: str = ""
    """Format of the file if its ending does not match it."""
    odd_mode: str = ""
    """Mode of an animation, or of an image that is not 8-bit colour or grey."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright image, px."""
    thumb: NDArray[np.uint8] | None = None
    """(32, 32, 3)."""
    histogram: NDArray[np.float32] | None = None
    """(48,), see data/colour.py."""
    brightness: float = 0.0
    """0 to 1."""
    colorfulness: float = 0.0
    """0 to 1."""


def scan(
    samples: Sequence[Sample],
    pool: PoolConfig = ONE_A_CORE,
    on_progress: Progress = silent,
    decoders: DecoderPool | None = None,
) -> list[ImageProperties]:
    """Inspect every sample's image, in order.

    Args:
        pool: Worker processes.
        decoders: Isolated decoders for untrusted files instead of the pool; None: trusted files.
    """
    task = "looking at images"
    if decoders is None:
        unreadable = ImageProperties("", DIED)
        return map_samples(inspect_image, samples, task, pool=pool, on_progress=on_progress, if_died=unreadable)
    threads = ThreadPoolExecutor(decoders.workers, thread_name_prefix="look")
    inspected: list[ImageProperties] = []
    try:
        for properties in threads.map(partial(inspect_image, decode=decoders.look), samples):
            inspected.append(properties)
            on_progress(task, len(inspected), len(samples))
    finally:
        # If the scan was stopped, nobody needs the results of running decoders.
        if len(inspected) < len(samples):
            decoders.close()
        threads.shutdown(cancel_futures=True)
    return inspected


def inspect_image(sample: Sample, decode: Callable[..., Decoded] = look_here) -> ImageProperties:
    """Inspect one image.

    Args:
        decode: Function that decodes the file's bytes, with the arguments of `look_here`.
    """
    name = str(sample.image)
    digest = ""
    try:
        with image_border(name):
            try:
                data = sample.image.read()
            except OSError as error:
                return ImageProperties("", f"can't be read ({error.strerror or error})")
            digest = hashlib.sha256(data).hexdigest()
            return _inspect(data, digest, sample, decode)
    except ImageError as error:
        return ImageProperties(digest, str(error).removeprefix(f"{name}: "))


def _inspect(data: bytes, digest: str, sample: Sample, decode: Callable[..., Decoded]) -> ImageProperties:
    """Inspect the bytes of an image file.

    Raises:
        ImageError: If they can't be decoded.
    """
    decoded = decode(data, str(sample.image), shrink=MinSides(short_px=DECODED_PX), counts_frames=True)
    pixels = np.asarray(decoded.image)
    thumb = decoded.image.resize((THUMB, THUMB), Image.Resampling.BICUBIC, reducing_gap=2.0)
    odd_mode = ""
    if decoded.mode not in PLAIN_MODES:
        odd_mode = decoded.mode
    elif decoded.frames > 1:
        odd_mode = f"{decoded.frames} frames"
    return ImageProperties(
        digest,
        wrong_ending=_wrong_ending(sample.image_key, decoded.format),
        odd_mode=odd_mode,
        size=decoded.full_size,
        thumb=np.asarray(thumb),
        histogram=colour_histogram(pixels),
        brightness=brightness(pixels),
        colorfulness=colorfulness(pixels),
    )


def _wrong_ending(key: str, observed: str) -> str:
    """Return the format of a file whose ending does not match it; an MPO counts as JPEG, a DIB as BMP."""
    expected = ENDINGS.get(PurePath(key).suffix.lower())
    counted = {"MPO": "JPEG", "DIB": "BMP"}.get(observed, observed)
    return "" if expected in (None, counted) else observed
