"""The metadata of an ONNX file, written without the package onnx; all else in it stays as it was, to the byte."""

from uniemox.io.onnx_external import fields_of

_METADATA, _KEY, _VALUE, _BYTES = 14, 1, 2, 2  # ModelProto.metadata_props, StringStringEntryProto, kind of a field


def with_metadata(content: bytes, key: str, value: str) -> bytes:
    """An ONNX file with another value of one key. Raises ValueError if it is no whole protocol buffer."""
    kept, first = [], 0
    for number, kind, start, end in fields_of(content, 0, len(content)):
        entry = {n: content[a:b] for n, _, a, b in fields_of(content, start, end)} if number == _METADATA else {}
        if kind != _BYTES or entry.get(_KEY) != key.encode():
            kept.append(content[first:end])
        first = end
    pair = _field(_KEY, key.encode()) + _field(_VALUE, value.encode())
    return b"".join([*kept, _field(_METADATA, pair)])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
