"""Small ONNX networks that tests write themselves, without torch: linear in the means of an image's parts."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from uniemox.classifier_info import NEW_RULES
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection
from uniemox.predict.network import Network
from uniemox.predict.prediction import Failure, Prediction

SIZE = 32
GRID = 4  # parts a side
INFO: dict[str, Any] = {
    "labels": MIKELS.labels,
    "label_set": "mikels",
    "kind": "evoked",
    "temperature": 0.5,
    "size": SIZE,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "encoder": {"name": "passed over"},
    "rules": asdict(NEW_RULES),
}


def weights(views: int, labels: int, seed: int = 0) -> np.ndarray:
    """(views * 3 * GRID * GRID, labels)"""
    return np.random.default_rng(seed).normal(0, 1, (views * 3 * GRID**2, labels)).astype(np.float32)


def tiny_network(path: Path, *, seed: int = 0, metadata: dict[str, str] | None = None, **info: Any) -> Path:
    """Write a network: means of GRID x GRID parts by channel, views one after the other, times `weights`.

    info: in place of INFO's.  metadata: instead of the info.
    """
    said = INFO | info
    streams = said.get("streams", "scene")
    size = said["size"]
    names = ["scene", "person"] if streams == "both" else [streams]
    side = size // GRID
    nodes = [
        helper.make_node("AveragePool", [name], [f"{name}_means"], kernel_shape=[side, side], strides=[side, side])
        for name in names
    ]
    nodes += [helper.make_node("Flatten", [f"{name}_means"], [f"{name}_flat"]) for name in names]
    nodes += [
        helper.make_node("Concat", [f"{name}_flat" for name in names], ["means"], axis=1),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    outputs = 2 if said.get("task") == "affect" else len(said["labels"])
    given = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs])]
    if "distances" in said:  # features: the means; distance: the sum of their squares
        nodes += [
            helper.make_node("Identity", ["means"], ["features"]),
            helper.make_node("ReduceSumSquare", ["means", "axes"], ["distance"], keepdims=0),
        ]
        given += [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(names) * 3 * GRID**2]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, size, size]) for name in names],
        given,
        [
            numpy_helper.from_array(weights(len(names), outputs, seed), "weights"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"uniemox": json.dumps(said)} if metadata is None else metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def answer(views: list[np.ndarray], *, seed: int = 0, **info: Any) -> np.ndarray:
    """What the network says of one image's views (3, S, S) uint8, written plainly: probabilities (E,)."""
    said = INFO | info
    means = []
    for view in views:
        pixels = (view / 255 - np.array(said["mean"])[:, None, None]) / np.array(said["std"])[:, None, None]
        side = said["size"] // GRID
        means.append(pixels.reshape(3, GRID, side, GRID, side).mean(axis=(2, 4)).ravel())
    values = np.concatenate(means) @ weights(len(views), len(said["labels"]), seed).astype(np.float64)
    exponentials = np.exp((values - values.max()) / said["temperature"])
    return exponentials / exponentials.sum()


class WhiteFinder:
    """Finds one person: the smallest box around all white pixels."""

    name = "white"
    fingerprint = "0" * 16

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        found = []
        for image in images:
            rows, columns = np.nonzero((np.asarray(image) > 250).all(axis=2))
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            else:
                box = None
            found.append(() if box is None else (Detection(Box(*map(float, box)), 0.75),))
        return found


def made(folder: Path, **info: Any) -> Network:
    return Network.open(tiny_network(folder / f"{len(list(folder.iterdir()))}.onnx", **info), threads=1)


def one(found: Prediction | list[Prediction | Failure]) -> Prediction:
    assert isinstance(found, Prediction)
    return found


def values(prediction: Prediction) -> list[float]:
    return list(prediction.scene.values())
