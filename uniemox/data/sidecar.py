"""Files of lines next to a data set, one for each image: persons.jsonl and texts.jsonl."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from uniemox.data.sample import ImageFile, Sample
from uniemox.data.text_files import read_bytes
from uniemox.errors import DataError
from uniemox.io.files import FileLock, open_appending
from uniemox.io.typed import check_json, parse_json

REMEDY = "remove the line"


@dataclass(frozen=True, slots=True)
class SidecarLine:
    """The field that every line has except the first; the others depend on the file."""

    key: str


class Sidecar:
    """Sidecar file with one line per image, open for appending.

    Args:
        header: Settings that produced the lines; an existing file must have the same.

    Raises:
        DataError: If an existing file has other settings, or the file can't be written.
        ConfigError: If another process writes it.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.done: set[str] = set()
        try:
            self._lock = FileLock(path)
            try:
                self._open(header)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise DataError(f"{path} can't be written ({error.strerror}); choose another file with --out") from error

    def _open(self, header: Mapping[str, Any]) -> None:
        path = self.path
        good_bytes = 0
        if path.exists():
            existing, lines, good_bytes = _parse(path)
            # A run that was killed while it wrote the header leaves a part of it.
            has_partial_header = good_bytes == 0 and json_line(header).startswith(read_bytes(path))
            if existing != dict(header) and not has_partial_header:
                raise DataError(
                    f"{path} was made with other settings ({_short(existing)}) than now requested ({_short(header)}); "
                    "remove it, or write to another file with --out"
                )
            self.done = {line["key"] for line in lines}
        self._file = open_appending(path)
        # Remove the line at which the last run was stopped.
        self._file.truncate(good_bytes)
        if not good_bytes:
            self._write(header)

    def append(self, key: str, values: Mapping[str, Any]) -> None:
        """Append the values of one image."""
        self._write({"key": key, **values})
        self.done.add(key)

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json_line(values))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
        finally:
            self._lock.release()


def read_sidecar(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read a sidecar's header, and its lines by key, without an incomplete last line.

    Raises:
        DataError: If the file can't be read, a complete line is not an object with a key, or the header is missing.
    """
    header, lines, _ = _parse(path)
    return header, {line["key"]: line for line in lines}


def changed_images(path: Path, samples: Iterable[Sample]) -> list[str]:
    """Return the keys of images that have a line, but were written after the last line.

    Args:
        path: A sidecar; it may be missing.
        samples: Samples of the data set.
    """
    if not path.exists():
        return []
    written_ns = path.stat().st_mtime_ns
    _, lines = read_sidecar(path)
    return [
        sample.key
        for sample in samples
        if sample.key in lines
        and isinstance(sample.image, ImageFile)
        and sample.image.path.is_file()
        and sample.image.path.stat().st_mtime_ns > written_ns
    ]


def _parse(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Parse a file into header, complete lines, and their number of bytes."""
    # Split as bytes, because the last line may end inside a character.
    complete, newline, _ = read_bytes(path).rpartition(b"\n")
    values = []
    for number, line in enumerate(complete.split(b"\n") if newline else [], start=1):
        where = f"{path}:{number}"
        value = parse_json(line, dict[str, Any], where, remedy=REMEDY)
        # The first line is the header.
        if number > 1:
            check_json(value, SidecarLine, where, remedy=REMEDY)
        values.append(value)
    if not values:
        return {}, [], 0
    if "key" in values[0]:
        raise DataError(f"{path}:1: the header with the settings is missing; create the file again")
    return values[0], values[1:], len(complete) + 1


def json_line(values: Mapping[str, Any]) -> bytes:
    """Encode a line of JSON with its end; file names that are not UTF-8 are escaped."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _short(header: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in header.items()) or "no header"
