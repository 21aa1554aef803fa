"""Image files without metadata.

Pillow decodes an image and saves it again with its colour profile and orientation. Nothing else of the file is copied,
so that place, time, camera, names, comments, thumbnails and further images are gone, wherever the file had them.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from uniemox.errors import ImageError
from uniemox.io.colour import CICP, names_adobe_rgb, to_srgb
from uniemox.io.image_border import crosses_border
from uniemox.io.image_depth import WIDE_MODES, to_eight_bits
from uniemox.io.images import DECODING_ERRORS, encode_image, open_image, orientation_of
from uniemox.io.low_bytes import open_low_bytes

# Formats that keep all pixels when Pillow saves them again, with the options that this needs.
LOSSLESS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "PNG": {},
        "WEBP": {"lossless": True, "exact": True},  # exact: also the colours of transparent pixels
        "GIF": {},
        "BMP": {},
        "PPM": {},
        "TIFF": {"compression": "tiff_deflate"},
    }
)
JPEG_FORMATS = ("JPEG", "MPO")  # an MPO is a JPEG with further images behind the first one
WITH_PROFILE = ("JPEG", "PNG", "WEBP", "TIFF")
WITH_EXIF = ("JPEG", "PNG", "WEBP")
WITH_TRANSPARENT_COLOUR = ("PNG", "GIF")
# Names of colour spaces beside ICC profiles, in `Image.info`. Pillow does not write them.
SPACE_NAMES = (CICP, "nclx_profile", "gamma")

# Tags of EXIF and their values for an image in Adobe RGB (DCF 2.0).
ORIENTATION = 0x0112
EXIF_TAGS = 0x8769
COLOR_SPACE = 0xA001
UNCALIBRATED = 65535
INTEROPERABILITY = 0xA005
ADOBE_RGB_INDEX = "R03"


@dataclass(frozen=True, slots=True)
class PlainImage:
    """An image file without metadata."""

    data: bytes
    is_exact: bool
    """The file has all pixels of its source, unchanged."""


def plain_format(image_format: str) -> str:
    """Return the format in which an image is saved without metadata; PNG for formats without a lossless writer.

    >>> plain_format("MPO"), plain_format("WEBP"), plain_format("HEIF")
    ('JPEG', 'WEBP', 'PNG')
    """
    if image_format in JPEG_FORMATS:
        return "JPEG"
    return image_format if image_format in LOSSLESS else "PNG"


@crosses_border
def without_metadata(data: bytes, name: str) -> PlainImage:
    """Return an image's file with the same image, colour profile and orientation, and nothing else.

    JPEG is encoded again with its own quantisation tables and subsampling: pixels change slightly. PNG, WebP, GIF, BMP,
    PPM and TIFF keep their pixels, with three exceptions: of several frames the first one is saved, colours with 16
    bits become 8 bits, and a colour space that is named without an ICC profile becomes sRGB. AVIF and HEIF become PNG.

    Args:
        name: Name of the file, for messages.

    Raises:
        ImageError: If the image can't be decoded completely, or its format can't be written.
    """
    image = open_image(data, name)
    low_bytes = open_low_bytes(image)
    has_frames = _has_frames(image)
    try:
        image.load()
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cut off or corrupt ({error})") from error
    profile = _profile_of(image)
    is_adobe_rgb = names_adobe_rgb(image)
    plain = image
    if not profile and not is_adobe_rgb and any(key in image.info for key in SPACE_NAMES):
        plain = to_srgb(to_eight_bits(image, name) if image.mode in WIDE_MODES else image, low_bytes)

    image_format = plain_format(str(image.format))
    options = dict(LOSSLESS.get(image_format, {}))
    if image_format == "JPEG":
        options = _jpeg_options(image)
    if profile and image_format in WITH_PROFILE:
        options["icc_profile"] = profile
    if "transparency" in plain.info and image_format in WITH_TRANSPARENT_COLOUR:
        options["transparency"] = plain.info["transparency"]
    exif = _plain_exif(orientation_of(image), is_adobe_rgb)
    if exif and image_format in WITH_EXIF:
        options["exif"] = exif
    try:
        saved = encode_image(plain, image_format, **options)
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: can't be saved as {image_format} ({error})") from error
    # Of TIFF, values in YCbCr are rounded when they become RGB.
    is_changed = plain is not image or low_bytes is not None or has_frames or image.mode == "YCbCr"
    return PlainImage(saved, is_exact=image.format in LOSSLESS and not is_changed)


def _has_frames(image: Image.Image) -> bool:
    """Return True if a file holds more than one image, as far as it can be read."""
    with suppress(*DECODING_ERRORS):
        return bool(getattr(image, "is_animated", False))
    return True


def _profile_of(image: Image.Image) -> bytes:
    """Return the ICC profile by which decoders show an image; b"" without one."""
    profile = image.info.get("icc_profile") or b""
    # In a PNG, code points count before a profile.
    if image.format == "PNG" and CICP in image.info:
        return b""
    return profile if profile[36:40] == b"acsp" else b""


def _jpeg_options(image: Any) -> dict[str, Any]:
    """Return options that encode a JPEG as its source: `quality="keep"`, which Pillow refuses for MPO."""
    sampling = get_sampling(image)
    return {
        "qtables": image.quantization,
        # Pillow has no name for rare layouts (-1), and would halve the colours of both sides: keep them complete.
        "subsampling": max(sampling, 0),
        "progressive": bool(image.info.get("progressive")),
    }


def _plain_exif(orientation: int, is_adobe_rgb: bool) -> bytes:
    """Return EXIF with the orientation, and with the name of Adobe RGB where that is the only sign of it; or b""."""
    exif = Image.Exif()
    if orientation > 1:
        exif[ORIENTATION] = orientation
    if is_adobe_rgb:
        exif[EXIF_TAGS] = {COLOR_SPACE: UNCALIBRATED, INTEROPERABILITY: {1: ADOBE_RGB_INDEX}}
    return exif.tobytes() if len(exif) else b""
