"""Measure speed and accuracy of scene.onnx with parts computed in 8 bits: figures of recipes/README.md.

    python -m recipes.int8_scene --data fi:fi

Ranges come from 96 training images; the split val is scored. Times are of one thread, in turns.
"""

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.data.sample import Sample
from uniemox.data.source import open_data
from uniemox.export.int8 import quantise
from uniemox.export.onnx import METADATA_KEY
from uniemox.io.onnx_sessions import open_session, unpack_weights
from uniemox.io.weight_names import EMBEDDED
from uniemox.predict.confidence import probabilities_of
from uniemox.views.config import ViewConfig
from uniemox.views.loader import load_batches
from uniemox.views.transforms import EvalViews

SCENE = EMBEDDED / "scene.onnx"
CALIBRATION_IMAGES = 96
TIMED_IMAGES = 12
MOBILENETS = r"encoders\.[01]\."
PROJECTIONS = r"encoders\.2\..*conv_pwl"
AFTER_FIRST = r"encoders\.[01]\.(blocks\.[1-6]\.|conv_head)"
PARTS = {
    "MobileNets": MOBILENETS,
    "MobileNets without the first block, projections": f"{AFTER_FIRST}|{PROJECTIONS}",
    "the same, and expansions": rf"{AFTER_FIRST}|encoders\.2\..*conv_pw",
    "blocks 1 to 4": r"encoders\.[01]\.blocks\.[1-4]\.|encoders\.2\.blocks\.[0-4].*conv_pwl",
}


def views_of(samples: Sequence[Sample], info: ClassifierInfo) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return pixels (N, 3, S, S), normalised, and labels (N,)."""
    middle, scale = (np.array(value, np.float32).reshape(3, 1, 1) * 255 for value in (info.mean, info.std))
    batches = list(load_batches(samples, EvalViews(ViewConfig.of(info)), 32))
    pixels = np.concatenate([(batch.scene.numpy().astype(np.float32) - middle) / scale for batch in batches])
    return pixels, np.array([sample.label for batch in batches for sample in batch.samples])


@dataclass(frozen=True)
class NetworkOutputs:
    """Outputs of a network for N images."""

    probabilities: NDArray[np.float64]  # (N, E)
    features: NDArray[np.float32]  # (N, D)


def run_network(session: InferenceSession, pixels: NDArray[np.float32], temperature: float | None) -> NetworkOutputs:
    """Return the outputs for pixels, (N, 3, S, S)."""
    name = session.get_inputs()[0].name
    parts = [session.run(["logits", "features"], {name: pixels[i : i + 16]}) for i in range(0, len(pixels), 16)]
    logits, features = (np.concatenate(part) for part in zip(*parts, strict=True))
    return NetworkOutputs(probabilities_of(logits, temperature), features)


def measure_speedup(before: InferenceSession, after: InferenceSession, pixels: NDArray[np.float32]) -> float:
    """Return how many times as fast the second network is, by the median times of single images, in turns."""
    times: dict[InferenceSession, list[float]] = {before: [], after: []}
    for number in range(TIMED_IMAGES):
        for session, durations in times.items():
            start = time.process_time()
            run_network(session, pixels[number : number + 1], None)
            durations.append(time.process_time() - start)
    return float(np.median(times[before]) / np.median(times[after]))


def row_of(name: str, speedup: float, before: NetworkOutputs, after: NetworkOutputs, labels: NDArray[np.int64]) -> str:
    """Return a row of the table."""
    cosine = (
        (before.features * after.features).sum(axis=1)
        / np.linalg.norm(before.features, axis=1)
        / np.linalg.norm(after.features, axis=1)
    )
    loss = -np.log(after.probabilities[np.arange(len(labels)), labels]).mean()
    accuracy = (after.probabilities.argmax(axis=1) == labels).mean()
    change = np.abs(after.probabilities - before.probabilities).mean()
    return f"| {name} | {speedup:.2f} | {accuracy:.1%} | {loss:.3f} | {change:.3f} | {cosine.mean():.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="KIND:PATH with splits train and val")
    data = open_data(parser.parse_args().data, with_texts=False)
    # onnxruntime prints advice on the root logger.
    logging.root.setLevel(logging.ERROR)
    info = read_info({item.key: item.value for item in onnx.load(SCENE).metadata_props}[METADATA_KEY])
    train = [sample for sample in data.samples if sample.split == "train"]
    ranges, _ = views_of(random.Random(0).sample(train, CALIBRATION_IMAGES), info)
    pixels, labels = views_of([sample for sample in data.samples if sample.split == "val"], info)

    print("| in 8 bits | times faster | accuracy | log loss | mean change of p | cosine of features |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        small = Path(folder) / "int8.onnx"
        unpack_weights(SCENE, plain)
        before = open_session(SCENE, threads=1)
        outputs = run_network(before, pixels, info.temperature)
        for name, part in PARTS.items():
            quantise(plain, small, [{"scene": item[None]} for item in ranges], keep=f"(?!.*(?:{part}))")
            after = open_session(small, threads=1)
            speedup = measure_speedup(before, after, pixels)
            quantised = run_network(after, pixels, info.temperature)
            print(row_of(name, speedup, outputs, quantised, labels), flush=True)


if __name__ == "__main__":
    main()
