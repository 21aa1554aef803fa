"""Load the annotation server with many annotators, and kill it meanwhile: `python -m benchmarks.curate_load`.

200 annotators give 100 answers a second for two minutes and load an image for each; the server is killed (SIGKILL)
three times in the middle and started again. Server and annotators share this machine's cores. Prints JSON: latencies
from the moment an answer was due until it was acknowledged, and the number of acknowledged answers that the database
lacks.
"""

import argparse
import asyncio
import json
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
from sqlalchemy import select

from tests.curate.places import LABELS, project_of
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import invite
from uniemox_curate.project import Project

IMAGES = 400
SERVE = "import sys; from uniemox_curate.cli.curate import curate; curate(sys.argv[1:])"
# Time after a restart in which answers that waited for the server are sent.
SETTLED_S = 1.0


@dataclass
class Figures:
    """Measurements of a run."""

    acknowledged: set[str] = field(default_factory=set)
    answers: list[tuple[float, float]] = field(default_factory=list)  # when due, and seconds until acknowledged
    pictures: list[float] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    retries: int = 0
    ready: int = 0  # annotators that have joined


class Server:
    """Server as users start it, in a process of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.command = [sys.executable, "-c", SERVE, "serve", str(folder), "--port", str(port)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


async def is_up(session: aiohttp.ClientSession, address: str) -> None:
    while True:
        try:
            async with session.get(f"{address}/annotate"):
                return
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)


async def annotator(
    address: str, token: str, due_times: list[float], start: asyncio.Future[float], figures: Figures
) -> None:
    """Answer at given times after the start; send an answer again, with the same id, until it is acknowledged.

    Args:
        address: Address of the server.
        token: Invitation of the annotator.
        due_times: Seconds after the start at which answers are due.
        start: Time of the start, once all annotators have joined.
        figures: Measurements, which are added to.
    """
    # `unsafe` allows cookies of an IP address.
    jar = aiohttp.CookieJar(unsafe=True)
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout, headers={"Origin": address}) as session:

        async def ask(path: str, body: object = None) -> dict:
            while True:
                try:
                    if body is None:
                        sent = session.get(address + path)
                    else:
                        sent = session.post(address + path, json=body)
                    async with sent as response:
                        if response.status != 200:
                            raise RuntimeError(f"{path}: {response.status} {await response.text()}")
                        if path.startswith("/api/pictures"):
                            return {}
                        return await response.json()
                except (aiohttp.ClientError, TimeoutError):
                    figures.retries += 1
                    await asyncio.sleep(random.uniform(0.1, 0.4))

        await ask("/api/join", {"token": token})
        session.headers["X-CSRF"] = (await ask("/api/me"))["csrf"]
        tasks = [task["id"] for task in (await ask("/api/tasks?limit=60"))["tasks"]]
        figures.ready += 1
        for due_at in [await asyncio.shield(start) + after for after in due_times]:
            if not tasks:
                tasks = [task["id"] for task in (await ask("/api/tasks?limit=60"))["tasks"]]
            task = tasks.pop(0)
            await asyncio.sleep(max(0.0, due_at - 1 - time.monotonic()))
            start_loading = time.monotonic()
            await ask(f"/api/pictures/{task}")
            figures.pictures.append(time.monotonic() - start_loading)
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            answer = {"id": secrets.token_hex(16), "task": task, "label": random.choice(LABELS), "seconds": 1.0}
            saved = (await ask("/api/answers", {"answers": [answer]}))["saved"]
            figures.acknowledged.update(saved)
            figures.answers.append((due_at, time.monotonic() - due_at))


async def load(project: Project, address: str, server: Server, options: argparse.Namespace) -> Figures:
    figures = Figures()
    async with aiohttp.ClientSession() as session:
        await is_up(session, address)
    tokens = [invite(project, f"annotator {i}") for i in range(options.annotators)]
    start: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    interval_s = options.annotators / options.rate
    answers_per_annotator = int(options.seconds / interval_s)
    runs = []
    for i, token in enumerate(tokens):
        due = [1 + (i + random.random()) / options.rate + j * interval_s for j in range(answers_per_annotator)]
        runs.append(asyncio.create_task(annotator(address, token, due, start, figures)))
    while figures.ready < len(runs):
        await asyncio.sleep(0.05)
    start_time = time.monotonic()
    figures.retries = 0
    start.set_result(start_time)
    async with aiohttp.ClientSession() as session:
        for k in range(options.kills):
            await asyncio.sleep(
                max(0.0, start_time + (k + 1) * options.seconds / (options.kills + 1) - time.monotonic())
            )
            down = time.monotonic()
            server.kill()
            server.start()
            await is_up(session, address)
            figures.outages.append((down, time.monotonic() + SETTLED_S))
    await asyncio.gather(*runs)
    return figures


def report(project: Project, figures: Figures, options: argparse.Namespace) -> dict[str, object]:
    """Return all figures; latencies of answers that were due while the server was down are listed separately."""
    stored = {row.client_id for row in project.rows(select(t.answers.c.client_id))}
    calm_latencies = [
        latency
        for due_at, latency in figures.answers
        if not any(down - 1 <= due_at <= up for down, up in figures.outages)
    ]
    all_latencies = [latency for _, latency in figures.answers]
    due_times = [due_at for due_at, _ in figures.answers]
    return {
        "annotators": options.annotators,
        "answers": len(all_latencies),
        "answers_per_s": round(len(all_latencies) / (max(due_times) - min(due_times)), 1),
        "acknowledged": len(figures.acknowledged),
        "lost": len(figures.acknowledged - stored),
        "not_acknowledged_but_there": len(stored - figures.acknowledged),
        "kills": options.kills,
        "outages_s": [round(up - down - SETTLED_S, 2) for down, up in figures.outages],
        "retries": figures.retries,
        "p50_ms": round(1000 * float(np.quantile(calm_latencies, 0.5)), 1),
        "p99_ms": round(1000 * float(np.quantile(calm_latencies, 0.99)), 1),
        "p99_with_outages_ms": round(1000 * float(np.quantile(all_latencies, 0.99)), 1),
        "picture_p99_ms": round(1000 * float(np.quantile(figures.pictures, 0.99)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100, help="answers a second, of all together")
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder) / "p", [LABELS[i % 2] for i in range(IMAGES)])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = Server(Path(folder) / "p", port)
        server.start()
        try:
            figures = asyncio.run(load(project, f"http://127.0.0.1:{port}", server, options))
        finally:
            server.kill()
        print(json.dumps(report(project, figures, options), indent=1))
        project.store.close()


if __name__ == "__main__":
    main()
