"""Files as the published detectors have them, with random weights: their convolutions, in order, and no more."""

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from uniemox.checkpoints.detector_weights import convolutions_in_order
from uniemox.model.detectors import YoloxNano, YuNet


def write_detector(network: YoloxNano | YuNet, path: Path) -> YoloxNano | YuNet:
    """Write an ONNX file with the network's weights. Return the network."""
    layers = [*convolutions_in_order(network), *(nn.Conv2d(1, 1, 1) for _ in range(network.unused_convolutions))]
    nodes = []
    tensors = []
    for i, layer in enumerate(layers):
        names = [f"{i}.weight", f"{i}.bias"]
        values = [parameter.detach().numpy() for parameter in layer.parameters()]
        tensors += [numpy_helper.from_array(value, name) for value, name in zip(values, names, strict=True)]
        nodes.append(helper.make_node("Conv", [f"x{i}", *names], [f"x{i + 1}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x0", f"x{len(layers)}")]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph), path)
    return network


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
