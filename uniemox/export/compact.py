"""Smaller ONNX files: weights stored in 16 or 8 bits, and computed with in float32."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from uniemox.errors import CheckpointError, ConfigError
from uniemox.export.onnx import read_model, write_model

# Tensors up to this size, such as scales and biases, are not packed: they save nothing.
FEW_VALUES = 1_000
# Kernels up to this size get 16 bits; larger ones can get 8.
MATRIX_VALUES = 5_000
# Endings of the names of stored tensors.
HALF = ".float16"
BYTES = ".int8"
SCALES = ".scales"
Values = NDArray[np.float32]
Packed = tuple[list[TensorProto], list[onnx.NodeProto]]
"""Stored tensors, and the nodes that convert them to float32."""


def store_as_float16(src: Path, dst: Path) -> None:
    """Write an ONNX file again with its large float32 weights as float16, each followed by a Cast to float32.

    onnxruntime folds the casts when it loads the file. Weights that float16 can't hold, above 65,504, stay unchanged,
    and so do metadata, inputs and outputs. The result is deterministic; dst may be src.

    Raises:
        CheckpointError: If src can't be read or dst can't be written.
    """
    write_model(_packed(read_model(src), _as_half), dst)


def store_as_int8(src: Path, dst: Path, *, keep_float16: str | None = None) -> None:
    """Write an ONNX file again with kernels in 8 bits, one scale per output channel, and other large weights as
    float16.

    Logits change more than with float16: by up to 0.2 in a MobileNetV2, see docs/export.md.

    Args:
        src: ONNX file to read.
        dst: ONNX file to write; may be src.
        keep_float16: A regular expression; kernels whose name contains a match are stored as float16 too. None: none.

    Raises:
        ConfigError: If the expression is invalid, or matches no kernel.
        CheckpointError: If src can't be read or has packed weights, or if dst can't be written.
    """
    try:
        pattern = None if keep_float16 is None else re.compile(keep_float16)
    except re.error as error:
        raise ConfigError(f"--keep-float16 {keep_float16!r} is not a regular expression: {error}") from error
    matches: list[str] = []

    def pack(name: str, values: Values) -> Packed | None:
        is_kernel = values.ndim > 1 and values.size > MATRIX_VALUES and bool(np.isfinite(values).all())
        if is_kernel and pattern and pattern.search(name):
            matches.append(name)
        elif is_kernel:
            return as_bytes(name, values)
        return _as_half(name, values)

    model = read_model(src)
    check_float32(model)
    model = _packed(model, pack)
    if pattern and not matches:
        raise ConfigError(
            f"--keep-float16 {keep_float16!r} matches no kernel's name; the networks of a mean are called "
            "encoders.0, encoders.1 and so on"
        )
    write_model(model, dst)


def check_float32(model: onnx.ModelProto) -> None:
    """Raise CheckpointError if a model's weights are stored in fewer bits."""
    if any(tensor.data_type in (TensorProto.FLOAT16, TensorProto.INT8) for tensor in model.graph.initializer):
        raise CheckpointError(
            "the model's weights are already stored in 16 or 8 bits, as those of embedded are: use it as it is, or "
            "export the run that it was made from, if you have it"
        )


def _packed(model: onnx.ModelProto, pack: Callable[[str, Values], Packed | None]) -> onnx.ModelProto:
    """Pack the large weights of a model in place.

    Args:
        model: The model.
        pack: Function from a weight's name and values to its replacement; None: the weight stays.
    """
    graph = model.graph
    # Weights that are also inputs may be replaced by callers.
    inputs = {value.name for value in graph.input}
    tensors = []
    nodes = []
    for tensor in graph.initializer:
        packed = None
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in inputs:
            values = numpy_helper.to_array(tensor)
            if values.size > FEW_VALUES:
                packed = pack(tensor.name, values)
        if packed is None:
            tensors.append(tensor)
            continue
        stored, conversions = packed
        tensors += stored
        nodes += conversions
    # Conversions come first, because ONNX wants a node after those that it reads.
    nodes += graph.node
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return model


def _as_half(name: str, values: Values) -> Packed | None:
    """Pack values as float16; None if float16 can't hold them."""
    if not np.abs(values).max() <= np.finfo(np.float16).max:
        return None
    stored = numpy_helper.from_array(values.astype(np.float16), name + HALF)
    cast = onnx.helper.make_node("Cast", [stored.name], [name], stored.name, to=TensorProto.FLOAT)
    return [stored], [cast]


def as_bytes(name: str, values: Values) -> Packed:
    """Pack values as -127 to 127 times one scale per output channel, the first axis.

    They are rounded up or down at random, with the expectation unchanged (arXiv 1502.02551, section 3). The nearest
    value would undo the training of a network that started from weights in 8 bits: most of its values lie closer to
    where they started than to the next value. The draw depends only on the weight's name.
    """
    highest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    # A channel of zeros must not divide by 0.
    scales = (np.maximum(highest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    rounded = np.floor(values / scales + generator.random(values.shape, np.float32)).clip(-127, 127)
    stored = numpy_helper.from_array(rounded.astype(np.int8), name + BYTES)
    stored_scales = numpy_helper.from_array(scales, name + SCALES)
    cast = onnx.helper.make_node("Cast", [stored.name], [stored.name + HALF], stored.name, to=TensorProto.FLOAT)
    multiply = onnx.helper.make_node("Mul", [stored.name + HALF, name + SCALES], [name], name + SCALES)
    return [stored, stored_scales], [cast, multiply]
