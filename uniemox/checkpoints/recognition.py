"""Which method wrote a file, and where in it the encoder lies."""

import math
import re
from typing import Literal, get_args

import torch
from torch import Tensor

from uniemox.checkpoints.reading import WeightFile, tensors_only
from uniemox.checkpoints.torchvision_vit import is_torchvision_vit, plain_name
from uniemox.errors import CheckpointError
from uniemox.model.position import sincos_position

MethodName = Literal[
    "moco_v3", "dino", "beit", "mae", "simmim", "simmim_swin", "tinymim", "siameseim", "mixmae", "dbot", "cae",
    "uniemox", "timm", "torchvision",
]  # fmt: skip
CONTAINERS = ("model", "module", "state_dict")  # where training scripts put the weights
PREFIXES: dict[MethodName, tuple[str, ...]] = {
    "moco_v3": ("module.base_encoder.",),
    "dino": ("module.backbone.", "backbone."),
    "simmim": ("encoder.",),
    "simmim_swin": ("encoder.",),
    "cae": ("encoder.",),
    "uniemox": ("encoder.",),
}
ENCODER_NAMES = re.compile(
    r"(cls_token|pos_embed|absolute_pos_embed)$|(patch_embed|blocks|layers|norm|fc_norm|rel_pos_bias)\."
)
REBUILT = re.compile(r"(relative_position_index|attn_mask)$")  # follow from the architecture


def recognise(file: WeightFile) -> MethodName:
    """The method that wrote the file, from its container and names. Raises CheckpointError for any other file."""
    if file.metadata is not None:
        return check_method(str(file.metadata.get("method")))
    content = file.content
    if isinstance(content.get("teacher"), dict) and isinstance(content.get("student"), dict):
        return "dino"
    state = state_of(file)
    if "visual.conv1.weight" in state or "visual.proj" in state:
        raise CheckpointError(f"{file.path} is a CLIP model: it can be the teacher, not the encoder")
    if is_torchvision_vit(state) or any(name.startswith("module.base_encoder.") for name in state):
        return "torchvision" if is_torchvision_vit(state) else "moco_v3"
    if "encoder.cls_token" in state or "encoder.patch_embed.proj.weight" in state:
        if "embed.weight" in state and "encoder.norm.weight" in state:
            return "uniemox"  # the whole model's
        swin = any(name.startswith("encoder.layers.") for name in state)
        return "simmim_swin" if swin else "cae" if "encoder.pos_embed" in state else "simmim"
    if "absolute_pos_embed" in state:
        return "mixmae"
    if any(name.endswith("relative_position_bias_table") and not name.startswith("layers.") for name in state):
        return "beit"
    if any(name.startswith("mm_") for name in state):
        return "siameseim"
    if "decoder_predp.weight" in state:
        return "dbot"
    if "decoder_pred.weight" in state:
        return "mae"
    if "pos_embed" in state and "patch_embed.proj.weight" in state:
        return _recognise_plain(file, state)
    raise CheckpointError(
        f"{file.path} is of no method that uniemox knows; its first names are {', '.join(list(state)[:5])}. Name the "
        f"method ({', '.join(get_args(MethodName))}) if you know better"
    )


def _recognise_plain(file: WeightFile, state: dict[str, Tensor]) -> MethodName:
    """A plain ViT without a decoder: several methods release just that, under the same names.

    Their fixed position tables tell some of them apart: MoCo v3's and SiameseIM's begin with the row, MAE's, dBOT's and
    TinyMIM's with the column, DINO's and timm's are learned.
    """
    is_pooled, has_head = "fc_norm.weight" in state, "head.weight" in state
    if is_sincos(state["pos_embed"], rows_first=True):
        return "moco_v3" if "norm.weight" in state else "siameseim"
    if state is not file.content:
        is_trained_longer = is_pooled or has_head or "optimizer" not in file.content
        return "mae" if is_trained_longer else "tinymim"
    if file.is_safetensors or has_head:
        return "timm"
    return "mae" if is_pooled or is_sincos(state["pos_embed"], rows_first=False) else "dino"  # its "backbone only"


def is_sincos(table: Tensor, *, rows_first: bool) -> bool:
    """Whether a position table is the fixed one, up to the rounding of its type."""
    side = math.isqrt(max(table.shape[1] - 1, 0)) if table.ndim == 3 else 0
    if not side or table.shape[1] != side**2 + 1 or table.shape[2] % 4 or not table.is_floating_point():
        return False
    expected = sincos_position(table.shape[2], (side, side), rows_first=rows_first)
    return bool((table.float() - expected).abs().max() < max(1e-5, torch.finfo(table.dtype).eps))


def check_method(name: str) -> MethodName:
    """The name, if there is such a method. Raises CheckpointError."""
    for method in get_args(MethodName):
        if method == name:
            return method
    raise CheckpointError(f"there is no method {name!r}; choose one of auto, {', '.join(get_args(MethodName))}")


def encoder_tensors(file: WeightFile, method: MethodName) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors without the method's prefix, in float32, and the names of everything else.

    Raises CheckpointError if the file holds no encoder of that method.
    """
    is_own = file.metadata is not None
    state = tensors_only(file.content, file.path) if is_own else state_of(file, "teacher" if method == "dino" else None)
    prefixes = () if is_own else PREFIXES.get(method, ())
    found = {}
    for name, value in state.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        short = name.removeprefix(prefix) if method != "torchvision" else plain_name(name)
        if (prefix or not prefixes or _has_no(prefixes, state)) and ENCODER_NAMES.match(short):
            found[short] = (name, value)
    tensors = {short: value.float() for short, (_, value) in found.items() if not REBUILT.search(short)}
    if "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(
            f"{file.path} holds no encoder of {method}: {prefixes[0] if prefixes else ''}patch_embed.proj.weight is "
            "missing; let the method be recognised (method='auto') or fetch the pre-training file"
            + (" (a stem of several convolutions is not supported)" if "patch_embed.proj.0.weight" in tensors else "")
        )
    used = {name for name, _ in found.values()}
    return tensors, [name for name in state if name not in used or REBUILT.search(name)]


def _has_no(prefixes: tuple[str, ...], state: dict[str, Tensor]) -> bool:
    """Whether the names bear none of the prefixes: a file that was already cut down to the encoder."""
    return not any(name.startswith(prefixes) for name in state)


def state_of(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """The state dictionary inside the container. Raises CheckpointError if there is none."""
    for key in (preferred, *CONTAINERS):
        if key and isinstance(file.content.get(key), dict):
            return tensors_only(file.content[key], file.path)
    return tensors_only(file.content, file.path)
