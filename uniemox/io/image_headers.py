"""Parts of the headers of PNG, AVIF and JPEG that Pillow does not read, or that stop it if they are broken."""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice

from uniemox.io.image_parts import JPEG, JPEG_FRAMES, MAX_BOXES, MAX_CHUNKS, PNG, iso_boxes, jpeg_segments, png_chunks

# Chunks of PNG that change no pixel: texts, time, and size in print.
_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs")
# Markers of JPEG: APP0, APP2 and APP13, with JFIF, a colour profile, and Photoshop's data.
_OPTIONAL_SEGMENTS = (0xE0, 0xE2, 0xED)
# APP14, by which Adobe names the colour transform.
_ADOBE = 0xEE
_ADOBE_BYTES = 12


def code_points_in(data: bytes) -> tuple[int, int] | None:
    """Return the code points of primaries and transfer function in a PNG or AVIF; None if the file names none."""
    if data.startswith(PNG):
        return _in_png(data)
    if data[4:8] == b"ftyp":
        try:
            return _in_heif(data)
        except (struct.error, IndexError):  # damaged, which the decoder reports
            return None
    return None


def has_narrow_range(data: bytes) -> bool:
    """Return True for a PNG with code points whose black is 16 and white 235 of 255, as in video."""
    if not data.startswith(PNG):
        return False
    return any(kind == b"cICP" and data[start:end][3:] == b"\0" for kind, start, end in _chunks_before_pixels(data))


def _in_png(data: bytes) -> tuple[int, int] | None:
    """Read the chunk cICP (PNG specification, third edition, 11.3.2.6), which precedes the pixels."""
    for kind, start, end in _chunks_before_pixels(data):
        if kind == b"cICP" and end - start == 4:
            primaries, transfer = data[start : start + 2]
            return primaries, transfer
    return None


def take_profile(data: bytes, max_bytes: int) -> tuple[bytes, bytes | None]:
    """Separate a PNG from its colour profile, and from damaged notes.

    Pillow refuses a PNG whose profile is broken or over 1 MiB, and one whose texts have another checksum.

    Args:
        data: Bytes of any file.
        max_bytes: Maximum size of the unpacked profile.

    Returns:
        The PNG without these chunks, and the profile, None if it is larger or broken; other files unchanged, and None.
    """
    if not data.startswith(PNG):
        return data, None
    has_profile = False
    profile: bytes | None = None
    parts: list[bytes] = []
    copied_to = 0
    for kind, start, end in _chunks_before_pixels(data):
        is_first_profile = kind == b"iCCP" and not has_profile
        if not is_first_profile and kind not in _NOTES:
            continue
        is_intact = zlib.crc32(data[start - 4 : end]).to_bytes(4, "big") == data[end : end + 4]
        if is_first_profile:
            has_profile = True
            profile = _unpacked(data[start:end], max_bytes) if is_intact else None
        elif is_intact:
            continue
        # Between two chunks that are taken out, all others stay as they are.
        parts.append(data[copied_to : start - 8])
        copied_to = end + 4
    if not parts:
        return data, None
    return b"".join((*parts, data[copied_to:])), profile


def _unpacked(content: bytes, max_bytes: int) -> bytes | None:
    """Return the profile in a chunk iCCP (PNG specification, 11.3.2.3): a name, 0, the method 0, and packed bytes."""
    _, _, packed = content.partition(b"\0")
    if not packed.startswith(b"\0"):
        return None
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], max_bytes)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _chunks_before_pixels(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of the complete chunks of a PNG before its pixels."""
    for kind, start, end in islice(png_chunks(data), MAX_CHUNKS):
        if kind in (b"IDAT", b"IEND") or end + 4 > len(data):
            return
        yield kind, start, end


def has_intact_pixels(png: bytes) -> bool:
    """Return False if a chunk of a PNG's pixels has another checksum than its content.

    Decoders stop when all rows are full, and don't compare: zeros instead of the end of a file become black rows.

    Args:
        png: Bytes of a PNG, whose number of chunks was checked.
    """
    content = memoryview(png)
    for kind, start, end in png_chunks(png):
        # A file that ends inside of its pixels is reported by the decoder.
        if end + 4 > len(png):
            return True
        # The checksum is that of name and content.
        if kind == b"IDAT" and zlib.crc32(content[start - 4 : end]).to_bytes(4, "big") != png[end : end + 4]:
            return False
    return True


def without_optional_segments(data: bytes) -> bytes | None:
    """Return a JPEG without the segments for which Pillow may refuse it; None for other files.

    These are APP0, APP2 and APP13, and an APP14 of Adobe that is too short. EXIF stays.
    """
    if not data.startswith(JPEG):
        return None
    parts = [data[:2]]
    copied_to = 2
    for marker, start, end in jpeg_segments(data):
        # Marker and size take four bytes.
        is_short_adobe = marker == _ADOBE and end - start - 4 < _ADOBE_BYTES
        if marker not in _OPTIONAL_SEGMENTS and not is_short_adobe:
            parts.append(data[start:end])
        copied_to = end
    return b"".join((*parts, data[copied_to:]))


def jpeg_frame(data: bytes) -> str:
    """Describe the frame of a JPEG, such as 12 bits, 640 x 480 px; empty for other files, and without a frame."""
    if not data.startswith(JPEG):
        return ""
    for marker, start, _ in jpeg_segments(data):
        if marker in JPEG_FRAMES and start + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 5)
            return f"{data[start + 4]} bits, {width} x {height} px"
    return ""


def _in_heif(data: bytes) -> tuple[int, int] | None:
    """Read the colour property of the primary image. Raises struct.error or IndexError for a damaged file."""
    for kind, start, end in iso_boxes(data, 0, len(data)):
        if kind == b"meta":
            # The boxes follow a version and flags of 4 bytes.
            return _in_meta(data, start + 4, end)
        # In a sequence of images, the sample entry holds the property.
        if kind == b"moov":
            return _first_colour(data[start:end])
    return None


def _in_meta(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    boxes = {kind: (first, last) for kind, first, last in iso_boxes(data, start, end)}
    if b"iprp" not in boxes:
        return None
    primary = _primary_item(data, *boxes[b"pitm"]) if b"pitm" in boxes else None
    inner = {kind: (first, last) for kind, first, last in iso_boxes(data, *boxes[b"iprp"])}
    if b"ipco" not in inner:
        return None
    properties = list(iso_boxes(data, *inner[b"ipco"]))
    if b"ipma" in inner and primary is not None:
        numbers = _properties_of(data, inner[b"ipma"][0], primary)
        properties = [properties[number - 1] for number in numbers if 0 < number <= len(properties)]
    for kind, first, last in properties:
        if kind == b"colr" and data[first : first + 4] == b"nclx" and last - first >= 8:
            primaries, transfer = struct.unpack_from(">HH", data, first + 4)
            return primaries, transfer
    return None


def _primary_item(data: bytes, start: int, end: int) -> int:
    version = data[start]
    size = 4 if version else 2
    return int.from_bytes(data[start + 4 : min(start + 4 + size, end)], "big")


def _properties_of(data: bytes, at: int, item: int) -> list[int]:
    """Return the numbers, from 1, of the properties of an item (box ipma)."""
    version = data[at]
    is_wide = data[at + 3] & 1
    [count] = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(count, MAX_BOXES)):
        size = 4 if version else 2
        number = int.from_bytes(data[at : at + size], "big")
        length = data[at + size]
        at += size + 1
        step = 2 if is_wide else 1
        if number == item:
            # The highest bit says whether a property is essential.
            mask = 0x7FFF if is_wide else 0x7F
            starts = range(at, at + length * step, step)
            return [int.from_bytes(data[start : start + step], "big") & mask for start in starts]
        at += length * step
    return []


def _first_colour(moov: bytes) -> tuple[int, int] | None:
    at = moov.find(b"colrnclx")
    if at < 0:
        return None
    primaries, transfer = struct.unpack_from(">HH", moov, at + 8)
    return primaries, transfer
