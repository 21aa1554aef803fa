"""Load a server with many clients, and check that no answer is lost, for another image, or not the predictor's own.

    python -m benchmarks.load --clients 64 --seconds 300

Starts a server in a process of its own and prints throughput, latency, and the number of requests that were refused and
sent again as the server asked. The exit code is 1 if an answer was lost, mixed up, or wrong.
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
    """Results of the requests."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    mixed_up: int = 0
    wrong: int = 0
    furthest: float = 0.0


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image and the predictor's own probabilities for it."""

    data: bytes
    sha256: str
    scene: dict[str, float]


async def client(session: aiohttp.ClientSession, images: list[KnownImage], end: float, tally: Tally) -> None:
    """Send one image after the other until the end, and a refused one again after the time that the server asks for."""
    number = 0
    while time.monotonic() < end:
        image = images[number % len(images)]
        start = time.monotonic()
        try:
            async with session.post("/predict", data=image.data, headers={"Content-Type": "image/jpeg"}) as response:
                if response.status == 503:
                    tally.refused += 1
                    await response.read()
                    await asyncio.sleep(int(response.headers["Retry-After"]))
                    continue
                if response.status != 200:
                    tally.lost.append(f"{response.status}: {(await response.text())[:200]}")
                    continue
                [answer_json] = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            tally.lost.append(f"{type(error).__name__}: {error}")
            continue
        tally.seconds.append(time.monotonic() - start)
        check(answer_json, image, tally)
        number += 1


def check(answer: dict, image: KnownImage, tally: Tally) -> None:
    """Count an answer that is for another image, or has other probabilities."""
    if answer["sha256"] != image.sha256:
        tally.mixed_up += 1
        return
    difference = max(abs(answer["scene"][label] - probability) for label, probability in image.scene.items())
    tally.furthest = max(tally.furthest, difference)
    tally.wrong += difference > TOLERANCE


async def load(port: int, clients: list[list[KnownImage]], seconds: float) -> Tally:
    """Run all clients for a number of seconds."""
    tally = Tally()
    end = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=len(clients))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        await asyncio.gather(*(client(session, images, end, tally) for images in clients))
    return tally


def run(clients: int, seconds: float, model: str | None, queue: int, timeout_s: float = 30) -> Tally:
    """Start a server, load it, and stop it."""
    with tempfile.TemporaryDirectory(prefix="uniemox-load-") as folder:
        predictor = predictor_from(model, Path(folder))
        images = [image(seed, 320, 240) for seed in range(clients * DIFFERENT)]
        answers = predictor.predict_many(images)
        known_images = [
            KnownImage(data, hashlib.sha256(data).hexdigest(), answer.scene)  # type: ignore[union-attr]
            for data, answer in zip(images, answers, strict=True)
        ]
        images_by_client = [known_images[i * DIFFERENT : (i + 1) * DIFFERENT] for i in range(clients)]
        with started(model, Path(folder), queue=queue, timeout_s=timeout_s) as (process, port):
            tally = asyncio.run(load(port, images_by_client, seconds))
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
    args = parser.parse_args()
    model = args.model or ("embedded" if (EMBEDDED / "scene.onnx").is_file() else None)
    tally = run(args.clients, args.seconds, model, args.queue)
    times = np.array(tally.seconds or [np.nan])
    p50, p99 = np.percentile(times, [50, 99])
    print(
        f"{args.clients} clients, {args.seconds:g} s, model {model or 'tiny'}, queue {args.queue}: "
        f"{len(tally.seconds):,} answers, {len(tally.seconds) / args.seconds:.1f} a second; "
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
