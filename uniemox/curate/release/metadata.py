"""Removing metadata from image files: place, time, camera, names. Pixels, colours and orientation stay."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256

from PIL import Image

from uniemox.errors import ImageError
from uniemox.io.colour import names_adobe_rgb
from uniemox.io.image_border import image_border
from uniemox.io.images import DECODING_ERRORS, open_image
from uniemox.io.images import orientation_of as orientation_of_image

SOI = 0xD8
SOS = 0xDA
EOI = 0xD9
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))  # markers of JPEG
# Segments that decoders need: tables and restart intervals, frames, scans.
TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
NEEDED = (*TABLES, *range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), SOS)
ADOBE_BYTES = 12
ADOBE = b"Adobe"
ICC = b"ICC_PROFILE\0"
EXIF = b"Exif\0\0"
JFIF_BYTES = 14  # of the segment that begins a JPEG, without a small image
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = {  # with the most bytes that each needs; decoders read the first ones
    **{b"IHDR": 13, b"PLTE": 768, b"tRNS": 256, b"IDAT": 2**31, b"acTL": 8, b"fcTL": 26, b"fdAT": 2**31},  # pixels
    **{b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"cICP": 4, b"sBIT": 4},  # meaning of the numbers as colours
}
FRAMES = (b"IHDR", b"acTL", b"fcTL")
# colour types of PNG
GREY = 0
RGB = 2
PALETTE = 3
WEBP_FRAME = (b"VP8 ", b"VP8L", b"ALPH")
ANIM_BYTES = 6
WEBP_TEXTS = {b"EXIF": 0x08, b"XMP ": 0x04}  # chunks, and the flags that announce them
ORIENTATION = 0x0112
EXIF_TAGS = 0x8769
COLOR_SPACE = 0xA001
INTEROPERABILITY = 0xA005
UNCALIBRATED = 65535
COLOUR_TAGS: Mapping[bytes, tuple[bytes, ...]] = {  # of an ICC profile, with the types that each may have
    **dict.fromkeys((b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ"), (b"XYZ ",)),
    **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), (b"curv", b"para")),
    **{b"chad": (b"sf32",), b"cicp": (b"cicp",)},
    **{
        kind + number: (b"mft1", b"mft2", b"mAB ", b"mBA ")
        for kind in (b"A2B", b"B2A")
        for number in (b"0", b"1", b"2")
    },
}
TAG_BYTES = {b"XYZ ": 20, b"sf32": 44, b"cicp": 12}
PARAMETERS = (1, 3, 4, 5, 7)  # numbers of a parametric curve, by its function
# Program and date; platform and flags; maker, model and attributes of the device; creator, hash, and what is reserved.
UNNEEDED_HEAD = ((4, 8), (24, 36), (40, 64), (80, 128))
MAX_TAGS = 200
MAX_PROFILE_BYTES = 16 * 2**20
PROFILE_PART_BYTES = 65519  # in a segment of JPEG
STRIP = 256  # rows of an image


def without_metadata(data: bytes, orientation: int) -> bytes | None:
    """Return an image's file with only the same pixels, colour profile (or name of Adobe RGB in EXIF) and orientation.

    PNG and WebP are decoded to check them.

    Args:
        orientation: EXIF orientation, 1 to 8, which is written again unless it is 1.

    Returns:
        None if the image would have to be re-encoded: formats other than JPEG, PNG and WebP, and damaged files.
    """
    exif = _exif_of(data, orientation)
    with suppress(struct.error, ValueError, LookupError, zlib.error, ImageError):  # cut off, or damaged
        if data.startswith(bytes((0xFF, SOI))):
            return b"".join(_jpeg(data, exif))
        if data.startswith(PNG_HEAD):
            return _if_same(b"".join(_png(data, exif)), data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _if_same(_webp(data, exif), data)
    return None


def _exif_of(data: bytes, orientation: int) -> bytes:
    """Return EXIF with the orientation, and with the name of Adobe RGB where the EXIF of a file has it; or b""."""
    is_adobe_rgb = False
    with suppress(ImageError):
        is_adobe_rgb = names_adobe_rgb(open_image(data, "image"))
    if is_adobe_rgb:
        exif = Image.Exif()
        exif[EXIF_TAGS] = {COLOR_SPACE: UNCALIBRATED, INTEROPERABILITY: {1: "R03"}}
        if orientation > 1:
            exif[ORIENTATION] = orientation
        return exif.tobytes().removeprefix(EXIF)
    entry = b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0
    if orientation > 1:
        return struct.pack(">2sHIHHHIHHI", *entry)
    return b""


def _if_same(plain: bytes, data: bytes) -> bytes | None:
    """Return a file if it shows the same image as another: what decoders make of odd chunks is hard to foresee."""
    return plain if _shown(plain) == _shown(data) else None


def _shown(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Return size and hash of an image's pixels; in strips, so that it is in memory only once. Raises ImageError."""
    with image_border("image"):
        image = open_image(data, "image")
        digest = sha256()
        try:
            image.load()
            for top in range(0, image.height, STRIP):
                strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
                digest.update((strip if strip.mode.startswith("I") else strip.convert("RGBA")).tobytes())
        except DECODING_ERRORS as error:
            raise ImageError("can't be decoded") from error
        return image.size, digest.digest()


def orientation_of(data: bytes, name: str = "image") -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 without one, or if it is damaged.

    Raises:
        ImageError: With the name.
    """
    image = open_image(data, name)
    if image.format == "PNG":
        with suppress(*DECODING_ERRORS):
            image.load()  # because EXIF and XMP may follow the pixels
    return orientation_of_image(image)


def _jpeg(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Yield the needed segments up to the end of the image; another image may follow in the file."""
    yield data[:2]
    if exif:  # before JFIF, which all readers accept
        yield struct.pack(">BBH", 0xFF, 0xE1, len(EXIF + exif) + 2) + EXIF + exif
    at = 2
    profile = dict[bytes, bytes]()
    has_scan = False
    while True:
        if has_scan and (data[at] != 0xFF or data[at + 1] in WITHOUT_LENGTH):
            raise ValueError("a segment inside a scan, where decoders stop")
        at = data.index(b"\xff", at)  # decoders skip data between segments
        marker = data[at + 1]
        if marker in (0, 0xFF):  # no marker, or a fill byte
            at += 2 if marker == 0 else 1
            continue
        if marker in WITHOUT_LENGTH:
            yield data[at : at + 2]
            at += 2
            continue
        if marker == EOI:
            yield data[at : at + 2]
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + max(length, 2)
        if (length < 2 and marker in NEEDED) or end > len(data):  # decoders skip others that are too short
            raise ValueError("cut off")
        content = data[at + 4 : end]
        if marker == 0xE2 and content.startswith(ICC):
            profile[content[12:13]] = content[14:]
        elif kept := _needed_part(marker, content):
            if marker in NEEDED and marker not in TABLES:
                yield from _profile_segments(profile)
                profile.clear()
            yield struct.pack(">BBH", 0xFF, marker, len(kept) + 2) + kept
        at = end
        if marker == SOS:
            stop = _end_of_scan(data, at)
            yield data[at:stop]
            if stop == len(data):  # decoders accept a file without its end
                yield bytes((0xFF, EOI))
                return
            at = stop
            has_scan = True


def _needed_part(marker: int, content: bytes) -> bytes:
    """Return what decoders need of a segment; all others are left out, known or not."""
    if marker == 0xEE and content.startswith(ADOBE) and len(content) >= ADOBE_BYTES:
        return content[:ADOBE_BYTES]
    if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= JFIF_BYTES:
        return content[: JFIF_BYTES - 2] + b"\0\0"  # without a small image
    return content if marker in NEEDED else b""


def _profile_segments(parts: Mapping[bytes, bytes]) -> Iterator[bytes]:
    profile = _colours_of(b"".join(parts[number] for number in sorted(parts)))
    pieces = [profile[i : i + PROFILE_PART_BYTES] for i in range(0, len(profile), PROFILE_PART_BYTES)]
    for number, piece in enumerate(pieces, start=1):
        yield struct.pack(">BBH", 0xFF, 0xE2, len(piece) + 16) + ICC + bytes((number, len(pieces))) + piece


def _end_of_scan(data: bytes, at: int) -> int:
    """Return the place of the next marker that does not belong to the scan; without one, the end of the file."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 == len(data):
            return len(data)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _png(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Yield the listed chunks; a colour profile keeps its bytes, not its name."""
    yield PNG_HEAD
    chunks = list(_png_chunks(data))
    if [number for number, (name, _) in enumerate(chunks) if name == b"IHDR"] != [0]:
        raise ValueError("no header, several, or one after other chunks: decoders may differ")
    bits, colours = chunks[0][1][8:10]
    if colours == PALETTE:
        limits = PNG_CHUNKS | {b"PLTE": 3 << min(bits, 8)}
    else:  # a suggested palette is not needed
        limits = PNG_CHUNKS | {b"PLTE": -1, b"tRNS": {GREY: 2, RGB: 6}.get(colours, -1)}
    if b"acTL" not in dict(chunks):  # decoders ignore frames of no animation
        chunks = [chunk for chunk in chunks if chunk[0] not in (b"fcTL", b"fdAT")]
    for name, content in chunks:
        if name == b"iCCP" and (profile := _profile(content)):
            yield _chunk(name, b"ICC\0\0" + zlib.compress(profile))
        elif len(content) <= limits.get(name, -1):
            yield _chunk(name, content)
        elif name in FRAMES or (name, colours) in ((b"PLTE", PALETTE), (b"tRNS", GREY), (b"tRNS", RGB)):
            yield _chunk(name, content[: limits[name]])
        if name == b"IHDR" and exif:
            yield _chunk(b"eXIf", exif)
    yield _chunk(b"IEND", b"")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each complete chunk before IEND.

    Raises:
        ValueError: If the pixels are cut off.
    """
    at = len(PNG_HEAD)
    while (end := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        name = data[at + 4 : at + 8]
        if name == b"IEND":
            return
        yield name, data[at + 8 : end - 4]
        at = end
    if data[at + 4 : at + 8] == b"IDAT":
        raise ValueError("cut off")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _profile(content: bytes) -> bytes:
    """Return the profile of a chunk iCCP, without trailing bytes; empty if there is none that can be read."""
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(content[content.index(b"\0") + 2 :], MAX_PROFILE_BYTES)
    except (ValueError, zlib.error):
        return b""
    return _colours_of(profile) if unpacking.eof else b""


def _colours_of(profile: bytes) -> bytes:
    """Return a colour profile with the tags of COLOUR_TAGS alone, without date, device, maker; b"" if it is damaged."""
    count = int.from_bytes(profile[128:132], "big")
    if profile[36:40] != b"acsp" or count > MAX_TAGS or len(profile) < 132 + 12 * count:
        return b""
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    tags = {name: (at, _tag_bytes(profile[at : at + size])) for name, at, size in entries if name in COLOUR_TAGS}
    if any(not size or profile[at : at + 4] not in COLOUR_TAGS[name] for name, (at, size) in tags.items()):
        return b""
    if sum(size for _, size in set(tags.values())) > len(profile):  # tags may be the same bytes, but not overlap
        return b""
    start = 132 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    values = b""
    places = dict[tuple[int, int], int]()
    for name, (at, size) in tags.items():
        if (at, size) not in places:  # red, green and blue often share a curve
            places[at, size] = start + len(values)
            values += profile[at : at + size] + bytes(-size % 4)
        table += struct.pack(">4sII", name, places[at, size], size)
    head = bytearray(profile[:128])
    for begin, end in UNNEEDED_HEAD:
        head[begin:end] = bytes(end - begin)
    head[:4] = struct.pack(">I", start + len(values))
    return bytes(head) + table + values


def _tag_bytes(content: bytes) -> int:
    """Return the number of bytes that a tag needs by its type; 0 if it is cut off."""
    kind = content[:4]
    size = len(content)
    needed = TAG_BYTES.get(kind, size)
    if kind == b"curv":
        needed = 12 + 2 * int.from_bytes(content[8:12], "big")
    elif kind in (b"mft1", b"mft2") and size >= 52:
        inputs, outputs, grid = content[8:11]
        before, after = (256, 256) if kind == b"mft1" else struct.unpack_from(">HH", content, 48)
        values = before * inputs + grid**inputs * outputs + after * outputs
        if kind == b"mft1":
            needed = 48 + values
        else:
            needed = 52 + 2 * values
    elif kind == b"para":
        function = int.from_bytes(content[8:10], "big")
        if function < len(PARAMETERS):
            needed = 12 + 4 * PARAMETERS[function]
        else:
            needed = size + 1
    return needed if needed <= size else 0


def _webp(data: bytes, exif: bytes) -> bytes:
    """Return the file with the listed chunks; only the extended form can hold metadata."""
    kept = list[bytes]()
    expected = {*WEBP_FRAME}
    is_animated = False
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError("cut off")
    for name, content in _riff(data[: size + 8], 12):
        if name == b"VP8X":
            flags = content[0] & ~sum(WEBP_TEXTS.values()) | (WEBP_TEXTS[b"EXIF"] if exif else 0)
            is_animated = bool(flags & 0x02)
            kept.append(_riff_chunk(name, bytes((flags,)) + content[1:10]))
        elif name == b"ICCP":
            kept.append(_riff_chunk(name, _colours_of(content)))
        elif name == b"ANMF" and is_animated:
            parts = (_riff_chunk(*part) for part in _riff(content, 16) if part[0] in WEBP_FRAME)
            kept.append(_riff_chunk(name, content[:16] + b"".join(parts)))
        elif name == b"ANIM" and is_animated:
            kept.append(_riff_chunk(name, content[:ANIM_BYTES]))
        elif name in expected and not is_animated:  # one bitstream, after its transparency
            if name == b"ALPH":
                expected = expected - {name}
            else:
                expected = set()
            kept.append(_riff_chunk(name, content))
    if exif:
        kept.append(_riff_chunk(b"EXIF", exif))
    return _riff_chunk(b"RIFF", b"WEBP" + b"".join(kept))


def _riff(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk."""
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
