"""Answers in files: a JSON object a line as they come, and a CSV or Parquet table of them at the end.

Lines are only appended, so a job that was stopped resumes where it was; a table is made from the lines beside it.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from uniemox.csv_files import write_rows
from uniemox.errors import ConfigError, DataError, MissingPackageError
from uniemox.predict.prediction import Failure, Prediction

LINES = ".jsonl"
TABLES = (".csv", ".parquet")
AFFECT = ("valence", "arousal")
JUDGED = ("familiarity", "is_unfamiliar")
ABOUT = ("kind", "label_set", "model", "width_px", "height_px")
ROWS = 10_000  # of a table that are in memory at once


FOUND = ("people", "people_feel", "faces", "faces_show")  # numbers, and their most probable words
TOP = ("top", "top_value")
COLUMNS = ("path", "likely", "persons", "faces", *FOUND, *TOP, *JUDGED, *ABOUT, "error")  # beside the labels


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """What all answers in one file have in common."""

    model: str
    label_set: str
    labels: tuple[str, ...]
    has_likely: bool
    """Coverage was asked for."""
    has_persons: bool
    """Somebody looked for people."""
    has_faces: bool = False
    """Somebody looked at faces."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """Read off one answer."""
        has = [value.get(name) is not None for name in ("likely", "persons", "faces")]
        return cls(str(value.get("model")), str(value.get("label_set")), tuple(value["scene"]), *has)


class ResultFile:
    """Answers in OUT.jsonl; for OUT.csv and OUT.parquet in lines beside it, from which `finish` makes the table.

    resume: continue a file that is there; images that could not be read are tried again.
    answered: what the answers will be; a file must not mix several kinds.
    Raises ConfigError for another ending, a label that is called as a column of the table is, a file that is there
    already, or one with other answers; DataError for one that is damaged or can't be read or written;
    MissingPackageError for Parquet without pyarrow.
    """

    def __init__(self, path: Path, *, resume: bool, answered: AnswerHeader) -> None:
        self.path = path
        if path.suffix not in (LINES, *TABLES):
            raise ConfigError(f"{path}: expected a name that ends in {', '.join((LINES, *TABLES))}")
        self.lines = path if path.suffix == LINES else path.with_name(path.name + LINES)
        if path.suffix == ".parquet":
            import_pyarrow()
        taken = [label for label in answered.labels if label in COLUMNS]
        if taken and path != self.lines:
            raise ConfigError(f"{path}: a label can't be called {taken[0]!r}, as a column is; write {LINES} instead")
        self.answered = answered
        there = next((one for one in (self.lines, path) if os.path.exists(one)), None)
        if there is not None and not resume:
            raise ConfigError(f"{there} is there already; continue it (--resume), or choose another name")
        if there == path and path != self.lines:
            raise ConfigError(f"{path} is there, but not {self.lines}, which --resume needs; choose another name")
        self._done: np.ndarray[Any, np.dtype[np.uint64]] = np.empty(0, np.uint64)
        if there is not None:
            self._done = _repaired(self.lines, answered)
        try:
            self.lines.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.lines.open("ab")
        except OSError as error:
            raise DataError(f"{self.lines} can't be written ({error.strerror}); choose another name") from error

    def __len__(self) -> int:
        """Images that were there when it was opened."""
        return len(self._done)

    def has(self, path: str) -> bool:
        """Whether an image's answer was there when the file was opened."""
        key = _key(path)
        place = int(np.searchsorted(self._done, np.uint64(key)))
        return place < len(self._done) and int(self._done[place]) == key

    def write(self, result: Prediction | Failure, more: Mapping[str, Any] | None = None) -> None:
        """Append an answer, with more beside; once it returns the answer outlives the process."""
        self._file.write(json.dumps(result.to_dict() | dict(more or {})).encode() + b"\n")
        self._file.flush()

    def finish(self) -> None:
        """Make the table from the lines, whole or not at all."""
        if self.path == self.lines:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            write = _write_csv if self.path.suffix == ".csv" else _write_parquet
            write(self.lines, partial, self.answered.labels)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None and self.lines.stat().st_size == 0:  # so that the same command can be given again
            self.lines.unlink()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of answers; a last line that was cut off is left out. Raises DataError for other faults."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); choose another name") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON ({error}); remove the line") from error
            if not isinstance(value, dict) or not {"scene", "error"} & value.keys():
                raise DataError(f"{path}:{number}: not an answer of uniemox predict; choose another file with --out")
            yield value


def _repaired(path: Path, answered: AnswerHeader) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Keys of the images in a file, sorted, after failures and a last line that was cut off have been removed."""
    keys, failures = array("Q"), 0
    for value in read_lines(path):
        if "scene" not in value:
            failures += 1
            continue
        keys.append(_key(str(value.get("path"))))
        there = AnswerHeader.of(value)
        if there != answered:
            ours, theirs = asdict(answered), asdict(there)
            name = next(name for name in ours if ours[name] != theirs[name])
            raise ConfigError(
                f"{path} holds answers of another kind ({name} {theirs[name]!r}, not {ours[name]!r}); ask as before, "
                "or choose another name"
            )
    _cut_last_line(path)
    if failures:
        _drop_failures(path)
    return np.sort(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)


def _drop_failures(path: Path) -> None:
    """Rewrite the lines without those of images that could not be read."""
    partial = path.with_name(path.name + ".partial")
    with path.open("rb") as lines, partial.open("wb") as kept:
        kept.writelines(line for line in lines if "scene" in json.loads(line))
    os.replace(partial, path)


def _cut_last_line(path: Path) -> None:
    """Remove what follows the last line's end."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                file.truncate(start + place + 1)
                return
            end = start
        file.truncate(0)


def _key(path: str) -> int:
    """64 bits of a path: among 10 million the odds that two are alike are 1 to 370,000."""
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _write_csv(lines: Path, table: Path, labels: tuple[str, ...]) -> None:
    with table.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = (as_cells(value, labels) for value in read_lines(lines))
        write_rows(file, chain([headings(labels)], rows), line_end="\r\n")


def headings(labels: tuple[str, ...]) -> list[str]:
    """Of a table's columns."""
    return ["path", *TOP, *_numbers(labels), *JUDGED, "likely", *FOUND, *ABOUT, "error"]


def _numbers(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of numbers: the labels, and valence and arousal where they are not the labels themselves."""
    return (*labels, *(name for name in AFFECT if name not in labels))


def as_cells(value: dict[str, Any], labels: tuple[str, ...]) -> list[Any]:
    """A row of a table, under `headings`.  value: an answer or a failure as JSON has it."""
    scene = value.get("scene", {})
    return [
        value["path"],
        *max(scene.items(), key=lambda pair: pair[1], default=(None, None)),
        *(scene.get(label) for label in labels),
        *(value.get(name) for name in _numbers(labels)[len(labels) :]),
        *(value.get(name) for name in JUDGED),
        ";".join(value.get("likely") or ()),
        *_found(value.get("persons"), "emotions"),
        *_found(value.get("faces"), "expressions"),
        *(value.get(name) for name in ABOUT),
        value.get("error"),
    ]


def _found(several: list[dict[str, Any]] | None, what: str) -> tuple[int | None, str]:
    """How many people or faces there are, and the most probable word of each; none: no detector was run."""
    if several is None:
        return None, ""
    return len(several), ";".join(max(one[what], key=one[what].get) if one[what] else "?" for one in several)


def _write_parquet(lines: Path, table: Path, labels: tuple[str, ...]) -> None:
    pa = import_pyarrow()
    import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    shares, place = pa.map_(pa.string(), pa.float32()), {"box": pa.list_(pa.float32(), 4), "confidence": pa.float32()}
    person = pa.struct(place | {"emotions": shares})
    face = pa.struct(place | {"expressions": shares, "person": pa.int32()})
    columns = {"path": pa.string(), **dict.fromkeys((*_numbers(labels), "familiarity"), pa.float32())}
    columns |= {"is_unfamiliar": pa.bool_(), "likely": pa.list_(pa.string())}
    columns |= {
        "persons": pa.list_(person),
        "faces": pa.list_(face),
        **dict.fromkeys(ABOUT, pa.string()),
        "error": pa.string(),
    }
    schema = pa.schema(columns | dict.fromkeys(("width_px", "height_px"), pa.int32()))
    rows = (_as_row(value) for value in read_lines(lines))
    with pyarrow.parquet.ParquetWriter(table, schema) as writer:
        while block := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def _as_row(value: dict[str, Any]) -> dict[str, Any]:
    """An answer as Arrow takes it: text that is UTF-8, maps as pairs."""
    found = {"persons": _pairs(value.get("persons"), "emotions"), "faces": _pairs(value.get("faces"), "expressions")}
    texts = {name: _utf8(value[name]) for name in ("path", "error") if value.get(name) is not None}
    return value | value.get("scene", {}) | found | texts


def _pairs(several: list[dict[str, Any]] | None, what: str) -> list[dict[str, Any]] | None:
    if several is None:
        return None
    return [one | {what: None if one[what] is None else list(one[what].items())} for one in several]


def _utf8(text: str) -> str:
    """File names that are no UTF-8 with their odd bytes escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def import_pyarrow() -> Any:
    """The module pyarrow. Raises MissingPackageError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("a Parquet table needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pa
