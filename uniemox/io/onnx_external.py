"""Reads and changes ONNX files without the package onnx: their external weight files, their metadata.

onnxruntime opens external files without asking, and reads sparse ones into memory. Classifiers and person detectors
must not name any, a teacher only files in its own folder.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from uniemox.errors import UniemoxError
from uniemox.io.files import open_regular

# Key of TensorProto.external_data whose value is the file's name.
LOCATION = b"location"
# The key after the last byte of its length, 8, which may be written in one byte or in several.
_KEYS = (b"\x08" + LOCATION, b"\x00" + LOCATION)
# Value of TensorProto.data_location.
EXTERNAL = 1
# Message: number of a field that leads to tensors, to the message in it (onnx/onnx.proto).
_LEADS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
# Fields of TensorProto: external_data and data_location.
_DATA = 13
_DATA_LOCATION = 14
# Fields of StringStringEntryProto.
_KEY = 1
_VALUE = 2
# Field of ModelProto: metadata_props.
_METADATA = 14
# Unit of st_blocks.
BLOCK_BYTES = 512
# Kinds of fields: a number, and values of 8, any number of, and 4 bytes.
_VARINT = 0
_EIGHT = 1
_BYTES = 2
_FOUR = 5


def external_files(path: Path) -> list[str]:
    """Return the names, as written in an ONNX file, of the files with its weights; an empty text for a missing one.

    Args:
        path: The ONNX file.

    Raises:
        ValueError: If it names some and is not a complete protocol buffer.
        OSError: If it can't be read.
    """
    names: set[str] = set()
    # An empty file can't be mapped.
    if path.stat().st_size == 0:
        return []
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # Most files have no such key and need no further check.
        if all(content.find(key) < 0 for key in _KEYS):
            return []
        waiting = [("Model", 0, len(content))]
        while waiting:
            message, start, end = waiting.pop()
            if message == "Tensor":
                names |= _files_of_tensor(content, start, end)
                continue
            for number, kind, first, last in fields_of(content, start, end):
                inner = _LEADS[message].get(number)
                if inner is not None and kind == _BYTES:
                    waiting.append((inner, first, last))
    return sorted(names)


def refuse_external_files(path: Path, error_class: type[UniemoxError]) -> None:
    """Refuse a file that has its weights in other files.

    Args:
        path: The ONNX file.
        error_class: Raised for such a file, and for one that can't be read.
    """
    names = _external_files(path, error_class)
    if names:
        raise error_class(
            f"{path} keeps weights in other files ({names[0][:80]!r}); save it as one file "
            "(onnx.save without save_as_external_data)"
        )


def check_external_files(path: Path, error_class: type[UniemoxError]) -> None:
    """Check the files with an ONNX file's weights.

    Args:
        path: The ONNX file.
        error_class: Raised if the file can't be read, or a file with weights is missing, sparse or outside of its
            folder.
    """
    for name in _external_files(path, error_class):
        weights = path.parent / name
        if leaves_folder(name) or not weights.is_file():
            raise error_class(
                f"{path} reads weights from {name[:80]!r}, not in its folder; put them there or into one file"
            )
        state = weights.stat()
        blocks = getattr(state, "st_blocks", None)  # not on Windows
        if blocks is not None and blocks * BLOCK_BYTES < state.st_size // 2:
            raise error_class(f"{path} reads weights from {name[:80]!r}, a sparse file; copy it again")


def _external_files(path: Path, error_class: type[UniemoxError]) -> list[str]:
    try:
        return external_files(path)
    except (OSError, ValueError) as error:
        raise error_class(f"{path}: can't read it as ONNX ({error}); export or download it again") from error


def leaves_folder(name: str) -> bool:
    """Return True if a weight file's name, also in Windows form, leads out of the model's folder."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    return not name or any(path.is_absolute() or path.anchor != "" or ".." in path.parts for path in paths)


def _files_of_tensor(content: mmap.mmap | bytes, start: int, end: int) -> set[str]:
    """Return the names of the files with a tensor's values: none, one, or an empty text if the name is missing."""
    is_external = False
    names = set()
    for number, kind, first, last in fields_of(content, start, end):
        if number == _DATA_LOCATION and kind == _VARINT:
            is_external |= _varint(content, first, last)[0] & 0xFFFFFFFF == EXTERNAL
        elif number == _DATA and kind == _BYTES:
            entry = {n: content[a:b] for n, k, a, b in fields_of(content, first, last) if k == _BYTES}
            if entry.get(_KEY) == LOCATION:
                names.add(entry.get(_VALUE, b"").decode("utf-8", "backslashreplace"))
    return (names or {""}) if is_external else set()


def fields_of(content: mmap.mmap | bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind, start and end of the value of each field of a protocol buffer's message.

    Args:
        content: The file.
        start: First byte of the message.
        end: End of the message.

    Raises:
        ValueError: If the bytes are no complete message.
    """
    while start < end:
        tag, first = _varint(content, start, end)
        number = tag >> 3
        kind = tag & 7
        if kind == _VARINT:
            start = _varint(content, first, end)[1]
        elif kind == _BYTES:
            length, first = _varint(content, first, end)
            start = first + length
        elif kind in (_EIGHT, _FOUR):
            start = first + (8 if kind == _EIGHT else 4)
        else:
            raise ValueError(f"no protocol buffer: a field of kind {kind} at byte {first - 1}")
        if start > end or not 0 < number < 2**29:
            raise ValueError(f"no protocol buffer, or cut off at byte {end}")
        yield number, kind, first, start


def _varint(content: mmap.mmap | bytes, start: int, end: int) -> tuple[int, int]:
    """Return a number, and the byte after it. Each byte has 7 bits of it, the lowest first; the last is below 0x80."""
    value = 0
    shift = 0
    for at in range(start, min(end, start + 10)):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError(f"no protocol buffer, or cut off at byte {end}")


def with_metadata(content: bytes, key: str, value: str) -> bytes:
    """Return an ONNX file with another value for one metadata key; all else stays, to the byte.

    Args:
        content: Bytes of the file.
        key: The key; its entries are replaced by one.
        value: The new value.

    Raises:
        ValueError: If it is not a complete protocol buffer.
    """
    unchanged_fields = []
    field_start = 0
    for number, kind, start, end in fields_of(content, 0, len(content)):
        entry = {}
        if number == _METADATA:
            entry = {n: content[a:b] for n, _, a, b in fields_of(content, start, end)}
        if kind != _BYTES or entry.get(_KEY) != key.encode():
            unchanged_fields.append(content[field_start:end])
        field_start = end
    pair = _field(_KEY, key.encode()) + _field(_VALUE, value.encode())
    return b"".join([*unchanged_fields, _field(_METADATA, pair)])


def _field(number: int, value: bytes) -> bytes:
    return _packed(number << 3 | _BYTES) + _packed(len(value)) + value


def _packed(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
