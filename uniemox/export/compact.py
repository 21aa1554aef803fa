"""A network's weights in a half or a quarter of the space; it computes in float32 as before."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from uniemox.errors import CheckpointError, ConfigError
from uniemox.export.onnx import read_model, write_model

FEW_VALUES = 1_000  # tensors of so few values are left: they save nothing, and scales and biases live there
MATRIX_VALUES = 5_000  # kernels of so many are stored in 8 bits, where that is asked for; smaller ones in 16
HALF, BYTES, SCALES = ".float16", ".int8", ".scales"
Values = NDArray[np.float32]


def store_as_float16(src: Path, dst: Path) -> None:
    """Write an ONNX file again with its large float32 weights as float16, each behind a Cast that reads it as float32.

    onnxruntime folds the casts when it loads the file. Weights that float16 can't hold, above 65,504, stay as they
    are; metadata, inputs and outputs stay too. The result is the same for the same file; dst may be src.
    Raises CheckpointError if src can't be read or dst can't be written.
    """
    write_model(_packed(read_model(src), _as_half), dst)


def store_as_int8(src: Path, dst: Path, *, keep_float16: str | None = None) -> None:
    """The same with the kernels in 8 bits, a scale for each output channel, and all other large weights as float16.

    Logits move more than with float16: those of the embedded `small` by up to 0.12, see docs/export.md.
    keep_float16: a regular expression; kernels in whose name it is found are stored as float16 too. Raises ConfigError
    if there is none, or for what is no expression; CheckpointError for a file whose weights are stored so already.
    """
    try:
        chosen = None if keep_float16 is None else re.compile(keep_float16)
    except re.error as error:
        raise ConfigError(f"--keep-float16 {keep_float16!r} is no regular expression: {error}") from error
    kept = []

    def pack(name: str, values: Values) -> tuple[list[TensorProto], list[onnx.NodeProto]] | None:
        if not _is_kernel(values):
            return _as_half(name, values)
        if chosen and chosen.search(name):
            kept.append(name)
            return _as_half(name, values)
        return _as_bytes(name, values)

    model = read_model(src)
    check_float32(model)
    model = _packed(model, pack)
    if chosen and not kept:
        raise ConfigError(
            f"--keep-float16 {keep_float16!r} is found in no kernel's name; the networks of a mean are called "
            "encoders.0, encoders.1 and so on"
        )
    write_model(model, dst)


def check_float32(model: onnx.ModelProto) -> None:
    """Raises CheckpointError for a model whose weights are stored in fewer bits."""
    if any(tensor.data_type in (TensorProto.FLOAT16, TensorProto.INT8) for tensor in model.graph.initializer):
        raise CheckpointError(
            "the model's weights are stored in 16 or 8 bits already; export the run that it was made of, or the run's "
            "own model.onnx"
        )


def _packed(
    model: onnx.ModelProto, pack: Callable[[str, Values], tuple[list[TensorProto], list[onnx.NodeProto]] | None]
) -> onnx.ModelProto:
    """The model, changed: its large weights are packed.  pack: what takes the place of one; None: it stays."""
    graph = model.graph
    given = {one.name for one in graph.input}  # weights that a caller may replace
    kept, nodes = [], []
    for tensor in graph.initializer:
        packed = None
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in given:
            values = numpy_helper.to_array(tensor)
            packed = pack(tensor.name, values) if values.size > FEW_VALUES else None
        if packed is None:
            kept.append(tensor)
            continue
        kept += packed[0]
        nodes += packed[1]
    nodes += graph.node
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _as_half(name: str, values: Values) -> tuple[list[TensorProto], list[onnx.NodeProto]] | None:
    """None where float16 can't hold the values."""
    if not np.abs(values).max() <= np.finfo(np.float16).max:
        return None
    small = numpy_helper.from_array(values.astype(np.float16), name + HALF)
    return [small], [onnx.helper.make_node("Cast", [small.name], [name], small.name, to=TensorProto.FLOAT)]


def _is_kernel(values: Values) -> bool:
    return values.ndim > 1 and values.size > MATRIX_VALUES and bool(np.isfinite(values).all())


def _as_bytes(name: str, values: Values) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """Values as -127 to 127 times a scale by output channel, the first axis."""
    highest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scales = (np.maximum(highest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
    whole = numpy_helper.from_array(np.rint(values / scales).astype(np.int8), name + BYTES)
    read = onnx.helper.make_node("Cast", [whole.name], [whole.name + HALF], whole.name, to=TensorProto.FLOAT)
    scaled = onnx.helper.make_node("Mul", [whole.name + HALF, name + SCALES], [name], name + SCALES)
    return [whole, numpy_helper.from_array(scales, name + SCALES)], [read, scaled]
