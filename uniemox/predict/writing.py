"""Files of predictions: JSON lines as they come, and a CSV or Parquet table.

Lines are only appended, so that a stopped job can resume; a table is made from the lines at the end.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from msgspec import UNSET

from uniemox.errors import ConfigError
from uniemox.io.files import MAX_NAME, FileLock, fingerprint_of, open_appending, refuse_special, replacing, writing
from uniemox.io.typed import parse_json, read_json_lines
from uniemox.plurals import counted
from uniemox.predict.answer_labels import answers_in
from uniemox.predict.path_set import PathSet
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import (
    REMEDY,
    AnswerLine,
    checking_fields,
    import_pyarrow,
    reserved_names,
    write_csv,
    write_parquet,
)

LINES = ".jsonl"
TABLES = (".csv", ".parquet")
# Fields of the header that a prediction may have or lack, as messages name them.
OPTIONAL = {"has_likely": "likely labels", "has_persons": "people", "has_faces": "faces", "of_film": "moments of films"}


class AnswerHeader(NamedTuple):
    """Properties that all predictions in one file share: model, settings, whether they are of videos."""

    model: str
    label_set: str
    labels: tuple[str, ...]
    has_likely: bool
    has_persons: bool
    has_faces: bool = False
    of_film: bool = False
    asked: str | None = None
    """Fingerprint of models, detectors and coverage."""

    @classmethod
    def of(cls, line: AnswerLine) -> Self:
        """Return the header of one prediction in a file."""
        # `_make` takes two thirds of the time of a call with names.
        return cls._make(
            (
                line.model,
                line.label_set,
                tuple(line.scene or ()),
                line.likely is not None,
                line.persons is not None,
                line.faces is not None,
                line.time_s is not UNSET,
                line.asked,
            )
        )

    @classmethod
    def for_predictor(
        cls,
        predictor: Predictor,
        labels: str | None,
        coverage: float | None,
        *,
        of_film: bool = False,
        stored: str = "",
    ) -> Self:
        """Return the header of the predictions that a predictor will make.

        Args:
            predictor: From `load`.
            labels: See `Predictor.predict`.
            coverage: See `Predictor.predict`.
            of_film: True if they are about frames of videos.
            stored: Format of the values that are stored next to the predictions, such as features.
        """
        answers = answers_in(predictor.network.info.find_labels(), labels)
        return cls(
            model=predictor.name,
            label_set=answers.target.name,
            labels=answers.reached,
            has_likely=coverage is not None,
            has_persons=predictor.finder is not None,
            has_faces=predictor.face_reader is not None,
            of_film=of_film,
            asked=fingerprint_of([], f"{predictor.fingerprint} {coverage} {stored}".rstrip()),
        )

    def difference(self, other: "AnswerHeader") -> str:
        """Describe the first property in which the predictions in a file, `other`, differ from these."""
        ours = self._asdict()
        theirs = other._asdict()
        name = next(name for name in ours if ours[name] != theirs[name])
        if name == "asked":
            return "a model or detector that has changed under the same name, another coverage, or another version"
        if name in OPTIONAL:
            return f"{'with' if theirs[name] else 'without'} {OPTIONAL[name]}"
        return f"{name} {theirs[name]!r}, not {ours[name]!r}"


def _has_content(path: Path) -> bool:
    """Return True unless a path is free, or an empty file, such as a job leaves that failed before its first answer."""
    return os.path.exists(path) and not (path.is_file() and path.stat().st_size == 0)


def existing_files(*paths: Path) -> list[Path]:
    """Return the paths that are not free, each once."""
    return [path for path in dict.fromkeys(paths) if _has_content(path)]


def refuse_answers(*existing: Path) -> None:
    """Raise ConfigError for files of an earlier job, which --resume continues; names all of them."""
    if len(existing) == 1:
        raise ConfigError(f"{existing[0]} is there already; continue it (--resume), delete it, or choose another name")
    if existing:
        names = " and ".join(map(str, existing))
        raise ConfigError(f"{names} are there already; continue them (--resume), delete them, or choose another name")


def lines_of(path: Path) -> Path:
    """Return the file of the lines from which a table is made: OUT.csv.jsonl for OUT.csv, OUT.jsonl for itself."""
    return path if path.suffix == LINES else path.with_name(path.name + LINES)


class ResultFile:
    """Predictions in OUT.jsonl; for OUT.csv and OUT.parquet in OUT.csv.jsonl, from which `finish` makes the table.

    Args:
        path: File of the results, .jsonl, .csv or .parquet.
        resume: Continue an existing file. Lines of unreadable images, and of images that were written after the file
            was last opened, are removed, so that these images are predicted again.
        answered: Header of the predictions; a file must not mix several.
        with_bom: Begin a CSV table with a byte-order mark, so that Excel reads it as UTF-8.

    Raises:
        ConfigError: For a name, labels or an existing file that do not match, and for a file that another process
            writes.
        DataError: For a damaged, unreadable or unwritable file.
        MissingPackageError: For Parquet without pyarrow.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool,
        answered: AnswerHeader,
        with_bom: bool = False,
        remedy: str = "choose another name",
    ) -> None:
        self.path = path
        self._remedy = remedy
        self.with_bom = with_bom
        self.answered = answered
        check_ending(path, (LINES, *TABLES))
        self.lines = lines_of(path)
        reserved = reserved_names().intersection(answered.labels)
        if reserved and path != self.lines:
            raise ConfigError(f"{path}: the label {min(reserved)!r} has the name of a column; write {LINES} instead")
        self._extra_fields = {} if answered.asked is None else {"asked": answered.asked}
        self._done = PathSet()
        self.existing = 0
        """Number of predictions that the file contained when it was opened."""
        self.overwritten = 0
        """Number of images whose lines were removed because they were written after the file."""
        self.failed = set[str]()
        """Paths of the images whose lines were removed because they could not be read."""
        with self._writing():
            self._lock = FileLock(self.lines)
        self._opened_ns = time.time_ns()
        try:
            self._open(resume=resume)
        except BaseException:
            self._lock.release()
            raise

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.lines, remedy=self._remedy)

    def _open(self, *, resume: bool) -> None:
        existing = existing_files(self.path, self.lines)
        if not resume:
            refuse_answers(*existing)
        if existing and self.lines not in existing:
            raise ConfigError(f"{self.path} is there, but not {self.lines}, which --resume needs; choose another name")
        # Repairing a link would copy the file that it leads to.
        refuse_special(self.lines)
        if existing:
            self._done, self.failed, self.overwritten = _repair(self.lines, self.answered)
            self.existing = len(self._done)
        with self._writing():
            self._file = open_appending(self.lines)
        self._keep_time()

    def _keep_time(self) -> None:
        """Give the file the time at which it was opened.

        Images that are overwritten while it is written then count as changed, also after the process was killed.
        """
        # The file may have been deleted meanwhile.
        with suppress(OSError):
            os.utime(self.lines, ns=(self._opened_ns, self._opened_ns))

    def has(self, path: str) -> bool:
        """Return True if the file contained the image when it was opened, or if its line was copied."""
        return path in self._done

    def write(self, result: Prediction | Failure, extra_fields: Mapping[str, Any] | None = None) -> None:
        """Append a prediction, with further fields; after the return it survives the end of the process."""
        value = result.to_dict() | self._extra_fields | dict(extra_fields or {})
        # A name that is longer can't be opened, and `read_lines` refuses it.
        if result.path is not None:
            value["path"] = result.path[:MAX_NAME]
        self._append(value)

    def copy(self, answer: Mapping[str, Any], path: str) -> None:
        """Append a line of another file with the same header.

        Args:
            answer: Prediction in JSON form.
            path: Path of the image in this file.
        """
        self._append({**answer, "path": path})
        self._done.add(path)

    def _append(self, value: Mapping[str, Any]) -> None:
        with self._writing():
            self._file.write(json.dumps(value).encode() + b"\n")
            self._file.flush()
        self._keep_time()

    def finish(self) -> None:
        """Make the table from the lines, atomically.

        Raises:
            DataError: If a line is no prediction.
        """
        if self.path == self.lines:
            return
        write = write_parquet
        if self.path.suffix == ".csv":
            write = partial(write_csv, encoding="utf-8-sig" if self.with_bom else "utf-8")
        with checking_fields(self.lines), replacing(self.path) as file:
            write(self.lines, file, self.answered.labels, of_film=self.answered.of_film)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            # On a full disk, closing fails too; the first error is the one to report.
            with suppress(OSError) if kind else self._writing():
                self._file.close()
            # Windows sets the time again when a file is closed.
            self._keep_time()
            # Without the empty file, the same command can be repeated.
            if kind is not None and self.lines.stat().st_size == 0:
                self.lines.unlink()
        finally:
            self._lock.release()


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Check the ending of a file's name, and that its format can be written.

    Raises:
        ConfigError: For another ending.
        MissingPackageError: For Parquet without pyarrow.
    """
    if path.suffix not in endings:
        raise ConfigError(f"{path}: expected a name that ends in {', '.join(endings[:-1])} or {endings[-1]}")
    if path.suffix == ".parquet":
        import_pyarrow()


def _repair(path: Path, answered: AnswerHeader) -> tuple[PathSet, set[str], int]:
    """Remove failures, predictions of images that were written after the file, and an incomplete last line.

    Returns:
        Paths of the images that the file then has predictions of, paths of the removed failures, and the number of
        images written after the file.

    Raises:
        ConfigError: If the file has predictions with another header.
    """
    predicted = PathSet()
    failed = set[str]()
    overwritten = set[str]()
    since_ns = path.stat().st_mtime_ns
    for _, line in read_json_lines(path, AnswerLine, remedy=REMEDY, may_be_cut=True):
        if line.scene is UNSET:
            failed.add(str(line.path))
            continue
        header = AnswerHeader.of(line)
        if header != answered:
            difference = answered.difference(header)
            raise ConfigError(
                f"{path} holds other predictions ({difference}); use the same settings, delete it to predict all "
                "images again, or choose another name"
            )
        path_in_line = str(line.path)
        image = path_in_line
        if line.time_s is not UNSET:
            # A frame is named VIDEO#t=SECONDS.
            image = path_in_line.rpartition("#t=")[0]
        if was_written(image, since_ns):
            overwritten.add(path_in_line)
        else:
            predicted.add(path_in_line)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        is_cut = file.read() not in (b"", b"\n")
    # The lines are filtered in a second pass, because they may not fit in memory.
    if failed or overwritten or is_cut:
        with replacing(path) as repaired, path.open("rb") as file, repaired.open("wb") as output:
            for text in file:
                if not text.endswith(b"\n"):
                    continue
                line = parse_json(text, AnswerLine, str(path), remedy=REMEDY)
                if line.scene is not UNSET and line.path not in overwritten:
                    output.write(text)
    return predicted, failed, len(overwritten)


def overwritten_note(count: int) -> str:
    """Return the sentence about images that were written after the file of answers."""
    images = counted(count, "image has", "images have")
    return f"{images} changed since the answers were written; the old answers were removed"


def was_written(image: str, since_ns: int, *, or_moved: bool = False) -> bool:
    """Return True if an image was written after a time.

    Args:
        image: Path of the image.
        since_ns: Time in ns since 1970.
        or_moved: Also return True if it was moved or copied here after that time, with its own time kept, or if it is
            missing.
    """
    try:
        status = os.stat(image)
    # ValueError: the path has a null character.
    except (OSError, ValueError):
        return or_moved
    if or_moved:
        return status.st_ctime_ns > since_ns
    return status.st_mtime_ns > since_ns
