"""Choose each row's recipe from the grid, by scores on the validation part alone."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.does_it_help.plan import Job, Recipe
from uniemox.io.files import write_text


def about_of(probe: Path) -> dict[str, Any]:
    """What a probe found on the validation part."""
    with np.load(probe, allow_pickle=False) as file:
        return json.loads(str(file["about"]))


def choose_recipes(grid: Iterable[tuple[str, Recipe, Sequence[Job]]], path: Path) -> dict[str, Recipe]:
    """Choose by row, and write the whole grid with the choices to a file.

    The best setting has the highest balanced log-likelihood on val. Settings whose paired difference from it is below
    one standard error count as equal to it; of these the one with the highest R² onto the teacher's features is taken.
    """
    found: dict[str, list[tuple[Recipe, dict[str, Any]]]] = {}
    for row, recipe, jobs in grid:
        found.setdefault(row, []).append((recipe, about_of(jobs[-1].makes)))
    chosen = {row: _best(tried) for row, tried in found.items()}
    lines = [
        {"row": row, **asdict(recipe), "is_chosen": recipe == chosen[row]}
        | {name: round(about[name], 4) for name in ("val_log_likelihood", "val_recall", "r2")}
        for row, tried in found.items()
        for recipe, about in tried
    ]
    write_text(path, json.dumps(lines, indent=1) + "\n")
    return chosen


def _best(tried: Sequence[tuple[Recipe, dict[str, Any]]]) -> Recipe:
    _, top = max(tried, key=lambda one: one[1]["val_log_likelihood"])
    labels = np.array(top["val_labels"])
    weights = 1 / (np.bincount(labels)[labels] * len(np.unique(labels)))  # (N,), so that all classes count the same

    def is_tied(about: dict[str, Any]) -> bool:
        gaps = np.array(top["val_values"]) - np.array(about["val_values"])
        error = np.sqrt((np.square(gaps - (weights * gaps).sum()) * weights**2).sum())
        return bool((weights * gaps).sum() <= error)

    return max((one for one in tried if is_tied(one[1])), key=lambda one: one[1]["r2"])[0]
