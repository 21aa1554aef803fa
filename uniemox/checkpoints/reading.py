"""Reads published weight files safely, and recognises their method."""

import argparse
import collections
import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uniemox.errors import CheckpointError
from uniemox.io.files import open_regular
from uniemox.io.weight_archives import UNREADABLE, check_weight_archive, refusal
from uniemox.model.encoder import sincos_position
from uniemox.views.patches import IMAGENET

ZIP = b"PK"  # beginning of the newer of torch.save's two formats
METADATA_KEY = "uniemox"  # in the header of our safetensors files
MAX_ENCODERS = 16
MAX_BUFFERS = 2**28  # maximum bytes of masks and indices, which are computed instead of stored
ALLOWED: list[Any] = [
    argparse.Namespace,
    (collections.OrderedDict, "yacs.config.CfgNode"),
]  # types in the official containers


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """Content of a weight file."""

    path: Path
    content: dict[str, Any]  # tensors by name, or a container of such dictionaries
    metadata: dict[str, Any] | None  # metadata in our own safetensors files
    is_safetensors: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """Report of loading a weight file. Names are the encoder's; those in `dropped` are the file's."""

    path: str
    method: str
    image_size: int  # side of the input in px
    heads: int | tuple[int, ...] | None  # attention heads, per stage if they differ; None: unknown, for timm
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None  # of the input pixels; None: unknown
    loaded: tuple[str, ...]
    resized: tuple[str, ...] = ()  # loaded tables that were made for another image size
    new: tuple[str, ...] = ()  # not in the file: the method's own fine-tuning initialises them
    dropped: tuple[str, ...] = ()  # in the file, but not in the encoder or not used by its fine-tuning

    def __str__(self) -> str:
        pixels = "unknown" if self.mean_std is None else " and ".join(map(str, self.mean_std))
        lines = [
            f"{self.path}: {self.method}, {self.image_size} px, heads {self.heads}",
            f"  mean and deviation of its pixels {pixels}",
            f"  loaded {len(self.loaded)}",
        ]
        for what, names in (("resized", self.resized), ("new", self.new), ("dropped", self.dropped)):
            listing = ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  {what} {len(names)}{': ' + listing if names else ''}")
        return "\n".join(lines)


def heads_in(encoder: Any) -> int | tuple[int, ...]:
    """Return the attention heads of a network of timm, per stage where it has stages."""
    if hasattr(encoder, "blocks"):
        return encoder.blocks[0].attn.num_heads
    return tuple(stage.blocks[0].attn.num_heads for stage in encoder.layers)


def read_weight_file(path: str | Path, *, mapped: bool = False) -> WeightFile:
    """Read a .safetensors file, or a file of torch.save, into memory.

    mapped: leave the tensors of newer pickles on disk until they are used.
    Pickles are read with weights_only and an allow-list. Raises CheckpointError, with the file and the remedy, if the
    file does not exist, is cut off, is not a checkpoint, or would run anything that official containers don't need.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; give a weight file (`uniemox docs checkpoints`)") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; give the path of a weight file") from error
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # eight bytes of header length, then JSON
        return _read_safetensors(path)
    content = _read_pickle(path, start, mapped and start.startswith(ZIP))
    return WeightFile(path=path, content=content, metadata=None, is_safetensors=False)


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
    except UNREADABLE as error:
        reason, seems = str(error) if isinstance(error, pickle.UnpicklingError) else "", ""
        if "GLOBAL" in reason or "Unsupported class" in reason or "instruction" in reason:  # it would run code
            wanted = (reason.partition("GLOBAL ")[2].split() or ["something"])[0]
            raise CheckpointError(refusal(path, wanted)) from error
        if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
            seems = " (it is a web page, perhaps of a download that needs a login)"
        elif start.startswith(b"version https://git-lfs"):
            seems = " (it is a Git LFS pointer: run 'git lfs pull' where it came from)"
        raise CheckpointError(
            f"{path} is cut off or not a checkpoint{seems}; fetch it again and compare its size"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def tensors_only(state: object, path: Path) -> dict[str, Tensor]:
    """Return the state dictionary after a check: names to finite tensors. Raises CheckpointError."""
    size, claimed = path.stat().st_size, 0
    storages: set[int] = set()
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} has no weights at the expected place")
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
        if claimed > size:  # before touching memory without bytes in the file
            raise CheckpointError(f"{path}: up to {name}, its tensors claim more than the {size:,} bytes it has")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
    return state


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedMethod:
    """Method with published weights: how to recognise its files, and the network of its own fine-tuning."""

    network: Literal["vit", "beit", "swin"] = "vit"
    prefixes: tuple[str, ...] = ()
    """Prefixes of the encoder tensors' names."""
    reads_token: bool = False
    """True if the head reads the normed CLS token; False: a new norm of the mean patch token."""
    is_start: bool = True
    """True if pre-training can use it: it has absolute positions and a CLS token."""
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = IMAGENET
    """Normalisation of the input pixels; None: it differs between files."""


METHODS: dict[str, PublishedMethod] = {
    "moco_v3": PublishedMethod(prefixes=("module.base_encoder.",), reads_token=True),
    "dino": PublishedMethod(prefixes=("module.backbone.", "backbone."), reads_token=True),
    "beit": PublishedMethod(network="beit", is_start=False, mean_std=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    "mae": PublishedMethod(),
    "simmim": PublishedMethod(network="beit", prefixes=("encoder.",), is_start=False),
    "simmim_swin": PublishedMethod(network="swin", prefixes=("encoder.",), is_start=False),
    "tinymim": PublishedMethod(),
    "siameseim": PublishedMethod(),
    "mixmae": PublishedMethod(network="swin", is_start=False),
    "dbot": PublishedMethod(),
    "cae": PublishedMethod(network="beit", prefixes=("encoder.",)),
    "uniemox": PublishedMethod(prefixes=("encoder.",)),
    "timm": PublishedMethod(reads_token=True, mean_std=None),
    "torchvision": PublishedMethod(reads_token=True),
}
CONTAINERS = ("model", "module", "state_dict")  # keys under which training scripts save weights
ENCODER_NAMES = re.compile(
    r"(cls_token|pos_embed|absolute_pos_embed)$|(patch_embed|blocks|layers|norm|fc_norm|rel_pos_bias)\."
)
TABLE = "relative_position_bias_table"
REBUILT = re.compile(r"(relative_position_index|attn_mask)$")  # determined by the architecture
TORCHVISION_NAMES = {
    "class_token": "cls_token",
    "conv_proj.": "patch_embed.proj.",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".self_attention.in_proj_": ".attn.qkv.",
    ".self_attention.out_proj.": ".attn.proj.",
    ".mlp.linear_1.": ".mlp.fc1.",
    ".mlp.linear_2.": ".mlp.fc2.",
    ".mlp.0.": ".mlp.fc1.",  # of newer versions
    ".mlp.3.": ".mlp.fc2.",
}


def recognise(file: WeightFile) -> str:
    """Return the method that wrote the file, by its container and names. Raises CheckpointError for any other file."""
    if file.metadata is not None:
        return check_method(str(file.metadata.get("method")))
    content = file.content
    if isinstance(content.get("teacher"), dict) and isinstance(content.get("student"), dict):
        return "dino"
    state = state_of(file)
    if "visual.conv1.weight" in state or "visual.proj" in state:
        raise CheckpointError(f"{file.path} is a CLIP model: it can be the teacher, not the encoder")
    is_inside = "encoder.cls_token" in state or "encoder.patch_embed.proj.weight" in state
    marks = {  # in this order
        "torchvision": {"conv_proj.weight", "class_token", "encoder.pos_embedding"} <= state.keys(),
        "moco_v3": any(name.startswith("module.base_encoder.") for name in state),
        "uniemox": is_inside and "embed.weight" in state and "encoder.norm.weight" in state,  # the whole model's
        "simmim_swin": is_inside and any(name.startswith("encoder.layers.") for name in state),
        "cae": is_inside and "encoder.pos_embed" in state,
        "simmim": is_inside,
        "mixmae": "absolute_pos_embed" in state,
        "beit": any(name.endswith(TABLE) and not name.startswith("layers.") for name in state),
        "siameseim": any(name.startswith("mm_") for name in state),
        "dbot": "decoder_predp.weight" in state,
        "mae": "decoder_pred.weight" in state,
    }
    for method, is_marked in marks.items():
        if is_marked:
            return method
    if "pos_embed" in state and "patch_embed.proj.weight" in state:
        return _recognise_plain(file, state)
    raise CheckpointError(
        f"{file.path} is of no method that uniemox knows; its first names are {', '.join(list(state)[:5])}. If "
        f"you know its method: uniemox convert FILE NEW.safetensors --method {'|'.join(METHODS)}"
    )


def _recognise_plain(file: WeightFile, state: dict[str, Tensor]) -> str:
    """Recognise a plain ViT without a decoder, which several methods publish under the same names.

    Their fixed position tables distinguish some of them: MoCo v3's and SiameseIM's begin with the row, MAE's, dBOT's
    and TinyMIM's with the column, DINO's and timm's are learned.
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
    """Return True if a position table is the fixed one, up to the rounding of its type."""
    side = math.isqrt(max(table.shape[1] - 1, 0)) if table.ndim == 3 else 0
    if not side or table.shape[1] != side**2 + 1 or table.shape[2] % 4 or not table.is_floating_point():
        return False
    expected = sincos_position(table.shape[2], (side, side), rows_first=rows_first)
    return bool((table.float() - expected).abs().max() < max(1e-5, torch.finfo(table.dtype).eps))


def check_method(name: str) -> str:
    """Return the name, if there is such a method. Raises CheckpointError."""
    if name not in METHODS:
        raise CheckpointError(f"there is no method {name!r}; choose one of auto, {', '.join(METHODS)}")
    return name


def encoder_tensors(file: WeightFile, method: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the encoder's tensors under timm's names, in float32, and the file's names of everything else.

    Raises CheckpointError if the file holds no encoder of that method.
    """
    is_own, prefixes = file.metadata is not None, METHODS[method].prefixes
    state = tensors_only(file.content, file.path) if is_own else state_of(file, "teacher" if method == "dino" else None)
    if is_own or not any(name.startswith(prefixes) for name in state):  # already only the encoder
        prefixes = ("",)
    sources = {}  # of the encoder's names
    for name in state:
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        short = name.removeprefix(prefix or "")
        for theirs, ours in TORCHVISION_NAMES.items() if method == "torchvision" else ():
            short = short.replace(theirs, ours)
        if prefix is not None and ENCODER_NAMES.match(short):
            sources[short] = name
    tensors = {short: state[name].float() for short, name in sources.items() if not REBUILT.search(short)}
    if "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(
            f"{file.path} holds no encoder of {method}: {prefixes[0]}patch_embed.proj.weight is missing; let the "
            "method be recognised (leave out --method) or fetch the pre-training file"
            + (" (a stem of several convolutions is not supported)" if "patch_embed.proj.0.weight" in tensors else "")
        )
    used = set(sources.values())
    return tensors, [name for name in state if name not in used or REBUILT.search(name)]


def state_of(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """Return the state dictionary inside the container. Raises CheckpointError if there is none."""
    for key in (preferred, *CONTAINERS):
        if key and isinstance(file.content.get(key), dict):
            return tensors_only(file.content[key], file.path)
    return tensors_only(file.content, file.path)


def check_file(draft: nn.Module, path: Path) -> None:
    """Compare a network on the meta device with the shapes in a safetensors file, as `check_shapes` does."""
    with safetensors.safe_open(str(path), "pt") as file:
        check_shapes(draft, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118


def check_shapes(draft: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a network on the meta device with the shapes in a file. Raises CheckpointError if they differ."""
    wanted = draft.state_dict()
    for name, value in wanted.items():
        shape = shapes.get(name)
        if shape != tuple(value.shape) and not (shape is None and value.ndim == 0):  # counters may be absent
            problem = "is not" if shape is None else f"has shape {shape}"
            raise CheckpointError(f"{name} {problem} in the file, but its header describes {tuple(value.shape)}")
    computed = sum(value.nbytes for name, value in draft.named_buffers() if name not in wanted)
    if computed > MAX_BUFFERS:
        raise CheckpointError(
            f"its network needs {computed / 2**20:,.0f} MiB besides weights; at most {MAX_BUFFERS >> 20} are allowed"
        )
