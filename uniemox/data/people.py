"""Sidecar files next to the images, with people and texts."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from PIL import Image

from uniemox.data.processes import map_each
from uniemox.data.readers.csv_table import parse_json, read_bytes
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.seen import seen_file, write_hashes
from uniemox.errors import DataError, ImageError
from uniemox.io.files import FileLock, open_appending
from uniemox.io.images import MinSides
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector

# Names of the files next to the data, where every command finds them.
PERSONS = "persons.jsonl"
TEXTS = "texts.jsonl"


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


def _parse(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Parse a file into header, complete lines, and their number of bytes."""
    # Split as bytes, because the last line may end inside a character.
    complete, newline, _ = read_bytes(path).rpartition(b"\n")
    values = []
    for number, line in enumerate(complete.split(b"\n") if newline else [], start=1):
        value = parse_json(line, f"{path}:{number}", "; remove the line")
        if not isinstance(value, dict) or (number > 1 and not isinstance(value.get("key"), str)):
            raise DataError(f"{path}:{number}: expected an object with the field key; remove the line")
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


# Minimum short side of reduced JPEGs: twice the 416 px that most detectors take.
DECODED_PX = 832
BATCH = 16  # images per worker task


@dataclass(frozen=True, slots=True)
class PeopleReport:
    """Result of a detection run over a data set."""

    pictures: int
    new: int
    """Number of images processed in this run."""
    with_people: int
    people: int
    broken: tuple[str, ...]
    """One line per image that this run could not read; the next run tries it again."""


def detect_persons(
    data: DataSet,
    open_detector: Callable[[], Detector],
    out: Path,
    on_progress: Progress = silent,
    *,
    pool: PoolConfig = ONE_A_CORE,
    on_gpu: bool = False,
    training_hashes: Collection[str] = (),
) -> PeopleReport:
    """Detect the people in every image and append them to a sidecar; images that it contains are skipped.

    Args:
        open_detector: Called here and by every worker.
        pool: Worker processes; the file does not depend on it.
        on_gpu: The detector uses the GPU, and takes images in batches.
        training_hashes: Hashes of the detector's training images, stored next to the sidecar, see data/seen.py.
    """
    detector = open_detector()
    by_key = {sample.image_key: sample for sample in data.samples}
    header: dict[str, str | int] = {"detector": detector.name, "fingerprint": detector.fingerprint}
    if data.short_side_px is not None:
        # Boxes are then in px of the packed images.
        header["short_side_px"] = data.short_side_px
    broken: list[str] = []
    if training_hashes:
        write_hashes(seen_file(out), training_hashes)
    with Sidecar(out, header) as sidecar:
        waiting = [sample for key, sample in by_key.items() if key not in sidecar.done]
        done_before = len(by_key) - len(waiting)
        on_progress("looking for people", done_before, len(by_key))
        open_work = partial(_open_work, open_detector, in_batches=on_gpu)
        with closing(map_each(open_work, waiting, pool, batch=BATCH, on_gpu=on_gpu)) as results:
            for done, (sample, rows) in enumerate(zip(waiting, results, strict=True), done_before + 1):
                if rows is None or isinstance(rows, str):
                    # Not recorded in the sidecar, because the image may be readable next time.
                    broken.append(rows or f"{sample.image}: {DIED}")
                else:
                    sidecar.append(sample.image_key, {"boxes": rows})
                on_progress("looking for people", done, len(by_key))
    _, lines = read_sidecar(out)
    counts = [len(line.get("boxes") or ()) for line in lines.values()]
    return PeopleReport(
        pictures=len(lines),
        new=len(waiting),
        with_people=sum(map(bool, counts)),
        people=sum(counts),
        broken=tuple(broken),
    )


def read_people(file: Path) -> dict[str, tuple[Detection, ...]]:
    """Read the people of a sidecar by image key; boxes in px.

    Raises:
        DataError: If the file is damaged or its boxes are in px of packed images.
    """
    header, lines = read_sidecar(file)
    if header.get("short_side_px") is not None:
        raise DataError(f"{file}: its boxes are in px of packed images; find the people in these, or remove it")
    boxes = ((key, line.get("boxes")) for key, line in lines.items())
    return {key: detections_of(rows, file, key) for key, rows in boxes if rows is not None}


def detections_of(rows: Any, file: Path, key: str) -> tuple[Detection, ...]:
    """Parse the boxes of a sidecar's line.

    Raises:
        DataError: With the file and the image, if a box or confidence is invalid.
    """
    try:
        people = [Detection(Box(*map(float, row[:4])), float(row[4])) for row in rows]
        if not all(0 < person.box.area < math.inf and 0 <= person.confidence <= 1 for person in people):
            raise ValueError("an empty box, or a confidence that is not between 0 and 1")
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{file}, boxes of {key}: expected rows of x1, y1, x2, y2, confidence ({error})") from error
    return tuple(people)


def _open_work(
    open_detector: Callable[[], Detector], *, in_batches: bool
) -> Callable[[Sequence[Sample]], list[list[list[float]] | str]]:
    """Return a function that processes images one by one or, if that is faster, as a batch."""
    detector = open_detector()

    def work(samples: Sequence[Sample]) -> list[list[list[float]] | str]:
        size = BATCH if in_batches else 1
        parts = (samples[i : i + size] for i in range(0, len(samples), size))
        return [rows for part in parts for rows in _rows_of(part, detector)]

    return work


def _rows_of(samples: Sequence[Sample], detector: Detector) -> list[list[list[float]] | str]:
    """Detect people in images.

    Returns:
        For each image its people, x1, y1, x2, y2 in px of the full image and confidence, or why it can't be read.
    """
    decoded: list[tuple[Image.Image, tuple[int, int]] | str] = []
    for sample in samples:
        try:
            decoded.append(decode_sample(sample, MinSides(short_px=DECODED_PX)))
        except ImageError as error:
            decoded.append(str(error))
    images = [result[0] for result in decoded if not isinstance(result, str)]
    detections = iter(detector.detect(images))
    return [result if isinstance(result, str) else _scaled(next(detections), *result) for result in decoded]


def _scaled(people: Sequence[Detection], image: Image.Image, full: tuple[int, int]) -> list[list[float]]:
    """Scale boxes from px of the decoded image to px of the full one, rounded to a thousandth."""
    scale_x, scale_y = full[0] / image.width, full[1] / image.height
    scales = (scale_x, scale_y, scale_x, scale_y)
    return [
        [*(round(value * scale, 3) for value, scale in zip(box, scales, strict=True)), round(confidence, 3)]
        for box, confidence in people
    ]
