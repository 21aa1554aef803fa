"""Reads weight files safely, and finds the weights in their containers."""

import argparse
import collections
import math
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uniemox.errors import CheckpointError
from uniemox.io.files import open_regular
from uniemox.io.typed import parse_json
from uniemox.io.weight_archives import ARCHIVE_ERRORS, check_weight_archive, refusal
from uniemox.model.encoder import sincos_position

# First bytes of the newer of torch.save's two formats.
ZIP = b"PK"
# Key of our metadata in the header of a safetensors file.
METADATA_KEY = "uniemox"
MAX_ENCODERS = 16
# Maximum bytes of masks and indices, which are computed instead of stored.
MAX_BUFFER_BYTES = 2**28
# Types in the official containers. Nodes of yacs are read as dictionaries, without yacs.
ALLOWED_TYPES: list[Any] = [argparse.Namespace, (collections.OrderedDict, "yacs.config.CfgNode")]


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
    image_size: int
    """Side of the input, px."""
    heads: int | tuple[int, ...] | None
    """Number of attention heads, per stage if they differ; None: unknown, for timm."""
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and deviation of the input pixels by channel; None: unknown."""
    loaded: tuple[str, ...]
    resized: tuple[str, ...] = ()
    """Names of loaded tables that were made for another image size."""
    new: tuple[str, ...] = ()
    """Names of weights that are not in the file: the method's own fine-tuning initialises them."""
    dropped: tuple[str, ...] = ()
    """Names of weights in the file that are not in the encoder or not used by its fine-tuning."""
    container: str | None = None
    """Key of these weights in the file, such as state_dict_ema; None: the file has none."""

    @property
    def is_average(self) -> bool:
        """True if these are the moving average (EMA) of the weights."""
        return self.container is not None and is_average_key(self.container)

    def __str__(self) -> str:
        pixels = "unknown" if self.mean_std is None else " and ".join(map(str, self.mean_std))
        lines = [
            f"{self.path}: {self.method}, {self.image_size} px, heads {self.heads}",
            f"  mean and deviation of its pixels {pixels}",
        ]
        if self.container is not None:
            lines.append(f"  weights of {self.container}{', the moving average' if self.is_average else ''}")
        lines.append(f"  loaded {len(self.loaded)}")
        for title, names in (("resized", self.resized), ("new", self.new), ("dropped", self.dropped)):
            listing = ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  {title} {len(names)}{': ' + listing if names else ''}")
        return "\n".join(lines)


def on_meta_device() -> bool:
    """Return True inside `torch.device("meta")`, where networks are built without weights, and nothing is fetched."""
    return torch.get_default_device().type == "meta"


def heads_in(encoder: Any) -> int | tuple[int, ...]:
    """Return the number of attention heads of a network of timm, per stage if it has stages."""
    if hasattr(encoder, "blocks"):
        return encoder.blocks[0].attn.num_heads
    return tuple(stage.blocks[0].attn.num_heads for stage in encoder.layers)


def read_weight_file(path: str | Path, *, mapped: bool = False) -> WeightFile:
    """Read a .safetensors file, or a file of torch.save, into memory.

    Pickles are read with weights_only and an allow-list.

    Args:
        mapped: Leave the tensors of newer pickles on disk until they are used.

    Raises:
        CheckpointError: With the file and the remedy, if the file does not exist, is cut off, is not a checkpoint, or
            would run anything that official containers don't need.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; give a weight file (`uniemox docs checkpoints`)") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; give the path of a weight file") from error
    # A safetensors file begins with eight bytes of the header's length, then JSON.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    content = _read_pickle(path, start, mapped and start.startswith(ZIP))
    return WeightFile(path=path, content=content, metadata=None, is_safetensors=False)


def _read_safetensors(path: Path) -> WeightFile:
    """Read a safetensors file.

    Raises:
        CheckpointError: If it is cut off, or our metadata in its header is not a JSON object.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        content = load_file(path)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); fetch it again and compare its size"
        ) from error
    metadata = None
    if METADATA_KEY in header:
        where = f"{path}, {METADATA_KEY} of its header"
        metadata = parse_json(
            header[METADATA_KEY], dict[str, Any], where, remedy="write it again", error_class=CheckpointError
        )
    return WeightFile(path=path, content=dict(content), metadata=metadata, is_safetensors=True)


def _read_pickle(path: Path, start: bytes, mapped: bool) -> dict[str, Any]:
    """Read a file of torch.save.

    Args:
        path: The file.
        start: First bytes of the file, which tell what it is if it can't be read.
        mapped: Leave the tensors on disk until they are used.

    Raises:
        CheckpointError: If it is cut off, is no dictionary, or would run code.
    """
    try:
        check_weight_archive(path)
        with torch.serialization.safe_globals(ALLOWED_TYPES):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ARCHIVE_ERRORS as error:
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else ""
        # These are torch's messages for a file that would run code.
        if "GLOBAL" in reason or "Unsupported class" in reason or "instruction" in reason:
            class_name = (reason.partition("GLOBAL ")[2].split() or ["something"])[0]
            raise CheckpointError(refusal(path, class_name)) from error
        hint = ""
        if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
            hint = " (it is a web page, perhaps of a download that needs a login)"
        elif start.startswith(b"version https://git-lfs"):
            hint = " (it is a Git LFS pointer: run 'git lfs pull' where it came from)"
        raise CheckpointError(
            f"{path} is cut off or not a checkpoint{hint}; fetch it again and compare its size"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def tensors_only(state: object, path: Path) -> dict[str, Tensor]:
    """Return the state dictionary after a check of every tensor.

    Raises:
        CheckpointError: Unless it maps names to ordinary, finite tensors that the file has room for.
    """
    size = path.stat().st_size
    claimed_bytes = 0
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
        # Tensors may share a storage, whose bytes count once.
        storage = value.untyped_storage()
        if storage.data_ptr() not in storages:
            claimed_bytes += storage.nbytes()
        storages.add(storage.data_ptr())
        # This comes before the values are read, which would touch memory without bytes in the file.
        if claimed_bytes > size:
            raise CheckpointError(f"{path}: up to {name}, its tensors claim more than the {size:,} bytes it has")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
    return state


# Keys under which training scripts save weights. The moving average comes first: it is what they evaluate.
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
CONTAINERS = ("model", "module", "state_dict")
# Keys of the weights inside a container that also has settings, as of ModelEma or YOLO's EMA.
INNER = ("module", "state_dict")
# A counter of torch.optim.swa_utils.AveragedModel, next to names with the prefix module.
AVERAGED_COUNT = "n_averaged"
LIGHTNING_CALLBACKS = "callbacks"
# Prefixes of DistributedDataParallel and torch.compile, and of modules that contain an encoder.
WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")
PARENTS = ("backbone.", "model.")
# Prefixes by which methods are recognised.
METHOD_PREFIXES = ("base_encoder.", "encoder.")
# Name of the patch embedding's weight, which every encoder has.
STEM = "patch_embed.proj.weight"


def is_sincos(table: Tensor, *, rows_first: bool) -> bool:
    """Return True if a position table is the fixed sin-cos table, up to the rounding of its type.

    Rows before those of the patches, of the CLS token and of registers, must be 0.
    """
    side = math.isqrt(table.shape[1]) if table.ndim == 3 else 0
    if not side or table.shape[2] % 4 or not table.is_floating_point():
        return False
    expected = sincos_position(table.shape[2], (side, side), rows_first=rows_first)[:, 1:]
    prefix = expected.new_zeros(1, table.shape[1] - side**2, table.shape[2])
    expected = torch.cat([prefix, expected], dim=1)
    return bool((table.float() - expected).abs().max() < max(1e-5, torch.finfo(table.dtype).eps))


def is_average_key(key: str) -> bool:
    """Return True if the name of a container is that of a moving average (EMA).

    >>> [is_average_key(key) for key in ("state_dict_ema", "ema", "model-ema", "ModelEma", "modelEMA", "schema")]
    [True, True, True, True, True, False]
    """
    return re.search(r"(?<![A-Za-z])ema(?![A-Za-z])|Ema(?![a-z])|EMA", key) is not None


def container_of(file: WeightFile, preferred: str | None = None) -> str | None:
    """Return the key of the file's weights; None if they are not in a container. A moving average comes first.

    Args:
        file: The file.
        preferred: Key that is used if the file has it.

    Raises:
        CheckpointError: If the file has a moving average that can't be taken: under a key that no known training script
            uses, or in a callback.
    """
    if preferred is not None and isinstance(file.content.get(preferred), dict):
        return preferred
    # An average that was never updated is None or empty.
    average = next((key for key in EMA_CONTAINERS if file.content.get(key) and _is_container(file.content[key])), None)
    if average is not None:
        return average
    _refuse_other_average(file)
    return next((key for key in CONTAINERS if isinstance(file.content.get(key), dict)), None)


def _is_container(value: object) -> bool:
    """Return True for a dictionary of tensors, or one that holds such a dictionary."""
    return isinstance(value, dict) and any(
        isinstance(part, Tensor) or (name in INNER and isinstance(part, dict)) for name, part in value.items()
    )


def _has_tensors(value: object) -> bool:
    """Return True if there are tensors in dictionaries or lists, two levels deep at most (torch_ema's lists)."""
    outer = _elements(value)
    inner = [element for container in outer for element in _elements(container)]
    return any(isinstance(element, Tensor) and element.ndim > 0 for element in (*outer, *inner))


def _elements(value: object) -> list[object]:
    """Return the values of a dictionary, or the elements of a list; an empty list for anything else."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return []


def _refuse_other_average(file: WeightFile) -> None:
    """Refuse a file with weights that seem a moving average, under an unknown key or in a callback.

    Raises:
        CheckpointError: With the keys of these weights.
    """
    named = [str(key) for key, value in file.content.items() if is_average_key(str(key)) and _has_tensors(value)]
    callbacks = file.content.get(LIGHTNING_CALLBACKS)
    if isinstance(callbacks, dict):
        for name, values in callbacks.items():
            if isinstance(values, dict):
                keys = [key for key, value in values.items() if is_average_key(str(key)) and _has_tensors(value)]
                named += [f"{LIGHTNING_CALLBACKS}.{name}.{key}" for key in keys]
    if named:
        raise CheckpointError(
            f"{file.path} has weights in {', '.join(named)}, which seem a moving average (EMA) of the "
            f"others; write a file with the weights to use alone, or with the average under {EMA_CONTAINERS[0]}"
        )


def state_of(file: WeightFile, preferred: str | None = None) -> dict[str, Tensor]:
    """Return the state dictionary inside the container, see `unwrapped`.

    Args:
        file: The file.
        preferred: Key of the container that is used if the file has it.

    Raises:
        CheckpointError: If there is no state dictionary, or a tensor of it is unusable.
    """
    key = container_of(file, preferred)
    state = file.content if key is None else file.content[key]
    # A container may have the weights one level deeper, next to settings.
    if key is not None and not any(isinstance(value, Tensor) and value.ndim for value in state.values()):
        state = next((state[inner] for inner in INNER if isinstance(state.get(inner), dict)), state)
    return unwrapped(tensors_only(state, file.path), file.path)


def unwrapped(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors without the prefixes of wrappers, which all names have, and of a module around the encoder.

    Any prefix of all names is one of a wrapper (student., net., teacher.backbone.), but `METHOD_PREFIXES` stay.

    Raises:
        CheckpointError: If two tensors then have the same name.
    """
    state = {name: value for name, value in state.items() if name != AVERAGED_COUNT}
    while prefix := next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    wrapper = _common_wrapper(state)
    state = {name.removeprefix(wrapper): value for name, value in state.items()}
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


def _common_wrapper(state: Mapping[str, Tensor]) -> str:
    """Return the prefix that all names have, up to the encoder's stem and without `METHOD_PREFIXES`; "" for none."""
    stems = [name.removesuffix(STEM) for name in state if name == STEM or name.endswith(f".{STEM}")]
    if not stems:
        return ""
    # The common prefix of characters, which is cut at the last dot.
    common = os.path.commonprefix([*state, *stems])  # noqa: RUF071
    before, dot, _ = common.rpartition(".")
    prefix = before + dot
    for name in METHOD_PREFIXES:
        if prefix == name or prefix.endswith(f".{name}"):
            return prefix.removesuffix(name)
    return prefix


def check_file(draft: nn.Module, path: Path) -> None:
    """Compare a network on the meta device with the shapes in a safetensors file.

    Raises:
        CheckpointError: If they differ, see `check_shapes`.
    """
    with safetensors.safe_open(str(path), "pt") as file:
        check_shapes(draft, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118


def check_shapes(draft: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a network on the meta device with the shapes in a file.

    Args:
        draft: Network on the meta device.
        shapes: Shapes of the tensors in the file, by name.

    Raises:
        CheckpointError: If they differ, or if the network needs much memory besides its weights.
    """
    expected = draft.state_dict()
    for name, value in expected.items():
        shape = shapes.get(name)
        # Counters, which have no dimensions, may be absent.
        if shape != tuple(value.shape) and not (shape is None and value.ndim == 0):
            problem = "is not" if shape is None else f"has shape {shape}"
            raise CheckpointError(f"{name} {problem} in the file, but its header describes {tuple(value.shape)}")
    buffer_bytes = sum(value.nbytes for name, value in draft.named_buffers() if name not in expected)
    if buffer_bytes > MAX_BUFFER_BYTES:
        limit = MAX_BUFFER_BYTES >> 20
        raise CheckpointError(
            f"its network needs {buffer_bytes / 2**20:,.0f} MiB besides weights; at most {limit} are allowed"
        )
