"""People in the images of a data set: detection, and the file next to the data."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from uniemox.data.processes import map_each
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.seen import seen_file, write_hashes
from uniemox.data.sidecar import Sidecar, read_sidecar
from uniemox.errors import DataError, ImageError
from uniemox.io.images import MinSides
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.io.sized_image import SizedImage
from uniemox.io.typed import Share, check_json
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector

# Names of the files next to the data, where every command finds them.
PERSONS = "persons.jsonl"
TEXTS = "texts.jsonl"


@dataclass(frozen=True, slots=True)
class PeopleLine:
    """People of an image."""

    boxes: list[tuple[float, float, float, float, Share]] | None = None
    """x1, y1, x2, y2 in px and confidence of each person; None: no detector was run."""


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
    header = people_header(detector, data)
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


def people_header(detector: Detector, data: DataSet) -> dict[str, str | int]:
    """Return the header of the sidecar with the people that a detector finds in a data set."""
    header: dict[str, str | int] = {"detector": detector.name, "fingerprint": detector.fingerprint}
    if data.short_side_px is not None:
        # Boxes are then in px of the packed images.
        header["short_side_px"] = data.short_side_px
    return header


def read_people(file: Path) -> dict[str, tuple[Detection, ...]]:
    """Read the people of a sidecar by image key; boxes in px.

    Raises:
        DataError: If the file is damaged or its boxes are in px of packed images.
    """
    header, lines = read_sidecar(file)
    if header.get("short_side_px") is not None:
        raise DataError(f"{file}: its boxes are in px of packed images; find the people in these, or remove it")
    people_by_key = {}
    for key, line in lines.items():
        people = people_of(line, f"{file}, {key}")
        if people is not None:
            people_by_key[key] = people
    return people_by_key


def people_of(line: Mapping[str, Any], where: str) -> tuple[Detection, ...] | None:
    """Return the people of a sidecar's line; None if no detector was run.

    Args:
        line: The line in JSON form.
        where: File and image, for the message.

    Raises:
        DataError: If a box or confidence is invalid.
    """
    rows = check_json(line, PeopleLine, where, remedy="find the people again").boxes
    if rows is None:
        return None
    people = tuple(Detection(Box(*row[:4]), row[4]) for row in rows)
    if not all(0 < person.box.area < math.inf for person in people):
        raise DataError(f"{where}: field boxes: a box is empty or not finite; find the people again")
    return people


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
    decoded: list[SizedImage | str] = []
    for sample in samples:
        try:
            decoded.append(decode_sample(sample, MinSides(short_px=DECODED_PX)))
        except ImageError as error:
            decoded.append(str(error))
    images = [result.image for result in decoded if isinstance(result, SizedImage)]
    detections = iter(detector.detect(images))
    return [result if isinstance(result, str) else _scaled(next(detections), result) for result in decoded]


def _scaled(people: Sequence[Detection], sized: SizedImage) -> list[list[float]]:
    """Scale boxes from px of the decoded image to px of the full size, rounded to a thousandth."""
    full_width, full_height = sized.full_size
    scale_x = full_width / sized.image.width
    scale_y = full_height / sized.image.height
    scales = (scale_x, scale_y, scale_x, scale_y)
    return [
        [*(round(value * scale, 3) for value, scale in zip(box, scales, strict=True)), round(confidence, 3)]
        for box, confidence in people
    ]
