"""Chooses each row's settings from the grid, by scores on the validation part only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.does_it_help.outcomes import read_about
from experiments.does_it_help.plan import ROWS, Recipe, outcome_path, recipes_of

Tried = tuple[Recipe, dict[str, Any]]
"""Settings and their scores."""


def read_grid(outcomes: Path) -> dict[str, list[Tried]]:
    """Read the grid of every row whose settings are all done."""
    found = {}
    for name, row in ROWS.items():
        paths = [(one, outcomes / outcome_path("grid", name, one.name)) for one in recipes_of(row)]
        if not row.recipe_of and all(path.exists() for _, path in paths):
            found[name] = [(one, read_about(path)) for one, path in paths]
    return found


def choose_recipes(grid: dict[str, list[Tried]]) -> dict[str, Recipe]:
    """Choose settings by row.

    The best settings have the highest balanced log-likelihood on val. Settings whose paired difference from the best is
    below one standard error count as equal; of these the one with the highest R² onto the teacher's features is used.
    """
    return {row: _best(tried) for row, tried in grid.items()}


def _best(tried: Sequence[Tried]) -> Recipe:
    _, top = max(tried, key=lambda one: one[1]["val_log_likelihood"])
    labels = np.array(top["val_labels"])
    weights = 1 / (np.bincount(labels)[labels] * len(np.unique(labels)))  # (N,), so that all classes count the same

    def is_tied(about: dict[str, Any]) -> bool:
        gaps = np.array(top["val_values"]) - np.array(about["val_values"])
        error = np.sqrt((np.square(gaps - (weights * gaps).sum()) * weights**2).sum())
        return bool((weights * gaps).sum() <= error)

    return max((one for one in tried if is_tied(one[1])), key=lambda one: one[1]["r2"])[0]
