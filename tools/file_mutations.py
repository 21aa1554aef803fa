"""Changes of files for the fuzz run: bytes, pieces of text, values of JSON."""

import contextlib
import copy
import hashlib
import json
import random
import struct
from typing import Any

from tests.images import HUGE

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        3,
        10**30,
        10**400,
        1.5,
        -1e308,
        float("nan"),
        float("inf"),
        "",
        "awe",
        "9",
        "../x",
        "a" * 300,
    ),
    *(".", "/", "\0", "\ud800", "é\u2028\x85", [], {}, [[]], [0, 0, 5, 5, 0.5], [1, 2], ["Dog", 3], {"key": 1}),
)
"""Replacements of a value in JSON."""
PIECES = (
    *(
        b"nan",
        b"inf",
        b"-1",
        b"1e400",
        b"9" * 5000,
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"\r",
        b"\n",
        b"\0",
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 3000, b'{"a":' * 1200, b"\xff", b"\xc3", "\u2028".encode(), b"..", b"/", b"\\", b"NaN", b"null", b"true"),
)
"""Pieces that are inserted into a text."""


def mutate_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Make one to four changes anywhere, half of them near the beginning, where headers are."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = max(1, len(result))
        position = rng.randrange(min(size, 200) if rng.random() < 0.5 else size)
        end = position + rng.choice((1, 2, 4, 16, 200, 5000))
        match rng.randrange(7):
            case 0:
                result[position : position + 1] = bytes([rng.randrange(256)])
            case 1 if position < len(result):
                result[position] ^= 1 << rng.randrange(8)
            case 2:
                result[position : position + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
                )
            case 3:
                del result[position:end]
            case 4:
                result[position:position] = result[position:end]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                result[position : position + rng.choice((0, 16, 400))] = other[
                    start : start + rng.choice((16, 400, 5000))
                ]
            case _:
                del result[position:]
    return bytes(result)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Insert a piece, remove a piece, or exchange two lines."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        position = rng.randrange(len(result) + 1)
        match rng.randrange(3):
            case 0:
                result[position : position + rng.choice((0, 1, 8))] = rng.choice(PIECES)
            case 1:
                del result[position : position + rng.choice((1, 5, 50))]
            case _:
                lines = bytes(result).split(b"\n")
                i = rng.randrange(len(lines))
                j = rng.randrange(len(lines))
                lines[i], lines[j] = lines[j], lines[i]
                result = bytearray(b"\n".join(lines))
    return bytes(result)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove or rename values in one line of JSON, or in the whole file; its hash is updated."""
    lines = [data] if rng.random() < 0.5 else data.split(b"\n")
    i = rng.randrange(len(lines))
    try:
        value = json.loads(lines[i])
    except ValueError:
        return data
    for _ in range(rng.choice((1, 1, 3))):
        value = _changed(value, rng)
    if isinstance(value, dict) and "splits" in value:
        # A file of splits with a wrong hash would be refused before its content is read.
        with contextlib.suppress(Exception):
            rows = sorted(f"{split}\t{key}" for split, keys in value["splits"].items() for key in keys)
            value["sha256"] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    lines[i] = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _changed(value: Any, rng: random.Random) -> Any:
    """Return the value with one part replaced; sometimes with a field removed or renamed."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    if not keys or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(keys)
    if rng.random() < 0.6:
        value[key] = _changed(value[key], rng)
    elif rng.random() < 0.4:
        del value[key]
    elif isinstance(value, dict):
        value[rng.choice(("key", "boxes", "\ud800", "", "awe"))] = value.pop(key)
    else:
        value.insert(rng.randrange(len(value) + 1), copy.deepcopy(rng.choice(VALUES)))
    return value


def mutate_sizes(data: bytes, size: tuple[int, int], rng: random.Random) -> bytes:
    """Write another size into the header of an image file, in one or all of the places that contain it.

    Args:
        data: The image file.
        size: True width and height, px.
        rng: Random generator.
    """
    wrong_size = (
        rng.choice((1, 2, 16, 64, 255, 4000, 9000, 16383, 65535)),
        rng.choice((1, 30, 64, 256, 5000, 9000, 16383)),
    )
    replacements = []
    for code in (">II", "<II", ">HH", "<HH"):
        replacements += [(struct.pack(code, *size), struct.pack(code, *wrong_size))]
        replacements += [(struct.pack(code, *size[::-1]), struct.pack(code, *wrong_size[::-1]))]
    webp_sizes = [b"".join(struct.pack("<I", side - 1)[:3] for side in sides) for sides in (size, wrong_size)]  # WebP
    replacements += [(webp_sizes[0], webp_sizes[1])]
    for tag, side, other in ((256, size[0], wrong_size[0]), (257, size[1], wrong_size[1])):  # TIFF
        for kind, code in ((3, "<HHIHH"), (4, "<HHII")):
            padding = (0,) if kind == 3 else ()
            replacements += [
                (struct.pack(code, tag, kind, 1, side, *padding), struct.pack(code, tag, kind, 1, other, *padding))
            ]
    present = [pair for pair in replacements if pair[0] in data]
    for old, new in present if rng.random() < 0.7 else present[:1]:
        data = data.replace(old, new, 1 if rng.random() < 0.5 else -1)
    return data


def random_content(rng: random.Random) -> bytes:
    """Return random bytes, among them numbers larger than any memory."""
    pieces = [HUGE, bytes(8), b"\x7f" + b"\xff" * 7]
    return b"".join(rng.choice((rng.choice(pieces), rng.randbytes(rng.randrange(40)))) for _ in range(rng.randrange(9)))
