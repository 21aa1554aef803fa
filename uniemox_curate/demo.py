"""All curation steps on synthetic images: a local image server, two simulated annotators, a release, a page."""

import io
import random
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from uniemox.data import synthetic
from uniemox.errors import ConfigError
from uniemox.io import Progress, encode_image, silent
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.agree import agree
from uniemox_curate.annotate.answers import AnswerIn, save_answers
from uniemox_curate.annotate.assignment import TaskAssigner
from uniemox_curate.annotate.origins import record_simulated
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.run import fetch, search
from uniemox_curate.collect.screen import screen
from uniemox_curate.collect.sources import address_table
from uniemox_curate.decisions import person_of, pool
from uniemox_curate.project import NONE, Project, create_project, is_project, searched_labels
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.status import status, write_status_page

# Share of correct answers of each simulated annotator.
ACCURACIES = {"Ada": 0.92, "Ben": 0.88}
RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}
# Number of answers in one transaction.
ANSWERS_PER_COMMIT = 60


def demo(folder: Path, *, count: int = 160, schemes: int = 20, progress: Progress = silent) -> dict[str, Any]:
    """Run all curation steps on synthetic images from a server on this machine; nothing leaves the machine.

    Args:
        folder: Folder for the project, the release and status.html.
        count: Number of different images; one twelfth more are copies, broken, tiny, or not images.

    Returns:
        The result of `release`: numbers of images, and statistics.

    Raises:
        ConfigError: If the folder already has one of these.
    """
    for name in ("addresses.csv", "status.html", "release"):
        if (folder / name).exists() and not is_project(folder / "project"):
            raise ConfigError(f"{folder / name} exists; give the demo a new folder")
    project = create_project(folder / "project")
    images = demo_images(count)
    with image_server(images) as address:
        table = folder / "addresses.csv"
        table.write_text(_table_of(address, images, count), "utf-8")
        config = CollectConfig(rate=1000, tries=1, private_hosts=(urlsplit(address).netloc,))
        search(project, [address_table(table, project.plan)], config, progress)
        fetch(project, config, progress)
    screen(project, progress=progress)
    for seed, (name, accuracy) in enumerate(ACCURACIES.items()):
        annotate(project, name, accuracy=accuracy, seed=seed, progress=progress)
    agreement = agree(project)
    split(project, verdicts(project), RATIOS, schemes=schemes)
    result = release(project, folder / "release", ReleaseConfig(name="Synthetic Emo8", licence="CC0-1.0"), progress)
    write_status_page(folder / "status.html", status(project), agreement, project.folder / "splits.png")
    project.store.close()
    return result


def demo_images(count: int) -> Mapping[str, bytes]:
    """Return files by name: synthetic scenes as JPEG, and after every twelfth one a file that screening must drop."""
    files: dict[str, bytes] = {}
    for index, sample in enumerate(synthetic(count).samples):
        image = Image.open(io.BytesIO(sample.image.read()))
        files[f"{index}.jpg"] = encode_image(image, "JPEG", quality=88)
        if index % 48 == 0:
            files[f"{index}-copy.jpg"] = files[f"{index}.jpg"]
        elif index % 48 == 12:
            files[f"{index}-smaller.jpg"] = encode_image(image.resize((288, 216)), "JPEG", quality=70)
        elif index % 48 == 24:
            files[f"{index}-tiny.jpg"] = encode_image(image.resize((64, 48)), "JPEG", quality=88)
        elif index % 48 == 36:
            files[f"{index}-page.jpg"] = b"<html>not an image</html>"
    return files


def _table_of(address: str, files: Iterable[str], count: int) -> str:
    """Return the table of addresses that collect reads."""
    data = synthetic(count)
    lines = ["address,label,keyword,title,licence,author"]
    for name in files:
        index = int(re.split("[.-]", name)[0])
        label = data.label_of(data.samples[index])
        lines.append(f"{address}/{name},{label},{label},{name},CC0 1.0,painter {index // 4}")
    return "\n".join(lines) + "\n"


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@contextmanager
def image_server(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files on this machine while the context lasts; yields the address."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=folder)) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


def annotate(project: Project, name: str, *, accuracy: float, seed: int, progress: Progress = silent) -> None:
    """Answer every image as a simulated annotator.

    Args:
        accuracy: Probability of answering the label that an image was searched for; otherwise the answer is a random
            label, or none.
    """
    invite(project, name)
    record_simulated(project, [name])
    with project.store.read() as connection:
        person = person_of(connection, name)
    rng = random.Random(seed)
    assigner = TaskAssigner(project)
    done = 0
    searched = searched_labels(project)
    total = project.count(pool())
    while tasks := assigner.next_tasks(person, 0, ANSWERS_PER_COMMIT):
        answers = []
        for task in tasks:
            correct = task.check_label or min(searched.get(task.picture_id, {NONE}))
            is_correct = rng.random() < accuracy
            label = correct if is_correct else rng.choice((*project.plan.labels, NONE))
            answers.append((person, AnswerIn(id=secrets.token_hex(16), task=task.id, label=label, seconds=1.0)))
        with project.store.write() as connection:
            save_answers(connection, answers)
        done += len(answers)
        progress(f"{name} answers", min(done, total), total)
