"""Published detectors, from their ONNX files into torch."""

from pathlib import Path
from typing import TypeVar

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import nn

from uniemox.errors import CheckpointError
from uniemox.model.yolox import YoloxNano
from uniemox.model.yunet import YuNet

Network = TypeVar("Network", bound=YoloxNano | YuNet)
PX = 64  # of the image on which the order of the convolutions is seen
MAX_BYTES = 64 * 2**20
SOURCES: dict[type, str] = {
    YoloxNano: "YOLOX-nano as Megvii-BaseDetection/YOLOX publishes it (yolox_nano.onnx)",
    YuNet: "YuNet-n as libfacedetection.train publishes it (yunet_n.onnx)",
}


@torch.no_grad()
def load_detector_weights(network: Network, path: Path) -> Network:
    """The same network, with the weights of a published ONNX file, in eval mode and frozen.

    The file's convolutions go to the network's in the order in which both run.
    Raises CheckpointError, with what is expected, if the file is none of that network.
    """
    layers = in_order(network)
    expected = f"expected {SOURCES[type(network)]}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; {expected}")
        graph = onnx.load(path).graph
        tensors = {one.name: one for one in graph.initializer}
        pairs = [
            [torch.from_numpy(numpy_helper.to_array(tensors[name]).copy()) for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "Conv"
        ]
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); {expected}") from error
    own = [[tensor.shape for tensor in layer.parameters()] for layer in layers]
    theirs = [[tensor.shape for tensor in pair] for pair in pairs[: len(layers)]]
    if len(pairs) != len(layers) + network.unused_convolutions or own != theirs:
        raise CheckpointError(f"{path} is another network, of {len(pairs)} convolutions; {expected}")
    for layer, pair in zip(layers, pairs, strict=False):
        for tensor, value in zip(layer.parameters(), pair, strict=True):
            tensor.copy_(value)
    network.eval().requires_grad_(False)
    return network


def in_order(network: nn.Module) -> list[nn.Conv2d]:
    """Its convolutions, in the order in which they run."""
    seen: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, _: seen.append(layer))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(torch.zeros(1, 3, PX, PX))
    for hook in hooks:
        hook.remove()
    return seen
