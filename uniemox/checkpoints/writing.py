"""Weights in files that are the same bytes for the same content."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from uniemox.errors import CheckpointError
from uniemox.io.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file. Raises CheckpointError if it can't be written."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with replacing(path) as partial:
            safetensors.torch.save_file(values, partial, {"format": "pt", **(metadata or {})})
            _sort_metadata(partial)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order; its writer's order is another one each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # blanks fill it up, as the format has it
            file.seek(8)
            file.write(text.ljust(length))
