"""Export a classifier as an ONNX file, with class-activation maps."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.fx import config as fx_config

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError
from uniemox.io.files import replacing
from uniemox.model.classifier import Classifier
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.model.eval_mode import eval_mode
from uniemox.predict.network import DISTANCE, FEATURES, LOGITS, MAPS, METADATA_KEY

TOLERANCE = 1e-4
"""Maximum error of pooled features, relative to the largest one."""


class WithMaps(nn.Module):
    """Wraps a classifier so that forward returns all outputs of its file: logits, class-activation maps, features.

    The maps are the head applied at every position of the last feature map (class activation maps, arXiv 1512.04150,
    equation 2): their mean over h and w plus the head's bias is the logits. Maps of several encoders are resized
    bilinearly to the largest, each keeping its mean, and added.

    Args:
        classifier: One that `has_maps` accepts.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, scene: Tensor) -> dict[str, Tensor]:
        """Return logits (N, E), features (N, D), distance (N,) if the classifier has one, and maps (N, E, h, w).

        Args:
            scene: (N, 3, H, W), ImageNet-normalised.
        """
        head: Any = self.classifier.head
        pairs = _features(self.classifier.encoder, scene)
        pooled = torch.cat([features for _, features in pairs], dim=1)  # (N, D)
        maps = []
        first = 0
        for feature_map, features in pairs:
            width = features.shape[1]
            weight = head.weight[:, first : first + width, None, None]  # (E, Di, 1, 1)
            maps.append(F.conv2d(feature_map, weight))  # (N, E, h, w)
            first += width
        size = max((int(class_map.shape[-2]), int(class_map.shape[-1])) for class_map in maps)
        total = _resized(maps[0], size)
        for class_map in maps[1:]:
            total = total + _resized(class_map, size)
        return named_outputs(self.classifier, pooled) | {MAPS: total}


class WithFeatures(nn.Module):
    """Like `WithMaps` for any classifier, without maps."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, scene: Tensor | None = None, person: Tensor | None = None) -> dict[str, Tensor]:
        """Return outputs as `WithMaps` does; arguments as for `Classifier.features`."""
        return named_outputs(self.classifier, self.classifier.features(scene, person))


def named_outputs(classifier: Classifier, features: Tensor) -> dict[str, Tensor]:
    """Return logits (N, E), the given features (N, D) and, if the classifier has one, distance (N,)."""
    logits = classifier.head(features)
    outputs = {LOGITS: logits, FEATURES: features}
    if classifier.distance is None:
        return outputs
    return outputs | {DISTANCE: classifier.distance(features, logits)}


@torch.no_grad()
def has_maps(classifier: Classifier, size: int) -> bool:
    """Return True if a scene classifier is a linear head over the means of one or several feature maps.

    The network is tested on one image of noise.

    Args:
        classifier: Classifier in eval mode, on the CPU.
        size: Side of its input, px.
    """
    encoder = classifier.encoder
    if classifier.streams != "scene" or classifier.method is not None or not isinstance(classifier.head, nn.Linear):
        return False
    parts = encoder.encoders if isinstance(encoder, ConcatEncoder) else [encoder]
    if not all(hasattr(part, "forward_features") and hasattr(part, "forward_head") for part in parts):
        return False
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for feature_map, pooled in _features(encoder, noise):
        if feature_map.ndim != 4 or pooled.shape != feature_map.shape[:2]:
            return False
        if (feature_map.mean(dim=(2, 3)) - pooled).abs().max() > TOLERANCE * pooled.abs().max():
            return False
    return True


def _features(encoder: Any, scene: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the last feature map (N, D, h, w) and the features (N, D) of each encoder."""
    if not isinstance(encoder, ConcatEncoder):
        feature_map = encoder.forward_features(scene)
        return [(feature_map, encoder.forward_head(feature_map))]
    parts: Any = encoder.encoders
    feature_maps = [part.forward_features(x) for part, x in zip(parts, encoder.inputs(scene), strict=True)]
    return [
        (feature_map, part.forward_head(feature_map)) for part, feature_map in zip(parts, feature_maps, strict=True)
    ]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (N, E, h, w) bilinearly without changing their means."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    large = F.interpolate(maps, size, mode="bilinear")
    return large + maps.mean(dim=(2, 3), keepdim=True) - large.mean(dim=(2, 3), keepdim=True)


OPSET = 20


def export_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write a classifier as ONNX, any batch size, atomically.

    Inputs "scene" and "person", as in its streams: (N, 3, S, S) float32, normalised with info's mean and std. Outputs
    "logits": (N, E); "features": (N, D), input of the head; "distance": (N,), if the classifier has one, see
    `Distance`; "maps": (N, E, h, w), if `has_maps` is true, see `WithMaps`. Outputs that are not requested cost
    nothing. Its metadata contain `info` as JSON under "uniemox".

    Raises:
        CheckpointError: If torch can't export the network, or if the file can't be written.
    """
    names = list(info.views)
    device = next(classifier.parameters()).device
    # A classifier that was compiled for training would be compiled again, for the CPU, which needs a C++ compiler.
    with eval_mode(classifier.cpu()), torch.compiler.set_stance("force_eager"):
        program = _traced(classifier, names, info.size)
    classifier.to(device)
    if program is None:
        raise CheckpointError(f"{path}: torch could not export this network")
    model = program.model_proto
    forget_origin(model.graph)
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    write_model(model, path)


def _traced(classifier: Classifier, names: Sequence[str], size: int) -> torch.onnx.ONNXProgram | None:
    """Translate a classifier to ONNX.

    Args:
        classifier: Classifier in eval mode, on the CPU.
        names: Names of its inputs.
        size: Side of its inputs, px.

    Returns:
        The translated program; None if torch can't translate it.
    """
    module: Any
    for module in classifier.modules():
        # torch can't export BEiT with fused attention.
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    pixels = {name: torch.zeros(2, 3, size, size) for name in names}
    batch = torch.export.Dim("batch", min=1)
    wrapped = WithMaps(classifier) if has_maps(classifier, size) else WithFeatures(classifier)
    wrapped.eval()
    with torch.no_grad():
        outputs = list(wrapped(**pixels))
    # With gradients, the file would be the same and its translation slower.
    with torch.no_grad(), quiet():
        return torch.onnx.export(
            wrapped,
            kwargs=pixels,
            dynamic_shapes={name: {0: batch} for name in names},
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        CheckpointError: If it can't be read or is not ONNX.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if is_missing else f"{error}; export it again"
        raise CheckpointError(f"{path} can't be read as ONNX: {reason}") from error
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file atomically.

    Raises:
        CheckpointError: If it can't be written.
    """
    with replacing(path, CheckpointError) as partial:
        onnx.save(model, partial)


def forget_origin(graph: onnx.GraphProto) -> None:
    """Remove the source lines and paths of this machine that torch's exporter stores with nodes and values."""
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporter inside the context; it doesn't look up the source line of each node either."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # `forget_origin` would remove these lines, and to find them takes a quarter of the time of a small network.
    has_no_lines = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            fx_config.do_not_emit_stack_traces = has_no_lines
            logger.setLevel(level)
