"""Decoding of samples to tensors: plain JPEGs by simplejpeg, which copies less; all other images by Pillow."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uniemox.data.sample import Sample, read_sample
from uniemox.io.borders import image_border
from uniemox.io.colour import keeps_colours
from uniemox.io.exif import orientation_of
from uniemox.io.images import decode_opened, open_image, reduce_jpeg
from uniemox.io.sized_image import SizedImage

JpegDecoder = Callable[[bytes, tuple[int, int]], NDArray[np.uint8]]
"""Returns the pixels (H, W, 3) of a file's bytes at a width and height; raises ValueError for any fault of the file."""


def decode_tensor(sample: Sample, shrink: Callable[[int, int], float] | None = None) -> tuple[Tensor, SizedImage]:
    """Return the pixels of a sample's image, upright and RGB, the same ones as of `decode_sample`.

    Args:
        sample: The sample.
        shrink: Reduces JPEGs while they are decoded, see `images.decode`; None: full size.

    Returns:
        (1, 3, H, W) uint8, and the image, which Pillow decodes on the first access to its pixels.

    Raises:
        ImageError: With the image's name, if it can't be read.
    """
    name = str(sample.image)
    data = read_sample(sample)
    with image_border(name):
        image = open_image(data, name)
        decode_jpeg = jpeg_decoder()
        if decode_jpeg is None or not _is_plain_jpeg(image):
            sized = decode_opened(image, name, shrink=shrink)
            return to_tensor(sized.image), sized
        full_size = image.size
        # Once, because it may draw random numbers.
        factor = 1.0 if shrink is None else shrink(*full_size)
        reduce_jpeg(image, factor)
        try:
            pixels = decode_jpeg(data, image.size)
        except ValueError:
            # Pillow reads the file, or names the fault.
            sized = decode_opened(open_image(data, name), name, shrink=lambda *_: factor)
            return to_tensor(sized.image), sized
        return torch.from_numpy(pixels).permute(2, 0, 1)[None], SizedImage(image, full_size)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert to (1, 3, H, W) uint8, channels last in memory, which resampling needs to be fast."""
    # torch warns about memory that can't be written, such as a bytes object's.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2)  # (1, 3, H, W)


def _is_plain_jpeg(image: Image.Image) -> bool:
    """Return True for a JPEG whose decoded pixels need no change."""
    return image.format == "JPEG" and image.mode == "RGB" and orientation_of(image) == 1 and keeps_colours(image)


@cache
def jpeg_decoder() -> JpegDecoder | None:
    """Return simplejpeg's decoder if it is installed and gives Pillow's pixels, from which models predict.

    Another version of libjpeg may round in another way.
    """
    try:
        import simplejpeg  # noqa: PLC0415 - of the extra `train`, but training runs without it
    except ImportError:
        return None
    decode_jpeg: Any = simplejpeg.decode_jpeg

    def decode(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        width, height = size
        # It also refuses faults that libjpeg only warns of.
        pixels: NDArray[np.uint8] = decode_jpeg(data, "RGB", min_height=height, min_width=width)
        if pixels.shape != (height, width, 3):
            raise ValueError(f"decoded at {pixels.shape}")
        return pixels

    return decode if _has_pixels_of_pillow(decode) else None


def _has_pixels_of_pillow(decode: JpegDecoder) -> bool:
    """Return True if a decoder gives the pixels of Pillow's for noise with each kind of colours, and at half the size.

    Sides are odd, so that libjpeg has to extend the image.
    """
    noise = np.random.default_rng(0).integers(0, 256, (45, 83, 3), dtype=np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG", subsampling=subsampling)
        for factor in (1, 2):
            expected = Image.open(buffer)
            reduce_jpeg(expected, factor)
            try:
                pixels = decode(buffer.getvalue(), expected.size)
            except ValueError:
                return False
            if not np.array_equal(pixels, np.asarray(expected)):
                return False
    return True
