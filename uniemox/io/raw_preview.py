"""Camera raw files by the JPEG preview that the camera has stored in them, with the extra `raw` (LibRaw).

The preview shows the photograph as the camera developed it, mostly in full size. Raw pixels are not developed.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

from PIL import ExifTags, Image

from uniemox.errors import ImageError, MissingReaderError
from uniemox.io.exif import exif_in, exif_without_xmp
from uniemox.io.tiff_pages import is_camera_raw

RAW_ENDINGS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
RAW_NEEDS = "needs rawpy; run: pip install 'uniemox[raw]', or save it as JPEG or PNG"
HAS_RAWPY = find_spec("rawpy") is not None
LIBRARY_BYTES = 512 * 2**20
"""Address space that LibRaw and its libraries reserve."""
MIN_PREVIEW_PX = 400
"""Minimum longer side of a preview; smaller ones are thumbnails, and the answer would differ from the photograph's."""
MAX_EXIFS = 10
"""Maximum number of EXIFs in a preview that are read."""
MAX_SEGMENT_BYTES = 2**16

# Olympus, Panasonic, Fujifilm, Sigma, Minolta, Canon's CRW and CR2: starts that no other file has.
_STARTS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
TIFF_STARTS = (b"II*\0", b"MM\0*")
# LibRaw's turns in EXIF's numbers.
_TURNS = {0: 1, 3: 3, 5: 8, 6: 6}
_QUARTER_TURNS = (5, 6)


def is_raw(data: bytes) -> bool:
    """Return True if the bytes of a file are a camera raw: by its start or by the directories of a TIFF."""
    return data.startswith(_STARTS) or data[4:12] == b"ftypcrx " or is_camera_raw(data)


def preview_of(data: bytes, name: str) -> bytes:
    """Return the preview of a camera raw as the bytes of an image file, with the orientation in its EXIF.

    Args:
        data: Bytes of a file for which `is_raw` is true.
        name: The file's name, for messages.

    Raises:
        MissingReaderError: If rawpy is not installed.
        ImageError: If LibRaw can't read the file, or it has no preview, or a thumbnail only.
    """
    if not HAS_RAWPY:
        raise MissingReaderError(f"{name}: camera raw {RAW_NEEDS}")
    import rawpy  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415 - an extra

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            thumbnail = raw.extract_thumb()
            turn = int(raw.sizes.flip)
            is_wide = raw.sizes.width >= raw.sizes.height
    except rawpy.LibRawError as error:
        # LibRaw's own messages are bytes.
        is_bytes = isinstance(error.args[0], bytes)
        reason = error.args[0].decode("utf-8", "replace") if is_bytes else str(error)
        raise ImageError(
            f"{name}: this camera raw has no preview that can be read ({reason}); save it as JPEG"
        ) from error
    is_jpeg = thumbnail.format == rawpy.ThumbFormat.JPEG
    preview = bytes(thumbnail.data) if is_jpeg else _bitmap(thumbnail.data)
    return _turned(preview, turn, name, is_wide=is_wide)


def exif_of_raw(data: bytes) -> Image.Exif:
    """Return the EXIF of a camera raw that is a TIFF, as most are; empty for others. LibRaw is not needed."""
    return exif_in(data) if data.startswith(TIFF_STARTS) else Image.Exif()


def exifs_of_raw(data: bytes, preview: bytes) -> Iterator[Callable[[], Image.Exif]]:
    """Yield functions that read the EXIF of a camera raw, and each EXIF of its preview.

    Args:
        data: Bytes of the camera raw.
        preview: Bytes of its preview.
    """
    yield partial(exif_of_raw, data)
    for match in islice(re.finditer(b"Exif\0\0", preview), MAX_EXIFS):
        yield partial(exif_in, preview[match.start() : match.start() + MAX_SEGMENT_BYTES])


def _turned(preview: bytes, turn: int, name: str, *, is_wide: bool) -> bytes:
    """Return a preview with the orientation of its photograph.

    Args:
        preview: Bytes of a JPEG or BMP.
        turn: LibRaw's number of the turn.
        name: The file's name, for messages.
        is_wide: True if the raw image is at least as wide as high, before it is turned.

    Raises:
        ImageError: If the preview is damaged, or only a thumbnail.
    """
    try:
        with Image.open(io.BytesIO(preview), formats=("JPEG", "BMP")) as image:
            stored = exif_without_xmp(image).get(ExifTags.Base.Orientation)
            size = image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: the preview of this camera raw is damaged ({error}); save it as JPEG") from error
    if max(size) < MIN_PREVIEW_PX:
        raise ImageError(f"{name}: this camera raw holds only a thumbnail of {size[0]} x {size[1]} px; save it as JPEG")
    # LibRaw's turn counts; the preview's own orientation counts only where LibRaw gives none.
    is_stored_valid = stored in range(1, 9)
    orientation = _TURNS.get(turn, 1) if turn or not is_stored_valid else stored
    # Some cameras store a preview that is turned already; LibRaw gives it an orientation even so.
    if turn in _QUARTER_TURNS and is_wide != (size[0] >= size[1]):
        orientation = 1
    if orientation == (stored if is_stored_valid else 1):
        return preview
    if not preview.startswith(b"\xff\xd8"):
        preview = _jpeg(preview)
    # A directory with one entry; Pillow reads the first EXIF segment of a file.
    entry = struct.pack("<HHIHxx", ExifTags.Base.Orientation, 3, 1, orientation)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return preview[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + preview[2:]


def _bitmap(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _jpeg(bitmap: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(bitmap), formats=("BMP",)).convert("RGB").save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
