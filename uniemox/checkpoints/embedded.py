"""The encoders of the models in the package, out of ONNX files that name every weight as timm does."""

from dataclasses import replace
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.model.encoders import build_encoders
from uniemox.predict.network import KEY
from uniemox.predict.opening import embedded_file


@torch.no_grad()
def load_embedded(name: str) -> tuple[Any, ClassifierInfo]:
    """Return the encoder of embedded or small, in eval mode, and what describes its classifier.

    Its features are those of the ONNX file. There batch norms are folded into convolutions; here they have mean 0,
    variance 1 and the convolution's bias, so they must stay in eval mode while the encoder is trained.
    Raises CheckpointError if this installation lacks the file.
    """
    model = onnx.load(embedded_file(IN_PACKAGE[name]))
    info = read_info(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    assert info.network is not None, "they are of this version"
    encoder, weights = build_encoders(info.network), _Weights(model.graph)
    conv = ""
    for path, module in encoder.named_modules(prefix="classifier.encoder"):
        if isinstance(module, nn.Conv2d):
            conv = path
            module.weight.copy_(weights[f"{path}.weight"])
            if module.bias is not None:
                module.bias.copy_(weights[f"{path}.bias"])
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.fill_((1 + module.eps) ** 0.5)
            module.bias.copy_(weights[f"{conv}.weight_bias"])
    return encoder.eval(), replace(info, network=replace(info.network, folded_norms=True))


class _Weights:
    """The weights of a graph by name, in float32, however they are stored; see `uniemox.export.compact`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = {node.output[0]: node for node in graph.node if node.op_type in ("Cast", "Mul")}

    def __getitem__(self, name: str) -> Tensor:
        if name in self.stored:
            return torch.from_numpy(numpy_helper.to_array(self.stored[name]).copy()).float()
        parts = [self[one] for one in self.nodes[name].input]
        return parts[0] if len(parts) == 1 else parts[0] * parts[1]  # of 8 bits: times the scales
