"""Many clients at once: every answer is for the image that was sent, with the predictor's own numbers; none is lost.

    python -m benchmarks.load --clients 64 --seconds 300

Starts a server in a process of its own and prints throughput, latency, and what was refused and tried again as told.
The exit code is 1 if an answer was lost, mixed up, or wrong.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from tests.serve.process import predictor_from, started
from tests.serve.serving import image
from uniemox.io.weight_names import EMBEDDED

DIFFERENT = 8
"""Images of each client, used in turn."""
TOLERANCE = 1e-5


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    mixed_up: int = 0
    wrong: int = 0
    furthest: float = 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """An image and what the predictor itself says of it."""

    data: bytes
    sha256: str
    scene: dict[str, float]


async def client(session: aiohttp.ClientSession, known: list[Known], end: float, tally: Tally) -> None:
    """One image after the other until the end; a refused one again after the time that the server asks for."""
    number = 0
    while time.monotonic() < end:
        one = known[number % len(known)]
        start = time.monotonic()
        try:
            async with session.post("/predict", data=one.data, headers={"Content-Type": "image/jpeg"}) as answer:
                if answer.status == 503:
                    tally.refused += 1
                    await answer.read()
                    await asyncio.sleep(int(answer.headers["Retry-After"]))
                    continue
                if answer.status != 200:
                    tally.lost.append(f"{answer.status}: {(await answer.text())[:200]}")
                    continue
                [found] = await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            tally.lost.append(f"{type(error).__name__}: {error}")
            continue
        tally.seconds.append(time.monotonic() - start)
        check(found, one, tally)
        number += 1


def check(found: dict, one: Known, tally: Tally) -> None:
    """Whether an answer is for this image, and right."""
    if found["sha256"] != one.sha256:
        tally.mixed_up += 1
        return
    away = max(abs(found["scene"][label] - p) for label, p in one.scene.items())
    tally.furthest = max(tally.furthest, away)
    tally.wrong += away > TOLERANCE


async def load(port: int, clients: list[list[Known]], seconds: float) -> Tally:
    """All clients for so long."""
    tally = Tally()
    end = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=len(clients))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        await asyncio.gather(*(client(session, known, end, tally) for known in clients))
    return tally


def run(clients: int, seconds: float, model: str | None, queue: int, timeout_s: float = 30) -> Tally:
    """Start a server, load it, stop it."""
    with tempfile.TemporaryDirectory(prefix="uniemox-load-") as folder:
        predictor = predictor_from(model, Path(folder))
        images = [image(seed, 320, 240) for seed in range(clients * DIFFERENT)]
        answers = predictor.predict(images)
        known = [
            Known(data, hashlib.sha256(data).hexdigest(), answer.scene)  # type: ignore[union-attr]
            for data, answer in zip(images, answers, strict=True)
        ]
        each = [known[i * DIFFERENT : (i + 1) * DIFFERENT] for i in range(clients)]
        with started(model, Path(folder), queue=queue, timeout_s=timeout_s) as (process, port):
            tally = asyncio.run(load(port, each, seconds))
            process.terminate()
            if process.wait(60) != 0:
                tally.lost.append(f"the server ended with {process.returncode}")
        if "Traceback" in (Path(folder) / "log.txt").read_text():
            tally.lost.append("a traceback in the server's log")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--model", help="a model; without it the embedded one, or a tiny one where there is none")
    parser.add_argument("--queue", type=int, default=64)
    given = parser.parse_args()
    model = given.model or ("embedded" if (EMBEDDED / "scene.onnx").is_file() else None)
    tally = run(given.clients, given.seconds, model, given.queue)
    times = np.array(tally.seconds or [np.nan])
    p50, p99 = np.percentile(times, [50, 99])
    print(
        f"{given.clients} clients, {given.seconds:g} s, model {model or 'tiny'}, queue {given.queue}: "
        f"{len(tally.seconds):,} answers, {len(tally.seconds) / given.seconds:.1f} a second; "
        f"p50 {p50:.3f} s, p99 {p99:.3f} s, longest {times.max():.3f} s; {tally.refused:,} times 503 and tried again; "
        f"lost = {len(tally.lost)}, mixed up = {tally.mixed_up}, other numbers = {tally.wrong} "
        f"(furthest {tally.furthest:.1e})"
    )
    for line in tally.lost[:10]:
        print(f"lost: {line}")
    if tally.lost or tally.mixed_up or tally.wrong or not tally.seconds:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
