"""Rebuild the embedded models from data: classifiers of FI and of expressions, finders of people and of faces.

`make embedded` runs it. Every step is one command of the project, which is printed before it runs. A step whose result
exists is not run again, and training that was stopped resumes. Nothing in the package is changed: compare the files in
runs/embedded with uniemox/predict/embedded, then copy them.
"""

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from recipes.finder.scores import read_labelled, score
from uniemox.data.seen import SEEN, seen_file
from uniemox.io.files import replacing
from uniemox.persons.detector import DetectorConfig, load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.opening import FINDER_CONFIDENCE

OUT = Path("runs/embedded")
# Initial weights. The batch norms of both MobileNets are folded into their convolutions, so the norms must stay
# unchanged; the EfficientNet lacks its last convolution.
STARTS = {
    "mobilenet-a": "timm:mobilenetv2_100@{}/mobilenetv2_100.imagenet_features.safetensors",
    "mobilenet-b": "timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5@{}/mobilenetv2_100.imagenet_1001.safetensors",
    "efficientnet": "timm:tf_efficientnet_b0?conv_head=none@{}/efficientnet_b0.duts_encoder.safetensors",
}
# Chosen on training images held out for the trials, see recipes/README.md; the final networks train on most of them.
# Networks are trained on smaller images than they predict: that takes half the time, and objects appear as large as in
# prediction, because random crops enlarge them.
BASE_LR = {"mobilenet-a": "2.4e-3", "mobilenet-b": "2.4e-3", "efficientnet": "2e-3"}
TRAINING = (
    *("--view.size", "176", "--view.crop-fraction", "1.0", "--view.min-area", "0.4", "--network.drop-path", "0"),
    *("--network.keep-norm-statistics", "--layer-decay", "0.8", "--ema-decay", "0.998", "--batch-size", "32"),
    *("--select", "last", "--augment.randaugment", "none", "--augment.erasing", "0", "--augment.mixup", "0.8"),
    *("--hardware.precision", "float32"),
)
TUNING = (*TRAINING, "--schedule.epochs", "10", "--schedule.warmup-epochs", "0.5")
JUDGING = ("--view.size", "224", "--view.crop-fraction", "1.0", "--hardware.precision", "float32")
LOGIT_ADJUSTMENT = ("--logit-adjustment", "0.5")
BALANCE = ("--select", "last", *LOGIT_ADJUSTMENT)
SMALL = "mobilenet-a"
SMALL_WEIGHTS = f"network-{list(STARTS).index(SMALL)}.safetensors"
# With 3e-4, the loss of the EfficientNet rises after the first 40 steps.
ROBUST_LR = ("3e-4", "3e-4", "8e-5")
# Weights in 8 bits do not change the EfficientNet's predictions; they change those of the MobileNets, whose batch norms
# are folded into the convolutions (recipes/README.md).
STORED = {"scene": ("--int8-weights", "--keep-float16", r"encoders\.(0\.blocks|1)\."), "small": ("--int8-weights",)}
FINDER_START = STARTS["mobilenet-a"]
FACES_START = STARTS["mobilenet-b"]
EXPRESSIONS = (
    *("--task", "distribution", "--calibrate-on", "labels", "--view.size", "96", "--view.crop-fraction", "1.0"),
    *("--view.min-area", "0.6", "--network.drop-path", "0", "--network.keep-norm-statistics", "--layer-decay", "0.8"),
    *("--ema-decay", "0.999", "--batch-size", "64", "--class-weighting", "none", "--schedule.epochs", "8"),
    *("--schedule.warmup-epochs", "0.5", "--select", "last", "--no-probe-first", "--optimizer.base-lr", "3e-3"),
    *("--augment.randaugment", "rand-m5-n2-mstd0.5", "--augment.erasing", "0.15", "--augment.mixup", "0.1"),
    *("--augment.cutmix", "0", "--hardware.precision", "float32"),
)


def uniemox(*words: str | Path, makes: Path | None, into: Path | None = None, program: str = "uniemox") -> None:
    """Print a command and run it, unless its result exists; end the program if it fails.

    Args:
        words: Arguments of the command.
        makes: File that the command writes at its end; None: the command resumes by itself.
        into: File for its standard output.
        program: Python module to run.
    """
    line = shlex.join(["python", "-m", program, *map(str, words)])
    if into:
        line += f" > {into}"
    print(f"\n$ {line}", flush=True)
    if makes is not None and makes.exists():
        print(f"  ({makes} is there)", flush=True)
        return
    started = time.perf_counter()
    command = [sys.executable, "-m", program, *map(str, words)]
    if into is None:
        result = subprocess.run(command, check=False)
    else:
        with replacing(into) as partial, partial.open("w") as file:
            result = subprocess.run(command, check=False, stdout=file)
            if result.returncode:
                sys.exit(result.returncode)
    if result.returncode:
        sys.exit(result.returncode)
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


def classifiers(fi: str, ratings: str, unlabelled: str, starts: Path) -> None:
    """Fine-tune three networks on FI's training part; score each, and their mean, once on its validation part.

    The networks then learn to compute the same features for altered images. Valence and arousal are learned from
    ratings, on the features of the finished networks.

    Args:
        fi: KIND:PATH of FI.
        ratings: KIND:PATH of images with valence and arousal.
        unlabelled: KIND:PATH of further photographs, for the features of altered images.
        starts: Folder of the published networks.
    """
    check = OUT / "check.json"
    uniemox("data", "check", fi, "--json", makes=check, into=check)
    data = ("--data", fi, "--exclude", check)

    def evaluate(model: Path, name: str) -> None:
        folder = model if model.is_dir() else model.parent
        words = ("--model", model, *data, "--split", "val", "--name", name)
        uniemox("evaluate", *words, makes=folder / "evaluations" / f"{name}.json")

    for name, start in STARTS.items():
        tuning = ("--init", start.format(starts), "--out", OUT / name, *data, *TUNING)
        uniemox("finetune", *tuning, "--optimizer.base-lr", BASE_LR[name], "--resume", makes=OUT / name / "model.onnx")
        evaluate(OUT / name, "val")
    parts_of = {"scene": ",".join(str(OUT / name) for name in STARTS), "small": str(OUT / SMALL)}
    for name, parts in parts_of.items():
        run = OUT / name
        judging = ("--method", "mean", "--init", parts, "--out", run, *data, *JUDGING, *BALANCE)
        uniemox("finetune", *judging, "--resume", makes=run / "model.onnx")
        # The exported files have the training images of the run, which evaluations refuse.
        shutil.copyfile(run / SEEN, OUT / SEEN)
        plain = OUT / f"{name}-plain.onnx"
        robust = OUT / f"{name}-robust.onnx"
        model = OUT / f"{name}.onnx"
        uniemox("export", run, "--out", plain, *STORED[name], makes=plain)
        networks = OUT / f"{name}-networks"
        if name == "small":
            # Its network is one of the three, which was trained as a part of `scene`.
            networks.mkdir(exist_ok=True)
            shutil.copyfile(OUT / "scene-networks" / SMALL_WEIGHTS, networks / "network-0.safetensors")
        training = (plain, *data, "--unlabelled", unlabelled, "--networks", networks, "--out", robust)
        uniemox(*training, "--lr", *ROBUST_LR, makes=robust, program="recipes.robust_features")
        # The further photographs count as training images, too.
        shutil.copyfile(seen_file(robust), OUT / SEEN)
        calibration = ("--ratings", "--json", "--model", robust, "--data", ratings, "--out", model)
        uniemox("calibrate", *calibration, makes=model, into=OUT / f"{name}-ratings.json")
        evaluate(model, name)


def finder(name: str, sources: list[str], starts: Path, detector: str, confidence: str, *options: str) -> None:
    """Train a finder on the boxes of a published detector, and store it for computing in 8 bits.

    Args:
        name: Name of the finder and its files.
        sources: KIND:PATH of images, FI first, whose placeholders are left out.
        starts: Folder of the published networks.
        detector: File name of the published detector in that folder.
        confidence: Minimum confidence of its boxes.
        options: Further options of the training.
    """
    files: list[Path] = []
    check = OUT / f"{name}-check.json"
    uniemox("data", "check", sources[0], "--json", makes=check, into=check)
    for i, source in enumerate(sources):
        files.append(OUT / f"{name}-{i}.jsonl")
        detection = ("--detector", starts / detector, "--confidence", confidence, "--out", files[-1])
        uniemox("data", "persons", source, *detection, makes=None)
    training_data: tuple[str | Path, ...] = ("--data", ",".join(sources), "--persons", *files, "--exclude", check)
    plain = OUT / f"{name}-float.onnx"
    model = OUT / f"{name}.onnx"
    start = ("--start", FINDER_START.format(starts), "--out", plain)
    uniemox("fit", *training_data, *options, *start, "--resume", makes=plain, program="recipes.finder")
    uniemox(plain, "--data", ",".join(sources), "--out", model, makes=model, program="recipes.int8")


def faces(images: list[str], ferplus: str, starts: Path) -> None:
    """Train the face finder, and the classifier of facial expressions."""
    finder("faces", images, starts, "yunet_n.onnx", "0.3", "--coarsest", "16", "--width", "64", "--epochs", "14")
    run = OUT / "expressions"
    check = OUT / "expressions-check.json"
    # Some faces of train are in val too.
    uniemox("data", "check", ferplus, "--json", makes=check, into=check)
    words = ("--init", FACES_START.format(starts), "--data", ferplus, "--exclude", check, "--out", run, *EXPRESSIONS)
    uniemox("finetune", *words, "--resume", makes=run / "model.onnx")
    uniemox("export", run, "--out", OUT / "expressions.onnx", "--int8-weights", makes=OUT / "expressions.onnx")


def main() -> None:
    """Build all models in runs/embedded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fi", required=True, help="KIND:PATH of FI, several with commas between")
    parser.add_argument("--ratings", required=True, help="KIND:PATH of images with valence and arousal, likewise")
    parser.add_argument("--unlabelled", required=True, help="KIND:PATH of further photographs, likewise")
    parser.add_argument(
        "--people", required=True, nargs="+", help="KIND:PATH of images for the person finder, FI first"
    )
    parser.add_argument("--faces", required=True, nargs="+", help="KIND:PATH of images for the face finder, FI first")
    parser.add_argument("--ferplus", required=True, help="KIND:PATH of faces with votes")
    parser.add_argument("--starts", required=True, type=Path, help="folder of the published networks")
    parser.add_argument("--test-people", required=True, type=Path, help="folder of photographs with people's boxes")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    classifiers(args.fi, args.ratings, args.unlabelled, args.starts)
    finder("finder", args.people, args.starts, "yolox_nano.onnx", "0.1", "--epochs", "28")
    faces(args.faces, args.ferplus, args.starts)
    images, labelled = zip(*read_labelled(args.test_people), strict=True)
    detector = load_detector(OUT / "finder.onnx", DetectorConfig(confidence=FINDER_CONFIDENCE / 2))
    scores = score(labelled, MirrorDetector(detector, FINDER_CONFIDENCE).detect(images))
    figures = {"people": scores.people, "recall": scores.recall, "large_recall": scores.large_recall}
    (OUT / "finder.json").write_text(json.dumps(figures | {"precision": scores.precision}))
    print(f"\n{OUT}: figures in evaluations, *-ratings.json and finder.json; sha256 for the model card:")
    for name in ("scene", "small", "finder", "faces", "expressions"):
        digest = hashlib.sha256((OUT / f"{name}.onnx").read_bytes()).hexdigest()
        print(f"| `{name}.onnx` | `{digest}` |")


if __name__ == "__main__":
    main()
