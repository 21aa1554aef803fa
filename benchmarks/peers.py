"""Compare commands with plain scripts: `python -m benchmarks.peers FOLDER --rounds 5`, with a folder of photographs.

The plain scripts are what an engineer writes in thirty lines with onnxruntime and Pillow: the same networks, one view
of each photograph, two threads that take one photograph each, no checks. Commands and scripts run in turns, each as a
process of its own, because other processes may share the cores. Printed are the medians of time and of processor time,
and how many times as fast the command is.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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
MAX_PHOTOS = 400
# Folders of the photographs, and of the first one alone.
PHOTOS = "photos"
ONE = "one"
# Work of a plain script.
PREDICT = "predict"
INDEX = "index"


def plain_view(path: Path) -> NDArray[np.float32]:
    """Return the normalised view of a photograph, (1, 3, 224, 224)."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_PX / min(image.size)
    width, height = (max(SHORT_PX, int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    x = round((width - SIZE) / 2)
    y = round((height - SIZE) / 2)
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


class Cost(NamedTuple):
    """Cost of a command and its children, s."""

    seconds: float
    processor_s: float


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command."""
    before = os.times()
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = os.times()
    user_s = after.children_user - before.children_user
    system_s = after.children_system - before.children_system
    return Cost(seconds, user_s + system_s)


def median_of(costs: Sequence[Cost]) -> Cost:
    """Return the medians of costs."""
    return Cost(
        statistics.median(cost.seconds for cost in costs), statistics.median(cost.processor_s for cost in costs)
    )


class Comparison:
    """Comparisons of one model.

    Args:
        model: Name of the model.
        folder: Folder with PHOTOS, and with ONE, which has a single photograph; files are written there.
        rounds: How often each command and each script runs.
    """

    def __init__(self, model: str, folder: Path, rounds: int) -> None:
        self.model = model
        self.folder = folder
        self.rounds = rounds
        self.photo = next((folder / ONE).iterdir())

    def run(self) -> None:
        """Compare prediction, the first answer and the first search, and print a line for each."""
        photos = str(self.folder / PHOTOS)
        table = self.folder / "table.csv"
        predict = ("predict", photos, "--no-persons", "--out", str(table))
        answer = ("predict", str(self.photo), "--no-persons", "--json")
        search = ("search", photos, "--like", str(self.photo))
        self._compare("predict", predict, (PREDICT, PHOTOS))
        self._compare("first answer", answer, (PREDICT, ONE))
        self._compare("first search", search, (INDEX, PHOTOS))

    def _compare(self, name: str, command: Sequence[str], plain: tuple[str, str]) -> None:
        """Run a command and a plain script in turns, and print a line.

        Args:
            name: What is compared.
            command: Arguments of uniemox.
            plain: Work of the script, and the name of its folder.
        """
        work, source = plain
        graph = EMBEDDED / GRAPHS[self.model]
        script = ("benchmarks.peers", str(self.folder / source), "--plain", work, str(graph), str(self.folder / "out"))
        costs = []
        plain_costs = []
        for _ in range(self.rounds):
            self._forget()
            costs.append(cost_of([sys.executable, "-m", "uniemox", *command, "--model", self.model]))
            plain_costs.append(cost_of([sys.executable, "-m", *script]))
        ours = median_of(costs)
        theirs = median_of(plain_costs)
        print(
            f"{name}, {self.model}: {ours.seconds:.2f} s against {theirs.seconds:.2f} s, "
            f"{theirs.seconds / ours.seconds:.2f} times as fast; processor time {ours.processor_s:.2f} s against "
            f"{theirs.processor_s:.2f} s, {theirs.processor_s / ours.processor_s:.2f} times"
        )

    def _forget(self) -> None:
        """Remove answers that a command would continue or read."""
        for stale in self.folder.glob("table.csv*"):
            stale.unlink()
        shutil.rmtree(self.folder / PHOTOS / ".uniemox", ignore_errors=True)


def main() -> None:
    """Compare both models of the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"folder of JPEGs; the first {MAX_PHOTOS} are used")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        work, graph, out = args.plain
        run_plain(work, Path(graph), args.folder, Path(out))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (PHOTOS, ONE):
            (folder / part).mkdir()
        paths = sorted(args.folder.rglob("*.jpg"))[:MAX_PHOTOS]
        for number, path in enumerate(paths):
            shutil.copy(path, folder / PHOTOS / f"{number:03d}.jpg")
        shutil.copy(paths[0], folder / ONE)
        print(f"{len(paths)} photographs")
        for model in GRAPHS:
            Comparison(model, folder, args.rounds).run()


if __name__ == "__main__":
    main()
