"""Stored outcomes: each image's label, and its probabilities by every scored run, in a few megabytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.io.files import replacing

OUTCOMES = Path(__file__).parent / "outcomes"
# Log-probabilities are stored as whole sixteenths of a nat, down to -15.9.
STEPS_PER_NAT = 16.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Predictions of one probe for all images."""

    predicted: NDArray[np.uint8]
    """Predicted class, (N,)."""
    true_log_probability: NDArray[np.float64]
    """Log-probability of the label, (N,); exact to 1/32 nat."""


def write_outcome(path: Path, about: Mapping[str, Any], log_probabilities: NDArray[np.float32] | None = None) -> None:
    """Store scores and logs as JSON and, unless None, (N, E) log-probabilities and the most probable class."""
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
    if log_probabilities is not None:
        steps = np.clip(np.round(-log_probabilities * STEPS_PER_NAT), 0, 255).astype(np.uint8)
        # The predicted class is nearly always the first with the fewest steps, so the difference compresses well.
        arrays |= {"steps": steps, "beyond": (log_probabilities.argmax(axis=1) - steps.argmin(axis=1)).astype(np.uint8)}
    _write(path, arrays)


def read_outcome(path: Path, labels: NDArray[np.uint8]) -> Outcome:
    """Read the output of `write_outcome`, for images with these labels (N,)."""
    with np.load(path, allow_pickle=False) as file:
        steps = file["steps"]
        beyond = file["beyond"]
    predicted = steps.argmin(axis=1).astype(np.uint8) + beyond
    return Outcome(predicted, -steps[np.arange(len(labels)), labels].astype(np.float64) / STEPS_PER_NAT)


def read_about(path: Path) -> dict[str, Any]:
    """Read a run's scores on the validation part, and its training log."""
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["about"]))


def store_labels(path: Path, keys: NDArray[np.str_], labels: NDArray[np.uint8]) -> None:
    """Store names and labels (N,) of the images once.

    Raises:
        DataError: If others are already stored.
    """
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            is_same = np.array_equal(file["keys"], keys) and np.array_equal(file["labels"], labels)
        if not is_same:
            raise DataError(f"{path} names other images or labels than --data; use the same images for all runs")
    else:
        _write(path, {"keys": keys, "labels": labels})


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read labels of the images, (N,), in the order of all outcomes."""
    with np.load(path, allow_pickle=False) as file:
        return file["labels"]


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_log(run: Path) -> dict[str, float]:
    """Return means over a run's steps: clipping, cosine of Υ in the last tenth, gradient norms; {} without a log."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if not lines:
        return {}
    means = {"steps": len(lines), "epochs": round(lines[-1]["epoch"], 1)}
    means["clipped"] = float(np.mean([line.get("clipped", 0.0) for line in lines]))
    # Υ changes during training, so its figures are taken from the last tenth of the steps.
    late = lines[-max(1, len(lines) // 10) :]
    for name in ("fused_cosine", "offset_share"):
        if name in late[0]:
            means[name] = round(float(np.mean([line[name] for line in late])), 4)
    for name in sorted({key for line in lines for key in line if key.startswith("grad_norm_")}):
        means[name] = round(float(np.mean([line[name] for line in lines if name in line])), 4)
    return means
