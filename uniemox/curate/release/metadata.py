"""Removing metadata from image files: place, time, camera, names. Pixels, colours and orientation stay."""

import struct
import zlib
from collections.abc import Iterator

from uniemox.io.images import open_image
from uniemox.io.images import orientation_of as orientation_of_image

SOI, SOS, EOI = 0xD8, 0xDA, 0xD9
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))  # markers of JPEG
# Segments that decoders need: frames, tables, scans, restart intervals and lines.
NEEDED = (*range(0xC0, 0xC8), *range(0xC9, 0xD0), SOS, 0xDB, 0xDC, 0xDD)
ADOBE_BYTES = 12
ADOBE, ICC, EXIF = b"Adobe", b"ICC_PROFILE\0", b"Exif\0\0"
JFIF_BYTES = 14  # of the segment that begins a JPEG, without a small image
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"),  # pixels, also of animations
    *(b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT"),  # meaning of the numbers as colours
)
WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
WEBP_TEXTS = {b"EXIF": 0x08, b"XMP ": 0x04}  # chunks, and the flags that announce them
ORIENTATION = 0x0112
MAX_PROFILE_BYTES = 16 * 2**20


def without_metadata(data: bytes, orientation: int) -> bytes | None:
    """Return an image's file with the same pixels, colour profile and orientation, and nothing else.

    orientation: EXIF orientation, 1 to 8, which is written again unless it is 1.  Returns None where the image would
    have to be encoded again: formats other than JPEG, PNG and WebP, and damaged files.
    """
    exif = _exif(orientation) if orientation > 1 else b""
    try:
        if data.startswith(bytes((0xFF, SOI))):
            return b"".join(_jpeg(data, exif))
        if data.startswith(PNG_HEAD):
            return b"".join(_png(data, exif))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data, exif)
    except (struct.error, ValueError, IndexError, zlib.error):  # cut off, or damaged
        return None
    return None


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 without one. Raises ImageError."""
    return orientation_of_image(open_image(data, "image"))


def _exif(orientation: int) -> bytes:
    """Return EXIF with the orientation alone."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Yield the needed segments up to the end of the image; another image may follow in the file."""
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
        if marker in WITHOUT_LENGTH:
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
        if marker == 0xEE and content.startswith(ADOBE) and length >= ADOBE_BYTES + 2:
            yield struct.pack(">BBH", 0xFF, marker, ADOBE_BYTES + 2) + content[:ADOBE_BYTES]
        elif _is_needed(marker, content):
            yield data[at:end]
        at = end
        if marker == SOS:
            stop = _end_of_scan(data, at)
            yield data[at:stop]
            at = stop


def _is_needed(marker: int, content: bytes) -> bool:
    """Return True if decoders need a segment; all others are left out, known or not."""
    is_jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) == JFIF_BYTES
    is_profile = marker == 0xE2 and content.startswith(ICC)
    return marker in NEEDED or is_jfif or is_profile


def _end_of_scan(data: bytes, at: int) -> int:
    """Return the place of the next marker that does not belong to the scan."""
    while True:
        at = data.index(b"\xff", at)
        if at + 1 >= len(data):
            raise ValueError("cut off")
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _png(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Yield the listed chunks; a colour profile keeps its bytes, not its name."""
    yield PNG_HEAD
    at, name = len(PNG_HEAD), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("cut off")
        if name == b"iCCP":
            yield _chunk(name, b"ICC\0\0" + _profile(data[at + 8 : at + 8 + length]))
        elif name in PNG_CHUNKS:
            yield data[at:end]
        if name == b"IHDR" and exif:
            yield _chunk(b"eXIf", exif)
        at = end


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _profile(content: bytes) -> bytes:
    """Return the packed profile of a chunk iCCP, without trailing bytes."""
    packed = content[content.index(b"\0") + 2 :]
    unpacking = zlib.decompressobj()
    profile = unpacking.decompress(packed, MAX_PROFILE_BYTES)
    if not unpacking.eof:
        raise ValueError("a profile that is cut off, or too large")
    return zlib.compress(profile[: int.from_bytes(profile[:4], "big")])


def _webp(data: bytes, exif: bytes) -> bytes:
    """Return the file with the listed chunks; only the extended form can hold metadata."""
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
        if name in WEBP_CHUNKS:
            kept.append(chunk)
        at += len(chunk)
    if exif:
        kept.append(struct.pack("<4sI", b"EXIF", len(exif)) + exif)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
