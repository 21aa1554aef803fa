"""The stored outcomes: each image's label, and its probabilities by every scored run, in a few megabytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.does_it_help.choice import about_of
from experiments.does_it_help.plan import DISTILLATION, Job, Recipe, Study
from uniemox.io.files import replacing, write_text

OUTCOMES = Path(__file__).parent / "outcomes"
STEPS_PER_NAT = 16.0  # log-probabilities are stored as whole sixteenths of a nat, down to -15.9


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one probe answered for all images."""

    predicted: NDArray[np.uint8]
    """(N,)"""
    true_log_probability: NDArray[np.float64]
    """(N,), of the label; exact to 1/32 nat."""


def write_outcome(path: Path, log_probabilities: NDArray[np.float32]) -> None:
    """Store (N, E) log-probabilities and the most probable class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.clip(np.round(-log_probabilities * STEPS_PER_NAT), 0, 255).astype(np.uint8)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, steps=steps, predicted=log_probabilities.argmax(axis=1).astype(np.uint8))


def read_outcome(path: Path, labels: NDArray[np.uint8]) -> Outcome:
    """Read what `write_outcome` wrote, for images with these labels (N,)."""
    with np.load(path, allow_pickle=False) as file:
        steps, predicted = file["steps"], file["predicted"]
    return Outcome(predicted, -steps[np.arange(len(labels)), labels].astype(np.float64) / STEPS_PER_NAT)


def read_labels(folder: Path) -> NDArray[np.uint8]:
    """(N,) labels of the images, in the order of all outcomes."""
    with np.load(folder / "labels.npz", allow_pickle=False) as file:
        return file["labels"]


def collect(
    study: Study,
    recipes: Mapping[str, Recipe],
    grid: Iterable[tuple[str, Recipe, Sequence[Job]]],
    target: Path,
) -> None:
    """Store the outcomes of every run that is done, the grid, and what the runs logged of their losses."""
    chosen = dict(recipes)
    named = [(f"main/{name}/{seed}", jobs) for name, seed, jobs in study.main(chosen)]
    named += [(f"few/{name}/{seed}", jobs) for name, seed, jobs in study.small(chosen)]
    named += [(f"control/{epochs:g}", jobs) for epochs, jobs in study.control(chosen[DISTILLATION])]
    named += [(f"baseline/{name}", jobs) for name, jobs in study.baselines()]
    about: dict[str, dict[str, Any]] = {}
    for name, jobs in named:
        probe = jobs[-1].makes
        if not probe.exists():
            continue
        with np.load(probe, allow_pickle=False) as file:
            write_outcome(target / f"{name}.npz", file["log_probabilities"])
            keys, labels = file["keys"], file["labels"]
        about[name] = {key: about_of(probe)[key] for key in ("penalty", "val_log_likelihood", "val_recall", "r2")}
        about[name] |= _logged(jobs[0].makes.parent)
    with replacing(target / "labels.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, labels=labels, keys=keys)
    write_text(target / "about.json", json.dumps(about, indent=1) + "\n")
    write_text(target / "recipes.json", (study.root / "recipes.json").read_text("utf-8"))


def _logged(run: Path) -> dict[str, float]:
    """Means over a run's steps: clipping, what Υ looks like in the last tenth, gradient norms of the losses."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    if not lines:
        return {}
    found = {"steps": len(lines), "epochs": round(lines[-1]["epoch"], 1)}
    found |= {"clipped": float(np.mean([line.get("clipped", 0.0) for line in lines]))}
    late = lines[-max(1, len(lines) // 10) :]
    for name in ("fused_cosine", "offset_share"):
        if name in late[0]:
            found[name] = round(float(np.mean([line[name] for line in late])), 4)
    for name in sorted({key for line in lines for key in line if key.startswith("grad_norm_")}):
        found[name] = round(float(np.mean([line[name] for line in lines if name in line])), 4)
    return found
