"""Limits on a file's decoding work, checked on its bytes before any decoder runs.

A header gives the number of pixels, not the work: a progressive JPEG visits all pixels once per scan, and Pillow reads
chunks, segments and comments in Python. Every limit is far above the values of cameras and encoders.

Training, and `predict` with one image, decode in their own process, without other limits than Pillow's number of
pixels. That limit allows a JPEG of 264 kB that takes more than 25 s, and a WebP of 584 bytes that takes 1.5 GB. In a
process with limits (decoding/process.py), the first still takes seconds. These checks refuse both in 10 ms.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL.ExifTags import Base as Tag

from uniemox.errors import ImageError
from uniemox.io.image_parts import JPEG_FRAMES, JPEG_SCAN, MAX_CHUNKS, MAX_SEGMENTS, png_chunks
from uniemox.io.tiff_pages import SEPARATE_PLANES

MAX_SCANS = 100
"""Maximum number of scans in a JPEG. Baseline has 1 to 4, progressive about 10, the best optimisers up to 64; libjpeg's
fuzzers and libtiff stop at 100 too."""
MAX_SCANNED_PIXELS = 1_600_000_000
"""Maximum of scans times pixels in a JPEG: 16 scans of 100 megapixels. A scan takes about 2 ns per pixel."""
MAX_FILL_BYTES = 65_536
"""Maximum number of fill bytes between the segments of a JPEG."""
MAX_TEXTS = 100
"""Maximum number of chunks that Pillow unpacks in a PNG, to 1 MiB each, and of Exif segments in a JPEG."""
MAX_BLOCKS = 50_000
"""Maximum number of blocks, of up to 255 bytes, in a GIF's comments and other extensions before its first frame."""
MAX_PLAIN_BYTES = 4 * 2**20
"""Maximum size of a PPM in text form, which is read word by word."""
MAX_PPM_HEADER_BYTES = 65_536
"""Maximum size of a PPM's header, including comments."""
SMALL_FILE_BYTES = 10 * 2**20
MAX_MEMORY_OF_SMALL_FILE = 600 * 2**20
"""Files below the first size may not need more memory than the second to be decoded."""
BYTES_A_PIXEL = {
    **{"JPEG": 4, "progressive": 10, "PNG": 8, "WEBP": 17, "AVIF": 12},
    **{"HEIF": 10, "TIFF": 12, "GIF": 8, "BMP": 8, "DIB": 8},
}
"""Maximum bytes per pixel for decoding, by format; MPO counts as JPEG."""
MAX_CHECKED_BOXES = 100
"""Number of a HEIC's boxes that are checked; cameras write about five."""
MAX_DIRECTORIES = 5_000
MAX_ENTRIES = 100_000
MAX_VALUES = 200_000
"""Maximum numbers of pages in a TIFF, of their entries, and of an entry's values, each of which takes 265 bytes."""
MAX_SPARE_STRIPS = 100
"""Maximum number of strips or tiles in a TIFF beyond those that its image needs: Pillow decodes them all."""
MIN_TILE_PIXELS = 4_194_304
"""Tile size that is always allowed in a TIFF, 2048 x 2048, even if the image is smaller."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a segment; 00 and D0 to D7 occur inside scans
_PPM_HEADER = re.compile(rb"P[0-6Ffy][A-Z]*(?:(?:\s|#[^\r\n]*[\r\n])+[^\s#]+){2}\s")
_SOI = 0xD8
_EOI = 0xD9
_TEM = 0x01
# Tags of TIFF that Pillow keeps as bytes; private ones may be long
_TIFF_BYTES = {270, 347, 700}
_FIRST_PRIVATE_TAG = 32_768
_JPEG_IN_TIFF = (6, 7)


def check_bytes(data: bytes, name: str) -> None:
    """Raise ImageError for a file whose decoding takes far longer than its size and its pixels explain.

    Args:
        name: Of the file, for the message.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data, name)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data, name)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _check_gif(data, name)
    elif data.startswith(b"P"):
        _check_ppm(data, name)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _check_directories(data, name)


def check_memory(size: int, fmt: str, width: int, height: int, name: str) -> None:
    """Raise ImageError for a small file that needs much memory.

    Args:
        size: Of the file, bytes.
        fmt: A key of BYTES_A_PIXEL, others are not checked.
    """
    takes = BYTES_A_PIXEL.get(fmt, 0) * width * height
    if size < SMALL_FILE_BYTES and takes > MAX_MEMORY_OF_SMALL_FILE:
        raise ImageError(
            f"{name}: {width} x {height} px in {size:,} bytes; a {fmt} of that size takes {takes >> 20} MiB, and "
            f"files below {SMALL_FILE_BYTES >> 20} MiB may take {MAX_MEMORY_OF_SMALL_FILE >> 20}; scale it down"
        )


def check_tiff(data: bytes, tags: Mapping[int, Any], size: tuple[int, int], name: str) -> None:
    """Raise ImageError for a TIFF whose tiles are larger than its image, too many, or JPEGs with too many scans.

    Args:
        tags: Of Pillow's image.
        size: Width and height of the image, px.
    """
    width = tags.get(Tag.TileWidth, 0)
    height = tags.get(Tag.TileLength, 0)
    pixels = size[0] * size[1]
    if width * height > max(MIN_TILE_PIXELS, 4 * pixels):
        raise ImageError(
            f"{name}: tiles of {width} x {height} px in an image of {pixels:,} px; save it again, or remove it"
        )
    strips = len(tags.get(Tag.StripOffsets) or tags.get(Tag.TileOffsets) or (0,))
    across, down = (width, height) if Tag.TileOffsets in tags else (size[0], tags.get(Tag.RowsPerStrip, size[1]))
    if tags.get(Tag.PlanarConfiguration) == SEPARATE_PLANES:
        planes = tags.get(Tag.SamplesPerPixel, 1)
    else:
        planes = 1
    needed = planes * -(-size[0] // max(across, 1)) * -(-size[1] // max(down, 1))
    _refuse_if(strips > needed + MAX_SPARE_STRIPS, name, f"{strips:,} strips or tiles, where {needed:,} are enough")
    if tags.get(Tag.Compression) in _JPEG_IN_TIFF:
        scanned = data.count(b"\xff\xda") * pixels // strips  # a scan visits one strip
        excess = f"more than {MAX_SCANNED_PIXELS // 10**6:,} megapixels in all scans of its strips"
        _refuse_if(scanned > MAX_SCANNED_PIXELS, name, excess)


def check_heif(data: bytes, name: str) -> None:
    """Raise ImageError for a HEIC that is cut off: libheif fills missing tiles without an error.

    Data after the known boxes are ignored; phones append videos and notes.
    """
    at = 0
    for _ in range(MAX_CHECKED_BOXES):
        if data[at + 4 : at + 8] not in (b"ftyp", b"meta", b"mdat", b"moov", b"free"):
            return
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if at + size > len(data):
            raise ImageError(f"{name}: cut off or corrupt ({at + size:,} bytes expected, {len(data):,} found)")
        if size < 8:  # 0: up to the end
            return
        at += size


def webp_pixels(data: bytes) -> int:
    """Return the pixels of a WebP by its header, for which opening it allocates memory; 0 for other files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width = (bits & 0x3FFF) + 1
        height = (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height


def _check_directories(data: bytes, name: str) -> None:
    """Check the directories of a TIFF: their number, and the number of values of each entry."""
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[2:4]
    offset_type, count_type, entry = ("Q", "Q", "HHQ8x") if is_big else ("I", "H", "HHI4x")
    pages = entries = 0
    try:
        [at] = struct.unpack_from(order + offset_type, data, 8 if is_big else 4)
        while at:
            [count] = struct.unpack_from(order + count_type, data, at)
            pages = pages + 1
            entries = entries + count
            _refuse_if(pages > MAX_DIRECTORIES, name, f"more than {MAX_DIRECTORIES:,} pages")
            _refuse_if(entries > MAX_ENTRIES, name, f"more than {MAX_ENTRIES:,} entries in its directories")
            at += struct.calcsize(order + count_type)
            end = at + count * struct.calcsize(order + entry)
            for tag, _, values in struct.iter_unpack(order + entry, data[at:end]):
                is_read = tag < _FIRST_PRIVATE_TAG and tag not in _TIFF_BYTES
                _refuse_if(is_read and values > MAX_VALUES, name, f"more than {MAX_VALUES:,} values for tag {tag}")
            [at] = struct.unpack_from(order + offset_type, data, end)
    except (struct.error, OverflowError):  # OverflowError: a place that no memory has
        return  # cut off, which the decoder reports


def _check_jpeg(data: bytes, name: str) -> None:
    """Check segment by segment, in libjpeg's order; scans are skipped with one search."""
    at = scans = segments = texts = fill = pixels = 0
    while (match := _MARKER.search(data, at)) is not None:
        marker = data[match.end() - 1]
        start = match.end()
        segments += 1
        if segments > MAX_SEGMENTS:
            raise _too_much(name, f"more than {MAX_SEGMENTS:,} segments")
        if not scans:
            fill += match.start() - at
            texts += marker == 0xE1 and data.startswith(b"Exif\0\0", start + 2)
            if texts > MAX_TEXTS:
                raise _too_much(name, f"more than {MAX_TEXTS} Exif segments")
            if fill > MAX_FILL_BYTES:
                raise _too_much(name, f"more than {MAX_FILL_BYTES:,} bytes between its segments")
        if marker == _EOI:
            return
        if marker in (_SOI, _TEM):
            at = start
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        if marker in JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[start + 3 : start + 7].ljust(4, b"\0"))
            pixels = max(pixels, width * height)
        scans += marker == JPEG_SCAN
        if scans > MAX_SCANS:
            raise _too_much(name, f"more than {MAX_SCANS} scans")
        if scans * pixels > MAX_SCANNED_PIXELS:
            raise _too_much(name, f"more than {MAX_SCANNED_PIXELS // 10**6:,} megapixels in all its scans")
        at = start + max(2, length)


def _check_png(data: bytes, name: str) -> None:
    texts = 0
    for number, (kind, _, _) in enumerate(png_chunks(data), start=1):
        _refuse_if(number > MAX_CHUNKS, name, f"more than {MAX_CHUNKS:,} chunks")
        texts += kind in (b"iCCP", b"zTXt", b"iTXt")
        _refuse_if(texts > MAX_TEXTS, name, f"more than {MAX_TEXTS} iCCP, zTXt and iTXt chunks")


def _check_gif(data: bytes, name: str) -> None:
    """Check the blocks of extensions, and bytes outside of blocks, up to the first frame."""
    has_palette = len(data) > 10 and data[10] & 0x80
    at = 13 + (3 << (data[10] & 7) + 1 if has_palette else 0)
    is_inside = False
    for _ in range(MAX_BLOCKS):
        if at >= len(data) or (not is_inside and data[at] in b",;"):
            return
        if is_inside:
            is_inside = data[at] != 0
            at += 1 + data[at]
        else:
            is_inside = data[at] == ord("!")
            at += 2 if is_inside else 1
    raise _too_much(name, f"more than {MAX_BLOCKS:,} blocks before its first frame")


def _check_ppm(data: bytes, name: str) -> None:
    if data.startswith((b"P1", b"P2", b"P3")) and len(data) > MAX_PLAIN_BYTES:
        raise ImageError(
            f"{name}: a PPM in text of {len(data) / 2**20:.0f} MiB, more than the {MAX_PLAIN_BYTES >> 20} MiB that are "
            "read; save it in binary form, or as PNG"
        )
    if len(data) > MAX_PPM_HEADER_BYTES and _PPM_HEADER.match(data, 0, MAX_PPM_HEADER_BYTES) is None:
        raise _too_much(name, f"a header of more than {MAX_PPM_HEADER_BYTES:,} bytes")


def _refuse_if(is_too_much: bool, name: str, excess: str) -> None:
    if is_too_much:
        raise _too_much(name, excess)


def _too_much(name: str, excess: str) -> ImageError:
    return ImageError(f"{name}: {excess}, which no camera or editor writes; save it again with one, or remove it")
