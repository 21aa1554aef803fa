"""EXIF of images: the orientation, and whether it names Adobe RGB."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PIL import ExifTags, Image

from uniemox.io.pillow_errors import DECODING_ERRORS

NAMES_ADOBE = "names_adobe_rgb"
"""Key of `Image.info` that is True if the EXIF of a TIFF or camera raw, which Pillow does not keep, names Adobe RGB."""
# ColorSpace of Adobe RGB, and what EXIF that names Adobe RGB contains: the index, or this value in either byte order.
_EXIF_ADOBE = 2
_ADOBE_MARKS = (b"R03", bytes.fromhex("a001 0003 00000001 0002"), bytes.fromhex("01a0 0300 01000000 0200"))


def exif_in(content: bytes) -> Image.Exif:
    """Return the EXIF in bytes: those of a segment of a JPEG, or of a TIFF."""
    exif = Image.Exif()
    exif.load(content)
    return exif


def orientation_of(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if missing or invalid, and for TIFF, which Pillow itself turns upright."""
    if image.format == "TIFF" or ("exif" not in image.info and image.format not in ("PNG", "MPO")):
        return 1
    content = image.info.get("exif")
    try:
        # Pillow may have read it when it opened the image, together with XMP.
        exif = exif_in(content) if content else exif_without_xmp(image)
        value = exif.get(ExifTags.Base.Orientation, 1)
    except DECODING_ERRORS:
        return 1
    return int(value) if value in range(1, 9) else 1


def exif_without_xmp(image: Image.Image) -> Image.Exif:
    """Return the EXIF of an image; Pillow would take a missing orientation from XMP, but other programs don't."""
    xmp: dict[Any, Any] = {key: image.info.pop(key) for key in ("xmp", "XML:com.adobe.xmp") if key in image.info}
    try:
        return image.getexif()
    except DECODING_ERRORS:
        return Image.Exif()
    finally:
        image.info.update(xmp)


def names_adobe_rgb(image: Image.Image) -> bool:
    """Return True if the EXIF of an image names Adobe RGB, see `is_adobe_rgb`."""
    if image.info.get(NAMES_ADOBE):
        return True
    exif = image.info.get("exif")
    # Parsing EXIF takes longer than reading a small image.
    if not isinstance(exif, bytes) or not any(mark in exif for mark in _ADOBE_MARKS):
        return False
    return is_adobe_rgb(image.getexif)


def is_adobe_rgb(read_exif: Callable[[], Image.Exif]) -> bool:
    """Return True if EXIF names Adobe RGB.

    Cameras do so by the interoperability index R03 and a ColorSpace that is not sRGB (DCF 2.0). Some write a ColorSpace
    of 2, which EXIF does not define.

    Args:
        read_exif: Function that returns the EXIF.
    """
    with suppress(Exception):  # what broken EXIF raises
        tags = read_exif()
        color_space = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = tags.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex, "")
        return color_space == _EXIF_ADOBE or (color_space != 1 and str(index).rstrip("\0 ") == "R03")
    return False
