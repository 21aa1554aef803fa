"""The people in a data set's images, found once and kept beside it."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.data.pool_config import ONE_A_CORE, PoolConfig
from uniemox.data.processes import map_each
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.seen import seen_file, write_hashes
from uniemox.data.sidecar import Sidecar, read_sidecar
from uniemox.errors import DataError, ImageError
from uniemox.io.ray_map import DIED
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector

DECODED_PX = 832  # short side from which a JPEG is decoded smaller: twice the input of the largest detector here
BATCH = 16  # images that a worker takes at once


@dataclass(frozen=True, slots=True)
class PeopleReport:
    """What a sidecar holds."""

    pictures: int
    new: int
    """Looked at in this run."""
    with_people: int
    people: int
    broken: tuple[str, ...]
    """A line for each image that this run could not read; the next one tries it again."""


def find_people(
    data: DataSet,
    open_detector: Callable[[], Detector],
    out: Path,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    pool: PoolConfig = ONE_A_CORE,
    on_gpu: bool = False,
    seen: Collection[str] = (),
) -> PeopleReport:
    """Find the people in every image and append them to a sidecar; images that it has are not looked at again.

    open_detector: called here and by every worker.  on_progress: called with the number of images done.  pool: who
    looks; the file is the same.  on_gpu: the detector works on the GPU, and takes images in batches.
    seen: hashes of the images on which the detector was trained, kept beside the sidecar, see data/seen.py.
    """
    detector = open_detector()
    by_key = {sample.image_key: sample for sample in data.samples}
    header: dict[str, str | int] = {"detector": detector.name, "fingerprint": detector.fingerprint}
    if data.short_side_px is not None:
        header["short_side_px"] = data.short_side_px  # of packed images, in whose px the boxes are
    broken: list[str] = []
    if seen:
        write_hashes(seen_file(out), seen)
    with Sidecar(out, header) as sidecar:
        waiting = [sample for key, sample in by_key.items() if key not in sidecar.done]
        before = len(by_key) - len(waiting)
        on_progress(before)
        open_work = partial(_open_work, open_detector, in_batches=on_gpu)
        with closing(map_each(open_work, waiting, pool, batch=BATCH, on_gpu=on_gpu)) as found:
            for done, (sample, rows) in enumerate(zip(waiting, found, strict=True), before + 1):
                if rows is None or isinstance(rows, str):  # not kept in the file: it may be there the next time
                    broken.append(rows or f"{sample.image}: {DIED}")
                else:
                    sidecar.append(sample.image_key, {"boxes": rows})
                on_progress(done)
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
    """The people of a sidecar, px, by the image's key. Raises DataError if it is damaged or of packed images."""
    header, lines = read_sidecar(file)
    if header.get("short_side_px") is not None:
        raise DataError(f"{file}: its boxes are in px of packed images; find the people in these, or remove it")
    boxes = ((key, line.get("boxes")) for key, line in lines.items())
    return {key: detections_of(rows, file, key) for key, rows in boxes if rows is not None}


def detections_of(rows: Any, file: Path, key: str) -> tuple[Detection, ...]:
    """The boxes of a line of a sidecar. Raises DataError, with the file and the image, if they are none."""
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
    """What looks at images one by one, or, where that is faster, at all of a batch."""
    detector = open_detector()

    def work(samples: Sequence[Sample]) -> list[list[list[float]] | str]:
        size = BATCH if in_batches else 1
        parts = (samples[i : i + size] for i in range(0, len(samples), size))
        return [rows for part in parts for rows in _rows_of(part, detector)]

    return work


def _rows_of(samples: Sequence[Sample], detector: Detector) -> list[list[list[float]] | str]:
    """People in images, x1, y1, x2, y2 in px of the full one and confidence; or why one can't be read."""
    decoded = [_decoded(sample) for sample in samples]
    found = iter(detector.detect([one[0] for one in decoded if not isinstance(one, str)]))
    return [one if isinstance(one, str) else _scaled(next(found), *one) for one in decoded]


def _decoded(sample: Sample) -> tuple[Image.Image, tuple[int, int]] | str:
    try:
        return decode_sample(sample, _shrink)
    except ImageError as error:
        return str(error)


def _scaled(people: Sequence[Detection], image: Image.Image, full: tuple[int, int]) -> list[list[float]]:
    x, y = full[0] / image.width, full[1] / image.height
    rows = [[box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y, confidence] for box, confidence in people]
    return [[round(value, 3) for value in row] for row in rows]


def _shrink(width: int, height: int) -> float:
    return min(width, height) / DECODED_PX
