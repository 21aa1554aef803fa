"""Takes out of an image's file what it says beside the image: where and when it was taken, by which camera, by whom."""

import struct
import zlib
from collections.abc import Iterator

from uniemox.images import open_image

SOI, SOS, EOI = 0xD8, 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD8))  # markers of JPEG without a length
APPS, COM = range(0xE0, 0xF0), 0xFE
ADOBE, ICC, EXIF = b"Adobe", b"ICC_PROFILE\0", b"Exif\0\0"
JFIF_BYTES = 14  # of the segment that begins a JPEG, without a small image
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")
WEBP_TEXTS = {b"EXIF": 0x08, b"XMP ": 0x04}  # chunks, and the flags that announce them
ORIENTATION = 0x0112


def without_metadata(data: bytes, orientation: int) -> bytes | None:
    """An image's file with the same pixels, colour profile and orientation, and nothing else told.

    orientation: of EXIF, 1 to 8, which is written again where it is not 1.  Returns None for a file in which it can't
    be taken out without encoding the image anew: other formats than JPEG, PNG and WebP, or a damaged one.
    """
    exif = _exif(orientation) if orientation > 1 else b""
    try:
        if data.startswith(bytes((0xFF, SOI))):
            return b"".join(_jpeg(data, exif))
        if data.startswith(PNG_HEAD):
            return b"".join(_png(data, exif))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data, exif)
    except (struct.error, ValueError, IndexError):  # cut off, or damaged
        return None
    return None


def orientation_of(data: bytes) -> int:
    """How an image's file says that it is to be turned, 1 to 8; 1 where it says nothing. Raises ImageError."""
    found = open_image(data, "image").getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _exif(orientation: int) -> bytes:
    """EXIF with the orientation alone."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Segments up to the scan, then the rest up to the end of the image: what is behind it may be another image."""
    yield data[:2]
    if exif:  # before JFIF, as readers of either allow
        yield struct.pack(">BBH", 0xFF, 0xE1, len(EXIF + exif) + 2) + EXIF + exif
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in ALONE:
            yield data[at : at + 2]
            at += 2
            continue
        if marker == EOI:
            yield data[at : at + 2]
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("cut off")
        content = data[at + 4 : end]
        if not _is_told(marker, content):
            yield data[at:end]
        at = end
        if marker == SOS:
            stop = _end_of_scan(data, at)
            yield data[at:stop]
            at = stop


def _is_told(marker: int, content: bytes) -> bool:
    """Whether a segment holds metadata: all of APP0 to APP15 but what decoders need, and comments."""
    if marker == COM:
        return True
    is_jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) == JFIF_BYTES
    is_adobe = marker == 0xEE and content.startswith(ADOBE)
    is_profile = marker == 0xE2 and content.startswith(ICC)
    return marker in APPS and not (is_jfif or is_adobe or is_profile)


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker is that is none of a scan's own."""
    while True:
        at = data.index(b"\xff", at)
        if at + 1 >= len(data):
            raise ValueError("cut off")
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _png(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Chunks up to the last; those of text, time and EXIF are left out."""
    yield PNG_HEAD
    at, name = len(PNG_HEAD), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("cut off")
        if name not in PNG_TEXTS:
            yield data[at:end]
        if name == b"IHDR" and exif:
            yield struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        at = end


def _webp(data: bytes, exif: bytes) -> bytes:
    """Chunks of the extended form; the simple form has no room for metadata."""
    kept, at = [], 12
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError("cut off")
    while at + 8 <= size + 8:
        name, length = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        if name == b"VP8X":
            flags = chunk[8] & ~sum(WEBP_TEXTS.values()) | (WEBP_TEXTS[b"EXIF"] if exif else 0)
            chunk = chunk[:8] + bytes((flags,)) + chunk[9:]
        if name not in WEBP_TEXTS:
            kept.append(chunk)
        at += len(chunk)
    if exif:
        kept.append(struct.pack("<4sI", b"EXIF", len(exif)) + exif)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
