"""Low bytes of colours with 16 bits per channel, of which Pillow keeps the high bytes only.

They count for linear light, whose shadows are in them, and show that a file holds bytes in 16 bits.
"""

import io
import sys
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
_RAWMODES = ("RGB;16", "RGBX;16", "RGBA;16")


def open_low_bytes(image: Any) -> Image.Image | None:
    """Return the image of the low bytes, not decoded yet; None for images with 8 bits, and those in planes.

    Args:
        image: Image that Pillow has opened, before its pixels are decoded.
    """
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    rawmode = args[0] if isinstance(args, tuple) and args else args
    if not isinstance(rawmode, str) or not isinstance(image.fp, io.BytesIO) or rawmode[:-1] not in _RAWMODES:
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


def refuse_bytes(image: Image.Image, low: Image.Image, name: str) -> None:
    """Refuse an image whose values in 16 bits are at most 255, which would be black.

    Args:
        image: The decoded image.
        low: The image of `open_low_bytes`.
        name: The file's name, for the message.

    Raises:
        ImageError: If all high bytes are 0 and some low byte is not.
    """
    if _brightest(image) == 0 and (brightest := _brightest(low)) > 0:
        raise ImageError(bytes_in_sixteen_bits(name, brightest))


def _brightest(image: Any) -> int:
    return max(int(high) for _, high in image.getextrema()[:3])


def bytes_in_sixteen_bits(name: str, brightest: int) -> str:
    """Return the message for an image with 16 bits per channel that is almost black."""
    return (
        f"{name}: it has 16 bits per channel, but no value above {brightest} of 65,535, and would be black; save these "
        "values with 8 bits per channel, or multiply them by 257"
    )


def encode_light(image: Image.Image, low: Image.Image) -> Image.Image:
    """Return an image of linear light with 16 bits as 8 bits with the curve of sRGB; alpha keeps its high bytes."""
    import numpy as np  # noqa: PLC0415 - a decoder's process starts in half the time without

    curve = np.frombuffer(srgb_of_light(), np.uint8)
    colours = image if image.mode == "RGB" else image.convert("RGB")
    encoded = Image.new("RGB", image.size)
    for y in range(0, image.height, STRIP_PX):
        box = (0, y, image.width, min(y + STRIP_PX, image.height))
        low_strip = np.asarray(low.crop(box))[..., :3]
        values = np.asarray(colours.crop(box)).astype(np.uint16) << 8 | low_strip
        encoded.paste(Image.fromarray(curve[values]), box)
    if image.mode == "RGBA":
        encoded.putalpha(image.getchannel("A"))
    encoded.info = dict(image.info)
    return encoded
