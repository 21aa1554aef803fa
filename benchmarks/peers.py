"""Compare commands with plain scripts: `python -m benchmarks.peers FOLDER --rounds 5`, with a folder of photographs.

The plain scripts are what an engineer writes in thirty lines with onnxruntime and Pillow: the same networks and views,
two threads that take one photograph each, no checks. Commands and scripts run in turns, each as a process of its own,
because other processes may share the cores. Printed are the medians of time and of processor time, and how many times
as fast the command is.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

# Not imported from the package, whose modules take time that a plain script does not need.
EMBEDDED = Path(__file__).resolve().parents[1] / "uniemox" / "predict" / "embedded"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SIZE = 224
SHORT_PX = 248
THREADS = 2
GRAPHS = {"embedded": "scene.onnx", "small": "small.onnx"}
PREDICT = "predict"
INDEX = "index"


def plain_view(path: Path) -> NDArray[np.float32]:
    """Return the normalised view of a photograph, (1, 3, 224, 224)."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_PX / min(image.size)
    width, height = (max(SHORT_PX, int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    x, y = round((width - SIZE) / 2), round((height - SIZE) / 2)
    pixels = np.asarray(image.crop((x, y, x + SIZE, y + SIZE)), np.float32) / 255
    view: NDArray[np.float32] = np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1)[None])
    return view


def run_plain(work: str, graph: Path, folder: Path, out: Path) -> None:
    """Write the logits of all photographs as a table, or their features as an array."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(graph, options)
    paths = sorted(folder.glob("*.jpg"))
    output = "logits" if work == PREDICT else "features"
    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(lambda path: session.run([output], {"scene": plain_view(path)})[0][0], paths))
    if work == INDEX:
        np.save(out, np.stack(rows))
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([path, *row] for path, row in zip(paths, rows, strict=True))


def cost_of(command: Sequence[str]) -> tuple[float, float]:
    """Return the time and the processor time of a command and its children, s."""
    before = os.times()
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def compare(name: str, ours: Callable[[], Sequence[str]], plain: Sequence[str], rounds: int) -> None:
    """Run a command and a plain script in turns, and print a line."""
    costs = [(cost_of(ours()), cost_of(plain)) for _ in range(rounds)]
    (seconds, used), (plain_seconds, plain_used) = (
        [statistics.median(round_costs[side][i] for round_costs in costs) for i in (0, 1)] for side in (0, 1)
    )
    print(
        f"{name}: {seconds:.2f} s against {plain_seconds:.2f} s, {plain_seconds / seconds:.2f} times as fast; "
        f"processor time {used:.2f} s against {plain_used:.2f} s, {plain_used / used:.2f} times"
    )


def main() -> None:
    """Compare prediction, the first answer and the first search of a folder, with both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of JPEGs; the first 400 are used")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        work, graph, out = args.plain
        run_plain(work, Path(graph), args.folder, Path(out))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        one = folder / "one"
        for target in (photos, one):
            target.mkdir()
        for number, path in enumerate(sorted(args.folder.rglob("*.jpg"))[:400]):
            shutil.copy(path, photos / f"{number:03d}.jpg")
        first = shutil.copy(photos / "000.jpg", one)
        uniemox = (sys.executable, "-m", "uniemox")
        for model, graph in GRAPHS.items():
            out = folder / "out"

            def plain(work: str, source: Path, *, graph: str = graph, out: Path = out) -> list[str]:
                module = (sys.executable, "-m", "benchmarks.peers")
                return [*module, str(source), "--plain", work, str(EMBEDDED / graph), str(out)]

            def predict(*, model: str = model) -> list[str]:
                table = folder / "table.csv"
                for stale in folder.glob("table.csv*"):
                    stale.unlink()
                return [*uniemox, "predict", str(photos), "--model", model, "--no-persons", "--out", str(table)]

            def search(*, model: str = model) -> list[str]:
                shutil.rmtree(photos / ".uniemox", ignore_errors=True)
                return [*uniemox, "search", str(photos), "--model", model, "--like", str(first)]

            answer = [*uniemox, "predict", str(first), "--model", model, "--no-persons", "--json"]
            count = len(list(photos.glob("*.jpg")))
            compare(f"predict {count} photographs, {model}", predict, plain(PREDICT, photos), args.rounds)
            compare(f"first answer, {model}", partial(list, answer), plain(PREDICT, one), args.rounds)
            compare(f"first search (finds people, too), {model}", search, plain(INDEX, photos), args.rounds)


if __name__ == "__main__":
    main()
