"""ONNX files that compute in 8 bits where it is faster and changes little."""

import bisect
import functools
import logging
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.hashes import image_hashes
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import seen_among
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.export.compact import check_float32
from uniemox.export.onnx import read_model, write_model
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, InferenceSession, open_session, quantization_tools, unpack_weights
from uniemox.predict.confidence import answers_of
from uniemox.predict.network import LOGITS, ONE_BY_ONE, Network, is_one_by_one, run_views
from uniemox.views.config import ViewConfig
from uniemox.views.loader import load_batches
from uniemox.views.transforms import EvalViews

Method = Literal["dynamic", "static"]
Measure = Literal["accuracy", "Jaccard index"]
Truth = tuple[int, ...]
"""Numbers of the labels of an image, in the classifier's order."""
Pixels = Mapping[str, NDArray[np.float32]]
"""Views by name, (N, 3, S, S), normalised."""

MAX_IMAGES = 2_000
CALIBRATION_IMAGES = 64
"""Number of images for measuring ranges and choosing layers."""
BATCH = 16
MAX_CHANGE = 0.015
"""Maximum mean absolute change of the probabilities."""
# A loss of accuracy up to this number of standard errors may be chance (95 %).
CHANCE = 1.96
LAYER = re.compile(r"(?:.*?encoders\.\d+\.|.*?encoder\.)?[^.]+(?:\.\d+)?\.")
"""Begins a weight's name: its layer, such as encoder.blocks.3."""
Report = Callable[[str, int, int], None]
"""Function called with the name of the work, the number done, and the number of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Check:
    """Effect of computing in 8 bits, measured on this machine."""

    method: Method
    pictures: int
    kept_float: tuple[str, ...]  # layers that stay float32, because rounding them changes the probabilities too much
    change: float  # mean absolute change of the probabilities
    agreement: float  # share of the images, 0 to 1, with the same most probable label, or with the same several labels
    measure: Measure  # what accuracy_before and accuracy_after are; the Jaccard index for several labels
    accuracy_before: float | None  # mean over the images with a label, 0 to 1; None without labels
    accuracy_after: float | None
    accuracy_error: float | None  # standard error of the difference
    training_images: int = 0  # number of compared images on which the model was trained
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
        if self.accuracy_before is None:
            scores = "its accuracy was not checked, because the images have no labels of the model; "
        else:
            scores = f"{self.measure} {self.accuracy_after:.1%}, before {self.accuracy_before:.1%}; "
            if self.training_images:
                scores += (
                    f"{self.training_images} of these images are training images, so both values are too high: give "
                    "others in --data; "
                )
        exceptions = f"; float32 stay {', '.join(self.kept_float)}" if self.kept_float else ""
        return (
            f"int8 ({self.method}): {self.int8_ms:.1f} ms an image, float32 {self.float32_ms:.1f} ms; probabilities of "
            f"{self.pictures} images change by {self.change:.3f} on average, {self.agreement:.1%} keep their "
            f"{'label' if self.measure == 'accuracy' else 'labels'}; "
            f"{scores}{self.int8_bytes / 1e6:.1f} MB, float32 {self.float32_bytes / 1e6:.1f} MB{exceptions}"
        )


def export_int8(
    src: Path,
    dst: Path,
    data: DataSet,
    *,
    training_hashes: Collection[str] = (),
    on_progress: Report = lambda work, done, total: None,
) -> Int8Check:
    """Write a classifier's ONNX file in int8 if it is faster and accurate enough, see `Int8Check.is_kept`.

    Args:
        src: ONNX file from `export_classifier`.
        dst: File to write.
        data: Images, of which up to 2,000 evenly spread ones are compared; 64 of them give the ranges and choose the
            layers that stay float32.
        training_hashes: Hashes of the training images, see `read_seen`; those among the images are counted.
        on_progress: Called with the step, and the number done and of all.

    Returns:
        The measurements.

    Raises:
        CheckpointError: If src is not a uniemox classifier, or can't be quantised or written.
        ConfigError: If the classifier predicts no labels.
        DataError: If no image can be read.
    """
    info = Network.open(src).info
    if info.task == "affect":
        raise ConfigError(
            f"{src} predicts valence and arousal; --int8 needs labels for its test: store the weights in fewer bits "
            "with --int8-weights or --float16"
        )
    chosen = _spread(data.samples, MAX_IMAGES)
    with tempfile.TemporaryDirectory(prefix="uniemox-int8-") as folder:
        plain = Path(folder) / "float32.onnx"
        small = Path(folder) / "int8.onnx"
        unpack_weights(src, plain)
        images = [views for views, _ in _batches(data, _spread(chosen, CALIBRATION_IMAGES), info, 1)]
        if not images:
            raise DataError("none of the images can be read, so nothing can be compared; run uniemox data check")
        method, float_layers = _search(plain, small, images, info, on_progress)
        batches = _batches(data, chosen, info, BATCH)
        report = functools.partial(on_progress, "comparing int8 with float32")
        check = _compare(
            src, small, info, batches, lambda done: report(done, len(chosen)), method=method, float_layers=float_layers
        )
        if check.is_kept:
            write_model(read_model(small), dst)
    if training_hashes:
        overlap = seen_among(chosen, image_hashes(chosen), training_hashes)
        check = replace(check, training_images=len(overlap))
    return check


def quantise(src: Path, dst: Path, images: Sequence[Pixels], keep: str = "") -> Method:
    """Write an ONNX file again with 8-bit weights, and return the method.

    The method is static if most weights belong to convolutions: these, and what only joins them, get weights per
    channel and activations in 8 bits, whose ranges are measured on `images`. Otherwise it is dynamic: only matrix
    products get 8 bits, ranges are measured at run time, and images are not used.
    Metadata stay; a dynamic file is marked as taking one image at a time, see `is_one_by_one`.

    Args:
        src: ONNX file to read.
        dst: ONNX file to write.
        images: Inputs on which ranges are measured.
        keep: Regular expression; convolutions whose weight's name begins with a match stay float32. Empty: none.

    Raises:
        CheckpointError: If src can't be read or quantised, or dst can't be written.
        DataError: If images are needed and there are none.
    """
    tools = quantization_tools()
    model = read_model(src)
    check_float32(model)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    # Shapes from torch's exporter contradict those that onnxruntime infers.
    del model.graph.value_info[:]
    method: Method = "static" if _is_convolutional(model) else "dynamic"
    # onnxruntime prints advice on the root logger.
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
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


JOINING = ("Add", "Clip", "Relu")
"""Operators that compute in 8 bits if everything that they read does."""


def _convolutions(graph: onnx.GraphProto, keep: str) -> list[str]:
    """Return names of the convolutions to quantise, and of the nodes that only join their outputs."""
    makers = {output: node.name for node in graph.node for output in node.output}
    # A dict keeps the order of the nodes.
    chosen = dict[str, None]()
    # A node comes after those that it reads.
    for node in graph.node:
        if node.op_type == "Conv":
            is_chosen = not (keep and re.match(keep, node.input[1]))
        else:
            # Clip also reads its limits, which are constants.
            sources = node.input if node.op_type == "Add" else node.input[:1]
            is_chosen = node.op_type in JOINING and all(makers.get(source) in chosen for source in sources)
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

    def change_without(float_layers: Collection[str]) -> float:
        quantise(src, dst, images, "|".join(map(re.escape, float_layers)))
        return change()

    method = quantise(src, dst, images)
    if method == "dynamic" or change() <= MAX_CHANGE:
        return method, ()
    weights = [node.input[1] for node in read_model(src).graph.node if node.op_type == "Conv"]
    layers = list(dict.fromkeys(match[0] for name in weights if (match := LAYER.match(name))))
    change_alone = {}
    for done, layer in enumerate(layers):
        on_progress("trying layers in 8 bits", done, len(layers))
        change_alone[layer] = change_without([other for other in layers if other != layer])
    order = sorted(layers, key=lambda layer: change_alone[layer])
    # The change is taken to grow with the number of layers in 8 bits, so bisection finds the largest number.
    counts = range(1, len(order))
    count = max(1, bisect.bisect_right(counts, MAX_CHANGE, key=lambda count: change_without(order[count:])))
    quantise(src, dst, images, "|".join(map(re.escape, order[count:])))
    return method, tuple(sorted(layer.rstrip(".") for layer in order[count:]))


def _shares(session: InferenceSession, images: Sequence[Pixels], info: ClassifierInfo) -> NDArray[np.float64]:
    """Return the probabilities of images, (N, E)."""
    logits = np.concatenate([session.run([LOGITS], dict(views))[0] for views in images])
    return answers_of(info, logits, None)


def _behind_logits(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes that the logits don't need: distances in 8 bits could not be compared with the stored ones."""
    makers = {output: node for node in graph.node for output in node.output}
    needed = set[str]()
    waiting = [LOGITS]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting += node.input
    return [node.name for node in graph.node if node.name not in needed]


def _is_convolutional(model: onnx.ModelProto) -> bool:
    """Return True if convolutions have more than half of the weights that could be quantised."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    weights = {"Conv": 0, "MatMul": 0, "Gemm": 0}
    for node in model.graph.node:
        if node.op_type in weights:
            weights[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    return weights["Conv"] > weights["MatMul"] + weights["Gemm"]


def _compare(
    src: Path,
    small: Path,
    info: ClassifierInfo,
    batches: Iterable[tuple[Pixels, Sequence[Truth | None]]],
    on_progress: Callable[[int], None],
    *,
    method: Method,
    float_layers: tuple[str, ...],
) -> Int8Check:
    """Run both files on the same batches, in turns, so that a busy machine slows both equally.

    Each runs as in prediction, so that the measured speed is the real one.
    """
    sessions = [open_session(src), open_session(small)]
    takes_one = [is_one_by_one(session) for session in sessions]
    times_ms: list[list[float]] = [[], []]
    answers: list[list[NDArray[np.float64]]] = [[], []]
    truth = list[Truth | None]()
    for number, (batch, batch_truth) in enumerate(batches):
        for index in (0, 1) if number % 2 else (1, 0):
            if number == 0:
                # The first run allocates memory and is not measured.
                run_views(sessions[index], [LOGITS], batch, one_by_one=takes_one[index])
            start = time.perf_counter()
            [logits] = run_views(sessions[index], [LOGITS], batch, one_by_one=takes_one[index])
            times_ms[index].append((time.perf_counter() - start) / len(batch_truth) * 1000)
            answers[index].append(answers_of(info, logits, None))
        truth += batch_truth
        on_progress(len(truth))
    before, after = (np.concatenate(parts) for parts in answers)  # (N, E)
    labels_before, labels_after = (_predicted(info, probabilities) for probabilities in (before, after))
    accuracy_before, accuracy_after, accuracy_error = _accuracies(labels_before, labels_after, truth)
    return Int8Check(
        method=method,
        pictures=len(truth),
        kept_float=float_layers,
        change=float(np.abs(after - before).mean()),
        agreement=float((labels_before == labels_after).all(axis=1).mean()),
        measure="Jaccard index" if info.task == "multilabel" else "accuracy",
        accuracy_before=accuracy_before,
        accuracy_after=accuracy_after,
        accuracy_error=accuracy_error,
        float32_ms=float(np.median(times_ms[0])),
        int8_ms=float(np.median(times_ms[1])),
        float32_bytes=src.stat().st_size,
        int8_bytes=small.stat().st_size,
    )


def _predicted(info: ClassifierInfo, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return True for the predicted labels of each image, (N, E): the most probable, or those above their thresholds.

    Args:
        info: Metadata of the classifier.
        probabilities: (N, E).
    """
    if info.task == "multilabel":
        assigned = [info.assigned(row) for row in probabilities.tolist()]
        return np.array([[label in labels for label in info.labels] for labels in assigned])
    return np.arange(len(info.labels)) == probabilities.argmax(axis=1)[:, None]


def _accuracies(
    before: NDArray[np.bool_], after: NDArray[np.bool_], truth: Sequence[Truth | None]
) -> tuple[float | None, float | None, float | None]:
    """Return the accuracies before and after, and the standard error of their difference; None without labels.

    The accuracy is the mean Jaccard index of predicted and true labels; with one label of each, 1 or 0.

    Args:
        before: (N, E), True for predicted labels.
        after: (N, E), True for predicted labels.
        truth: N sets of labels; None for an image without labels.
    """
    rows = [row for row, labels in enumerate(truth) if labels is not None]
    if not rows:
        return None, None, None
    expected = np.zeros((len(rows), before.shape[1]), dtype=bool)
    for row, image in enumerate(rows):
        expected[row, list(truth[image] or ())] = True
    hits_before = _jaccard(before[rows], expected)
    hits_after = _jaccard(after[rows], expected)
    error = float(np.square(hits_after - hits_before).sum() ** 0.5 / len(rows))
    return float(hits_before.mean()), float(hits_after.mean()), error


def _jaccard(predicted: NDArray[np.bool_], expected: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the number of common labels divided by that of all labels of an image, (N,), for (N, E) each.

    Every image has an expected label, so nothing is divided by 0.
    """
    return (predicted & expected).sum(axis=1) / (predicted | expected).sum(axis=1)


def _batches(
    data: DataSet, samples: Sequence[Sample], info: ClassifierInfo, size: int
) -> Iterator[tuple[Pixels, Sequence[Truth | None]]]:
    """Yield the network's views of the readable images, and the classifier's numbers of their labels.

    Images with a label that the classifier does not have count as images without labels.
    """
    numbers = {data.labels.labels.index(label): i for i, label in enumerate(info.labels) if label in data.labels.labels}
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) * 255 for value in (info.mean, info.std))
    for batch in load_batches(samples, EvalViews(ViewConfig.of(info)), size):
        views = {"scene": batch.scene.numpy(), "person": batch.person.numpy()}
        if batch.samples:
            truth = [_truth_of(sample, numbers, info) for sample in batch.samples]
            yield {name: (views[name].astype(np.float32) - mean) / std for name in info.views}, truth


def _truth_of(sample: Sample, numbers: Mapping[int, int], info: ClassifierInfo) -> Truth | None:
    """Return the classifier's numbers of a sample's labels; None without labels, or if it lacks one of them.

    Args:
        sample: The sample. Several labels count only for a classifier that gives several.
        numbers: The classifier's number of each label of the data.
        info: Metadata of the classifier.
    """
    labels = sample.classes
    if sample.label is None and info.task != "multilabel":
        labels = ()
    if not labels or not all(label in numbers for label in labels):
        return None
    return tuple(numbers[label] for label in labels)


def _spread(samples: Sequence[Sample], limit: int) -> Sequence[Sample]:
    """Return at most this many samples, evenly spread."""
    count = min(limit, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]
