"""Directories of a TIFF, each of which describes an image: choice of the photograph among smaller copies of it.

Camera raw files and some pyramids begin with a thumbnail, which Pillow would read.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from PIL.ExifTags import Base as Tag

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PAGES = 5_000
MAX_SUB_PAGES = 100

SEPARATE_PLANES = 2
"""Value of PlanarConfiguration for channels that are stored one after the other."""
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Format of `struct` of the types of values that are read: BYTE, SHORT, LONG, IFD, LONG8 and IFD8."""
_REDUCED = 1
_OLD_REDUCED = 2
_MASK = 4
_SENSOR = (32803, 34892)
"""Photometric interpretations of a sensor's values: color filter array, and linear raw of DNG."""
_COLOURS = {
    **{0: "greys with white as 0", 1: "greys", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr"},
    **{8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL", 32845: "LogLuv"},
}
"""Names of photometric interpretations."""
_RAW_AT = 8
_RAW = (b"CR\x02", b"IIII", b"MMMM")
"""Marks after the header of a camera raw: Canon's CR2, and Phase One's IIQ in both byte orders."""
_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}


@dataclass(frozen=True, slots=True)
class Page:
    """Directory of a TIFF."""

    at: int
    """Position in the file, byte."""
    tags: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        return next(iter(self.tags.get(tag, ())), default)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.first(Tag.ImageWidth) * self.first(Tag.ImageLength)

    @property
    def is_reduced(self) -> bool:
        """True if its tags call it a smaller copy of another image in the file."""
        return bool(self.first(Tag.NewSubfileType) & _REDUCED) or self.first(Tag.SubfileType) == _OLD_REDUCED


def with_photograph_first(data: bytes) -> bytes:
    """Return the bytes of a TIFF so that the first directory is its photograph; other files are returned unchanged."""
    pages, inner = _pages(data)
    if not pages:
        return data
    # A first directory that is not reduced is the photograph, unless a directory inside it is larger.
    first = pages[0]
    if first.is_reduced:
        others = [*pages[1:], *inner]
    else:
        others = [page for page in inner if not page.is_reduced]
    larger = [page for page in others if page.area > first.area and not page.first(Tag.NewSubfileType) & _MASK]
    if not larger:
        return data
    best = max(larger, key=lambda page: (not page.is_reduced, page.area))
    order, is_big = _layout(data)
    # The header holds the position of the first directory: 8 bytes in a BigTIFF, 4 in others.
    number_format, header_at = ("Q", 8) if is_big else ("I", 4)
    start = struct.pack(order + number_format, best.at)
    return data[:header_at] + start + data[header_at + len(start) :]


def is_camera_raw(data: bytes) -> bool:
    """Return True if a TIFF holds the values of a sensor, as DNG, NEF, ARW, PEF, CR2 and IIQ do."""
    if not data.startswith(HEADS):
        return False
    if data.startswith(_RAW, _RAW_AT):
        return True
    pages, inner = _pages(data)
    has_sensor = any(page.first(Tag.PhotometricInterpretation) in _SENSOR for page in (*pages, *inner))
    return has_sensor or (bool(pages) and Tag.DNGVersion in pages[0].tags)


def _pages(data: bytes) -> tuple[list[Page], list[Page]]:
    """Return the main directories of a TIFF, and those inside the first; none if it is cut off, or no TIFF."""
    if not data.startswith(HEADS):
        return [], []
    try:
        pages = list(_chain(data))
    except (struct.error, OverflowError):  # cut off, which the decoder reports
        return [], []
    positions = pages[0].tags.get(Tag.SubIFDs, ())[:MAX_SUB_PAGES] if pages else ()
    return pages, list(_pages_at(data, positions))


def describe_layout(data: bytes) -> str:
    """Return colours, bits and layout of a TIFF's first image for a message; empty for other and for damaged files."""
    if not data.startswith(HEADS):
        return ""
    try:
        page = next(_chain(data), None)
    except (struct.error, OverflowError):
        return ""
    if page is None or not page.area:
        return ""
    bits = page.first(Tag.BitsPerSample, 1)
    channels = page.first(Tag.SamplesPerPixel, 1)
    kind = _KINDS.get(page.first(Tag.SampleFormat, 1), "values of an unknown kind")
    colours = _COLOURS.get(page.first(Tag.PhotometricInterpretation, 1), "colours of an unknown kind")
    order = "little-endian" if data[:1] == b"I" else "big-endian"
    planes = ", in planes" if page.first(Tag.PlanarConfiguration) == SEPARATE_PLANES else ""
    return (
        f"{colours}, {bits} bits, {kind}, channels: {channels}{planes}, {order}, "
        f"compression: {page.first(Tag.Compression, 1)}"
    )


def _layout(data: bytes) -> tuple[str, bool]:
    """Return the byte order, for `struct`, and whether the file is a BigTIFF."""
    return "<" if data[:1] == b"I" else ">", b"+" in data[2:4]


def _chain(data: bytes) -> Iterator[Page]:
    """Yield the main directories.

    Raises:
        struct.error: If the file is cut off.
    """
    order, is_big = _layout(data)
    [at] = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    # A hostile file may link its directories in a circle.
    visited = set[int]()
    while at and at not in visited and len(visited) < MAX_PAGES:
        visited.add(at)
        page, at = _read_page(data, at)
        yield page


def _pages_at(data: bytes, positions: tuple[int, ...]) -> Iterator[Page]:
    for at in positions:
        try:
            yield _read_page(data, at)[0]
        except (struct.error, OverflowError):
            # Pillow does not read a damaged one, either.
            continue


def _read_page(data: bytes, at: int) -> tuple[Page, int]:
    """Return a directory, and the position of the next one, 0 after the last.

    Raises:
        struct.error: If the directory is cut off.
    """
    if at >= len(data):
        raise struct.error("a directory after the end of the file")
    order, is_big = _layout(data)
    length, entry, inline = ("Q", "HHQ8s", 8) if is_big else ("H", "HHI4s", 4)
    [count] = struct.unpack_from(order + length, data, at)
    start = at + struct.calcsize(order + length)
    end = start + count * struct.calcsize(order + entry)
    if end > len(data):
        raise struct.error("a directory longer than the file")
    tags = dict[int, tuple[int, ...]]()
    for tag, kind, size, value in struct.iter_unpack(order + entry, data[start:end]):
        if kind not in _TYPES or not 0 < size <= MAX_SUB_PAGES:
            continue
        values = struct.Struct(f"{order}{size}{_TYPES[kind]}")
        # Short values are in the entry; for others, it holds their position.
        if values.size <= inline:
            tags[tag] = values.unpack_from(value)
            continue
        [elsewhere] = struct.unpack(order + ("Q" if is_big else "I"), value)
        if elsewhere + values.size <= len(data):
            tags[tag] = values.unpack_from(data, elsewhere)
    [following] = struct.unpack_from(order + ("Q" if is_big else "I"), data, end)
    return Page(at, tags), following
