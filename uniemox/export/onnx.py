"""A classifier as an ONNX file: the one format that prediction, explanation and the server read."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError
from uniemox.export.maps import WithFeatures, WithMaps, has_maps
from uniemox.io.files import replacing
from uniemox.model.classifier import Classifier

KEY = "uniemox"
OPSET = 20


def export_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write a classifier as ONNX, any batch size; the file is there whole or not at all.

    Inputs "scene" and "person", as its streams have them: (N, 3, S, S) float32, normalised with info's mean and std.
    Outputs "logits": (N, E); "features": (N, D), what the head reads; "distance": (N,), where the classifier knows it,
    see `Distance`; "maps": (N, E, h, w), where `has_maps` is true, see `WithMaps`. What is not asked for costs
    nothing. Its metadata hold `info` as JSON under "uniemox".
    Raises CheckpointError if it can't be written.
    """
    names = list(info.views)
    device = next(classifier.parameters()).device
    was_training = classifier.training
    classifier.eval().cpu()
    module: Any
    for module in classifier.modules():
        if hasattr(module, "fused_attn"):  # with it torch can't export BEiT
            module.fused_attn = False
    pixels = {name: torch.zeros(2, 3, info.size, info.size) for name in names}
    batch = torch.export.Dim("batch", min=1)
    whole = (WithMaps if has_maps(classifier, info.size) else WithFeatures)(classifier).eval()
    with torch.no_grad():
        outputs = list(whole(**pixels))
    with quiet():
        program = torch.onnx.export(
            whole,
            kwargs=pixels,
            dynamic_shapes={name: {0: batch} for name in names},
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    classifier.train(was_training).to(device)
    if program is None:
        raise CheckpointError(f"{path}: torch could not export this network")
    model = program.model_proto
    forget_origin(model.graph)
    onnx.helper.set_model_props(model, {KEY: info.to_json()})
    write_model(model, path)


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file. Raises CheckpointError if it can't be read or is none."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} can't be read as ONNX: there is no such file") from error
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise CheckpointError(f"{path} can't be read as ONNX: {error}; export it again") from error
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """An ONNX file, there whole or not at all. Raises CheckpointError if it can't be written."""
    try:
        with replacing(path) as partial:
            onnx.save(model, partial)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error


def forget_origin(graph: onnx.GraphProto) -> None:
    """Take out what torch's exporter notes beside every node and value: lines of source, and where they lie here."""
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
