"""What is found out about a data set once and kept beside it, as JSON lines: people, texts.

The first line says how it was found; each further line is about one image. Lines are only appended, so a job that
was stopped resumes where it was.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from uniemox.data.readers.tables import read_bytes
from uniemox.errors import DataError
from uniemox.io.files import FileLock

PERSONS, TEXTS = "persons.jsonl", "texts.jsonl"  # names beside the data


class Sidecar:
    """A file of one line an image, open for appending.

    header: how the lines are made; what a file already holds must have been made the same way.
    Raises DataError if it was not, or the file can't be written; ConfigError if another process writes it.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.done: set[str] = set()
        try:
            self._lock = FileLock(path)
        except OSError as error:
            raise DataError(f"{path} can't be written ({error.strerror}); choose another file with --out") from error
        try:
            self._open(header)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, header: Mapping[str, Any]) -> None:
        path = self.path
        if path.exists():
            before, lines, good_bytes = _parse(path)
            stopped_at_once = good_bytes == 0 and json_line(header).startswith(read_bytes(path))
            if before != dict(header) and not stopped_at_once:
                raise DataError(
                    f"{path} was made in another way ({_short(before)}) than is asked for now ({_short(header)}); "
                    "remove it, or write to another file with --out"
                )
            self.done = {line["key"] for line in lines}
            if good_bytes < path.stat().st_size:
                os.truncate(path, good_bytes)  # the line at which the last run was stopped
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise DataError(f"{path} can't be written ({error.strerror}); choose another file with --out") from error
        if not path.stat().st_size:
            self._write(header)

    def append(self, key: str, values: Mapping[str, Any]) -> None:
        """Keep what is known of one image."""
        self._write({"key": key, **values})
        self.done.add(key)

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json_line(values))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._lock.release()


def read_sidecar(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Header and lines by key. A last line that was cut off is left out; DataError for anything else that is wrong."""
    header, lines, _ = _parse(path)
    return header, {line["key"]: line for line in lines}


def _parse(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Header, lines, and the number of bytes they take."""
    whole, end, _ = read_bytes(path).rpartition(b"\n")  # in bytes: a last line may end inside a character
    values = []
    for number, line in enumerate(whole.split(b"\n") if end else [], start=1):
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:  # ValueError: also no UTF-8, or a number of 4,300 digits
            raise DataError(f"{path}:{number}: not JSON ({error}); remove the line") from error
        if not isinstance(value, dict) or (number > 1 and not isinstance(value.get("key"), str)):
            raise DataError(f"{path}:{number}: expected an object with the field key; remove the line")
        values.append(value)
    if not values:
        return {}, [], 0
    if "key" in values[0]:
        raise DataError(f"{path}:1: the header is missing, which says how the lines were made; make the file anew")
    return values[0], values[1:], len(whole) + 1


def json_line(values: Mapping[str, Any]) -> bytes:
    """A line of JSON with its end; names of files that are no UTF-8 are escaped."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _short(header: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in header.items()) or "no header"
