"""Reads published weight files safely, and recognises their method."""

import argparse
import collections
import json
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import timm
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
    """Report of loading a weight file. Names are the encoder's; those in `dropped` are the file's, without wrappers."""

    path: str
    method: str
    image_size: int  # side of the input in px
    heads: int | tuple[int, ...] | None  # attention heads, per stage if they differ; None: unknown, for timm
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None  # of the input pixels; None: unknown
    loaded: tuple[str, ...]
    resized: tuple[str, ...] = ()  # loaded tables that were made for another image size
    new: tuple[str, ...] = ()  # not in the file: the method's own fine-tuning initialises them
    dropped: tuple[str, ...] = ()  # in the file, but not in the encoder or not used by its fine-tuning
    container: str | None = None  # key of these weights in the file, such as state_dict_ema; None: the file has none

    @property
    def is_average(self) -> bool:
        """True if these are the moving average (EMA) of the weights."""
        return self.container in EMA_CONTAINERS

    def __str__(self) -> str:
        pixels = "unknown" if self.mean_std is None else " and ".join(map(str, self.mean_std))
        lines = [
            f"{self.path}: {self.method}, {self.image_size} px, heads {self.heads}",
            f"  mean and deviation of its pixels {pixels}",
        ]
        if self.container is not None:
            lines.append(f"  weights of {self.container}{', the moving average' if self.is_average else ''}")
        lines.append(f"  loaded {len(self.loaded)}")
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
    """Prefixes of the encoder tensors' names, after those of wrappers, see `unwrapped`."""
    droppable: tuple[str, ...] = ()
    """Beginnings of the names of tensors that only the method's own training needs, besides `DROPPABLE`."""
    reads_token: bool = False
    """True if the head reads the normed CLS token; False: a new norm of the mean patch token."""
    is_start: bool = True
    """True if pre-training can use it: it has absolute positions and a CLS token."""
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = IMAGENET
    """Normalisation of the input pixels; None: it differs between files."""


METHODS: dict[str, PublishedMethod] = {
    "moco_v3": PublishedMethod(prefixes=("base_encoder.",), droppable=("momentum_encoder.",), reads_token=True),
    "dino": PublishedMethod(droppable=("dino_head.", "ibot_head.", "prototypes"), reads_token=True),
    "beit": PublishedMethod(network="beit", is_start=False, mean_std=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    "mae": PublishedMethod(),
    "simmim": PublishedMethod(network="beit", prefixes=("encoder.",), is_start=False),
    "simmim_swin": PublishedMethod(network="swin", prefixes=("encoder.",), is_start=False),
    "tinymim": PublishedMethod(),
    "siameseim": PublishedMethod(droppable=("mm_",)),
    "mixmae": PublishedMethod(network="swin", is_start=False),
    "dbot": PublishedMethod(),
    "cae": PublishedMethod(network="beit", prefixes=("encoder.",), droppable=("pretext_neck.", "teacher.")),
    "uniemox": PublishedMethod(
        prefixes=("encoder.",), droppable=("embed.", "fusion.", "project.", "norm.", "method.", "distance.")
    ),
    "timm": PublishedMethod(reads_token=True, mean_std=None),
    "torchvision": PublishedMethod(reads_token=True),
}
# Keys under which training scripts save weights. The moving average comes first: it is what they evaluate.
EMA_CONTAINERS = ("state_dict_ema", "model_ema")
CONTAINERS = ("model", "module", "state_dict")
DROPPABLE = ("head", "lm_head.", "mask_token", "decoder", "projector", "predictor")
"""Beginnings of the names of tensors that no features depend on: heads, decoders and projectors of a training."""
# Prefixes of DistributedDataParallel and torch.compile, and of modules that contain an encoder.
WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")
PARENTS = ("backbone.", "model.")
ENCODER_NAMES = re.compile(
    r"(cls_token|reg_token|register_tokens|pos_embed|absolute_pos_embed)$"
    r"|(patch_embed|blocks|layers|norm|fc_norm|rel_pos_bias)\."
)
STEM = "patch_embed.proj.weight"
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
        "moco_v3": any(name.startswith("base_encoder.") for name in state),
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
    if "register_tokens" in state:
        return "dino"  # DINOv2; timm names them reg_token
    if timm_arch(file) is not None:
        return "timm"
    is_pooled, has_head = "fc_norm.weight" in state, "head.weight" in state
    if is_sincos(state["pos_embed"], rows_first=True):
        return "moco_v3" if "norm.weight" in state else "siameseim"
    if container_of(file) is not None:
        is_trained_longer = is_pooled or has_head or "optimizer" not in file.content
        return "mae" if is_trained_longer else "tinymim"
    if file.is_safetensors or has_head:
        return "timm"
    return "mae" if is_pooled or is_sincos(state["pos_embed"], rows_first=False) else "dino"  # its "backbone only"


def is_sincos(table: Tensor, *, rows_first: bool) -> bool:
    """Return True if a position table is the fixed one, up to the rounding of its type.

    Rows before those of the patches, of the CLS token and of registers, must be 0.
    """
    side = math.isqrt(table.shape[1]) if table.ndim == 3 else 0
    if not side or table.shape[2] % 4 or not table.is_floating_point():
        return False
    expected = sincos_position(table.shape[2], (side, side), rows_first=rows_first)[:, 1:]
    prefix = expected.new_zeros(1, table.shape[1] - side**2, table.shape[2])
    expected = torch.cat([prefix, expected], dim=1)
    return bool((table.float() - expected).abs().max() < max(1e-5, torch.finfo(table.dtype).eps))


def check_method(name: str) -> str:
    """Return the name, if there is such a method. Raises CheckpointError."""
    if name not in METHODS:
        raise CheckpointError(f"there is no method {name!r}; choose one of auto, {', '.join(METHODS)}")
    return name


def encoder_tensors(file: WeightFile, method: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the encoder's tensors under timm's names, in float32, and the names of everything else.

    Names are those of the file without the prefixes of wrappers.
    Raises CheckpointError if the file holds no encoder of that method, or tensors that its features depend on and that
    the encoder has no place for.
    """
    is_own = file.metadata is not None
    state = tensors_only(file.content, file.path) if is_own else state_of(file, "teacher" if method == "dino" else None)
    prefix = "" if is_own else _prefix(state, method)
    sources = {}  # of the encoder's names
    for name in state:
        short = name.removeprefix(prefix)
        for theirs, ours in TORCHVISION_NAMES.items() if method == "torchvision" else ():
            short = short.replace(theirs, ours)
        if name.startswith(prefix) and ENCODER_NAMES.match(short):
            sources[short] = name
    tensors = {short: state[name].float() for short, name in sources.items() if not REBUILT.search(short)}
    if STEM not in tensors:
        raise CheckpointError(
            f"{file.path} holds no encoder of {method}: {prefix}{STEM} is missing; its first names are "
            f"{', '.join(list(state)[:5])}. Give another --method, or fetch the pre-training file"
            + (" (a stem of several convolutions is not supported)" if "patch_embed.proj.0.weight" in tensors else "")
        )
    used = set(sources.values())
    dropped = [name for name in state if name not in used or REBUILT.search(name)]
    _check_dropped(file, method, prefix, dropped)
    return _with_registers(tensors), dropped


def _prefix(state: Mapping[str, Tensor], method: str) -> str:
    """Return the prefix of the encoder's names: the method's own, none, or encoder. if nothing else is in the file."""
    stem = "conv_proj.weight" if method == "torchvision" else STEM
    prefixes = [*METHODS[method].prefixes, ""]
    if not _foreign(state, method, "encoder."):
        prefixes.append("encoder.")
    return next((prefix for prefix in prefixes if f"{prefix}{stem}" in state), "")


def _foreign(names: Iterable[str], method: str, prefix: str) -> list[str]:
    """Return the names of tensors that are neither of the encoder, with this prefix, nor only of a training."""
    allowed = (*DROPPABLE, *METHODS[method].droppable)
    return [
        name
        for name in names
        if not name.startswith(allowed)
        and not (name.startswith(prefix) and ENCODER_NAMES.match(name.removeprefix(prefix)))
        and not (name.startswith(prefix) and name.removeprefix(prefix).startswith(allowed))
    ]


def _check_dropped(file: WeightFile, method: str, prefix: str, dropped: list[str]) -> None:
    """Raise CheckpointError unless no features depend on these tensors."""
    foreign = _foreign(dropped, method, prefix)
    if foreign:
        names = ", ".join(foreign[:6]) + (f" and {len(foreign) - 6} more" if len(foreign) > 6 else "")
        raise CheckpointError(
            f"{file.path}: {names} are not of a plain encoder of {method}, which would give other features without "
            f"them; give networks of timm as timm:NAME@{file.path}, or a file without these tensors"
        )


def _with_registers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename DINOv2's registers as timm does: the CLS token includes its position, as registers have none.

    DINOv2 adds positions to the CLS token and the patches, and then inserts the registers between them.
    """
    if "register_tokens" not in tensors:
        return tensors
    plain = dict(tensors)
    plain["reg_token"] = plain.pop("register_tokens")
    plain["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
    plain["pos_embed"] = tensors["pos_embed"][:, 1:]
    return plain


def container_of(file: WeightFile, preferred: str | None = None) -> str | None:
    """Return the key of the file's weights; None if they are not in a container. A moving average comes first."""
    keys = (*filter(None, [preferred]), *EMA_CONTAINERS, *CONTAINERS)
    return next((key for key in keys if isinstance(file.content.get(key), dict)), None)


def state_of(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """Return the state dictionary inside the container, see `unwrapped`. Raises CheckpointError if there is none."""
    key = container_of(file, preferred)
    return unwrapped(tensors_only(file.content if key is None else file.content[key], file.path), file.path)


def unwrapped(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors without the prefixes of wrappers, which all names have, and of a module around the encoder.

    Raises CheckpointError if two tensors then have the same name.
    """
    while prefix := next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    parent = next((parent for parent in PARENTS if f"{parent}{STEM}" in state), None)
    if parent is None or STEM in state:
        return state
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        short = name.removeprefix(parent)
        if short in renamed:
            raise CheckpointError(f"{path} has both {short} and {parent}{short}; write a file with one of them")
        renamed[short] = value
    return renamed


def timm_arch(file: WeightFile) -> str | None:
    """Return the name of timm's network in a checkpoint of timm's training script; None for any other file."""
    arch = file.content.get("arch")
    is_timm = isinstance(arch, str) and isinstance(file.content.get("state_dict"), dict) and timm.is_model(arch)
    return arch if is_timm else None


def pixels_of(file: WeightFile, method: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the input pixels; None: unknown.

    For networks of timm: those of our header or of timm's training script, which takes its options or, without them,
    the network's own.  Raises CheckpointError for a header with other values.
    """
    if METHODS[method].mean_std is not None:
        return METHODS[method].mean_std
    if file.metadata is not None:
        stats = file.metadata.get("mean_std")
        return None if stats is None else _checked_stats(stats, file.path)
    arch = timm_arch(file)
    if arch is None:
        return None
    config = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    options = file.content.get("args")
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    options = options if isinstance(options, dict) else {}
    stats = [options.get(name) or getattr(config, name, None) for name in ("mean", "std")]
    return None if None in stats else _checked_stats(stats, file.path)


def _checked_stats(stats: Any, path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of three channels. Raises CheckpointError for anything else."""
    try:
        mean, std = (tuple(float(value) for value in values) for values in stats)
        if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean)) and all(0 < value < 1e6 for value in std)):
            raise ValueError("three finite numbers are needed for each")
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: mean and std of its pixels are {stats!r}: {error}; write the file again"
        ) from error
    return mean, std


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
