"""A network's weights in half the space; it computes in float32 as before."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from uniemox.export.onnx import read_model, write_model

FEW_VALUES = 1_000  # tensors of so few values are left: they save nothing, and scales and biases live there
SUFFIX = ".float16"


def store_as_float16(src: Path, dst: Path) -> None:
    """Write an ONNX file again with its large float32 weights as float16, each behind a Cast that reads it as float32.

    onnxruntime folds the casts when it loads the file. Weights that float16 can't hold, above 65,504, stay as they
    are; metadata, inputs and outputs stay too. The result is the same for the same file; dst may be src.
    Raises CheckpointError if src can't be read or dst can't be written.
    """
    model = read_model(src)
    graph = model.graph
    given = {one.name for one in graph.input}  # weights that a caller may replace
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in given:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size <= FEW_VALUES or not np.abs(values).max() <= np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + SUFFIX))
        casts.append(onnx.helper.make_node("Cast", [name + SUFFIX], [name], name + SUFFIX, to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    write_model(model, dst)
