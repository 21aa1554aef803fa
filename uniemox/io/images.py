"""Safe decoding of images, without torch.

Any file becomes an upright RGB image, or an ImageError that names the problem.
"""

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from uniemox.errors import ImageError
from uniemox.io.image_border import crosses_border
from uniemox.io.image_limits import check_bytes, check_heif, check_memory, check_tiff
from uniemox.io.raw_preview import HAS_RAWPY, RAW_ENDINGS, is_raw, preview_of

MAX_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_SIDE_PX = 50_000
MAX_ASPECT = 100  # a strip of 1 : 100 is not a scene
# An MPO is opened as the JPEG that it begins with.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "HEIF", "DIB")
ENDINGS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **{".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF", ".mpo": "MPO"},
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
}
"""Format by file ending, lower-case."""

HEIF_ENDINGS = (".heic", ".heif", ".hif")
HEIF_NEEDS = "needs pillow-heif; run: pip install 'uniemox[heic]', or save it as JPEG or PNG"
if find_spec("pillow_heif") is not None:
    ENDINGS |= dict.fromkeys(HEIF_ENDINGS, "HEIF")
if HAS_RAWPY:
    ENDINGS |= dict.fromkeys(RAW_ENDINGS, "JPEG")  # of the preview
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

STRIP_PX = 64  # height of the strips in which transparent images are put on white
_ORIENTATION = 0x0112  # the tag of EXIF


def is_image_name(path: Path) -> bool:
    """Return True if a file has the ending of an image."""
    return path.suffix.lower() in ENDINGS


@cache
def load_plugins() -> None:
    """Import Pillow's readers of the accepted formats; importing all, as `Image.init` does, takes 20 ms longer."""
    Image.preinit()  # JPEG, PNG, GIF, BMP and PPM
    for name in ("WebP", "Tiff", "Avif"):
        with suppress(ImportError):  # a build of Pillow without it
            import_module(f"PIL.{name}ImagePlugin")


@crosses_border
def open_image(data: bytes, name: str) -> Image.Image:
    """Open the image in a file's bytes: reads and checks its header, decodes nothing yet.

    name: of the file, for messages. Raises ImageError if it is not an image, of an unknown format, far too large, or
    would keep a decoder busy for far longer than its size explains (see image_limits.py).
    """
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: {len(data) / 2**20:.0f} MiB, more than the {MAX_BYTES >> 20} MiB that are read")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if is_raw(data):
        data = preview_of(data, name)
    check_bytes(data, name)
    load_plugins()
    is_heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if is_heif:
        check_heif(data, name)
        _register_heif()
    formats = [fmt for fmt in FORMATS if fmt in Image.OPEN]  # Pillow raises KeyError for formats that its build lacks
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: more than the {MAX_PIXELS // 10**6} megapixels that are decoded ({error}); "
            "scale it down, or remove it"
        ) from error
    except UnidentifiedImageError:
        if is_heif and "HEIF" not in formats:
            raise ImageError(f"{name}: HEIC {HEIF_NEEDS}") from None
        raise ImageError(f"{name}: not an image of a known format ({', '.join(formats)})") from None
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: the header can't be read ({error})") from error
    width, height = image.size
    check_size(width, height, name)
    fmt = "JPEG" if image.format == "MPO" else str(image.format)
    kind = "progressive" if fmt == "JPEG" and "progressive" in image.info else fmt
    check_memory(len(data), kind, width, height, name)
    if fmt == "TIFF":
        check_tiff(data, getattr(image, "tag_v2", {}), image.size, name)
    return image


def check_size(width: int, height: int, name: str) -> None:
    """Raise ImageError for an image that is empty, too large, or a strip.  name: of the file, for the message."""
    if min(width, height) < 1:
        raise ImageError(f"{name}: {width} x {height} px is no image")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise ImageError(
            f"{name}: {width} x {height} px is more than the {MAX_PIXELS // 10**6} megapixels that are decoded; "
            "scale it down, or remove it"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name}: {width} x {height} px is a strip, not a scene; crop or remove it")


@cache
def _register_heif() -> None:
    """Let Pillow open HEIC if the extra `heic` is installed, on one thread, because each core has a process."""
    with suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415 - an extra

        pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinSides:
    """Minimum size for decoding a JPEG: a picklable `shrink` for `decode`.

    Minimum length of its sides, px; 0: no minimum.
    """

    short_px: int = 0
    long_px: int = 0

    def __call__(self, width: int, height: int) -> float:
        """Return the factor by which the image may shrink."""
        short, long = sorted((width, height))
        return min(short / self.short_px if self.short_px else short, long / self.long_px if self.long_px else long)


def decode(
    data: bytes, name: str = "image", *, shrink: Callable[[int, int], float] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode the upright RGB image in a file's bytes; also returns its full upright (width, height), px.

    shrink: called once with the full upright width and height, returns how many times smaller the image may be; a JPEG
    is then decoded at 1/2, 1/4 or 1/8. None: decode in full.
    Transparent pixels become white; animations give their first frame; 16-bit and float greys are scaled to their own
    range. Raises ImageError if it can't be decoded completely.
    """
    return decode_opened(open_image(data, name), name, shrink=shrink)


@crosses_border
def decode_opened(
    image: Image.Image, name: str, *, shrink: Callable[[int, int], float] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image that `open_image` returned, as `decode` does."""
    if image.format == "PNG":
        _load(image, name)  # first, because EXIF may follow pixels, and Pillow reports corrupt ones only once
    orientation = orientation_of(image)
    turned = orientation >= 5
    full = image.size[::-1] if turned else image.size
    factor = 1.0 if shrink is None else shrink(*full)
    if factor >= 2 and image.format == "JPEG":
        image.draft(None, (max(1, int(image.width / factor)), max(1, int(image.height / factor))))
    _load(image, name)
    try:
        image = _to_rgb(image)  # same name, so that the decoded image is freed before the rotation
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cut off or corrupt ({error})") from error
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return image, full


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height in px after applying the EXIF orientation."""
    return image.size[::-1] if orientation_of(image) >= 5 else image.size


@crosses_border
def count_frames(image: Image.Image, name: str) -> int:
    """Return the number of frames in a file. Raises ImageError if frames after the first can't be read."""
    try:
        return int(getattr(image, "n_frames", 1))
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: its further frames are cut off or corrupt ({error})") from error


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except MemoryError:
        raise ImageError(
            f"{name}: decoding it takes more memory than its {image.width} x {image.height} px explain; "
            "save it again, or remove it"
        ) from None
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cut off or corrupt ({error})") from error


def orientation_of(image: Image.Image) -> int:
    """Return EXIF's 1 to 8; 1 if missing or invalid, and for TIFF, which Pillow itself turns upright."""
    if image.format == "TIFF" or ("exif" not in image.info and image.format not in ("PNG", "MPO")):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DECODING_ERRORS:
        return 1
    return int(value) if value in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        return _grey_from_wide(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return on_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    return image.convert("RGB")  # Pillow has already reverted Adobe's inverted CMYK


def encode_image(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the bytes of an image's file, without the metadata of the source.  image_format, options: as in Pillow."""
    buffer, plain = io.BytesIO(), image.copy()
    plain.info = {}  # Pillow would write comments and colour profiles from here
    plain.save(buffer, image_format, **options)
    return buffer.getvalue()


def on_white(rgba: Image.Image) -> Image.Image:
    """Put an image on white, by strips: at once it would take 12 more bytes per pixel."""
    rgb = Image.new("RGB", rgba.size)
    for y in range(0, rgba.height, STRIP_PX):
        strip = rgba.crop((0, y, rgba.width, min(y + STRIP_PX, rgba.height)))
        white = Image.new("RGBA", strip.size, "white")
        rgb.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, y))
    return rgb


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """Convert greys of 16 or 32 bits or floats to RGB: 16 bits by their highest byte, others by their own range."""
    import numpy as np  # noqa: PLC0415 - a decoder's process starts in half the time without

    values = np.array(image, dtype=np.float32)  # changed in place: a copy takes 4 bytes per pixel
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and values.max() < 2**16):
        values /= 257
    elif values.max() > values.min():
        low, high = values.min(), values.max()
        values -= low
        values /= high - low
        values *= 255
    grey = Image.fromarray(values.round(out=values).clip(0, 255, out=values).astype(np.uint8))
    return grey.convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Errors of Pillow's decoders for broken files.
DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, TypeError, KeyError),
    *(ZeroDivisionError, MemoryError, AttributeError, NotImplementedError, AssertionError, RuntimeError),
    Image.DecompressionBombError,
)
