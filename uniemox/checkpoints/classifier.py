"""Files of classifiers: safetensors with a description of the network, detector weights, the embedded models."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import onnx
import safetensors
import safetensors.torch
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from uniemox.checkpoints.reading import MAX_ENCODERS, check_file
from uniemox.checkpoints.saving import timm_model, write_tensors
from uniemox.checkpoints.timm_networks import TIMM, TimmSource
from uniemox.classifier_info import ClassifierInfo, EncoderSpec, NetworkSpec, read_info
from uniemox.errors import CheckpointError, UniemoxError
from uniemox.io.files import open_regular
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.model.classifier import Classifier
from uniemox.model.config import refuse_foreign
from uniemox.model.detectors import YoloxNano, YuNet
from uniemox.model.encoders import MIXMAE, MixMAEEncoder, build, build_encoders
from uniemox.predict.network import KEY
from uniemox.predict.opening import embedded_file

CLASSIFIER_KEY = "uniemox_classifier"
# Maximum number of blocks in all encoders of a file.
MAX_BLOCKS = 256
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, safetensors.SafetensorError)


def describe_encoder(encoder: Any) -> EncoderSpec:
    """Return the description from which the encoder can be rebuilt.

    Args:
        encoder: Result of `load_published` or `load_timm`, with its report.
    """
    if encoder.report.path.startswith(TIMM):
        source = TimmSource.parse(encoder.report.path)
        size = getattr(getattr(encoder, "patch_embed", None), "img_size", None)
        options: dict[str, Any] = {"num_classes": 0, **source.options}
        if size:
            options["img_size"] = size[0]
        return EncoderSpec(name=source.name, options=options)
    name, options = timm_model(encoder)
    return EncoderSpec(name=MIXMAE if isinstance(encoder, MixMAEEncoder) else name, options=options)


def save_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write weights and info atomically.

    Raises:
        CheckpointError: If the file can't be written.
    """
    write_tensors(path, classifier.state_dict(), {CLASSIFIER_KEY: info.to_json()})


def load_classifier(path: Path, allow: Collection[str] = ()) -> tuple[Classifier, ClassifierInfo]:
    """Load a classifier, in eval mode, and its metadata.

    Args:
        path: A file that `save_classifier` wrote.
        allow: Packages whose methods and fusions may be imported, in addition to those listed in the environment
            variable UNIEMOX_ALLOW_PACKAGES.

    Raises:
        CheckpointError: If the file is not a classifier or needs another package.
    """
    header = _header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is not a uniemox classifier; uniemox finetune writes one as RUN/model.safetensors"
        )
    try:
        info = read_info(header)
        spec = info.network
        if not spec.encoders:
            raise CheckpointError("its header does not describe a network")
        refuse_foreign((spec.fusion, spec.method), allow)
        _check_blocks(spec)
        # A header may claim any size: compare shapes on the meta device before memory is allocated.
        with torch.device("meta"):
            draft = build(spec)
        check_file(draft, path)
        classifier = build(spec)
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except (*UNREADABLE, AssertionError, UniemoxError) as error:
        raise CheckpointError(f"{path} can't be loaded: {error}") from error
    return classifier.eval(), info


def _check_blocks(spec: NetworkSpec) -> None:
    """Refuse more blocks or encoders than any network has; building each takes time even without weights.

    Raises:
        CheckpointError: If there are more.
    """
    depths = [encoder.options.get(key, 0) for encoder in spec.encoders for key in ("depth", "depths")]
    blocks = sum(abs(count) for depth in depths for count in (depth if isinstance(depth, tuple) else [depth]))
    if blocks > MAX_BLOCKS or len(spec.encoders) > MAX_ENCODERS:
        raise CheckpointError(
            f"its {len(spec.encoders)} encoders have {blocks} blocks; at most {MAX_ENCODERS} and {MAX_BLOCKS} are read"
        )


def read_classifier_info(path: Path) -> ClassifierInfo | None:
    """Read the metadata of a classifier without its weights; None for other safetensors files.

    Raises:
        CheckpointError: If the file or its metadata can't be read.
    """
    header = _header(path)
    if header is None:
        return None
    return read_info(header)


def is_classifier(path: Path) -> bool:
    """Return True if a safetensors file is a uniemox classifier.

    Raises:
        CheckpointError: If it can't be read.
    """
    return _header(path) is not None


def _header(path: Path) -> str | None:
    """Return the description in a classifier's file; None for other safetensors files.

    Raises:
        CheckpointError: If the file can't be read.
    """
    try:
        with open_regular(path), safetensors.safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get(CLASSIFIER_KEY)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


Network = TypeVar("Network", bound=YoloxNano | YuNet)
# Side of the image that shows the order of the convolutions.
PROBE_PX = 64
MAX_DETECTOR_BYTES = 64 * 2**20


@torch.no_grad()
def load_detector_weights(network: Network, path: Path) -> Network:
    """Load the weights of a published ONNX file into a network; returns it in eval mode and frozen.

    The file's convolutions are assigned to the network's in the order in which both run.

    Raises:
        CheckpointError: With the expected file, if the file can't be read or is of another network.
    """
    layers = convolutions_in_order(network)
    expected = f"expected {network.published}"
    try:
        if path.stat().st_size > MAX_DETECTOR_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; {expected}")
        graph = onnx.load(path).graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        # Weight and bias of each convolution.
        pairs = [
            [torch.from_numpy(numpy_helper.to_array(tensors[name]).copy()) for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "Conv"
        ]
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); {expected}") from error
    shapes = [[tensor.shape for tensor in layer.parameters()] for layer in layers]
    file_shapes = [[tensor.shape for tensor in pair] for pair in pairs[: len(layers)]]
    if len(pairs) != len(layers) + network.unused_convolutions or shapes != file_shapes:
        raise CheckpointError(f"{path} is another network, of {len(pairs)} convolutions; {expected}")
    for layer, pair in zip(layers, pairs, strict=False):
        for tensor, value in zip(layer.parameters(), pair, strict=True):
            tensor.copy_(value)
    network.eval().requires_grad_(False)
    return network


def convolutions_in_order(network: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions in the order in which they run."""
    layers: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, _: layers.append(layer))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    for hook in hooks:
        hook.remove()
    return layers


@torch.no_grad()
def load_embedded(name: str) -> tuple[Any, ClassifierInfo]:
    """Return the encoder of an embedded model, in eval mode, and its classifier's metadata; see `load_onnx_encoder`.

    Args:
        name: "embedded" or "small".

    Raises:
        CheckpointError: If this installation lacks the file.
    """
    return load_onnx_encoder(embedded_file(IN_PACKAGE[name]))


@torch.no_grad()
def load_onnx_encoder(path: Path) -> tuple[Any, ClassifierInfo]:
    """Return the encoder of an ONNX file of convolutional networks, in eval mode, and its classifier's metadata.

    Its features are those of the ONNX file, in which batch norms are folded into convolutions. Here they have mean 0,
    variance 1 and the convolution's bias, so they must stay in eval mode while the encoder is trained.

    Args:
        path: File of `uniemox.export` or of the package, whose batch norms were folded.
    """
    model = onnx.load(path)
    info = read_info(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    encoder = build_encoders(info.network)
    stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node if node.op_type in ("Cast", "Mul")}

    def weight(name: str) -> Tensor:
        """Return a weight in float32, however it is stored; see `uniemox.export.compact`."""
        if name in stored:
            return torch.from_numpy(numpy_helper.to_array(stored[name]).copy()).float()
        inputs = [weight(input_name) for input_name in nodes[name].input]
        if len(inputs) == 1:
            return inputs[0]
        # 8-bit values times their scales.
        return inputs[0] * inputs[1]

    # A batch norm follows the convolution into which it is folded, and takes that one's bias.
    conv = ""
    for name, module in encoder.named_modules(prefix="classifier.encoder"):
        if isinstance(module, nn.Conv2d):
            conv = name
            module.weight.copy_(weight(f"{name}.weight"))
            if module.bias is not None:
                module.bias.copy_(weight(f"{name}.bias"))
        elif isinstance(module, nn.BatchNorm2d):
            # Divided by the deviation of the norm, √(1 + eps), this is a factor of 1.
            module.weight.fill_((1 + module.eps) ** 0.5)
            module.bias.copy_(weight(f"{conv}.weight_bias"))
    return encoder.eval(), replace(info, network=replace(info.network, folded_norms=True))
