"""Read published weight files safely, and recognise whose they are."""

import argparse
import collections
import json
import math
import pickle
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from uniemox.errors import CheckpointError
from uniemox.io.files import open_regular
from uniemox.io.weight_archives import check_weight_archive, refusal
from uniemox.model.encoder import sincos_position

FIRST = "conv_proj.weight"  # by which such a file is known
NAMES = {
    "class_token": "cls_token",
    "conv_proj.": "patch_embed.proj.",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
}
LAYER_NAMES = {
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".self_attention.in_proj_": ".attn.qkv.",
    ".self_attention.out_proj.": ".attn.proj.",
    ".mlp.linear_1.": ".mlp.fc1.",
    ".mlp.linear_2.": ".mlp.fc2.",
    ".mlp.0.": ".mlp.fc1.",  # of newer versions
    ".mlp.3.": ".mlp.fc2.",
}


def is_torchvision_vit(names: Iterable[str]) -> bool:
    """Return whether these are the names of torchvision's VisionTransformer."""
    return {FIRST, "class_token", "encoder.pos_embedding"} <= set(names)


def plain_name(name: str) -> str:
    """timm's name of a tensor.

    >>> plain_name("encoder.layers.encoder_layer_3.self_attention.in_proj_weight")
    'blocks.3.attn.qkv.weight'
    """
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    for theirs, ours in LAYER_NAMES.items():
        name = name.replace(theirs, ours)
    return name


ZIP = b"PK"  # how the newer of torch.save's two formats begins
METADATA_KEY = "uniemox"  # in the header of the safetensors files that we write
ALLOWED: list[Any] = [
    argparse.Namespace,
    (collections.OrderedDict, "yacs.config.CfgNode"),
]  # what the official containers hold
# What torch.load raises for files that are cut off, mangled or something else; a file decides which of them.
UNREADABLE = (
    *(RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, AssertionError),
    *(OSError, MemoryError, OverflowError, struct.error),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """Content of a weight file."""

    path: Path
    content: dict[str, Any]  # tensors by name, or a container of such dictionaries
    metadata: dict[str, Any] | None  # what we wrote into a safetensors file of our own
    is_safetensors: bool


def read_weight_file(path: str | Path, *, mapped: bool = False) -> WeightFile:
    """Read a .safetensors file, or what torch.save wrote, into memory.

    mapped: leave the tensors of newer pickles on disk until they are looked at.
    Pickles are read with weights_only and an allow-list. Raises CheckpointError, with the file and the remedy, if there
    is no such file, it is cut off, it is no checkpoint, or it wants anything to run that the official containers don't.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; give the path of a weight file") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; give the path of a weight file") from error
    if _is_safetensors(path, start):
        return _read_safetensors(path)
    return WeightFile(
        path=path,
        content=_read_pickle(path, start, mapped and start.startswith(ZIP)),
        metadata=None,
        is_safetensors=False,
    )


def _is_safetensors(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" or start[8:9] == b"{"  # eight bytes of header length, then JSON


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        content = load_file(path)
        metadata = json.loads(header[METADATA_KEY]) if METADATA_KEY in header else None
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); fetch it again and compare its size"
        ) from error
    if metadata is not None and not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: the entry {METADATA_KEY!r} of its header must be a JSON object; write it again")
    return WeightFile(path=path, content=dict(content), metadata=metadata, is_safetensors=True)


def _read_pickle(path: Path, start: bytes, mapped: bool) -> dict[str, Any]:
    try:
        check_weight_archive(path)
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, start, str(error))) from error
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} is cut off or no checkpoint{_looks_like(start)}; fetch it again and compare its size"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def _refusal(path: Path, start: bytes, reason: str) -> str:
    """Tell a pickle that wants to run something from a file that is no pickle."""
    if "GLOBAL" in reason or "Unsupported class" in reason or "instruction" in reason:
        wanted = (reason.partition("GLOBAL ")[2].split() or ["something"])[0]
        return refusal(path, wanted)
    return f"{path} is cut off or no checkpoint{_looks_like(start)}; fetch it again and compare its size"


def _looks_like(start: bytes) -> str:
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " (it is a web page, perhaps of a download that needs a login)"
    if start.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run 'git lfs pull' where it came from)"
    return ""


def tensors_only(state: object, path: Path) -> dict[str, Tensor]:
    """The state dictionary, checked: names to finite tensors. Raises CheckpointError."""
    size, claimed = path.stat().st_size, 0
    storages: set[int] = set()
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} holds no weights where they were expected")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: the entry {name!r} is a {type(value).__name__}, expected a tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is no ordinary tensor (sparse, quantised, complex or without data)")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes() or not value.numel():
            raise CheckpointError(f"{path}: {name} has shape {tuple(value.shape)}, and not as many numbers in the file")
        storage = value.untyped_storage()
        claimed += 0 if storage.data_ptr() in storages else storage.nbytes()
        storages.add(storage.data_ptr())
        if claimed > size:  # before anything touches memory that no bytes of the file stand for
            raise CheckpointError(f"{path}: up to {name}, its tensors claim more than the {size:,} bytes it has")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
    return state


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
    """Return whether a position table is the fixed one, up to the rounding of its type."""
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
    """Return whether the names bear none of the prefixes: a file that was already cut down to the encoder."""
    return not any(name.startswith(prefixes) for name in state)


def state_of(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """The state dictionary inside the container. Raises CheckpointError if there is none."""
    for key in (preferred, *CONTAINERS):
        if key and isinstance(file.content.get(key), dict):
            return tensors_only(file.content[key], file.path)
    return tensors_only(file.content, file.path)
