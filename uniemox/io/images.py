"""Safe decoding of images, without torch.

Any file becomes an upright RGB image, or an ImageError that names the problem.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import GifImagePlugin, Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from uniemox.errors import ImageError
from uniemox.io.borders import crosses_border
from uniemox.io.colour import CICP, MAX_PROFILE_BYTES, NARROW_RANGE, to_srgb
from uniemox.io.exif import NAMES_ADOBE, exif_without_xmp, is_adobe_rgb, orientation_of
from uniemox.io.image_depth import WIDE_MODES, greys_of_sixteen_bits, to_eight_bits
from uniemox.io.image_headers import (
    code_points_in,
    has_intact_pixels,
    has_narrow_range,
    jpeg_frame,
    take_profile,
    without_optional_segments,
)
from uniemox.io.image_limits import check_bytes, check_heif, check_memory, check_tiff
from uniemox.io.low_bytes import TRANSPARENT_LOW_BYTES, open_low_bytes, refuse_bytes, without_transparent_colour
from uniemox.io.pillow_errors import DECODING_ERRORS
from uniemox.io.raw_preview import HAS_RAWPY, RAW_ENDINGS, exifs_of_raw, is_raw, preview_of
from uniemox.io.sized_image import SizedImage
from uniemox.io.tiff_pages import SEPARATE_PLANES, describe_layout, with_photograph_first

MAX_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_SIDE_PX = 50_000
# A strip of 1 : 100 is not a scene.
MAX_ASPECT = 100
# An MPO is opened as the JPEG that it begins with.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "HEIF", "DIB")
ENDINGS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **{".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF", ".mpo": "MPO"},
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PPM"),
}
"""Format by file ending, lower-case."""

HEIF_ENDINGS = (".heic", ".heif", ".hif")
HEIF_NEEDS = "needs pillow-heif; run: pip install 'uniemox[heic]', or save it as JPEG or PNG"
_HAS_HEIF = find_spec("pillow_heif") is not None
if _HAS_HEIF:
    ENDINGS |= dict.fromkeys(HEIF_ENDINGS, "HEIF")
if HAS_RAWPY:
    # The format of a camera raw is that of its preview.
    ENDINGS |= dict.fromkeys(RAW_ENDINGS, "JPEG")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Height of the strips in which transparent images are put on white.
STRIP_PX = 64
# Value of SampleFormat in TIFF.
_SIGNED = 2
# Raw modes in which libtiff gives planes of 16 bits, by Pillow's mode.
_RAWMODES_OF_PLANES = {"RGB": "RGB;16N", "RGBA": "RGBA;16N", "CMYK": "CMYK;16N"}
TIFF_REMEDY = "convert it to RGB with 8 bits per channel, or save it as PNG"
# libtiff returns values in the order of bytes of this machine, which Pillow forgets for these of big-endian files.
_NATIVE_RAWMODES = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
# Modes without multiplication by alpha, by those with it, which Pillow converts to few others.
STRAIGHT_MODES = {"La": "LA", "RGBa": "RGBA"}
# Steps between the greys of a PNG with 2 and 4 bits, in levels of 255.
_GREY_STEPS = {"L;2": 85, "L;4": 17}


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

    Args:
        data: Bytes of the file.
        name: The file's name, for messages.

    Raises:
        ImageError: If it is not an image, of an unknown format, far too large, or would keep a decoder busy for far
            longer than its size explains (see image_limits.py).
    """
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: {len(data) / 2**20:.0f} MiB, more than the {MAX_BYTES >> 20} MiB that are read")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    # The checks follow, because a preview is an image from the same stranger.
    names_adobe = False
    if is_raw(data):
        preview = preview_of(data, name)
        # Pillow reads the first EXIF of the preview only, which LibRaw writes.
        names_adobe = any(is_adobe_rgb(read_exif) for read_exif in exifs_of_raw(data, preview))
        data = preview
    check_bytes(data, name)
    load_plugins()
    if _is_heif(data):
        check_heif(data, name)
        _register_heif()
    data = with_photograph_first(data)
    data, profile = take_profile(data, MAX_PROFILE_BYTES)
    image = _open(data, name)
    width, height = image.size
    check_size(width, height, name)
    fmt = "JPEG" if image.format == "MPO" else str(image.format)
    # A progressive JPEG takes more memory, because all its coefficients are held.
    is_progressive = fmt == "JPEG" and "progressive" in image.info
    check_memory(len(data), "progressive" if is_progressive else fmt, width, height, name)
    if fmt == "TIFF":
        check_tiff(data, getattr(image, "tag_v2", {}), image.size, name)
        _prepare_tiff(image, data, name)
        # Pillow keeps it, and turns the image by its orientation when it reads the pixels.
        exif = exif_without_xmp(image)
        if Tag.ExifOffset in exif:
            image.info[NAMES_ADOBE] = is_adobe_rgb(lambda: exif)
    elif fmt == "PNG":
        if not has_intact_pixels(data):
            raise ImageError(f"{name}: cut off or corrupt (its pixels have another checksum)")
        scale_transparency(image)
    elif fmt == "GIF":
        image = PlainGif(io.BytesIO(data))
    if profile is not None:
        image.info["icc_profile"] = profile
    if names_adobe:
        image.info[NAMES_ADOBE] = True
    if (code_points := code_points_in(data)) is not None:
        image.info[CICP] = code_points
        image.info[NARROW_RANGE] = has_narrow_range(data)
    return image


class PlainGif(GifImagePlugin.GifImageFile):
    """A GIF as browsers show it: each frame has its own palette and disposal method, or none."""

    def _is_palette_needed(self, p: bytes) -> bool:
        # Pillow drops palettes of greys. It then shows a frame by the palette of all frames, or shows the numbers in a
        # later palette as greys.
        return True

    def _seek(self, frame: int, update_image: bool = True) -> None:
        # Pillow would keep the method of an earlier frame.
        self.disposal_method = 0
        super()._seek(frame, update_image)


def _open(data: bytes, name: str) -> Image.Image:
    """Open an image with Pillow.

    Args:
        data: Bytes of the file.
        name: The file's name, for messages.

    Raises:
        ImageError: If Pillow refuses it.
    """
    # Pillow raises KeyError for formats that its build lacks.
    formats = [fmt for fmt in FORMATS if fmt in Image.OPEN]
    try:
        return _open_or_mend(data, formats)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: more than the {MAX_PIXELS // 10**6} megapixels that are decoded; scale it down, or remove it"
        ) from error
    except UnidentifiedImageError:
        if _is_heif(data) and "HEIF" not in formats:
            raise ImageError(f"{name}: HEIC {HEIF_NEEDS}") from None
        if describe_layout(data):
            raise ImageError(_unreadable_tiff(data, name)) from None
        if frame := jpeg_frame(data):
            raise ImageError(
                f"{name}: a JPEG that is not read ({frame}); save it again as a JPEG with 8 bits, or as PNG"
            ) from None
        raise ImageError(f"{name}: not an image of a known format ({', '.join(_known_formats())})") from None
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: the header can't be read ({error})") from error


def _open_or_mend(data: bytes, formats: list[str]) -> Image.Image:
    """Open an image with Pillow; a JPEG whose metadata are broken, without them."""
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        mended = without_optional_segments(data)
        if mended is None:
            raise
        return Image.open(io.BytesIO(mended), formats=formats)


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _known_formats() -> list[str]:
    """Return the formats that can be read; HEIF registers itself when the first such file comes."""
    return [fmt for fmt in FORMATS if fmt in Image.OPEN or (fmt == "HEIF" and _HAS_HEIF)]


def _prepare_tiff(image: Any, data: bytes, name: str) -> None:
    """Correct how Pillow reads a TIFF of which it would return other values than the file holds.

    Args:
        image: Image of Pillow's reader of TIFF, before its pixels are decoded.
        data: Bytes of the file.
        name: The file's name, for messages.

    Raises:
        ImageError: If Pillow can't read the layout: signed values of 8 bits, or greys with alpha in planes.
    """
    bits = image.tag_v2.get(Tag.BitsPerSample, (1,))
    sample_format = image.tag_v2.get(Tag.SampleFormat, (1,))
    has_planes = image.tag_v2.get(Tag.PlanarConfiguration) == SEPARATE_PLANES
    if (max(bits) == 8 and _SIGNED in sample_format) or (has_planes and image.mode == "LA"):
        raise ImageError(_unreadable_tiff(data, name))
    rawmode = image.tile[0].args[0] if image.tile else ""
    if has_planes and max(bits) == 16 and image.mode in _RAWMODES_OF_PLANES:
        # Pillow's own reader, which is for files without compression, takes the 16 bits of a plane for 8 bits.
        native = _RAWMODES_OF_PLANES[image.mode]
    elif has_planes and image.mode == "RGBA":
        # Pillow's own reader stops at a plane of alpha by which colours are multiplied.
        native = "RGBA"
    elif image.use_load_libtiff and rawmode in _NATIVE_RAWMODES:
        native = _NATIVE_RAWMODES[rawmode]
    else:
        return
    image.use_load_libtiff = True
    args = (native, False, image.tag_v2.offset)
    image.tile = [ImageFile._Tile("libtiff", (0, 0, *image._tile_size), 0, args)]


def _unreadable_tiff(data: bytes, name: str) -> str:
    return f"{name}: a TIFF that is not read ({describe_layout(data)}); {TIFF_REMEDY}"


def scale_transparency(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to 8 bits, as Pillow does with its pixels."""
    colour = image.info.get("transparency")
    tiles = getattr(image, "tile", [])
    rawmode = str(tiles[0].args) if tiles else ""
    if isinstance(colour, int) and rawmode in _GREY_STEPS:
        image.info["transparency"] = colour * _GREY_STEPS[rawmode]
    elif isinstance(colour, tuple) and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)
        image.info[TRANSPARENT_LOW_BYTES] = tuple(value & 255 for value in colour)


def check_size(width: int, height: int, name: str) -> None:
    """Check the size of an image.

    Args:
        width: Width, px.
        height: Height, px.
        name: The file's name, for messages.

    Raises:
        ImageError: If the image is empty, too large, or a strip.
    """
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
    """Minimum size for decoding a JPEG: a picklable `shrink` for `decode`."""

    short_px: int = 0
    """Minimum length of the shorter side; 0: no minimum."""
    long_px: int = 0
    """Minimum length of the longer side; 0: no minimum."""

    def __call__(self, width: int, height: int) -> float:
        """Return the factor by which the image may shrink."""
        short, long = sorted((width, height))
        return min(short / (self.short_px or 1), long / (self.long_px or 1))


def decode(data: bytes, name: str = "image", *, shrink: Callable[[int, int], float] | None = None) -> SizedImage:
    """Decode the image in a file's bytes.

    Colours are those of sRGB (see colour.py); transparent pixels become white; animations give their first frame.

    Args:
        data: Bytes of the file.
        name: The file's name, for messages.
        shrink: Called once with the full upright width and height, returns how many times smaller the image may be; a
            JPEG is then decoded at 1/2, 1/4 or 1/8. None: decode in full.

    Raises:
        ImageError: If it can't be decoded completely, or if it is not known which value is white.
    """
    return decode_opened(open_image(data, name), name, shrink=shrink)


@crosses_border
def decode_opened(image: Image.Image, name: str, *, shrink: Callable[[int, int], float] | None = None) -> SizedImage:
    """Decode an image that `open_image` returned, as `decode` does."""
    low_bytes = open_low_bytes(image)
    # EXIF of a PNG may follow its pixels, and Pillow reports corrupt pixels only once.
    if image.format == "PNG":
        _load(image, name)
    orientation = orientation_of(image)
    is_turned = orientation >= 5
    full_size = image.size[::-1] if is_turned else image.size
    factor = 1.0 if shrink is None else shrink(*full_size)
    if image.format in ("JPEG", "MPO"):
        reduce_jpeg(image, factor)
    _load(image, name)
    try:
        refuse_bytes(image, low_bytes, name)
        image = _without_unused_alpha(image)
        # The result has the same name, so that the decoded image is freed before the rotation.
        image = to_rgb(image, name, low_bytes)
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cut off or corrupt ({error})") from error
    return SizedImage(turned(image, orientation), full_size)


def _without_unused_alpha(image: Image.Image) -> Image.Image:
    """Return a BMP without an alpha of 0 everywhere: programs that know no alpha write it, and others ignore it."""
    is_bmp = image.format in ("BMP", "DIB")
    if is_bmp and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image upright.

    Args:
        image: The image.
        orientation: Value of the tag in EXIF, 1 to 8.
    """
    if orientation in _TURNS:
        return image.transpose(_TURNS[orientation])
    return image


def reduce_jpeg(image: Image.Image, factor: float) -> None:
    """Let an opened JPEG be decoded at 1/2, 1/4 or 1/8 of its size, if it may be a factor smaller."""
    if factor >= 2:
        image.draft(None, (max(1, int(image.width / factor)), max(1, int(image.height / factor))))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height in px after applying the EXIF orientation."""
    if orientation_of(image) >= 5:
        return image.size[::-1]
    return image.size


@crosses_border
def count_frames(image: Image.Image, name: str) -> int:
    """Return the number of frames in a file.

    Args:
        image: The opened image.
        name: The file's name, for messages.

    Raises:
        ImageError: If frames after the first can't be read.
    """
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


def to_rgb(image: Image.Image, name: str, low_bytes: Image.Image | None = None) -> Image.Image:
    """Return an image in RGB: with 8 bits, the colours of sRGB, and transparent pixels on white.

    Args:
        image: The decoded image.
        name: The file's name, for messages.
        low_bytes: Low bytes of colours with 16 bits (see low_bytes.py); None: the image has 8 bits.
    """
    if image.mode in WIDE_MODES:
        low_bytes = greys_of_sixteen_bits(image)
        image = to_eight_bits(image, name)
    elif image.mode in STRAIGHT_MODES:
        image = image.convert(STRAIGHT_MODES[image.mode])
    elif low_bytes is not None and TRANSPARENT_LOW_BYTES in image.info:
        image = without_transparent_colour(image, low_bytes)
    image = to_srgb(image, low_bytes)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return on_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    # Pillow has already reverted Adobe's inverted CMYK.
    return image.convert("RGB")


def encode_image(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the bytes of an image's file, without the metadata of the source.

    Args:
        image: The image.
        image_format: Pillow's name of the format.
        options: Pillow's options of the format.
    """
    buffer = io.BytesIO()
    plain = image.copy()
    # Pillow would write comments and colour profiles from here.
    plain.info = {}
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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
