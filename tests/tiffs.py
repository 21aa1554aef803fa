"""Write TIFFs of layouts that Pillow does not write, without compression."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

Page = tuple[dict[int, tuple[int, ...]], bytes]
"""Tags, each with the kind of its values and the values; and the pixel data."""
REDUCED = {254: (4, 1)}
"""Tag of a page that is a smaller copy of another one."""
KINDS = {"u": 1, "i": 2, "f": 3}


def page_of(
    values: np.ndarray, *, order: str = "<", photometric: int | None = None, is_planar: bool = False, bits: int = 0
) -> Page:
    """Return tags and pixel data of a page.

    values: (H, W) or (H, W, channels).  bits: 12 packs the values, 0 stores them unchanged.
    """
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    if photometric is None:
        photometric = {1: 1, 3: 2, 4: 2}[channels]
    bits = bits or 8 * values.dtype.itemsize
    planes = np.moveaxis(values, -1, 0) if is_planar else values[None]
    stored = [
        pack_12(plane) if bits == 12 else plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes
    ]
    tags = {
        **{256: (4, width), 257: (4, height), 258: (3, *[bits] * channels), 259: (3, 1), 262: (3, photometric)},
        **{273: (4, *[0] * len(stored)), 277: (3, channels), 278: (4, height), 279: (4, *map(len, stored))},
        **{284: (3, 2 if is_planar else 1), 339: (3, *[KINDS[values.dtype.kind]] * channels)},
    }
    if channels == 4 and photometric == 2:
        tags[338] = (3, 2)
    return tags, b"".join(stored)


def pack_12(plane: np.ndarray) -> bytes:
    """Pack rows of values below 4096, two in three bytes."""
    values = plane.reshape(len(plane), -1).astype(int)
    values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    first = values[:, ::2]
    second = values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8)
    return packed.reshape(len(plane), -1)[:, : (plane.shape[1] * 12 + 7) // 8].tobytes()


def deflated(page: Page) -> Page:
    """Compress the strips of a page."""
    tags, pixels = page
    lengths = tags[279][1:]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    strips = [zlib.compress(pixels[at : at + length]) for at, length in zip(starts, lengths, strict=True)]
    return {**tags, 259: (3, 8), 279: (4, *map(len, strips))}, b"".join(strips)


def tiff_of(pages: Sequence[Page], *, order: str = "<", inner: Sequence[Page] = (), head: bytes = b"") -> bytes:
    """Return a file with these pages, one after the other.

    inner: SubIFDs of the first page.  head: bytes after the header.
    """
    data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0) + head)
    places = [add_page(data, order, page) for page in inner]
    link = 4
    for number, (tags, pixels) in enumerate(pages):
        linked = {**tags, 330: (4, *places)} if inner and number == 0 else tags
        at = add_page(data, order, (linked, pixels))
        struct.pack_into(order + "I", data, link, at)
        link = at + 2 + 12 * len(linked)
    return bytes(data)


def add_page(data: bytearray, order: str, page: Page) -> int:
    """Append pixels and directory of a page; returns the place of the directory."""
    tags = dict(page[0])
    pixels = page[1]
    at = len(data)
    data += pixels
    if 273 in tags:
        lengths = tags[279][1:]
        tags[273] = (4, *(at + sum(lengths[:i]) for i in range(len(lengths))))
    entries = b""
    for tag, (kind, *values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{ {2: 'B', 3: 'H', 4: 'I', 7: 'B'}[kind] }", *values)
        if len(content) > 4:
            data += bytes(len(data) % 2)
            content, place = struct.pack(order + "I", len(data)), content
            data += place
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    data += bytes(len(data) % 2)
    directory = len(data)
    data += struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return directory
