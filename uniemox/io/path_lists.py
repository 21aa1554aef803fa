"""Lists of paths on the standard input, as shells of all systems write them."""

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any
from urllib.parse import unquote

# The path follows, without its host: this machine.
_LOCAL = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def listed_paths(stream: Iterable[Any]) -> Iterator[str]:
    """Yield the paths of a list as they arrive: one per line, or separated by NUL (find -print0).

    A byte-order mark (Notepad, PowerShell) is no part of the first path; lists in UTF-16 (Windows PowerShell) are read.

    Args:
        stream: Standard input, or lines.
    """
    binary: IO[bytes] | None = getattr(stream, "buffer", None)
    if binary is None:
        for line in stream:
            yield from _paths_of(str(line).removeprefix("\ufeff"))
        return
    is_first = True
    for raw in binary:
        line = raw
        if is_first and raw.startswith(UTF16):
            # A line of UTF-16 does not end where a byte is that of a line feed.
            yield from (
                path for text in (raw + binary.read()).decode("utf-16").splitlines() for path in _paths_of(text)
            )
            return
        if is_first:
            line = raw.removeprefix(codecs.BOM_UTF8)
            is_first = False
        yield from _paths_of(os.fsdecode(line))


def _paths_of(line: str) -> Iterator[str]:
    """Yield the paths in a line, without blank ones; an address file:///a%20b.jpg (file managers) is the path."""
    for entry in line.split("\0"):
        if not entry.strip():
            continue
        path = entry.rstrip("\r\n")
        match = _LOCAL.match(path)
        yield unquote(path[match.end() :], errors="surrogateescape") if match else path
