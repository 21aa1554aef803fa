"""ONNX files whose outputs are known: detectors without a network, for layouts whose real weights were not at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Tensor = NDArray[np.floating]


def write_constant(
    path: Path, outputs: Sequence[Tensor], size: Sequence[int | str], *, batch: int | str = 1, kind: str = "FLOAT"
) -> Path:
    """A graph that gives the same outputs, (1, ...) each, for every image of a batch.  size: height and width."""
    element = getattr(TensorProto, kind)
    image = helper.make_tensor_value_info("images", element, [batch, 3, *size])
    nodes = [helper.make_node("ReduceMax", ["images"], ["most"], axes=[1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Sub", ["most", "most"], ["zeros"]))  # (N,)
    constants = []
    results = []
    for i, values in enumerate(outputs):
        tensor = values.astype(helper.tensor_dtype_to_np_dtype(element))
        rank = numpy_helper.from_array(np.array([-1] + [1] * (values.ndim - 1)), f"rank_{i}")
        constants += [numpy_helper.from_array(tensor, f"values_{i}"), rank]
        nodes.append(helper.make_node("Reshape", ["zeros", f"rank_{i}"], [f"column_{i}"]))
        nodes.append(helper.make_node("Add", [f"values_{i}", f"column_{i}"], [f"out_{i}"]))
        results.append(helper.make_tensor_value_info(f"out_{i}", element, [batch, *values.shape[1:]]))
    return save(path, nodes, [image], results, constants)


def write_zoo(path: Path, relative: Sequence[float], confidence: float) -> Path:
    """As yolov3-10 of the ONNX model zoo: one person in a box y1, x1, y2, x2, in parts of the image's size."""
    image = helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["n", 3, "h", "w"])
    shape = helper.make_tensor_value_info("image_shape", TensorProto.FLOAT, ["n", 2])
    scores = np.zeros((1, 80, 1), dtype=np.float32)
    scores[0, 0] = confidence
    constants = [
        numpy_helper.from_array(np.array([[relative]], dtype=np.float32), "relative"),
        numpy_helper.from_array(np.array([1, 1, 4]), "one_box"),
        numpy_helper.from_array(scores, "known_scores"),
        numpy_helper.from_array(np.array([[0, 0, 0]]), "known_indices"),
    ]
    nodes = [
        helper.make_node("Concat", ["image_shape", "image_shape"], ["sides"], axis=1),
        helper.make_node("Reshape", ["sides", "one_box"], ["whole"]),
        helper.make_node("Mul", ["relative", "whole"], ["boxes"]),
        helper.make_node("Identity", ["known_scores"], ["scores"]),
        helper.make_node("Identity", ["known_indices"], ["indices"]),
    ]
    results = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, "candidates", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 80, "candidates"]),
        helper.make_tensor_value_info("indices", TensorProto.INT64, ["found", 3]),
    ]
    return save(path, nodes, [image, shape], results, constants)


def write_decoded(source: Path, path: Path) -> Path:
    """YOLOX at 416 px with centres and sizes decoded to px at the end of its own graph."""
    model = onnx.load(source)
    graph = model.graph
    raw = graph.output[0]
    levels = [(x, y, stride) for stride in (8, 16, 32) for y in range(416 // stride) for x in range(416 // stride)]
    table = np.array(levels, dtype=np.float32)[None]  # (1, n, 3)
    graph.initializer.append(numpy_helper.from_array(table[..., :2], "grid"))
    graph.initializer.append(numpy_helper.from_array(table[..., 2:], "stride"))
    graph.node.extend(
        [
            helper.make_node("Split", [raw.name], ["offsets", "logs", "rest"], axis=2, split=[2, 2, 81]),
            helper.make_node("Add", ["offsets", "grid"], ["cells"]),
            helper.make_node("Mul", ["cells", "stride"], ["centres"]),
            helper.make_node("Exp", ["logs"], ["extents_in_cells"]),
            helper.make_node("Mul", ["extents_in_cells", "stride"], ["extents"]),
            helper.make_node("Concat", ["centres", "extents", "rest"], ["decoded"], axis=2),
        ]
    )
    graph.output.remove(raw)
    graph.output.append(helper.make_tensor_value_info("decoded", TensorProto.FLOAT, [1, len(levels), 85]))
    onnx.save(model, path)
    return path


def save(path: Path, nodes: Sequence, inputs: Sequence, outputs: Sequence, constants: Sequence) -> Path:
    graph = helper.make_graph(list(nodes), "detector", list(inputs), list(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
