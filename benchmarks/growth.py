"""Time three tasks by number of images: `python -m benchmarks.growth near 25000 50000 100000`.

near: search for near duplicates. status: `uniemox curate status` of a project whose images have two answers each.
resume: `uniemox predict --resume` opens a file with this number of answers, and looks each image up.
"""

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from sqlalchemy import Table, insert

from tests.conftest import SHARED
from tests.curate.places import LABELS, PLAN
from uniemox.data.near import near_groups
from uniemox.predict.opening import load
from uniemox.predict.prediction import Prediction
from uniemox.predict.writing import AnswerHeader, ResultFile
from uniemox_curate import tables as t
from uniemox_curate.project import create_project
from uniemox_curate.status import status

SIDE = 32
# Folders with 13,553 photographs that can be read.
FOLDERS = ("fi", "fi_more", "flickr8k", "flickr8k_more")


def time_near(counts: list[int]) -> None:
    """Print seconds, nanoseconds for each pair, and hours for three million images.

    The images are mixtures of two photographs of ../shared/data, so that nearly all are different.
    """
    thumbs = []
    for path in sorted(path for name in FOLDERS for path in (SHARED / "data" / name).rglob("*.jpg")):
        with suppress(OSError), Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            thumbs.append(np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32))
    rng = np.random.default_rng(0)
    for count in counts:
        mixed = np.empty((count, SIDE, SIDE, 3), np.uint8)
        for i in range(count):
            first, second = rng.integers(len(thumbs), size=2)
            share = rng.uniform(0.3, 0.7)
            mixed[i] = share * thumbs[first] + (1 - share) * thumbs[second]
        start = time.perf_counter()
        groups = len(np.unique(near_groups(mixed)))
        seconds = time.perf_counter() - start
        pair_ns = 2e9 * seconds / count**2
        # Three million images have 4.5e12 pairs; an hour has 3.6e12 ns.
        hours = pair_ns * 4.5e12 / 3.6e12
        print(
            f"{count:,} images: {seconds:.1f} s, {pair_ns:.1f} ns a pair, {groups:,} groups; 3 million: {hours:.1f} h"
        )


def time_status(counts: list[int]) -> None:
    """Print the processor time of the status of a project: kept images, each with answers of two of eight people."""
    for count in counts:
        with TemporaryDirectory() as folder:
            project = create_project(Path(folder) / "project", PLAN)
            about = {"source": "csv", "keyword": "", "page": "", "title": "", "licence": "", "licence_address": ""}
            about |= {"author": "", "label": LABELS[0], "state": "fetched"}
            size = {"format": "JPEG", "bytes": 1, "width": 1, "height": 1, "added_at": 0.0}
            person = {"role": "annotator", "invited_at": 0.0}
            numbers = range(1, count + 1)
            tasks = [(2 * i + answer, (2 * i + answer) % 8 + 1, i) for i in numbers for answer in (0, 1)]
            rows: Mapping[Table, list[dict[str, object]]] = {
                t.images: [{"id": i, "sha256": f"{i:064x}", **size} for i in numbers],
                t.candidates: [
                    {**about, "address": str(i), "rank": i, "found_at": 0.0, "picture_id": i} for i in numbers
                ],
                t.looks: [{"picture_id": i, "problem": "", "width": 1, "height": 1} for i in numbers],
                t.batches: [{"id": 1, "at": 0.0, "actor": "screen", "step": "screen", "note": ""}],
                t.events: [
                    {"batch_id": 1, "picture_id": i, "field": "screen", "value": "keep", "reason": ""} for i in numbers
                ],
                t.people: [{"id": i, "name": str(i), "token_hash": str(i), **person} for i in range(1, 9)],
                t.tasks: [
                    {"id": i, "person_id": person_id, "picture_id": image, "given_at": 0.0}
                    for i, person_id, image in tasks
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
            start = time.process_time()
            status(project)
            print(f"{count:,} images, {2 * count:,} answers: {time.process_time() - start:.1f} s")
            project.store.close()


def time_resume(counts: list[int]) -> None:
    """Print the processor time of opening a file of answers, and of looking its images up."""
    predictor = load()
    answered = AnswerHeader.of_question(predictor, None, None)
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
