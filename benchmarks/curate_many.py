"""Curate as many images as Emo8 began with, through all steps: `python -m benchmarks.curate_many`.

13,200 images of at most 100 kB come from a server on this machine, in a process of its own. They are screened,
annotated by two programs that load every image over HTTP, agreed on, split and released. Prints JSON: seconds of each
step, and the peak memory of this process and its children, without the server of images.
"""

import argparse
import http.client
import json
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select

from tests.curate.places import served
from tests.drawn import draw_image, jpeg_of
from uniemox.labels import MIKELS
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.agree import agree
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.run import fetch, search
from uniemox_curate.collect.screen import screen
from uniemox_curate.collect.sources import address_table
from uniemox_curate.demo import RATIOS
from uniemox_curate.project import NONE, Project, create_project, searched_labels
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split

# Files of 80 to 95 kB.
SIZE = (1024, 768)
QUALITY = 95
MAX_PER_REQUEST = 10


class SimulatedBrowser:
    """Session of a simulated annotator.

    Args:
        address: Address of the server, such as http://127.0.0.1:8000.
        token: Invitation of the annotator.
    """

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self._headers = {"Origin": address, "Content-Type": "application/json"}
        self.ask("POST", "/api/join", {"token": token})
        self._headers["X-CSRF"] = self.ask("GET", "/api/me")["csrf"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return JSON, or the bytes of an image.

        Raises:
            ConnectionError: If the status is not 200.
        """
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ConnectionError(f"{method} {path}: {response.status} {data[:200]!r}")
        if cookie := response.headers.get("Set-Cookie"):
            self._headers["Cookie"] = cookie.partition(";")[0]
        if response.headers.get_content_type() == "application/json":
            return json.loads(data)
        return data

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def annotate(project: Project, address: str, token: str, *, accuracy: float = 0.9, seed: int = 0) -> int:
    """Answer every image over HTTP as a page does; return the number of answers.

    Args:
        project: The project.
        address: Address of the server.
        token: Invitation of the annotator.
        accuracy: Probability of the label that an image was searched for; otherwise a random label, or none.
        seed: Random seed of the answers.
    """
    rng = random.Random(seed)
    done = 0
    searched_for = searched_labels(project)
    choices = (*project.plan.labels, NONE)
    with closing(SimulatedBrowser(address, token)) as browser:
        while tasks := browser.ask("GET", "/api/tasks?limit=60")["tasks"]:
            for start in range(0, len(tasks), MAX_PER_REQUEST):
                task_ids = [task["id"] for task in tasks[start : start + MAX_PER_REQUEST]]
                answers = []
                for task, correct_label in zip(task_ids, _correct_labels(project, task_ids, searched_for), strict=True):
                    browser.ask("GET", f"/api/pictures/{task}")
                    label = correct_label if rng.random() < accuracy else rng.choice(choices)
                    answers.append({"id": secrets.token_hex(16), "task": task, "label": label, "seconds": 1.0})
                done += len(browser.ask("POST", "/api/answers", {"answers": answers})["saved"])
    return done


def _correct_labels(project: Project, numbers: Sequence[int], searched: Mapping[int, set[str]]) -> list[str]:
    query = select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label).where(t.tasks.c.id.in_(numbers))
    label_of = {row.id: row.check_label or min(searched.get(row.picture_id, {NONE})) for row in project.rows(query)}
    return [label_of[number] for number in numbers]


def draw_one(path: Path) -> int:
    data = jpeg_of(draw_image(int(path.stem), SIZE), QUALITY)
    path.write_bytes(data)
    return len(data)


def serve_folder(folder: Path, pipe: Connection) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    pipe.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def watched_memory(without: int) -> Iterator[list[float]]:
    """Record the peak resident memory, MB, of this process and its descendants but one; yields a list of one value."""
    peak_mb = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak_mb[0] = max(peak_mb[0], sum(map(resident, family(os.getpid(), without))) / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak_mb
    finally:
        stop.set()
        thread.join()


def family(parent: int, without: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{parent}/task").iterdir()
        children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except OSError:
        children = []
    return [parent, *(pid for child in children if child != without for pid in family(child, without))]


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def all_steps(folder: Path, address: str, count: int, schemes: int) -> dict[str, object]:
    seconds: dict[str, float] = {}
    figures: dict[str, object] = {"pictures": count, "seconds": seconds}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)

    project = create_project(folder / "p")
    lines = [f"{address}/{i}.jpg,{MIKELS.labels[i % 8]}" for i in range(count)]
    (folder / "addresses.csv").write_text("\n".join(["address,label", *lines]))
    with step("collect"):
        config = CollectConfig(rate=100_000, private_hosts=(address.removeprefix("http://"),))
        search(project, [address_table(folder / "addresses.csv", project.plan)], config)
        figures["collected"] = fetch(project, config)
    with step("screen"):
        figures["screened"] = screen(project)
    with step("annotate"), served(project) as pages:
        answers = [annotate(project, pages, invite(project, name), seed=i) for i, name in enumerate(("Ada", "Ben"))]
        figures["answers"] = answers
    with step("agree"):
        agreement = agree(project)
        figures["alpha"] = round(agreement.alpha.value, 3)
    with step("split"):
        figures["split"] = split(project, verdicts(project), RATIOS, schemes=schemes)["sizes"]
    with step("release"):
        figures["released"] = release(project, folder / "release", ReleaseConfig(name="many"))["pictures"]
    seconds["all"] = round(sum(seconds.values()), 1)
    project.store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=13_200)
    parser.add_argument("--schemes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        with ProcessPoolExecutor() as pool:
            sizes = list(pool.map(draw_one, [folder / "in" / f"{i}.jpg" for i in range(options.count)], chunksize=64))
        receiver, sender = get_context("spawn").Pipe()
        server = get_context("spawn").Process(target=serve_folder, args=(folder / "in", sender), daemon=True)
        server.start()
        address = f"http://127.0.0.1:{receiver.recv()}"
        with watched_memory(server.pid or 0) as peak_mb:
            figures = all_steps(folder, address, options.count, options.schemes)
        server.terminate()
        print(
            json.dumps({**figures, "largest_kb": round(max(sizes) / 1000, 1), "memory_mb": round(peak_mb[0])}, indent=1)
        )


if __name__ == "__main__":
    main()
