"""Rebuild the embedded model from data: a classifier of FI, a person finder, and their card. `make embedded` runs it.

Every step is one command, which is printed before it runs. Nothing in the package is changed: compare what lies in
runs/embedded with uniemox/predict/embedded, then copy it.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from uniemox.evaluate.scores import json_ready
from uniemox.finder.scores import read_labelled, score
from uniemox.persons.detector import load_detector

OUT = Path("runs/embedded")
# The two starts: ImageNet MobileNets whose batch norms are folded into their convolutions, so that they must stay as
# they are. The settings were chosen by cross-validation inside the training part, see docs/results.md.
STARTS = {
    "a": "timm:mobilenetv2_100@{}/mobilenetv2_100.imagenet_features.safetensors",
    "b": "timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5@{}/mobilenetv2_100.imagenet_1001.safetensors",
}
VIEW = ("--view.size", "224", "--view.crop-fraction", "1.0", "--network.drop-path", "0")
TUNING = (
    *("--view.min-area", "0.5", "--network.keep-norm-statistics", "--network.frozen-layers", "14"),
    *("--layer-decay", "none", "--optimizer.base-lr", "1.6e-3", "--head-lr-scale", "0.5", "--batch-size", "32"),
    *("--schedule.epochs", "6", "--schedule.warmup-epochs", "0.5", "--select", "last"),
    *("--augment.randaugment", "none", "--augment.erasing", "0", "--augment.mixup", "0.8"),
)


def uniemox(*words: str | Path, into: Path | None = None) -> None:
    """Print a command and run it, its standard output in a file if one is named. Ends the program if it fails."""
    line = shlex.join(["uniemox", *map(str, words)]) + (f" > {into}" if into else "")
    print(f"\n$ {line}", flush=True)
    started = time.perf_counter()
    command = [sys.executable, "-m", "uniemox", *map(str, words)]
    if into is None:
        done = subprocess.run(command, check=False)
    else:
        with into.open("w") as file:
            done = subprocess.run(command, check=False, stdout=file)
    if done.returncode:
        sys.exit(done.returncode)
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


def classifier(fi: str, starts: Path) -> None:
    """Fine-tune the last blocks of two networks on FI's training part; score their mean once on its validation part."""
    check = OUT / "check.json"
    uniemox("data", "check", fi, "--json", into=check)
    data = ("--data", fi, "--exclude", check)
    for name, start in STARTS.items():
        uniemox("finetune", "--init", start.format(starts), "--out", OUT / name, *data, *VIEW, *TUNING)
    run = OUT / "scene"
    uniemox("finetune", "--method", "mean", "--init", f"{OUT / 'a'},{OUT / 'b'}", "--out", run, *data, *VIEW)
    uniemox("evaluate", "--model", run, *data, "--split", "val")
    uniemox("export", run, "--out", OUT / "scene.onnx", "--float16")


def finder(people: list[str], starts: Path) -> None:
    """Train the person finder on what a published detector finds."""
    files = []
    for i, source in enumerate(people):
        files.append(OUT / f"persons-{i}.jsonl")
        detector = starts / "yolox_nano.onnx"
        uniemox("data", "persons", source, "--detector", detector, "--confidence", "0.1", "--out", files[-1])
    shown = ("--data", ",".join(people), "--persons", *files, "--exclude", OUT / "check.json", "--epochs", "28")
    uniemox("finder", "fit", *shown, "--start", STARTS["a"].format(starts), "--out", OUT / "finder.onnx")


def main() -> None:
    """Build all of it in runs/embedded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fi", required=True, help="KIND:PATH of FI")
    parser.add_argument("--people", required=True, nargs="+", help="KIND:PATH of pictures for the person finder")
    parser.add_argument("--starts", required=True, type=Path, help="folder of the published networks")
    parser.add_argument("--test-people", required=True, type=Path, help="folder of photographs with people's boxes")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    classifier(given.fi, given.starts)
    finder(given.people, given.starts)
    images, known = zip(*read_labelled(given.test_people), strict=True)
    scores = score(known, load_detector(OUT / "finder.onnx").detect(images))
    figures = {"people": scores.people, "recall": scores.recall, "large_recall": scores.large_recall}
    (OUT / "finder.json").write_text(json.dumps(json_ready(figures | {"precision": scores.precision})))
    print(f"\n{OUT}: scene.onnx, finder.onnx; figures in scene/evaluations and finder.json")


if __name__ == "__main__":
    main()
