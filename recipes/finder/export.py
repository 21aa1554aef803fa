"""The person finder as an ONNX file that `persons.load_detector` recognises."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from recipes.finder.network import FinderNetwork
from uniemox.errors import CheckpointError
from uniemox.export.compact import store_as_float16
from uniemox.export.onnx import OPSET, forget_origin, quiet, write_model
from uniemox.io.files import replacing

KEY = "uniemox_finder"


class FinderGraph(nn.Module):
    """Graph that is written: RGB px of 0 to 255, (N, 3, S, S), in; (N, 5, S/8, S/8) out.

    The output holds the probability that a person's centre is in a cell, then distances from the cell's middle to the
    left, top, right and bottom of the box, px.

    Args:
        network: The trained finder.
        mean: Mean of pixels in [0, 1].
        std: Standard deviation of pixels in [0, 1].
        threshold: Heat that becomes a confidence of 0.5, so that all finders have the same minimum confidence.
    """

    mean: Tensor
    std: Tensor
    shift: Tensor

    def __init__(
        self, network: FinderNetwork, mean: tuple[float, ...], std: tuple[float, ...], threshold: float
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255)
        self.register_buffer("shift", torch.logit(torch.tensor(threshold)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return confidences and distances, (N, 5, S/8, S/8), for pixels (N, 3, S, S), float32, RGB, 0 to 255."""
        heat, distances = self.network((pixels - self.mean) / self.std)
        return torch.cat([torch.sigmoid(heat - self.shift)[:, None], distances], dim=1)  # (N, 5, S/8, S/8)


def export_finder(graph: FinderGraph, size: int, about: Mapping[str, Any], path: Path) -> None:
    """Write a finder as ONNX for any number of images, with weights in float16; the file is complete or not written.

    Args:
        graph: Graph to write.
        size: Side of its input, px.
        about: Written as JSON to the metadata, under "uniemox_finder".
        path: File to write.

    Raises:
        CheckpointError: If it can't be written.
    """
    graph = graph.eval()
    with quiet():
        program = torch.onnx.export(
            graph,
            (torch.zeros(2, 3, size, size),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["pixels"],
            output_names=["people"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise CheckpointError(f"{path}: torch could not export this network")
    model = program.model_proto
    forget_origin(model.graph)
    onnx.helper.set_model_props(model, {KEY: json.dumps(dict(about))})
    try:
        with replacing(path) as partial:
            write_model(model, partial)
            store_as_float16(partial, partial)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error
