"""Weights of published detectors, from their ONNX files."""

from pathlib import Path
from typing import TypeVar

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import nn

from uniemox.errors import CheckpointError
from uniemox.model.detectors import YoloxNano, YuNet

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
