"""Stored outcomes: scores of every image by one encoder, 16 bits each."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.continued.plan import BUDGETS, Job
from experiments.continued.probe import Scores, balanced

LABELS = "labels.npz"
TRANSFER = "transfer.json"
BASELINES = "baselines.json"
Figures = Mapping[str, float]
"""Figures of an encoder on other data, by name: recall in percent, or 100 times a correlation."""
Baselines = Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]
"""Recall in percent and log-likelihood by name of a baseline, half, and budget."""


def write(path: Path, scores: Mapping[str, Scores], figures: Mapping[str, float]) -> None:
    """Write the scores of a job by budget, and further figures of the job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"{name}.log_likelihood": value.log_likelihood.astype(np.float16) for name, value in scores.items()
    }
    arrays |= {f"{name}.hit": value.hit.astype(np.float16) for name, value in scores.items()}
    arrays |= {f"about.{name}": np.array(value) for name, value in figures.items()}
    partial = path.with_suffix(".tmp.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def write_labels(outcomes: Path, labels: Mapping[str, NDArray[np.int64]]) -> None:
    """Write the labels of the scored images, by the half on which their encoders were trained."""
    outcomes.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {half: value.astype(np.uint8) for half, value in labels.items()}
    np.savez_compressed(outcomes / LABELS, **arrays)


def read_labels(outcomes: Path) -> dict[str, NDArray[np.int64]]:
    """Read what `write_labels` wrote."""
    with np.load(outcomes / LABELS) as file:
        return {half: file[half].astype(np.int64) for half in file}


def write_transfer(outcomes: Path, figures: Mapping[str, Figures]) -> None:
    """Write the figures of encoders on other data, by the name of the job's file."""
    _write_json(outcomes / TRANSFER, figures)


def read_transfer(outcomes: Path) -> dict[str, Figures]:
    """Read what `write_transfer` wrote; empty if there is nothing."""
    figures: dict[str, Figures] = _read_json(outcomes / TRANSFER)
    return figures


def write_baselines(outcomes: Path, figures: Baselines) -> None:
    """Write the figures of baselines."""
    _write_json(outcomes / BASELINES, figures)


def read_baselines(outcomes: Path) -> Baselines:
    """Read what `write_baselines` wrote; empty if there is nothing."""
    figures: Baselines = _read_json(outcomes / BASELINES)
    return figures


def _write_json(file: Path, figures: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def pack_outcomes(outcomes: Path, archive: Path) -> None:
    """Pack all files of a folder of outcomes into one, which replaces an earlier one when it is complete."""
    partial = archive.with_name(archive.name + ".tmp")
    with tarfile.open(partial, "w") as tar:
        for path in sorted(outcomes.glob("*.npz")):
            tar.add(path, arcname=f"outcomes/{path.name}")
    partial.replace(archive)


def summary(job: Job, outcomes: Path, labels: Mapping[str, NDArray[np.int64]]) -> dict[str, tuple[float, float]]:
    """Return recall in percent and log-likelihood, by budget."""
    truth = labels[job.half]
    with np.load(job.path(outcomes)) as file:
        return {
            name: (
                100 * balanced(file[f"{name}.hit"].astype(np.float64), truth),
                balanced(file[f"{name}.log_likelihood"].astype(np.float64), truth),
            )
            for name in BUDGETS
        }


def figures_of(job: Job, outcomes: Path) -> dict[str, float]:
    """Return the further figures of a job."""
    with np.load(job.path(outcomes)) as file:
        return {name.removeprefix("about."): float(file[name]) for name in file if name.startswith("about.")}
