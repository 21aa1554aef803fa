"""Which method wrote a file, and where in it the encoder lies."""

import re
from typing import Literal, get_args

from torch import Tensor

from uniemox.checkpoints.reading import WeightFile, tensors_only
from uniemox.errors import CheckpointError
from uniemox.model.position import sincos_position

MethodName = Literal[
    "moco_v3", "dino", "beit", "mae", "simmim", "simmim_swin", "tinymim", "siameseim", "mixmae", "dbot", "cae",
    "uniemox", "timm",
]  # fmt: skip
CONTAINERS = ("model", "module", "state_dict")  # where training scripts put the weights
PREFIXES: dict[MethodName, tuple[str, ...]] = {
    "moco_v3": ("module.base_encoder.",),
    "dino": ("module.backbone.", "backbone."),
    "simmim": ("encoder.",),
    "simmim_swin": ("encoder.",),
    "cae": ("encoder.",),
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
    state = _state(file)
    if "visual.conv1.weight" in state or "visual.proj" in state:
        raise CheckpointError(f"{file.path} is a CLIP model: it can be the teacher, not the encoder")
    if any(name.startswith("module.base_encoder.") for name in state):
        return "moco_v3"
    if "encoder.cls_token" in state or "encoder.patch_embed.proj.weight" in state:
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
    """A plain ViT without a decoder: several methods release just that, under the same names."""
    table = state["pos_embed"]
    is_flat = state is file.content
    if "fc_norm.weight" in state or "head.weight" in state or file.is_safetensors:
        return "timm" if is_flat else "mae"  # fine-tuned, or timm's own
    if is_flat:
        return "dino"  # its "backbone only" release
    side = int((table.shape[1] - 1) ** 0.5)
    if table.shape[1] == side**2 + 1 and table.shape[2] % 4 == 0:
        row_first = sincos_position(table.shape[2], (side, side), rows_first=True)
        if (table.float() - row_first).abs().max() < 1e-5:
            return "moco_v3"  # after its convert_to_deit.py
    return "tinymim" if "optimizer" in file.content else "mae"


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
    state = tensors_only(file.content, file.path) if is_own else _state(file, "teacher" if method == "dino" else None)
    prefixes = () if is_own else PREFIXES.get(method, ())
    found = {}
    for name, value in state.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        short = name.removeprefix(prefix)
        if (prefix or not prefixes or _has_no(prefixes, state)) and ENCODER_NAMES.match(short):
            found[short] = (name, value)
    tensors = {short: value.float() for short, (_, value) in found.items() if not REBUILT.search(short)}
    if "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(
            f"{file.path} holds no encoder of {method}: {prefixes[0] if prefixes else ''}patch_embed.proj.weight is "
            "missing; let the method be recognised (method='auto') or fetch the pre-training file"
        )
    used = {name for name, _ in found.values()}
    return tensors, [name for name in state if name not in used or REBUILT.search(name)]


def _has_no(prefixes: tuple[str, ...], state: dict[str, Tensor]) -> bool:
    """Whether the names bear none of the prefixes: a file that was already cut down to the encoder."""
    return not any(name.startswith(prefixes) for name in state)


def _state(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """The state dictionary inside the container."""
    for key in (preferred, *CONTAINERS):
        if key and isinstance(file.content.get(key), dict):
            return tensors_only(file.content[key], file.path)
    return tensors_only(file.content, file.path)
