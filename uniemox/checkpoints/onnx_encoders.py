"""Encoders of ONNX files of classifiers, such as the models in the package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.model.encoders import build_encoders
from uniemox.predict.network import METADATA_KEY
from uniemox.predict.opening import embedded_file


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
    info = read_info(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY))
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
