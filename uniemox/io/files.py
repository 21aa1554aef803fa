"""Atomic file writing; file locks; CSV files whose cells no spreadsheet runs as formulas."""

import csv
import errno
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO

from uniemox.errors import DataError, InUseError, UniemoxError
from uniemox.io.drive import set_permissions, try_lock
from uniemox.io.system_folders import refuse_library

MAX_TEXT_BYTES = 2**30
PARTIAL = ".partial"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Numbers of the errors of a full disk, or of a user's full share of it."""
MAX_NAME_BYTES = 255
"""Maximum length of a file's name on nearly all file systems, bytes."""


def is_plain_name(name: str) -> bool:
    """Return True if a text, as one part of a path, leads neither to another folder nor to a hidden file.

    >>> is_plain_name("train"), is_plain_name("../train"), is_plain_name(".train")
    (True, False, False)
    """
    return re.fullmatch(r"[^./\\\0][^/\\\0]*", name) is not None


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading.

    Args:
        path: The file.

    Raises:
        OSError: If it is not a regular file: pipes would hang, devices never end.
    """
    return open(path, "rb", opener=_open_regular)


def open_appending(path: Path) -> BinaryIO:
    """Open a file for appending, and create it if it is missing.

    Args:
        path: The file.

    Raises:
        OSError: If it is a link, a pipe or a device.
    """
    return open(path, "ab", opener=_open_without_links)


def read_limited(path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: The file.
        max_bytes: Maximum size.

    Raises:
        OSError: If it can't be read or has more than max_bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b""
        if size <= max_bytes:
            # The result is None where a file has nothing at the moment, such as /proc/kmsg.
            data = file.read(size + 1) or b""
        # The size of files in /proc is 0, and other files may grow.
        while size < len(data) <= max_bytes and (block := file.read(2**20)):
            data += block
    if max(size, len(data)) > max_bytes:
        raise OSError(
            errno.EFBIG, f"{size / 2**20:,.0f} MiB, more than the {max_bytes / 2**20:g} MiB that are read", str(path)
        )
    return data


def _open_regular(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a pipe without a writer returns at once. O_NOCTTY: a terminal does not take over the process.
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0), 0o666)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "a pipe or device, not a file", path)


def _open_without_links(path: str, flags: int) -> int:
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "a link; name the file that it leads to, or remove the link", path)
    return _open_regular(path, flags | getattr(os, "O_NOFOLLOW", 0))


def fingerprint_of(files: Sequence[Path], settings: str) -> str:
    """Return 16 hexadecimal digits of the files' content and the settings."""
    digest = sha256(settings.encode() + b"\0")
    for path in files:
        with open_regular(path) as file:
            while block := file.read(2**20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


# Maximum characters of a path or a key; numpy pads all names of an array to the longest.
MAX_NAME = 4_096


def refuse_special(path: Path, error_class: type[UniemoxError] = DataError) -> None:
    """Raise `error_class` for a link, which may lead out of a stranger's folder, and for a pipe or a device."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise error_class(f"{path} can't be used ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISLNK(mode):
        raise error_class(f"{path} is a link, which may lead elsewhere; put what it leads to in its place")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise error_class(f"{path} is a pipe or a device, not a file; remove it")


def _partial_of(path: Path) -> Path:
    """Return the path of an unfinished file or folder; the name is shortened where the drive would refuse it."""
    ending = f".{os.getpid()}-{threading.get_ident()}{PARTIAL}"
    start = path.name
    while len(os.fsencode(start + ending)) > MAX_NAME_BYTES:
        start = start[:-1]
    return path.with_name(start + ending)


@contextmanager
def writing(
    path: Path, error_class: type[UniemoxError] = DataError, *, remedy: str = "choose another name"
) -> Iterator[None]:
    """Convert an OSError inside the context to `error_class` with the path and what to do; a full disk has its own."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            remedy = "make room, or choose another disk"
        raise error_class(f"{path} can't be written ({error.strerror or error}); {remedy}") from error


@contextmanager
def replacing(
    path: Path,
    error_class: type[UniemoxError] = DataError,
    *,
    keep_permissions: bool = False,
    remedy: str = "choose another name",
) -> Iterator[Path]:
    """Yield a path to write to; it replaces `path` if all went well and is removed otherwise.

    Args:
        path: The file to replace; its folder is created if it is missing.
        error_class: Raised if the file can't be written.
        keep_permissions: Give the new file the permissions of the replaced one, as for a file of another program.
        remedy: See `writing`.
    """
    partial = _partial_of(path)
    refuse_library(path)
    with writing(path, error_class, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.touch()
            # The umask sets these; safetensors would restrict them further.
            permissions = partial.stat().st_mode
            if keep_permissions and path.exists():
                permissions = path.stat().st_mode
            yield partial
            set_permissions(partial, permissions)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, error_class: type[UniemoxError] = DataError) -> Iterator[Path]:
    """Yield a new folder to write to; it becomes `path` if all went well, and is removed otherwise.

    Args:
        path: The folder to write; it may exist if it is empty.
        error_class: Raised if the folder can't be written.
    """
    partial = _partial_of(path)
    refuse_library(path)
    with writing(path, error_class):
        partial.mkdir(parents=True)
        try:
            yield partial
            # Windows replaces no folder.
            if path.exists():
                path.rmdir()
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


# The loading processes of a killed run share its lock and end a moment later.
WAIT_S = 2.0
RETRY_S = 0.05
CAN_REMOVE_OPEN_FILES = os.name != "nt"


class FileLock:
    """Advisory lock in the file PATH.lock, released when its process ends.

    Nothing is locked on Windows, and on drives without locks, see `try_lock`.

    Raises:
        InUseError: If another process holds it for two seconds.
        OSError: If the folder can't be written.
    """

    def __init__(self, path: Path) -> None:
        refuse_library(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path.with_name(path.name + ".lock")
        is_ours = False
        deadline = time.monotonic() + WAIT_S
        # If the other process releases the lock between opening and locking, ours is on a deleted file.
        while not is_ours:
            self._file = open_appending(self._path)
            try:
                try_lock(self._file, path)
            except BlockingIOError:
                self._file.close()
                if time.monotonic() < deadline:
                    time.sleep(RETRY_S)
                    continue
                raise InUseError(
                    f"another process is writing {path}; wait until it ends, or choose another name"
                ) from None
            with suppress(FileNotFoundError):
                is_ours = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())

    def release(self) -> None:
        """Remove the lock."""
        if CAN_REMOVE_OPEN_FILES:
            self._path.unlink(missing_ok=True)
        self._file.close()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically; text as UTF-8.

    Raises:
        DataError: If it can't be written.
    """
    if isinstance(content, str):
        # File names may not be UTF-8.
        content = content.encode("utf-8", "backslashreplace")
    with replacing(path) as partial:
        partial.write_bytes(content)


# Beginnings of formulas by OWASP, full-width ones, and ESC, which steers terminals. An apostrophe before one of them is
# doubled, so that `plain_cell` can tell an apostrophe of ours from one of the text.
_RISKY = re.compile("'*[=+\\-@\t\r\n\x1b＝＋－＠]")
_MARKED = re.compile("'+[=+\\-@\t\r\n\x1b＝＋－＠]")


def write_rows(file: IO[str], rows: Iterable[Sequence[Any]], *, line_end: str = "\n") -> None:
    """Write rows as CSV: numbers unchanged, text through `safe_cell`, None as an empty cell.

    Args:
        file: File opened with newline="".
        rows: Rows, the header first.
        line_end: End of each line.
    """
    writer = csv.writer(file, lineterminator=line_end)
    writer.writerows([safe_cell(value) for value in row] for row in rows)


def safe_cell(value: Any) -> Any:
    """Return text that no spreadsheet runs as a formula; anything else unchanged.

    >>> safe_cell("=1+1"), safe_cell("joy"), safe_cell(-0.5)
    ("'=1+1", 'joy', -0.5)
    """
    if isinstance(value, str) and _RISKY.match(value):
        return f"'{value}"
    return value


def plain_cell(text: str) -> str:
    """Undo `safe_cell`, even if a spreadsheet has added the apostrophe.

    >>> plain_cell("'=1+1"), plain_cell("'tis joy")
    ('=1+1', "'tis joy")
    """
    return text[1:] if _MARKED.match(text) else text
