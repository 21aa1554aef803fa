"""Pre-train, fine-tune and evaluate on synthetic scenes or on your own images. `make demo` runs it.

Every step is one command, which is printed; the last one writes a page of results.
"""

import json
import os
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.commands import run_command
from uniemox.data import DataSet, open_data
from uniemox.errors import UniemoxError
from uniemox.io import usable_cores

OUT = Path("runs/demo")
SCENES = "synthetic:4096"
TEST = "synthetic:512?seed=1"
SHORT_SIDE_PX = 144
# Fixed, because the number of threads changes results by rounding.
os.environ["OMP_NUM_THREADS"] = "2"


def uniemox(*words: str | Path) -> None:
    """Print a command and run it; if it fails, end the program with its exit code."""
    line = shlex.join(["uniemox", *map(str, words)])
    print(f"\n$ {line}", flush=True)
    started = time.perf_counter()
    code = run_command(list(map(str, words)))
    if code:
        sys.exit(code)
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


def pack(source: str) -> DataSet:
    """Add splits and texts if they are missing, and pack the data into one folder of shards."""
    dataset = open_data(source)
    options: list[str | Path] = []
    if all(sample.split is None for sample in dataset.samples):
        uniemox("data", "split", source, OUT / "splits.json")
        options += ["--splits", OUT / "splits.json"]
    if all(sample.text is None for sample in dataset.samples):
        uniemox("data", "describe", source, "--out", OUT / "texts.jsonl")
        options += ["--texts", OUT / "texts.jsonl"]
    uniemox("data", "shard", source, OUT / "pictures", "--short-side", str(SHORT_SIDE_PX), *options)
    return open_data(f"shards:{OUT / 'pictures'}")


def classify(streams: str, packed: str, scored: list[str]) -> Path:
    """Fine-tune and evaluate a classifier, and print both commands with their output when they are done.

    Args:
        streams: Views that it reads.
        packed: Data to train on.
        scored: Options that name the data to score.

    Returns:
        The folder of the run.
    """
    run = OUT / f"finetuned_{streams}"
    options = ["--network.streams", streams, "--init", str(OUT / "pretrained"), "--out", str(run)]
    finetune = ["finetune", "--preset", "demo", "--schedule.epochs", "3", "--data", packed, *options]
    print(f"\nFine-tuning on {streams} begins.", flush=True)
    for words in (finetune, ["evaluate", "--model", str(run), *scored]):
        started = time.perf_counter()
        output = OUT / f"{words[0]}_{streams}.log"
        code = run_command(words, output)
        seconds = time.perf_counter() - started
        printed = output.read_text("utf-8", "replace")
        print(f"\n$ {shlex.join(['uniemox', *words])}\n{printed}  ({seconds:.0f} s)", flush=True)
        if code:
            raise SystemExit(code)
    return run


def main(source: str) -> None:
    """Pack, fit a teacher, pre-train, fine-tune, evaluate, report."""
    started = time.perf_counter()
    # A source that can't be opened must not cost the results of an earlier demo.
    open_data(source)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    data = pack(source)
    packed = f"shards:{OUT / 'pictures'}"
    uniemox("teacher", "fit", "--data", packed, "--image-size", "72", "--out", OUT / "teacher")
    pretraining = ["--teacher.source", f"fitted:{OUT / 'teacher'}", "--out", OUT / "pretrained"]
    # The preset has one thread, for several runs side by side.
    pretraining += ["--hardware.threads", os.environ["OMP_NUM_THREADS"]]
    uniemox("pretrain", "--preset", "demo", "--data", packed, "--split", "train", *pretraining)
    has_people = any(sample.persons or sample.target_box for sample in data.samples)
    # Synthetic scenes are scored on new ones with another seed.
    scored = ["--data", TEST, "--split", "all"] if source == SCENES else ["--data", packed]
    # None of these keeps two cores busy, so they run at the same time.
    with ThreadPoolExecutor(usable_cores()) as pool:
        parts = ("both", "scene", "person") if has_people else ("scene",)
        runs = list(pool.map(lambda streams: classify(streams, packed, scored), parts))
    uniemox("report", *runs, OUT / "pretrained", "--out", OUT / "report.html")
    print()
    for run in runs:
        [scores] = [json.loads(file.read_text("utf-8")) for file in (run / "evaluations").glob("*.json")]
        low, high = scores["accuracy_interval"]
        print(f"{run.name:>18}: {scores['accuracy']:.1%} ({low:.1%} to {high:.1%}) of {scores['n']} new images")
    minutes = (time.perf_counter() - started) / 60
    print(f"All of it took {minutes:.1f} minutes. Open {OUT / 'report.html'} to look at it.")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else SCENES)
    except UniemoxError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
