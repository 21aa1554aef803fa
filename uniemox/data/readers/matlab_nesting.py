"""Depth of the cells and structures in a MATLAB file: scipy reads them by recursion, which may end the process."""

import struct
import zlib
from pathlib import Path

from uniemox.errors import DataError
from uniemox.io.files import read_limited

# EMOTIC's annotations have 4: image, person, annotation, words.
MAX_DEPTH = 32
HEADER_BYTES = 128
# Types of data elements: a matrix, and a compressed one.
_MATRIX = 14
_COMPRESSED = 15
# Classes of matrices that hold others: cell, structure, object.
_NESTED = (1, 2, 3)


def check_nesting(path: Path) -> None:
    """Check a file of version 5 to 7; files of other versions pass.

    Raises:
        DataError: For more than 32 levels.
        OSError: If it can't be read.
    """
    data = read_limited(path)
    # Version 4 has no text at the beginning, and no cells.
    if b"\0" in data[:4]:
        return
    # As scipy reads it, whatever else the header says.
    order = "<" if data[126:128] == b"IM" else ">"
    position = HEADER_BYTES
    while position + 8 <= len(data):
        kind, start, end, position = _element(data, position, order)
        if kind == _COMPRESSED:
            # Memory is limited by the caller. A damaged variable is reported by scipy.
            try:
                _check(zlib.decompress(data[start:end]), order, path)
            except zlib.error:
                return
        elif kind == _MATRIX:
            _check(data[start - 8 : end], order, path)


def _check(data: bytes, order: str, path: Path) -> None:
    """Raise DataError for a variable, an element with its tag, that is nested too deep."""
    # Ends of the matrices around the current position.
    ends: list[int] = []
    position = 0
    while position + 8 <= len(data):
        while ends and position >= ends[-1]:
            ends.pop()
        kind, start, end, following = _element(data, position, order)
        if kind == _MATRIX and start + 16 <= len(data) and _holds_others(data, start, order):
            ends.append(min(end, len(data)))
            if len(ends) > MAX_DEPTH:
                raise DataError(
                    f"{path}: cells or structures in more than {MAX_DEPTH} levels, which the published file does not "
                    "have; download it again"
                )
            # The elements inside.
            position = start
        else:
            position = following


def _holds_others(data: bytes, start: int, order: str) -> bool:
    """Return True for a matrix of cells or a structure; its first element has the flags."""
    (flags,) = struct.unpack_from(f"{order}I", data, start + 8)
    return flags & 0xFF in _NESTED


def _element(data: bytes, position: int, order: str) -> tuple[int, int, int, int]:
    """Return type, start and end of the element at a position, and the position of the next one."""
    kind, size = struct.unpack_from(f"{order}II", data, position)
    # Up to four bytes stand in the tag itself, whose upper half is their number.
    if kind >> 16:
        return kind & 0xFFFF, position + 4, position + 8, position + 8
    start = position + 8
    end = start + size
    padding = 0 if kind == _COMPRESSED else -size % 8
    return kind, start, end, end + padding
