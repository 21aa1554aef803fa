"""Answers in files: a JSON object a line as they come, and a CSV or Parquet table of them at the end.

Lines are only appended, so a job that was stopped resumes where it was; a table is made from the lines beside it.
"""

import json
import os
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from uniemox.errors import ConfigError, DataError
from uniemox.io.files import FileLock
from uniemox.persons.detector_config import fingerprint_of
from uniemox.predict.mapping import answers_in
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.tables import import_pyarrow, read_lines, reserved_names, write_csv, write_parquet

if TYPE_CHECKING:
    from uniemox.predict.predictor import Predictor

LINES = ".jsonl"
TABLES = (".csv", ".parquet")
OPTIONAL = {"has_likely": "likely labels", "has_persons": "people", "has_faces": "faces", "of_film": "moments of films"}


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
    of_film: bool = False
    """Of moments of films."""
    asked: str | None = None
    """Fingerprint of models, finders and coverage; None: the file is of a version that did not keep it."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """Read off one answer."""
        likely, persons, faces = (value.get(name) is not None for name in ("likely", "persons", "faces"))
        names = str(value.get("model")), str(value.get("label_set"))
        return cls(*names, tuple(value["scene"]), likely, persons, faces, "time_s" in value, value.get("asked"))

    @classmethod
    def of_question(
        cls, predictor: "Predictor", labels: str | None, coverage: float | None, *, of_film: bool = False
    ) -> Self:
        """Of the answers that a predictor will give; arguments as `Predictor.predict`."""
        answers = answers_in(predictor.network.info.find_labels(), labels)
        has = coverage is not None, predictor.finder is not None, predictor.face_reader is not None
        asked = fingerprint_of([], f"{predictor.fingerprint} {coverage}")
        return cls(predictor.name, answers.name, answers.labels, *has, of_film, asked)

    def fits(self, there: "AnswerHeader") -> bool:
        """Whether answers that are there are of the same kind."""
        return there == (replace(self, asked=None) if there.asked is None else self)


class ResultFile:
    """Answers in OUT.jsonl; for OUT.csv and OUT.parquet in lines beside it, from which `finish` makes the table.

    resume: continue a file that is there; images that could not be read are tried again.
    answered: what the answers will be; a file must not mix several kinds.
    with_bom: begin a CSV table with a byte-order mark, by which Excel knows UTF-8.
    Raises ConfigError for another ending, a label that is called as a column of the table is, a file that is there
    already, that another process writes, or that has other answers; DataError for one that is damaged or can't be read
    or written; MissingPackageError for Parquet without pyarrow.
    """

    def __init__(self, path: Path, *, resume: bool, answered: AnswerHeader, with_bom: bool = False) -> None:
        self.path, self.with_bom = path, with_bom
        if path.suffix not in (LINES, *TABLES):
            raise ConfigError(f"{path}: expected a name that ends in {', '.join((LINES, *TABLES))}")
        self.lines = path if path.suffix == LINES else path.with_name(path.name + LINES)
        if path.suffix == ".parquet":
            import_pyarrow()
        taken = [label for label in answered.labels if label in reserved_names()]
        if taken and path != self.lines:
            raise ConfigError(f"{path}: a label can't be called {taken[0]!r}, as a column is; write {LINES} instead")
        self.answered = answered
        self._beside = {} if answered.asked is None else {"asked": answered.asked}
        self._done: np.ndarray[Any, np.dtype[np.uint64]] = np.empty(0, np.uint64)
        try:
            self._lock = FileLock(self.lines)
        except OSError as error:
            raise DataError(f"{self.lines} can't be written ({error.strerror}); choose another name") from error
        try:
            self._open(resume=resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, *, resume: bool) -> None:
        path = self.path
        there = next((one for one in (self.lines, path) if os.path.exists(one)), None)
        if there is not None and not resume:
            raise ConfigError(f"{there} is there already; continue it (--resume), or choose another name")
        if there == path and path != self.lines:
            raise ConfigError(f"{path} is there, but not {self.lines}, which --resume needs; choose another name")
        if there is not None:
            self._done = _repaired(self.lines, self.answered)
        try:
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
        self._file.write(json.dumps(result.to_dict() | self._beside | dict(more or {})).encode() + b"\n")
        self._file.flush()

    def finish(self) -> None:
        """Make the table from the lines, whole or not at all."""
        if self.path == self.lines:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            if self.path.suffix == ".csv":
                encoding = "utf-8-sig" if self.with_bom else "utf-8"
                write_csv(self.lines, partial, self.answered.labels, of_film=self.answered.of_film, encoding=encoding)
            else:
                write_parquet(self.lines, partial, self.answered.labels, of_film=self.answered.of_film)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None and self.lines.stat().st_size == 0:  # so that the same command can be given again
            self.lines.unlink()
        self._lock.release()


def _repaired(path: Path, answered: AnswerHeader) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Keys of the images in a file, sorted, after failures and a last line that was cut off have been removed."""
    keys, failures = array("Q"), 0
    for value in read_lines(path):
        if "scene" not in value:
            failures += 1
            continue
        keys.append(_key(str(value.get("path"))))
        there = AnswerHeader.of(value)
        if not answered.fits(there):
            ours, theirs = asdict(answered), asdict(there)
            name = next(name for name in ours if ours[name] != theirs[name])
            what = f"{name} {theirs[name]!r}, not {ours[name]!r}"
            if name in OPTIONAL:
                what = f"{'with' if theirs[name] else 'without'} {OPTIONAL[name]}"
            if name == "asked":
                what = "a model or finder of the same name that is another one by now, or another coverage"
            raise ConfigError(f"{path} holds answers of another kind ({what}); ask as before, or choose another name")
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
