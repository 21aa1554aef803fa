"""Smaller ONNX files: weights in 16 or 8 bits, and int8 computation if it is faster."""

import bisect
import functools
import logging
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.export.onnx import read_model, write_model
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, InferenceSession, open_session, quantization_tools, unpack_weights
from uniemox.predict.confidence import answers_of
from uniemox.predict.network import ONE_BY_ONE, Network, is_one_by_one, run_views
from uniemox.views.config import ViewConfig
from uniemox.views.loader import load_batches
from uniemox.views.transforms import EvalViews

FEW_VALUES = 1_000  # smaller tensors, such as scales and biases, are not packed: they save nothing
MATRIX_VALUES = 5_000  # minimum size of kernels for 8 bits; smaller ones get 16
HALF = ".float16"
BYTES = ".int8"
SCALES = ".scales"
Values = NDArray[np.float32]
Packed = tuple[list[TensorProto], list[onnx.NodeProto]]  # stored tensors, and the nodes that convert them to float32


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
        keep_float16: A regular expression; kernels whose name contains a match are stored as float16 too.

    Raises:
        ConfigError: For no match or an invalid expression.
        CheckpointError: For a file with packed weights.
    """
    try:
        if keep_float16 is None:
            chosen = None
        else:
            chosen = re.compile(keep_float16)
    except re.error as error:
        raise ConfigError(f"--keep-float16 {keep_float16!r} is not a regular expression: {error}") from error
    kept = []

    def pack(name: str, values: Values) -> Packed | None:
        is_kernel = values.ndim > 1 and values.size > MATRIX_VALUES and bool(np.isfinite(values).all())
        is_kept = is_kernel and bool(chosen and chosen.search(name))
        kept.extend([name] * is_kept)
        if is_kernel and not is_kept:
            return _as_bytes(name, values)
        return _as_half(name, values)

    model = read_model(src)
    check_float32(model)
    model = _packed(model, pack)
    if chosen and not kept:
        raise ConfigError(
            f"--keep-float16 {keep_float16!r} matches no kernel's name; the networks of a mean are called "
            "encoders.0, encoders.1 and so on"
        )
    write_model(model, dst)


def check_float32(model: onnx.ModelProto) -> None:
    """Raise CheckpointError for a model whose weights are stored in fewer bits."""
    if any(tensor.data_type in (TensorProto.FLOAT16, TensorProto.INT8) for tensor in model.graph.initializer):
        raise CheckpointError(
            "the model's weights are already stored in 16 or 8 bits; export its original run, or that run's "
            "own model.onnx"
        )


def _packed(model: onnx.ModelProto, pack: Callable[[str, Values], Packed | None]) -> onnx.ModelProto:
    """Pack the large weights of a model in place.  pack: returns a weight's replacement; None: it stays."""
    graph = model.graph
    given = {one.name for one in graph.input}  # weights that are also inputs, which callers may replace
    kept = []
    nodes = []
    for tensor in graph.initializer:
        packed = None
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in given:
            values = numpy_helper.to_array(tensor)
            if values.size > FEW_VALUES:
                packed = pack(tensor.name, values)
            else:
                packed = None
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


def _as_half(name: str, values: Values) -> Packed | None:
    """Pack values as float16; None if float16 can't hold them."""
    if not np.abs(values).max() <= np.finfo(np.float16).max:
        return None
    small = numpy_helper.from_array(values.astype(np.float16), name + HALF)
    return [small], [onnx.helper.make_node("Cast", [small.name], [name], small.name, to=TensorProto.FLOAT)]


def _as_bytes(name: str, values: Values) -> Packed:
    """Pack values as -127 to 127 times one scale per output channel, the first axis.

    They are rounded up or down at random, with the expectation unchanged (arXiv 1502.02551, section 3). The nearest
    value would undo the training of a network that started from weights in 8 bits: most of its values lie closer to
    where they started than to the next value. The draw depends only on the weight's name.
    """
    highest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scales = (np.maximum(highest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    rounded = np.floor(values / scales + draw.random(values.shape, np.float32)).clip(-127, 127)
    whole = numpy_helper.from_array(rounded.astype(np.int8), name + BYTES)
    read = onnx.helper.make_node("Cast", [whole.name], [whole.name + HALF], whole.name, to=TensorProto.FLOAT)
    scaled = onnx.helper.make_node("Mul", [whole.name + HALF, name + SCALES], [name], name + SCALES)
    return [whole, numpy_helper.from_array(scales, name + SCALES)], [read, scaled]


Method = Literal["dynamic", "static"]
Pixels = Mapping[str, NDArray[np.float32]]
"""Views by name, (N, 3, S, S), normalised."""

MAX_IMAGES = 2_000
CALIBRATING = 64  # images for measuring ranges and choosing layers
BATCH = 16
MAX_CHANGE = 0.015  # mean absolute change of the probabilities
CHANCE = 1.96  # standard errors of accuracy that a difference may have by chance
LAYER = re.compile(r"(?:.*?encoders\.\d+\.|.*?encoder\.)?[^.]+(?:\.\d+)?\.")
"""Begins a weight's name: its layer, such as encoder.blocks.3."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Check:
    """Effect of computing in 8 bits, measured on this machine."""

    method: Method
    pictures: int
    kept_float: tuple[str, ...]  # layers that stay float32, because rounding them changes the probabilities too much
    change: float  # mean absolute change of the probabilities
    agreement: float  # share of the images, 0 to 1, with the same most probable label
    accuracy_before: float | None  # of the images with a label
    accuracy_after: float | None
    accuracy_error: float | None  # standard error of the difference
    float32_ms: float  # median time per image in batches, before
    int8_ms: float  # the same in 8 bits; dynamic files take one image at a time, as in prediction
    float32_bytes: int
    int8_bytes: int

    @property
    def is_kept(self) -> bool:
        """True if it is faster, changes the probabilities little, and is no less accurate, up to chance."""
        before = self.accuracy_before
        after = self.accuracy_after
        error = self.accuracy_error
        is_as_good = before is None or after is None or error is None or after >= before - CHANCE * error
        return self.int8_ms < self.float32_ms and self.change <= MAX_CHANGE and is_as_good

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return asdict(self) | {"is_kept": self.is_kept}

    def __str__(self) -> str:
        scores = ""
        if self.accuracy_before is not None:
            scores = f"accuracy {self.accuracy_after:.1%}, before {self.accuracy_before:.1%}; "
        if self.kept_float:
            kept = f"; float32 stay {', '.join(self.kept_float)}"
        else:
            kept = ""
        return (
            f"int8 ({self.method}): {self.int8_ms:.1f} ms an image, float32 {self.float32_ms:.1f} ms; probabilities of "
            f"{self.pictures} images change by {self.change:.3f} on average, {self.agreement:.1%} keep their label; "
            f"{scores}{self.int8_bytes / 1e6:.1f} MB, float32 {self.float32_bytes / 1e6:.1f} MB{kept}"
        )


def export_int8(
    src: Path, dst: Path, data: DataSet, *, on_progress: Report = lambda what, done, total: None
) -> Int8Check:
    """Write a classifier's ONNX file in int8 if it is faster and accurate enough, and return the measurements.

    ranges and choose the layers that stay float32.

    Args:
        src: From `export_classifier`.
        data: up to 2,000 evenly spread images are compared; 64 of them give the.
        on_progress: Called with the step, and the number done and of all. Writes nothing if the result is not
            `is_kept`.

    Raises:
        CheckpointError: If src is not a uniemox classifier, or can't be quantised or written.
        ConfigError: If it predicts no labels.
        DataError: Without readable images.
    """
    info = Network.open(src).info
    if info.task == "affect":
        raise ConfigError(f"{src} predicts valence and arousal; int8 needs labels for its test and is not available")
    chosen = _spread(data.samples, MAX_IMAGES)
    with tempfile.TemporaryDirectory(prefix="uniemox-int8-") as folder:
        plain = Path(folder) / "float32.onnx"
        small = Path(folder) / "int8.onnx"
        unpack_weights(src, plain)
        images = [views for views, _ in _batches(data, _spread(chosen, CALIBRATING), info, 1)]
        if not images:
            raise DataError("none of the images can be read, so nothing can be compared; run uniemox data check")
        method, kept = _search(plain, small, images, info, on_progress)
        batches = _batches(data, chosen, info, BATCH)
        report = functools.partial(on_progress, "comparing int8 with float32")
        check = _compare(src, small, info, batches, lambda done: report(done, len(chosen)), method=method, kept=kept)
        if check.is_kept:
            write_model(read_model(small), dst)
    return check


def quantise(src: Path, dst: Path, images: Sequence[Pixels], keep: str = "") -> Method:
    """Write an ONNX file again with 8-bit weights, and return the method.

    static, if most weights belong to convolutions: these, and what only joins them, with weights per channel and
    activations in 8 bits, whose ranges are measured on `images`. dynamic, otherwise: only matrix products, ranges
    measured at run time, images not used.
    Metadata stay; a dynamic file is marked as taking one image at a time, see `is_one_by_one`.

    Args:
        keep: Regular expression; convolutions whose weight's name begins with a match stay float32. Empty: none.

    Raises:
        CheckpointError: If src can't be read or quantised, or dst can't be written.
        DataError: If images are needed and there are none.
    """
    tools = quantization_tools()
    model = read_model(src)
    check_float32(model)
    metadata = {one.key: one.value for one in model.metadata_props}
    del model.graph.value_info[:]  # shapes from torch's exporter contradict the ones inferred here
    method: Method = "static" if _is_convolutional(model) else "dynamic"
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # onnxruntime prints advice on the root logger
    try:
        with tempfile.TemporaryDirectory(prefix="uniemox-int8-") as folder:
            partial = Path(folder) / "int8.onnx"
            options: dict[str, Any] = {"per_channel": True}
            if method == "static":
                if not images:
                    raise DataError(
                        f"{src} is convolutional: its int8 form needs images to measure ranges on, got none"
                    )
                reader = SimpleNamespace(get_next=functools.partial(next, iter(images), None))
                options |= {"op_types_to_quantize": ["Conv", *JOINING], "activation_type": tools.QuantType.QUInt8}
                options["nodes_to_quantize"] = _convolutions(model.graph, keep)
                tools.quantize_static(model, partial, reader, **options)
            else:
                options["nodes_to_exclude"] = _behind_logits(model.graph)
                tools.quantize_dynamic(model, partial, op_types_to_quantize=["MatMul", "Gemm"], **options)
                metadata[ONE_BY_ONE] = "yes"
            result = onnx.load(partial)
    except RUNTIME_ERRORS as error:
        raise CheckpointError(f"{src} can't be quantised: {error}") from error
    finally:
        logging.root.setLevel(level)
    onnx.helper.set_model_props(result, metadata)
    write_model(result, dst)
    return method


JOINING = ("Add", "Clip", "Relu")  # operators that compute in 8 bits if everything that they read does


def _convolutions(graph: onnx.GraphProto, keep: str) -> list[str]:
    """Return names of the convolutions to quantise, and of the nodes that only join their outputs."""
    makers = {output: node.name for node in graph.node for output in node.output}
    chosen = dict[str, None]()
    for node in graph.node:  # sources come first
        if node.op_type == "Conv":
            is_chosen = not (keep and re.match(keep, node.input[1]))
        else:
            if node.op_type == "Add":
                sources = node.input
            else:
                sources = node.input[:1]
            is_chosen = node.op_type in JOINING and all(makers.get(one) in chosen for one in sources)
        if is_chosen:
            chosen[node.name] = None
    return list(chosen)


def _search(
    src: Path, dst: Path, images: Sequence[Pixels], info: ClassifierInfo, on_progress: Report
) -> tuple[Method, tuple[str, ...]]:
    """Quantise, and return the method and the layers that had to stay float32.

    If the probabilities change too much with all layers in 8 bits, each layer is tried alone. As many layers as
    possible are then computed in 8 bits, beginning with those that change the probabilities least.
    """
    expected = _shares(open_session(src), images, info)

    def change() -> float:
        return float(np.abs(_shares(open_session(dst), images, info) - expected).mean())

    def change_without(kept: Collection[str]) -> float:
        quantise(src, dst, images, "|".join(map(re.escape, kept)))
        return change()

    method = quantise(src, dst, images)
    if method == "dynamic" or change() <= MAX_CHANGE:
        return method, ()
    weights = [node.input[1] for node in read_model(src).graph.node if node.op_type == "Conv"]
    layers = list(dict.fromkeys(match[0] for name in weights if (match := LAYER.match(name))))
    alone = {}
    for done, layer in enumerate(layers):
        on_progress("trying layers in 8 bits", done, len(layers))
        alone[layer] = change_without([one for one in layers if one != layer])
    order = sorted(layers, key=lambda layer: alone[layer])
    counts = range(1, len(order))
    count = max(1, bisect.bisect_right(counts, MAX_CHANGE, key=lambda count: change_without(order[count:])))
    quantise(src, dst, images, "|".join(map(re.escape, order[count:])))
    return method, tuple(sorted(layer.rstrip(".") for layer in order[count:]))


def _shares(session: InferenceSession, images: Sequence[Pixels], info: ClassifierInfo) -> NDArray[np.float64]:
    """Return the probabilities of images, (N, E)."""
    logits = np.concatenate([session.run(["logits"], dict(views))[0] for views in images])
    return answers_of(info, logits, None)


def _behind_logits(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes that the logits don't need: distances in 8 bits could not be compared with the stored ones."""
    makers = {output: node for node in graph.node for output in node.output}
    needed = set[str]()
    waiting = ["logits"]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting += node.input
    return [node.name for node in graph.node if node.name not in needed]


def _is_convolutional(model: onnx.ModelProto) -> bool:
    """Return True if convolutions have more than half of the weights that could be quantised."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    held = {"Conv": 0, "MatMul": 0, "Gemm": 0}
    for node in model.graph.node:
        if node.op_type in held:
            held[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    return held["Conv"] > held["MatMul"] + held["Gemm"]


def _compare(
    src: Path,
    small: Path,
    info: ClassifierInfo,
    batches: Iterable[tuple[Pixels, Sequence[int | None]]],
    on_progress: Callable[[int], None],
    *,
    method: Method,
    kept: tuple[str, ...],
) -> Int8Check:
    """Run both files on the same batches, in turns, so that a busy machine slows both equally.

    Each runs as in prediction, so that the measured speed is the real one.
    """
    sessions = [open_session(src), open_session(small)]
    alone = [is_one_by_one(session) for session in sessions]
    times: list[list[float]] = [[], []]
    answers: list[list[NDArray[np.float64]]] = [[], []]
    labels = list[int | None]()
    for number, (batch, of_batch) in enumerate(batches):
        for which in (0, 1) if number % 2 else (1, 0):
            if number == 0:
                run_views(sessions[which], ["logits"], batch, one_by_one=alone[which])  # the first run allocates
            began = time.perf_counter()
            [logits] = run_views(sessions[which], ["logits"], batch, one_by_one=alone[which])
            times[which].append((time.perf_counter() - began) / len(of_batch) * 1000)
            answers[which].append(answers_of(info, logits, None))
        labels += of_batch
        on_progress(len(labels))
    before, after = (np.concatenate(one) for one in answers)  # (N, E)
    has_label = np.array([label is not None for label in labels])
    truth = np.array([label for label in labels if label is not None])
    scores: list[float | None] = [None, None, None]
    if len(truth):
        hits = [(shares[has_label].argmax(axis=1) == truth).astype(float) for shares in (before, after)]
        error = float(np.square(hits[1] - hits[0]).sum() ** 0.5 / len(truth))
        scores = [float(hits[0].mean()), float(hits[1].mean()), error]
    return Int8Check(
        method=method,
        pictures=len(labels),
        kept_float=kept,
        change=float(np.abs(after - before).mean()),
        agreement=float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        accuracy_before=scores[0],
        accuracy_after=scores[1],
        accuracy_error=scores[2],
        float32_ms=float(np.median(times[0])),
        int8_ms=float(np.median(times[1])),
        float32_bytes=src.stat().st_size,
        int8_bytes=small.stat().st_size,
    )


def _batches(
    data: DataSet, samples: Sequence[Sample], info: ClassifierInfo, size: int
) -> Iterator[tuple[Pixels, Sequence[int | None]]]:
    """Yield the network's views of the readable images, and the classifier's numbers of their labels."""
    numbers = {data.labels.labels.index(label): i for i, label in enumerate(info.labels) if label in data.labels.labels}
    middle, scale = (np.array(value, np.float32).reshape(3, 1, 1) * 255 for value in (info.mean, info.std))
    for batch in load_batches(samples, EvalViews(ViewConfig.of(info)), size):
        views = {"scene": batch.scene.numpy(), "person": batch.person.numpy()}
        if batch.samples:
            labels = [numbers.get(-1 if sample.label is None else sample.label) for sample in batch.samples]
            yield {name: (views[name].astype(np.float32) - middle) / scale for name in info.views}, labels


def _spread(samples: Sequence[Sample], limit: int) -> Sequence[Sample]:
    """Return at most this many samples, evenly spread."""
    count = min(limit, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]
