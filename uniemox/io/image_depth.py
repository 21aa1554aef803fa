"""Reduction of greys of 16 and 32 bits and of floats to the 8 bits that models read."""

from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.ExifTags import Base as Tag

from uniemox.errors import ImageError
from uniemox.io.colour import CICP
from uniemox.io.low_bytes import bytes_in_sixteen_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of greys with more than 8 bits."""
TOLERANCE = 0.02
"""Share of white by which values may be below black or above white, as after sharpening; they are clipped."""
MIN_OF_BYTE_FLOATS = 5.0
"""Minimum of the brightest float in an image whose white is 255. Below, white may be 1, with highlights above it."""
MIN_OF_BYTES = 128
"""Minimum of the brightest float that is no whole number, for 255 to be white."""
MIN_OF_SHORTS = 2**14
"""Minimum of the brightest value for 65,535 to be white. Below, white may be that of a sensor with 10 to 14 bits."""
REMEDY = "save it again with 8 or 16 bits per channel"

# Keys of `Image.info` with a profile or another name of the colour space.
_NAMES_OF_COLOURS = {"icc_profile", "gamma", CICP, "nclx_profile"}
# Value of PhotometricInterpretation in TIFF.
_WHITE_IS_ZERO = 0
_BYTE = 2**8 - 1
_TWELVE_BITS = 2**12 - 1
_SHORT = 2**16 - 1
_PART_OF_LONG = 2**24


def to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return an image of a mode of WIDE_MODES in mode L, or LA if it has transparency; with the same `info`.

    The white of the format counts, not the brightest value, so that a hazy image stays hazy.

    Args:
        image: The image, decoded.
        name: The file's name, for messages.

    Raises:
        ImageError: If white is not known, or values are not finite.
    """
    import numpy as np  # noqa: PLC0415 - a decoder's process starts in half the time without

    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    integers = np.array(image)
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(integers == transparent, 0, 255).astype(np.uint8))
    is_unsigned = _first(tags, Tag.SampleFormat, 1) == 1
    if image.mode == "I" and is_unsigned and _first(tags, Tag.BitsPerSample, 0) == 32:
        # Pillow knows 32 bits with a sign only.
        integers = integers.view(np.uint32)
    # The values are changed in place below, because a copy takes 4 bytes per pixel.
    values = integers.astype(np.float32)
    del integers
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: it holds values that are not finite; {REMEDY}")
    white = _white_of(image, tags, values)
    if white is None and image.mode.startswith("I;16"):
        raise ImageError(bytes_in_sixteen_bits(name, int(values.max())))
    if white is None:
        low = float(values.min())
        high = float(values.max())
        raise ImageError(f"{name}: it holds values from {low:.6g} to {high:.6g}; which one is white? {REMEDY}")
    values /= white
    values *= 255
    if _first(tags, Tag.PhotometricInterpretation, 1) == _WHITE_IS_ZERO:
        np.subtract(255, values, out=values)
    grey = Image.fromarray(values.round(out=values).clip(0, 255, out=values).astype(np.uint8))
    if alpha is not None:
        grey.putalpha(alpha)
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    # The format decides whether code points or a profile count.
    grey.format = image.format
    return grey


def greys_of_sixteen_bits(image: Image.Image) -> Image.Image | None:
    """Return an image of WIDE_MODES if its values go from black, 0, to white, 65,535; None for others."""
    if not image.mode.startswith("I;16"):
        return None
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    is_black_zero = _first(tags, Tag.PhotometricInterpretation, 1) != _WHITE_IS_ZERO
    return image if is_black_zero and _first(tags, Tag.BitsPerSample, 16) == 16 else None


def loses_bits(image: Any) -> bool:
    """Return True if a file has more channels, or channels of more bits or another white, than Pillow decodes.

    Args:
        image: Image of TIFF or PPM that Pillow has opened, before its pixels are decoded. False for other formats.
    """
    if image.format == "TIFF":
        bits = image.tag_v2.get(Tag.BitsPerSample, (1,))
        has_more_bits = image.mode not in WIDE_MODES and max(bits) > 8
        return has_more_bits or _first(image.tag_v2, Tag.SamplesPerPixel, 1) > len(image.getbands())
    if image.format == "PPM" and image.tile and image.tile[0].codec_name in ("ppm", "ppm_plain"):
        args = image.tile[0].args
        white = args[1] if isinstance(args, tuple) else _BYTE
        return white != (_SHORT if image.mode == "I" else _BYTE)
    return False


def _white_of(image: Image.Image, tags: Any, values: "NDArray[Any]") -> float | None:
    """Return the value of white; None if it is not known."""
    low = float(values.min())
    high = float(values.max())
    bits = _first(tags, Tag.BitsPerSample, 16)
    if image.mode.startswith("I;16"):
        # The brightest value of a photograph is above 1/16 of white; of linear light, which a profile names, above
        # 1/256. Below, the file holds the 12 bits of a sensor or bytes, or is almost black.
        darkest = _BYTE if _NAMES_OF_COLOURS & image.info.keys() else _TWELVE_BITS
        if bits == 16 and 0 < high <= darkest:
            return None
        return float(2**bits - 1)
    # Pillow scales the greys of PPM.
    if image.format == "PPM" and image.mode == "I":
        return _SHORT
    min_brightest = {_SHORT: MIN_OF_SHORTS}
    if image.mode == "F":
        whites = [1] if high < MIN_OF_BYTE_FLOATS else [_BYTE, _SHORT]
        if not _are_whole(values):
            min_brightest[_BYTE] = MIN_OF_BYTES
    elif tags and bits == 16:
        whites = [_BYTE, 2**15 - 1]
    else:
        is_unsigned = bool(tags) and _first(tags, Tag.SampleFormat, 1) == 1
        whites = [_BYTE, _SHORT]
        if high >= _PART_OF_LONG:
            whites.append(2**32 - 1 if is_unsigned else 2**31 - 1)
    if low < -TOLERANCE * max(high, 1):
        return None
    # The smallest white that explains the brightest value counts, if that value is bright enough for it.
    for white in whites:
        if high <= white * (1 + TOLERANCE):
            return float(white) if high >= min_brightest.get(white, 0) else None
    return None


def _are_whole(values: "NDArray[Any]") -> bool:
    return not (values % 1).any()


def _first(tags: Any, tag: int, default: int) -> int:
    """Return the first value of a tag, which Pillow gives as a number or as several."""
    value = tags.get(tag, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return int(value)
