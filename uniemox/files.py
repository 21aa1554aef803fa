"""Files that are there whole or not at all, and what those of a run are called."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
CONFIG, METRICS, CHECKPOINTS = "config.json", "metrics.jsonl", "checkpoints"
ENCODER, WEIGHTS, ONNX = "encoder.safetensors", "model.safetensors", "model.onnx"  # what a run ends with
SPLITS, EVALUATIONS = "splits.json", "evaluations"  # where the data had none; scores


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all went well and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.touch()
        permissions = partial.stat().st_mode  # what the umask leaves; safetensors takes away more
        yield partial
        partial.chmod(permissions)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")
