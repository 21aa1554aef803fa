"""Weight files, read without running any code from them."""

import argparse
import collections
import json
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from uniemox.errors import CheckpointError
from uniemox.io.files import open_regular
from uniemox.io.weight_archives import check_weight_archive, refusal

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
    """What a weight file holds."""

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
