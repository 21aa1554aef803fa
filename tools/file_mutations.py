"""How the fuzz run changes files: bytes, pieces of text, values of JSON."""

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
"""What takes the place of a value in JSON."""
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
"""What is put into a text."""


def mutate_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to four changes anywhere, half of them near the beginning, where headers are."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = max(1, len(result))
        at = rng.randrange(min(size, 200) if rng.random() < 0.5 else size)
        end = at + rng.choice((1, 2, 4, 16, 200, 5000))
        match rng.randrange(7):
            case 0:
                result[at : at + 1] = bytes([rng.randrange(256)])
            case 1 if at < len(result):
                result[at] ^= 1 << rng.randrange(8)
            case 2:
                result[at : at + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
                )
            case 3:
                del result[at:end]
            case 4:
                result[at:at] = result[at:end]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                result[at : at + rng.choice((0, 16, 400))] = other[start : start + rng.choice((16, 400, 5000))]
            case _:
                del result[at:]
    return bytes(result)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """A piece put in, a piece left out, or two lines exchanged."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(result) + 1)
        match rng.randrange(3):
            case 0:
                result[at : at + rng.choice((0, 1, 8))] = rng.choice(PIECES)
            case 1:
                del result[at : at + rng.choice((1, 5, 50))]
            case _:
                lines = bytes(result).split(b"\n")
                i = rng.randrange(len(lines))
                j = rng.randrange(len(lines))
                lines[i], lines[j] = lines[j], lines[i]
                result = bytearray(b"\n".join(lines))
    return bytes(result)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Values in one line of JSON, or in the whole file, replaced, removed, or renamed; its hash is made to fit."""
    lines = [data] if rng.random() < 0.5 else data.split(b"\n")
    i = rng.randrange(len(lines))
    try:
        tree = json.loads(lines[i])
    except ValueError:
        return data
    for _ in range(rng.choice((1, 1, 3))):
        tree = _changed(tree, rng)
    if isinstance(tree, dict) and "splits" in tree:
        with contextlib.suppress(Exception):
            rows = sorted(f"{split}\t{key}" for split, keys in tree["splits"].items() for key in keys)
            tree["sha256"] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    lines[i] = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _changed(tree: Any, rng: random.Random) -> Any:
    """The tree with one value replaced; sometimes one field less, or another field's name."""
    places: list[Any] = []
    if isinstance(tree, dict):
        places = list(tree)
    elif isinstance(tree, list):
        places = list(range(len(tree)))
    if not places or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(VALUES))
    place = rng.choice(places)
    if rng.random() < 0.6:
        tree[place] = _changed(tree[place], rng)
    elif rng.random() < 0.4:
        del tree[place]
    elif isinstance(tree, dict):
        tree[rng.choice(("key", "boxes", "\ud800", "", "awe"))] = tree.pop(place)
    else:
        tree.insert(rng.randrange(len(tree) + 1), copy.deepcopy(rng.choice(VALUES)))
    return tree


def mutate_sizes(data: bytes, size: tuple[int, int], rng: random.Random) -> bytes:
    """An image file whose header says other sizes than its content has, in one or all of the places that tell them.

    Args:
        size: Width and height that it was made with, px.
    """
    told = rng.choice((1, 2, 16, 64, 255, 4000, 9000, 16383, 65535)), rng.choice((1, 30, 64, 256, 5000, 9000, 16383))
    places = []
    for code in (">II", "<II", ">HH", "<HH"):
        places += [(struct.pack(code, *size), struct.pack(code, *told))]
        places += [(struct.pack(code, *size[::-1]), struct.pack(code, *told[::-1]))]
    less = [b"".join(struct.pack("<I", side - 1)[:3] for side in sides) for sides in (size, told)]  # WebP
    places += [(less[0], less[1])]
    for tag, side, other in ((256, size[0], told[0]), (257, size[1], told[1])):  # TIFF
        for kind, code in ((3, "<HHIHH"), (4, "<HHII")):
            rest = (0,) if kind == 3 else ()
            places += [(struct.pack(code, tag, kind, 1, side, *rest), struct.pack(code, tag, kind, 1, other, *rest))]
    there = [place for place in places if place[0] in data]
    for old, new in there if rng.random() < 0.7 else there[:1]:
        data = data.replace(old, new, 1 if rng.random() < 0.5 else -1)
    return data


def random_content(rng: random.Random) -> bytes:
    """Random bytes, among them numbers that no memory has."""
    pieces = [HUGE, bytes(8), b"\x7f" + b"\xff" * 7]
    return b"".join(rng.choice((rng.choice(pieces), rng.randbytes(rng.randrange(40)))) for _ in range(rng.randrange(9)))
