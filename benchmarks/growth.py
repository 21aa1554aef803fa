"""Time three tasks by number of images: `python -m benchmarks.growth near 10000 100000 1000000`.

near: search for near duplicates, of every pair and in cells. status: `uniemox curate status` of a project whose images
have two answers each, without kept counts, again, after as many new answers as a program leaves uncounted, and after a
decision.
resume: `uniemox predict --resume` opens a file with this number of answers, and looks each image up.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Table, insert

from benchmarks.curate_many import resident, watched_memory
from tests.conftest import SHARED
from tests.curate.places import LABELS, PLAN
from uniemox.data import near_pairs
from uniemox.data.near import near_groups
from uniemox.predict.opening import load
from uniemox.predict.prediction import Prediction
from uniemox.predict.writing import AnswerHeader, ResultFile
from uniemox_curate import tables as t
from uniemox_curate.counters import STORE_EVERY
from uniemox_curate.decisions import Change, append
from uniemox_curate.project import Project, create_project
from uniemox_curate.status import status

SIDE = 32
# Folders with 13,553 photographs that can be read.
FOLDERS = ("fi", "fi_more", "flickr8k", "flickr8k_more")
# Maximum number of images of which every pair is compared; a million would take hours.
MAX_EVERY_PAIR = 100_000
# Fields of answers to tasks that are answered already.
AGAIN = {"person_id": 1, "label": LABELS[0], "at": 0.0, "seconds": 3.0}


def time_near(counts: list[int]) -> None:
    """Print seconds and memory of comparing every pair, and of comparing images in cells, and the groups of both.

    An image is the left half of a photograph of ../shared/data next to the right half of another, so that nearly all
    are different; four of a million pairs have similar descriptions, two of photographs. Every tenth has a noisy copy,
    mirrored or not.
    """
    thumbs = []
    for path in sorted(path for name in FOLDERS for path in (SHARED / "data" / name).rglob("*.jpg")):
        with suppress(OSError), Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            thumbs.append(np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)))
    for count in counts:
        images = compose(np.stack(thumbs), count)
        texts = []
        if count <= MAX_EVERY_PAIR:
            seconds, memory_mb, groups = measure_near(images, exact_images=count)
            texts.append(f"every pair {seconds:.1f} s, {memory_mb:.0f} MB, {groups:,} groups")
        seconds, memory_mb, groups = measure_near(images, exact_images=0)
        texts.append(f"in cells {seconds:.1f} s, {memory_mb:.0f} MB, {groups:,} groups")
        print(f"{count:,} images: {'; '.join(texts)}", flush=True)


def compose(thumbs: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return images of two halves of different photographs, and noisy copies of every tenth."""
    rng = np.random.default_rng(0)
    middle = SIDE // 2
    composed = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for i in range(count):
        if i % 11 == 10:
            source = composed[i - 10, :, :: rng.choice((1, -1))]
            composed[i] = (source + rng.normal(0, 3, source.shape)).clip(0, 255)
            continue
        first, second = rng.integers(len(thumbs), size=2)
        composed[i, :, :middle] = thumbs[first][:, :middle]
        composed[i, :, middle:] = thumbs[second][:, middle:]
    return composed


def measure_near(thumbs: NDArray[np.uint8], exact_images: int) -> tuple[float, float, int]:
    """Return the processor time of a search, the memory that it adds in MB, and the number of groups.

    Args:
        thumbs: (N, 32, 32, 3).
        exact_images: Maximum number of images of which every pair is compared.
    """
    near_pairs.EXACT_IMAGES = exact_images
    with watched_memory(0) as peak_mb:
        before_mb = resident(os.getpid()) / 2**20
        start = time.process_time()
        groups = near_groups(thumbs)
        seconds = time.process_time() - start
    return seconds, max(0, peak_mb[0] - before_mb), len(np.unique(groups))


def time_status(counts: list[int]) -> None:
    """Print the processor time of the status of a project: kept images, each with answers of two of eight people."""
    for count in counts:
        with TemporaryDirectory() as folder:
            project = write_project(Path(folder) / "project", count)
            seconds = [time_once(project), time_once(project)]
            answers = [{"task_id": 2 * i, "client_id": f"again {i}", **AGAIN} for i in range(1, STORE_EVERY + 1)]
            with project.store.write() as connection:
                connection.execute(insert(t.answers), answers)
            seconds.append(time_once(project))
            with project.store.write() as connection:
                append(connection, actor="owner", step="judge", note="", changes=[Change(1, "verdict", LABELS[0])])
            seconds.append(time_once(project))
            texts = [f"{value:.1f} s" for value in seconds]
            print(
                f"{count:,} images, {2 * count:,} answers: without kept counts {texts[0]}, with them {texts[1]}, "
                f"after {STORE_EVERY:,} new answers {texts[2]}, after a decision {texts[3]}"
            )
            project.store.close()


def time_once(project: Project) -> float:
    """Return the processor time of the status."""
    start = time.process_time()
    status(project)
    return time.process_time() - start


def write_project(folder: Path, count: int) -> Project:
    """Create a project whose images are kept, each with answers of two of eight people."""
    project = create_project(folder, PLAN)
    about = {"source": "csv", "keyword": "", "page": "", "title": "", "licence": "", "licence_address": ""}
    about |= {"author": "", "label": LABELS[0], "state": "fetched"}
    size = {"format": "JPEG", "bytes": 1, "width": 1, "height": 1, "added_at": 0.0}
    person = {"role": "annotator", "invited_at": 0.0}
    numbers = range(1, count + 1)
    tasks = [(2 * i + answer, (2 * i + answer) % 8 + 1, i) for i in numbers for answer in (0, 1)]
    rows: Mapping[Table, list[dict[str, object]]] = {
        t.images: [{"id": i, "sha256": f"{i:064x}", **size} for i in numbers],
        t.candidates: [{**about, "address": str(i), "rank": i, "found_at": 0.0, "picture_id": i} for i in numbers],
        t.looks: [{"picture_id": i, "problem": "", "width": 1, "height": 1} for i in numbers],
        t.batches: [{"id": 1, "at": 0.0, "actor": "screen", "step": "screen", "note": ""}],
        t.events: [{"batch_id": 1, "picture_id": i, "field": "screen", "value": "keep", "reason": ""} for i in numbers],
        t.people: [{"id": i, "name": str(i), "token_hash": str(i), **person} for i in range(1, 9)],
        t.tasks: [
            {"id": i, "person_id": person_id, "picture_id": image, "given_at": 0.0} for i, person_id, image in tasks
        ],
        t.answers: [
            {"person_id": person_id, "task_id": i, "client_id": str(i), "label": LABELS[i % 5 == 0], "at": 0.0}
            | {"seconds": i % 97 / 7}
            for i, person_id, _ in tasks
        ],
    }
    with project.store.write() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
    return project


def time_resume(counts: list[int]) -> None:
    """Print the processor time of opening a file of answers, and of looking its images up."""
    predictor = load()
    answered = AnswerHeader.for_predictor(predictor, None, None)
    photo = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    prediction = predictor.predict(photo)
    assert isinstance(prediction, Prediction)
    value = prediction.to_dict() | {"asked": answered.asked}
    for count in counts:
        paths = [f"/data/photos/{i % 1000:03d}/image_{i:07d}.jpg" for i in range(count)]
        with TemporaryDirectory() as folder:
            lines = Path(folder) / "answers.jsonl"
            with lines.open("w") as file:
                file.writelines(json.dumps(value | {"path": path}) + "\n" for path in paths)
            start = time.process_time()
            with ResultFile(lines, resume=True, answered=answered) as results:
                opened_at = time.process_time()
                assert all(results.has(path) for path in paths)
            look_up_s = time.process_time() - opened_at
            size = lines.stat().st_size / count
            print(
                f"{count:,} lines of {size:.0f} bytes: {opened_at - start:.1f} s to open, {look_up_s:.1f} s to look up"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("near", "status", "resume"))
    parser.add_argument("counts", type=int, nargs="+")
    args = parser.parse_args()
    {"near": time_near, "status": time_status, "resume": time_resume}[args.task](args.counts)
