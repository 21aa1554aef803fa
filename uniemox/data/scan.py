"""One look at every image of a data set, in several processes: is it whole, what is it, what does it look like."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.data.colour import brightness, colorfulness, colour_histogram
from uniemox.data.pool_config import ONE_A_CORE, PoolConfig
from uniemox.data.processes import map_samples
from uniemox.data.sample import Sample
from uniemox.errors import ImageError
from uniemox.io.decoding.child import Decoded
from uniemox.io.decoding.pool import DecoderPool, look_here
from uniemox.io.images import ENDINGS, MinSides
from uniemox.io.ray_map import DIED

THUMB = 32  # side of the small image by which near duplicates are found, px
DECODED_PX = 64  # short side at which a JPEG is decoded for all this
PLAIN_MODES = ("RGB", "L")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an image shows."""

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
    samples: Sequence[Sample],
    pool: PoolConfig = ONE_A_CORE,
    on_progress: Callable[[int], None] = lambda _: None,
    decoders: DecoderPool | None = None,
) -> list[Look]:
    """A look at every sample's image, in their order.

    pool: who looks.  on_progress: called with the number of images done.
    decoders: for files of strangers, in place of the pool; None: they are one's own.
    """
    if decoders is not None:
        return _scan_in(decoders, samples, on_progress)
    return map_samples(_look_at_all, samples, pool=pool, on_progress=on_progress, if_died=lambda _: Look("", DIED))


def _scan_in(decoders: DecoderPool, samples: Sequence[Sample], on_progress: Callable[[int], None]) -> list[Look]:
    threads = ThreadPoolExecutor(decoders.workers, thread_name_prefix="look")
    found: list[Look] = []
    try:
        for look in threads.map(lambda sample: look_at(sample, decoders.look), samples):
            found.append(look)
            on_progress(len(found))
    finally:
        if len(found) < len(samples):  # stopped: nobody waits for what is being decoded
            decoders.close()
        threads.shutdown(cancel_futures=True)
    return found


def _look_at_all(samples: Sequence[Sample]) -> list[Look]:
    return [look_at(sample) for sample in samples]


def look_at(sample: Sample, look: Callable[..., Decoded] = look_here) -> Look:
    """One image.  look: decodes its file, as `look_here`."""
    name = str(sample.image)
    try:
        data = sample.image.read()
    except OSError as error:
        return Look("", f"can't be read ({error.strerror or error})")
    digest = hashlib.sha256(data).hexdigest()
    try:
        seen = look(data, name, shrink=MinSides(short_px=DECODED_PX), counts_frames=True)
    except ImageError as error:
        return Look(digest, str(error).removeprefix(f"{name}: "))
    pixels = np.asarray(seen.image)
    thumb = seen.image.resize((THUMB, THUMB), Image.Resampling.BICUBIC, reducing_gap=2.0)
    odd = seen.mode if seen.mode not in PLAIN_MODES else f"{seen.frames} frames" if seen.frames > 1 else ""
    return Look(
        digest,
        wrong_ending=_wrong_ending(sample.image_key, seen.format),
        odd_mode=odd,
        size=seen.full,
        thumb=np.asarray(thumb),
        histogram=colour_histogram(pixels),
        brightness=brightness(pixels),
        colorfulness=colorfulness(pixels),
    )


def _wrong_ending(key: str, found: str) -> str:
    """The format of a file whose ending tells another; an MPO is a JPEG with more images behind the first."""
    told = ENDINGS.get(PurePath(key).suffix.lower())
    return "" if told in (None, "JPEG" if found == "MPO" else found) else found
