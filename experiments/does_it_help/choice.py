"""Chooses each row's settings from the grid, by scores on the validation part only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.does_it_help.outcomes import read_about
from experiments.does_it_help.plan import (
    HISTOGRAM,
    ROWS,
    TUNED,
    TUNING_EPOCHS,
    TUNING_LRS,
    Recipe,
    Tuning,
    outcome_path,
    recipes_of,
)

Tried = tuple[Recipe, dict[str, Any]]
"""Settings and their scores."""


def read_grid(outcomes: Path) -> dict[str, list[Tried]]:
    """Read the grid of every row whose settings are all scored."""
    grid = {}
    for name, row in ROWS.items():
        paths = [(recipe, outcomes / outcome_path("grid", name, recipe.name)) for recipe in recipes_of(row)]
        if not row.recipe_of and all(path.exists() for _, path in paths):
            grid[name] = [(recipe, read_about(path)) for recipe, path in paths]
    return grid


def choose_recipes(grid: dict[str, list[Tried]]) -> dict[str, Recipe]:
    """Choose settings by row.

    The best settings have the highest balanced log-likelihood on val. Settings whose paired difference from the best is
    below one standard error count as equal; of these the one with the highest R² onto the teacher's features is used.
    """
    return {row: _best(tried) for row, tried in grid.items()}


def _best(tried: Sequence[Tried]) -> Recipe:
    _, top = max(tried, key=lambda entry: entry[1]["val_log_likelihood"])
    labels = np.array(top["val_labels"])
    # With these weights, all classes count the same.
    weights = 1 / (np.bincount(labels)[labels] * len(np.unique(labels)))  # (N,)

    def is_tied(about: dict[str, Any]) -> bool:
        gaps = np.array(top["val_values"]) - np.array(about["val_values"])
        error = np.sqrt((np.square(gaps - (weights * gaps).sum()) * weights**2).sum())
        return bool((weights * gaps).sum() <= error)

    return max((entry for entry in tried if is_tied(entry[1])), key=lambda entry: entry[1]["r2"])[0]


def tunings_to_choose_from() -> dict[str, list[Tuning]]:
    """Return the fine-tuning runs of seed 0 by row, with every learning rate; the histogram has nothing to train."""
    lrs = {row: TUNING_LRS[:1] if row == HISTOGRAM else TUNING_LRS for row in TUNED}
    return {row: [Tuning(fraction, lr, 0) for fraction in TUNING_EPOCHS for lr in lrs[row]] for row in TUNED}


def choose_tunings(outcomes: Path, seeds: int) -> dict[str, dict[float, list[Tuning]]]:
    """Return the fine-tuning runs of this many seeds by row and share of the labels.

    The learning rate is that with the highest balanced log-likelihood on val with seed 0. Rows and shares that are not
    finished are left out.
    """
    chosen: dict[str, dict[float, list[Tuning]]] = {}
    for row, tried in tunings_to_choose_from().items():
        for fraction in TUNING_EPOCHS:
            candidates = [(outcomes / tuning.path(row), tuning) for tuning in tried if tuning.fraction == fraction]
            if all(path.exists() for path, _ in candidates):
                best = max(candidates, key=lambda candidate: read_about(candidate[0])["val_log_likelihood"])[1]
                runs = [Tuning(fraction, best.lr, seed) for seed in range(seeds)]
                chosen.setdefault(row, {})[fraction] = runs
    return chosen
