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
GRID = 4  # parts per side
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
    """Return random weights, (views * 3 * GRID * GRID, labels)."""
    return np.random.default_rng(seed).normal(0, 1, (views * 3 * GRID**2, labels)).astype(np.float32)


def tiny_network(path: Path, *, seed: int = 0, metadata: dict[str, str] | None = None, **info: Any) -> Path:
    """Write a network: means of GRID x GRID parts by channel, views one after the other, times `weights`.

    Args:
        path: ONNX file to write.
        seed: Random seed of the weights.
        metadata: Metadata of the file, instead of the info.
        info: Values in place of INFO's.
    """
    metadata_info = INFO | info
    streams = metadata_info.get("streams", "scene")
    size = metadata_info["size"]
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
    outputs = 2 if metadata_info.get("task") == "affect" else len(metadata_info["labels"])
    graph_outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs])]
    # The features are the means, the distance is the sum of their squares.
    if "distances" in metadata_info:
        nodes += [
            helper.make_node("Identity", ["means"], ["features"]),
            helper.make_node("ReduceSumSquare", ["means", "axes"], ["distance"], keepdims=0),
        ]
        graph_outputs += [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(names) * 3 * GRID**2]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, size, size]) for name in names],
        graph_outputs,
        [
            numpy_helper.from_array(weights(len(names), outputs, seed), "weights"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"uniemox": json.dumps(metadata_info)} if metadata is None else metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def plain_probabilities(views: list[np.ndarray], *, seed: int = 0, **info: Any) -> np.ndarray:
    """Return the network's probabilities (E,) for one image's views (3, S, S) uint8, by a plain computation."""
    model_info = INFO | info
    means = []
    for view in views:
        pixels = (view / 255 - np.array(model_info["mean"])[:, None, None]) / np.array(model_info["std"])[:, None, None]
        side = model_info["size"] // GRID
        means.append(pixels.reshape(3, GRID, side, GRID, side).mean(axis=(2, 4)).ravel())
    values = np.concatenate(means) @ weights(len(views), len(model_info["labels"]), seed).astype(np.float64)
    exponentials = np.exp((values - values.max()) / model_info["temperature"])
    return exponentials / exponentials.sum()


class WhiteFinder:
    """Finds one person: the smallest box around all white pixels."""

    name = "white"
    fingerprint = "0" * 16

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        detections = []
        for image in images:
            rows, columns = np.nonzero((np.asarray(image) > 250).all(axis=2))
            if not len(rows):
                detections.append(())
                continue
            box = Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            detections.append((Detection(box, 0.75),))
        return detections


def make_network(folder: Path, **info: Any) -> Network:
    return Network.open(tiny_network(folder / f"{len(list(folder.iterdir()))}.onnx", **info), threads=1)


def as_prediction(result: Prediction | list[Prediction | Failure]) -> Prediction:
    assert isinstance(result, Prediction)
    return result


def values(prediction: Prediction) -> list[float]:
    return list(prediction.scene.values())
