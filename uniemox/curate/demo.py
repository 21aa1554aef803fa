"""The whole way on synthetic images: an image server on this machine, two simulated annotators, a release, a page."""

import http.client
import io
import json
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from sqlalchemy import select

from uniemox.curate import tables as t
from uniemox.curate.annotate.access import invite
from uniemox.curate.annotate.agree import agree
from uniemox.curate.annotate.serving import served
from uniemox.curate.annotate.verdicts import verdicts
from uniemox.curate.collect.config import CollectConfig
from uniemox.curate.collect.run import fetch, search
from uniemox.curate.collect.screen import screen
from uniemox.curate.collect.sources import address_table
from uniemox.curate.project import NONE, Project, create_project, searched_labels
from uniemox.curate.release.config import ReleaseConfig
from uniemox.curate.release.run import release
from uniemox.curate.release.splitting import split
from uniemox.curate.status import status
from uniemox.curate.status_page import write_status_page
from uniemox.data.synthetic import synthetic
from uniemox.io.progress import Progress, silent

ACCURACIES = {"Ada": 0.92, "Ben": 0.88}  # share of correct answers of each simulated annotator
RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}
MAX_PER_REQUEST = 10


def demo(folder: Path, *, count: int = 160, schemes: int = 20, progress: Progress = silent) -> dict[str, Any]:
    """Collect from a server on this machine, screen, annotate, agree, split and release; nothing leaves the machine.

    folder: gets the project, the release and status.html.  count: different images; one twelfth more are copies,
    broken, tiny, or no images.
    Returns the statistics of the release. Raises ConfigError if a project is there already.
    """
    project = create_project(folder / "project")
    images = demo_images(count)
    with image_server(images) as address:
        table = folder / "addresses.csv"
        table.write_text(_table_of(address, images, count), "utf-8")
        config = CollectConfig(rate=1000, tries=1, private_hosts=(urlsplit(address).netloc,))
        search(project, [address_table(table, project.plan)], config, progress)
        fetch(project, config, progress)
    screen(project, progress=progress)
    with served(project) as address:
        for seed, (name, accuracy) in enumerate(ACCURACIES.items()):
            token = invite(project, name)

            def answered(done: int, name: str = name) -> None:
                progress(f"{name} answers", min(done, count), count)

            annotate(project, address, token, accuracy=accuracy, seed=seed, on_answer=answered)
    agreement = agree(project)
    split(project, verdicts(project), RATIOS, schemes=schemes)
    made = release(project, folder / "release", ReleaseConfig(name="Synthetic Emo8", licence="CC0-1.0"), progress)
    write_status_page(folder / "status.html", status(project), agreement, project.folder / "splits.png")
    project.store.close()
    return made


def demo_images(count: int) -> Mapping[str, bytes]:
    """Return files by name: synthetic scenes as JPEG, and after every twelfth one a file that the screen must drop."""
    files: dict[str, bytes] = {}
    for index, sample in enumerate(synthetic(count).samples):
        image = Image.open(io.BytesIO(sample.image.read()))
        files[f"{index}.jpg"] = _jpeg(image, 88)
        if index % 48 == 0:
            files[f"{index}-copy.jpg"] = files[f"{index}.jpg"]
        elif index % 48 == 12:
            files[f"{index}-smaller.jpg"] = _jpeg(image.resize((288, 216)), 70)
        elif index % 48 == 24:
            files[f"{index}-tiny.jpg"] = _jpeg(image.resize((64, 48)), 88)
        elif index % 48 == 36:
            files[f"{index}-page.jpg"] = b"<html>not an image</html>"
    return files


def _table_of(address: str, files: Mapping[str, bytes], count: int) -> str:
    """Return the table of addresses that collect reads."""
    data = synthetic(count)
    lines = ["address,label,keyword,title,licence,author"]
    for name in files:
        index = int(name.split(".")[0].split("-")[0])
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


class SimulatedBrowser:
    """Session of a simulated annotator.  address: of the server, such as http://127.0.0.1:8000."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self._headers = {"Origin": address, "Content-Type": "application/json"}
        self.ask("POST", "/api/join", {"token": token})
        self._headers["X-CSRF"] = self.ask("GET", "/api/me")["csrf"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return JSON, or the bytes of an image. Raises ConnectionError for any status but 200."""
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ConnectionError(f"{method} {path}: {response.status} {data[:200]!r}")
        if cookie := response.headers.get("Set-Cookie"):
            self._headers["Cookie"] = cookie.partition(";")[0]
        return json.loads(data) if response.headers.get_content_type() == "application/json" else data

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def annotate(
    project: Project,
    address: str,
    token: str,
    *,
    accuracy: float = 0.9,
    seed: int = 0,
    on_answer: Callable[[int], None] = lambda _: None,
) -> int:
    """Answer every image over HTTP as a page does; return the number of answers.

    accuracy: probability of answering the label that an image was searched for, which is read from the database;
    otherwise the answer is a random label, or none.
    """
    rng, done = random.Random(seed), 0
    searched = searched_labels(project)
    choices = (*project.plan.labels, NONE)
    with closing(SimulatedBrowser(address, token)) as browser:
        while tasks := browser.ask("GET", "/api/tasks?limit=60")["tasks"]:
            for start in range(0, len(tasks), MAX_PER_REQUEST):
                part = [task["id"] for task in tasks[start : start + MAX_PER_REQUEST]]
                answers = []
                for task, correct in zip(part, _correct_labels(project, part, searched), strict=True):
                    browser.ask("GET", f"/api/pictures/{task}")
                    label = correct if rng.random() < accuracy else rng.choice(choices)
                    answers.append({"id": secrets.token_hex(16), "task": task, "label": label, "seconds": 1.0})
                done += len(browser.ask("POST", "/api/answers", {"answers": answers})["saved"])
                on_answer(done)
    return done


def _correct_labels(project: Project, numbers: Sequence[int], searched: Mapping[int, set[str]]) -> list[str]:
    query = select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label).where(t.tasks.c.id.in_(numbers))
    known = {row.id: row.check_label or min(searched.get(row.picture_id, {NONE})) for row in project.rows(query)}
    return [known[number] for number in numbers]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
