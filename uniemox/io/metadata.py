"""Image files without metadata.

Pillow decodes an image and saves it again with its colour profile and orientation. Nothing else of the file is copied,
so that place, time, camera, names, comments, thumbnails and further images are gone, wherever the file had them.
Of a JPEG, the compressed image is copied: saving it again would change pixels, even with `quality="keep"`. What
somebody has hidden inside the compressed data stays.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from uniemox.errors import ImageError
from uniemox.io.borders import crosses_border
from uniemox.io.colour import CICP, to_srgb
from uniemox.io.exif import names_adobe_rgb, orientation_of
from uniemox.io.image_depth import WIDE_MODES, greys_of_sixteen_bits, loses_bits, to_eight_bits
from uniemox.io.images import STRAIGHT_MODES, encode_image, open_image, to_rgb
from uniemox.io.low_bytes import STRIP_PX, open_low_bytes, refuse_bytes
from uniemox.io.pillow_errors import DECODING_ERRORS

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
# Markers of JPEG (ITU-T T.81, table B.1).
START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA
JFIF = 0xE0
EXIF = 0xE1
ADOBE = 0xEE  # says whether colours are YCbCr, RGB or CMYK
NUMBER_OF_LINES = 0xDC
# Frames, Huffman tables and arithmetic conditioning; scans, quantisation tables, restart intervals.
OF_PIXELS = {*range(0xC0, 0xD0), START_OF_SCAN, 0xDB, 0xDD} - {0xC8}
JFIF_BYTES = 18  # with marker and length, without the thumbnail
ADOBE_BYTES = 16
PROFILE_BYTES = 65_519  # of a profile in one segment (ICC.1:2022, annex B.4)
# In a scan, 0xFF is followed by 0x00, or by a marker that belongs to the scan (RST), or fills.
_NEXT_MARKER = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")

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

    JPEG, PNG, WebP, GIF, BMP, PPM and TIFF keep their pixels, with exceptions:

    - Of several frames, the first one is saved.
    - Colours with 16 bits become 8 bits. So do greys that Pillow can't write as they were, such as those of 12 bits.
    - A colour space that is named without an ICC profile becomes sRGB.

    AVIF and HEIF become PNG. Models see the same colours in the result.

    Args:
        name: Name of the file, for messages.

    Raises:
        ImageError: If the image can't be decoded completely, if it is not known which value is white, or if its format
            can't be written.
    """
    image = open_image(data, name)
    low_bytes = open_low_bytes(image)
    has_fewer_bits = low_bytes is not None or loses_bits(image)
    has_frames = _has_frames(image)
    try:
        image.load()
        refuse_bytes(image, low_bytes, name)
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cut off or corrupt ({error})") from error
    profile = _profile_of(image)
    is_adobe_rgb = names_adobe_rgb(image)
    # Channels that are multiplied by alpha can't be written.
    plain = image.convert(STRAIGHT_MODES[image.mode]) if image.mode in STRAIGHT_MODES else image
    if not profile and not is_adobe_rgb and any(key in image.info for key in SPACE_NAMES):
        eight_bits = plain
        if image.mode in WIDE_MODES:
            low_bytes = greys_of_sixteen_bits(image)
            eight_bits = to_eight_bits(image, name)
        plain = to_srgb(eight_bits, low_bytes)

    image_format = plain_format(str(image.format))
    exif = _plain_exif(orientation_of(image), is_adobe_rgb)
    if image_format == "JPEG":
        return _plain_jpeg(image, data, exif, profile, has_frames=has_frames)
    saved = _encode(plain, image_format, name, exif, profile)
    # A file that has lost its bits per channel, sign or black, or the low bytes of linear light, shows other colours.
    is_different = _colours_in(saved) != _digest(to_rgb(image, name, low_bytes))
    if is_different:
        # Made again: while the file was checked, only one decoded image more was in memory.
        colours = to_rgb(image, name, low_bytes)
        greys_or_colours = colours.convert("L") if image.mode in WIDE_MODES else colours
        exif = _plain_exif(orientation_of(image), is_adobe_rgb=False)
        saved = _encode(greys_or_colours, image_format, name, exif, b"")
    # Of TIFF, values in YCbCr are rounded when they become RGB.
    is_changed = is_different or plain is not image or has_fewer_bits or has_frames or image.mode == "YCbCr"
    return PlainImage(saved, is_exact=image.format in LOSSLESS and not is_changed)


def _encode(image: Image.Image, image_format: str, name: str, exif: bytes, profile: bytes) -> bytes:
    """Return an image's file with EXIF and an ICC profile (b"" for none), and the image's transparent colour."""
    options = dict(LOSSLESS[image_format])
    if profile and image_format in WITH_PROFILE:
        options["icc_profile"] = profile
    if "transparency" in image.info and image_format in WITH_TRANSPARENT_COLOUR:
        options["transparency"] = image.info["transparency"]
    if exif and image_format in WITH_EXIF:
        options["exif"] = exif
    try:
        return encode_image(image, image_format, **options)
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: can't be saved as {image_format} ({error})") from error


def _colours_in(data: bytes) -> bytes:
    """Return the digest of the colours that models see in a file, apart from its orientation; b"" if they see none."""
    try:
        image = open_image(data, "image")
        low_bytes = open_low_bytes(image)
        image.load()
        return _digest(to_rgb(image, "image", low_bytes))
    except (ImageError, *DECODING_ERRORS):
        return b""


def _digest(image: Image.Image) -> bytes:
    """Return a hash of an image's size and pixels, without a second image in memory."""
    digest = hashlib.sha256(repr((image.mode, image.size)).encode())
    for y in range(0, image.height, STRIP_PX):
        digest.update(image.crop((0, y, image.width, min(y + STRIP_PX, image.height))).tobytes())
    return digest.digest()


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
    if profile[36:40] != b"acsp":
        return b""
    # The first field is the profile's size. Bytes after it may be anything.
    return profile[: int.from_bytes(profile[:4], "big")]


def _plain_jpeg(image: Any, data: bytes, exif: bytes, profile: bytes, *, has_frames: bool) -> PlainImage:
    """Return the first image of a JPEG file, with other metadata.

    The compressed image is copied if the result shows the same pixels; otherwise, as in rare or damaged files, the
    image is encoded again with its own quantisation tables.

    Args:
        image: The decoded image.
        data: Content of its file.
        exif: EXIF of the result; b"" for none.
        profile: ICC profile of the result; b"" for none.
        has_frames: The file has further images.
    """
    copied = _copy_jpeg(data, _metadata_segments(exif, profile))
    if copied is not None and _is_same(image, copied):
        return PlainImage(copied, is_exact=not has_frames)
    options: dict[str, Any] = {
        "qtables": image.quantization,
        # Pillow has no name for rare layouts (-1), and would halve the colours of both sides: keep them complete.
        "subsampling": max(get_sampling(image), 0),
        "progressive": bool(image.info.get("progressive")),
    }
    return PlainImage(encode_image(image, "JPEG", exif=exif, icc_profile=profile, **options), is_exact=False)


def _is_same(image: Any, data: bytes) -> bool:
    """Return True if a file shows the pixels of an image."""
    try:
        other = open_image(data, "image")
        other.load()
    except (ImageError, *DECODING_ERRORS):
        return False
    return (other.mode, other.size) == (image.mode, image.size) and other.tobytes() == image.tobytes()


def _copy_jpeg(data: bytes, metadata: Sequence[bytes]) -> bytes | None:
    """Copy the segments of a JPEG that describe its pixels; None if they can't be followed to the end of the image."""
    segments = []
    jfif = b""
    has_scan = False
    at = len(START_OF_IMAGE)
    while data[at : at + 2] != END_OF_IMAGE:
        marker = data[at + 1] if at + 4 <= len(data) and data[at] == 0xFF else 0
        if marker == 0xFF:  # a fill byte before a marker
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker < 0xC0 or length < 2:
            return None
        end = at + 2 + length
        if marker == START_OF_SCAN:
            following = _NEXT_MARKER.search(data, end)
            if following is None:
                return None
            end = following.start()
        segment = data[at:end]
        # Decoders look at both only before the first scan, and ignore shorter ones.
        if marker == JFIF and segment[4:9] == b"JFIF\0" and len(segment) >= JFIF_BYTES and not has_scan:
            jfif = segment[:2] + (JFIF_BYTES - 2).to_bytes(2, "big") + segment[4:16] + b"\0\0"
        elif marker == ADOBE and segment[4:9] == b"Adobe" and len(segment) >= ADOBE_BYTES and not has_scan:
            segments.append(segment[:2] + (ADOBE_BYTES - 2).to_bytes(2, "big") + segment[4:ADOBE_BYTES])
        elif marker in OF_PIXELS or (marker == NUMBER_OF_LINES and length == 4 and has_scan):
            segments.append(segment)
        has_scan |= marker == START_OF_SCAN
        at = end
    return b"".join([START_OF_IMAGE, jfif, *metadata, *segments, END_OF_IMAGE])


def _metadata_segments(exif: bytes, profile: bytes) -> list[bytes]:
    """Return EXIF and an ICC profile as segments of a JPEG; nothing for b""."""
    contents = [(EXIF, exif)] if exif else []
    parts = [profile[start : start + PROFILE_BYTES] for start in range(0, len(profile), PROFILE_BYTES)]
    for number, part in enumerate(parts, start=1):
        contents.append((EXIF + 1, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part))
    return [bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content for marker, content in contents]


def _plain_exif(orientation: int, is_adobe_rgb: bool) -> bytes:
    """Return EXIF with the orientation, and with the name of Adobe RGB where that is the only sign of it; or b""."""
    exif = Image.Exif()
    if orientation > 1:
        exif[ORIENTATION] = orientation
    if is_adobe_rgb:
        exif[EXIF_TAGS] = {COLOR_SPACE: UNCALIBRATED, INTEROPERABILITY: {1: ADOBE_RGB_INDEX}}
    return exif.tobytes() if len(exif) else b""
