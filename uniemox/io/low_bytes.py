"""Low bytes of values with 16 bits per channel, of which Pillow keeps the high bytes only.

They count for linear light, whose shadows are in them, and show that a file holds bytes in 16 bits.
"""

import io
import sys
import zlib
from typing import Any

from PIL import Image
from PIL.ExifTags import Base as Tag

from uniemox.errors import ImageError
from uniemox.io.colour_spaces import srgb_of_light
from uniemox.io.tiff_pages import SEPARATE_PLANES

# Height of the strips that are converted, because values take 6 bytes per pixel.
STRIP_PX = 64
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if _NATIVE == "L" else "L"}
"""End of the raw mode of Pillow that reads the other byte of 16 bits."""
_BYTE = 2**8 - 1
# Content of the first chunk of a PNG, and the colour type of RGB with alpha in it.
_IHDR = slice(16, 29)
_PNG_RGBA = 6
# Key of `Image.info` of an image of bytes whose green is the low byte of all colours.
_GREY_IN_GREEN = "grey_in_green"
TRANSPARENT_LOW_BYTES = "transparent_low_bytes"
"""Key of `Image.info` with the low bytes of the transparent colour of a PNG; `transparency` has the high bytes."""
_RAWMODES = ("RGB;16", "RGBX;16", "RGBA;16", "CMYK;16")


def open_low_bytes(image: Any) -> Image.Image | None:
    """Return the image of the low bytes, not decoded yet; None for images with 8 bits, and those in planes.

    Args:
        image: Image that Pillow has opened, before its pixels are decoded.
    """
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    rawmode = args[0] if isinstance(args, tuple) and args else args
    if not isinstance(rawmode, str) or not isinstance(image.fp, io.BytesIO):
        return None
    if rawmode == "LA;16B" and image.format == "PNG":
        return _open_as_bytes(image.fp.getvalue())
    if rawmode[:-1] not in _RAWMODES:
        return None
    if image.format == "TIFF" and image.tag_v2.get(Tag.PlanarConfiguration) == SEPARATE_PLANES:
        # libtiff reads planes without the raw mode.
        return None
    # The same file is opened again with the raw mode of the other byte order, whose high bytes are our low ones.
    other_rawmode = rawmode[:-1] + _OTHER_BYTE[rawmode[-1]]
    other_args = (other_rawmode, *args[1:]) if isinstance(args, tuple) else other_rawmode
    low: Any = Image.open(io.BytesIO(image.fp.getvalue()), formats=[image.format])
    low.tile = [tile._replace(args=other_args) for tile in image.tile]
    low.use_load_libtiff = getattr(image, "use_load_libtiff", False)
    opened: Image.Image = low
    return opened


def _open_as_bytes(png: bytes) -> Image.Image:
    """Return the bytes of a PNG of greys with alpha as RGBA, not decoded yet; green is the low byte of the grey.

    Pillow has no raw mode that reads it. Two channels of 16 bits are four of 8 bits: the high and the low byte of grey,
    then of alpha. The header is changed accordingly; filters and interlacing stay valid, because they work on bytes.
    """
    header = bytearray(png[_IHDR])
    header[8:10] = (8, _PNG_RGBA)
    crc = zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    content = png[: _IHDR.start] + header + crc + png[_IHDR.stop + 4 :]
    opened: Image.Image = Image.open(io.BytesIO(content), formats=["PNG"])
    opened.info[_GREY_IN_GREEN] = True
    return opened


def _bands_of(low: Image.Image) -> slice:
    """Return the bands of an image of `open_low_bytes` with the low bytes of its colours or inks."""
    if low.info.get(_GREY_IN_GREEN):
        return slice(1, 2)
    return slice(0, 4 if low.mode == "CMYK" else 3)


def refuse_bytes(image: Any, low: Image.Image | None, name: str) -> None:
    """Refuse an image whose values in 16 bits are at most 255, which would be black, or white if they are inks.

    Args:
        image: The decoded image.
        low: The image of `open_low_bytes`; of a TIFF in planes, whose low bytes can't be read, black is refused, too.
        name: The file's name, for the message.

    Raises:
        ImageError: If all high bytes are 0 and some low byte is not, or is not known.
    """
    if low is None and not _has_planes_of_sixteen_bits(image):
        return
    high_bands = image.getextrema()[: -1 if image.mode in ("LA", "RGBA") else None]
    if max(int(high) for _, high in high_bands) > 0:
        return
    brightest = _BYTE
    if low is not None:
        low_bands: Any = low.getextrema()
        brightest = max(int(high) for _, high in low_bands[_bands_of(low)][: len(high_bands)])
    if brightest > 0:
        raise ImageError(bytes_in_sixteen_bits(name, brightest, is_ink=image.mode == "CMYK"))


def _has_planes_of_sixteen_bits(image: Any) -> bool:
    tags = image.tag_v2 if image.format == "TIFF" else {}
    has_planes = tags.get(Tag.PlanarConfiguration) == SEPARATE_PLANES
    return has_planes and max(tags.get(Tag.BitsPerSample, (1,))) == 16 and len(image.getbands()) > 1


def bytes_in_sixteen_bits(name: str, brightest: int, *, is_ink: bool = False) -> str:
    """Return the message for an image with 16 bits per channel that is almost black; of inks, almost white.

    Args:
        brightest: Largest value of a channel: up to 255 if the file has bytes, up to 4,095 if it has 12 bits.
    """
    remedy = "save these values with 8 bits per channel, or multiply them by 257"
    if brightest > _BYTE:
        remedy = "multiply them by 16, if white is 4,095"
    return (
        f"{name}: it has 16 bits per channel, but no value above {brightest:,} of 65,535, and would be "
        f"{'white' if is_ink else 'black'}; {remedy}"
    )


def without_transparent_colour(image: Image.Image, low: Image.Image) -> Image.Image:
    """Return an RGB image with 16 bits and a transparent colour as RGBA.

    Pixels are transparent if all 16 bits are those of the colour. By the high bytes alone, shadows beside a black one
    would be transparent.

    Args:
        image: The image with the high bytes, and the colour in its `info`.
        low: The image of `open_low_bytes`.
    """
    import numpy as np  # noqa: PLC0415 - a decoder's process starts in half the time without

    is_transparent = np.ones((image.height, image.width), bool)
    for part, colour in ((image, image.info["transparency"]), (low, image.info[TRANSPARENT_LOW_BYTES])):
        is_transparent &= (np.asarray(part) == colour).all(axis=2)
    result = image.copy()
    result.putalpha(Image.fromarray(np.where(is_transparent, 0, 255).astype(np.uint8)))
    used = ("transparency", TRANSPARENT_LOW_BYTES)
    result.info = {key: value for key, value in image.info.items() if key not in used}
    result.format = image.format
    return result


def encode_light(image: Image.Image, low: Image.Image, *, has_narrow_range: bool = False) -> Image.Image:
    """Return an image of linear light with 16 bits as 8 bits with the curve of sRGB; alpha keeps its high bytes.

    Args:
        image: The image with the high bytes: RGB or RGBA; or, if `low` has the values of greys, L or LA.
        low: The image of `open_low_bytes`, or the values of greys in mode I;16.
        has_narrow_range: Black is 16 * 256 and white 235 * 256, instead of 0 and 65,535.
    """
    import numpy as np  # noqa: PLC0415 - a decoder's process starts in half the time without

    curve = np.frombuffer(srgb_of_light(), np.uint8)
    if has_narrow_range:
        light = (np.arange(len(curve)) - 16 * 256) / (219 * 256)
        curve = curve[(light.clip(0, 1) * (len(curve) - 1)).round().astype(int)]
    encoded = Image.new("L" if image.mode in ("L", "LA") else "RGB", image.size)
    # A conversion to the same mode would copy it.
    high = image if image.mode == encoded.mode else image.convert(encoded.mode)
    for y in range(0, image.height, STRIP_PX):
        box = (0, y, image.width, min(y + STRIP_PX, image.height))
        values = np.asarray(low.crop(box))
        if not low.mode.startswith("I;16"):
            values = np.asarray(high.crop(box)).astype(np.uint16) << 8 | values[..., _bands_of(low)]
        encoded.paste(Image.fromarray(curve[values]), box)
    if image.mode in ("LA", "RGBA"):
        encoded.putalpha(image.getchannel("A"))
    encoded.info = dict(image.info)
    return encoded
