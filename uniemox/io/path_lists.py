"""Lists of paths on the standard input, as shells of all systems write them."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any
from urllib.parse import unquote

from uniemox.io.text_encodings import wide_encoding

# The path follows, without its host: this machine.
_LOCAL = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)
_QUOTED = re.compile(r"""("|')(.+)\1""")
# Bytes that are read at a time from a list that is separated by NUL.
_BLOCK_BYTES = 2**16


def listed_paths(stream: Iterable[Any]) -> Iterator[str]:
    """Yield the paths of a list as they arrive: one per line, or separated by NUL (find -print0).

    A byte-order mark (Notepad, PowerShell) is no part of the first path; lists in UTF-16 and UTF-32 (Windows
    PowerShell) are read.

    Args:
        stream: Standard input, or lines.
    """
    binary: IO[bytes] | None = getattr(stream, "buffer", None)
    if binary is None:
        for line in stream:
            yield from _path_of(str(line).removeprefix("\ufeff"))
        return
    # What has arrived so far, without waiting for more than the first bytes.
    start = getattr(binary, "peek", lambda _: b"")(_BLOCK_BYTES)
    encoding = wide_encoding(start)
    if encoding is not None:
        # A line does not end where a byte is that of a line feed.
        for line in binary.read().decode(encoding, "replace").removeprefix("\ufeff").splitlines():
            yield from _path_of(line)
    elif b"\0" in start:
        for name in _split_at_nul(binary):
            yield from _path_of(os.fsdecode(name), has_lines=False)
    else:
        yield from _paths_of_lines(binary)


def _paths_of_lines(binary: IO[bytes]) -> Iterator[str]:
    mark = b"\xef\xbb\xbf"
    for number, line in enumerate(binary):
        text = os.fsdecode(line.removeprefix(mark) if number == 0 else line)
        # The first bytes that arrived had no NUL yet.
        for entry in text.split("\0"):
            yield from _path_of(entry)


def _split_at_nul(binary: IO[bytes]) -> Iterator[bytes]:
    """Yield the names that NUL separates, which may contain line feeds."""
    read = getattr(binary, "read1", binary.read)
    unfinished: list[bytes] = []
    while block := read(_BLOCK_BYTES):
        *names, last = block.split(b"\0")
        if names:
            yield b"".join((*unfinished, names[0]))
            yield from names[1:]
            unfinished = []
        unfinished.append(last)
    yield b"".join(unfinished)


def _path_of(entry: str, *, has_lines: bool = True) -> Iterator[str]:
    """Yield the path in an entry of a list, unless it is blank.

    An address file:///a%20b.jpg (file managers) is the path; so is a name in quotes (Windows' "Copy as path"), unless a
    file has them.

    Args:
        entry: The entry.
        has_lines: Entries are lines, whose ends are no part of the path.
    """
    path = entry.rstrip("\r\n") if has_lines else entry
    if not path.strip():
        return
    match = _LOCAL.match(path)
    if match:
        yield unquote(path[match.end() :], errors="surrogateescape")
        return
    quoted = _QUOTED.fullmatch(path.strip())
    yield quoted[2] if quoted and not os.path.lexists(path) else path
