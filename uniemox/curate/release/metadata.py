"""Takes out of an image's file what it says beside the image: where and when it was taken, by which camera, by whom."""

import struct
import zlib
from collections.abc import Iterator

from uniemox.io.images import open_image
from uniemox.io.images import orientation_of as orientation_of_image

SOI, SOS, EOI = 0xD8, 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD8))  # markers of JPEG without a length
# Segments that decoders need: frames, tables, scans, restart intervals and lines.
NEEDED = (*range(0xC0, 0xC8), *range(0xC9, 0xD0), SOS, 0xDB, 0xDC, 0xDD)
ADOBE_BYTES = 12
ADOBE, ICC, EXIF = b"Adobe", b"ICC_PROFILE\0", b"Exif\0\0"
JFIF_BYTES = 14  # of the segment that begins a JPEG, without a small image
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"),  # pixels, also of films
    *(b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT"),  # what its numbers mean as colours
)
WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
WEBP_TEXTS = {b"EXIF": 0x08, b"XMP ": 0x04}  # chunks, and the flags that announce them
ORIENTATION = 0x0112
MAX_PROFILE_BYTES = 16 * 2**20


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
    except (struct.error, ValueError, IndexError, zlib.error):  # cut off, or damaged
        return None
    return None


def orientation_of(data: bytes) -> int:
    """How an image's file says that it is to be turned, 1 to 8; 1 where it says nothing. Raises ImageError."""
    return orientation_of_image(open_image(data, "image"))


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
    """Whether decoders need a segment: all that is not listed is left out, known or not."""
    is_jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) == JFIF_BYTES
    is_profile = marker == 0xE2 and content.startswith(ICC)
    return marker in NEEDED or is_jfif or is_profile


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
    """Chunks up to the last, of those that are listed; of a colour profile its bytes alone, not its name."""
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
    """The packed profile of a chunk iCCP, without what stands behind it."""
    packed = content[content.index(b"\0") + 2 :]
    unpacking = zlib.decompressobj()
    profile = unpacking.decompress(packed, MAX_PROFILE_BYTES)
    if not unpacking.eof:
        raise ValueError("a profile that is cut off, or too large")
    return zlib.compress(profile[: int.from_bytes(profile[:4], "big")])


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
        if name in WEBP_CHUNKS:
            kept.append(chunk)
        at += len(chunk)
    if exif:
        kept.append(struct.pack("<4sI", b"EXIF", len(exif)) + exif)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
