"""Parts of image files in their order: chunks of PNG, segments of JPEG, boxes of HEIC and AVIF."""

from collections.abc import Iterator

MAX_CHUNKS = 50_000
"""Maximum number of chunks in a PNG; libpng writes 8 KiB into each."""
MAX_SEGMENTS = 10_000
"""Maximum number of segments in a JPEG, enough for 600 MiB of metadata."""
MAX_BOXES = 1_000
"""Maximum number of boxes in a box of a HEIC or AVIF."""
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
JPEG_SCAN = 0xDA
"""Marker before a scan of a JPEG."""
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame (SOF); the others of this range are tables, reserved, and arithmetic conditioning."""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each chunk of a PNG up to IEND. A cut one ends behind the data."""
    at = len(PNG)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        start = at + 8
        end = start + int.from_bytes(data[at : at + 4], "big")
        yield kind, start, end
        if kind == b"IEND":
            return
        # A checksum of four bytes follows the content.
        at = end + 4


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment of a JPEG before its first scan; each starts with its marker."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data) or data[at + 1] == JPEG_SCAN:
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        at = end


def iso_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each box between two places (ISO 14496-12, 4.2)."""
    at = start
    for _ in range(MAX_BOXES):
        if at + 8 > end:
            return
        size = int.from_bytes(data[at : at + 4], "big")
        first = at + 8
        # 1: the size follows in 8 bytes; 0: the box ends with the file.
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
            first = at + 16
        last = end if size == 0 else min(at + size, end)
        if last < first:
            return
        yield data[at + 4 : at + 8], first, last
        at = last
