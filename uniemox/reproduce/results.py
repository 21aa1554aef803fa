"""What the runs of a plan found: accuracy over seeds, with an interval, and whether it is more than chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from uniemox.errors import DataError
from uniemox.evaluate.run_records import SavedEvaluation, read_evaluation
from uniemox.intervals import PairedDifference, paired_bootstrap
from uniemox.io.files import EVALUATIONS
from uniemox.reproduce.plan import Cell, Run

Mark = Literal["ours", "cited", "not run", "failed"]
MIN_SEEDS = 3  # of which an interval can be made


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one method on one data set. Shares are 0 to 1."""

    accuracy: float
    """Mean over seeds."""
    low: float
    high: float
    """95 %: over seeds (Student's t) where there are three or more, else over images (bootstrap)."""
    over: Literal["seeds", "pictures"]
    seeds: int
    pictures: int
    chance: float
    """Share of the commonest class among the scored images, which is right without looking."""
    uniform: float
    """1 / classes: what guessing gives."""
    near_chance: bool
    """Whether the interval reaches down to chance."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def is_done(run: Run) -> bool:
    """Whether what the run makes is there."""
    if run.scores is not None:
        return find_evaluation(run) is not None
    return run.mark.exists() if run.makes is None else (run.folder / run.makes).exists()


def find_evaluation(run: Run) -> SavedEvaluation | None:
    """The scores that an evaluating run wrote; None if there are none that can be read."""
    if run.scores is None:
        return None
    is_own = run.folder.name.endswith(run.key)  # else it is the folder of the run that is scored
    for file in sorted((run.folder / EVALUATIONS).glob("*.json" if is_own else f"{run.key}.json")):
        try:
            found = read_evaluation(file)
        except DataError:  # cut off while it was written by hand, or of another version: it is made again
            continue
        if (found.data, found.split) == run.scores:
            return found
    return None


def score_of(cell: Cell) -> Score | None:
    """What the cell's finished runs found; None if none is finished."""
    found = [evaluation for run in cell.runs if (evaluation := find_evaluation(run)) is not None]
    found = [evaluation for evaluation in found if "confusion" in evaluation.values]
    if not found:
        return None
    values = np.array([evaluation.values["accuracy"] for evaluation in found])
    over: Literal["seeds", "pictures"] = "pictures"
    low, high = np.array([evaluation.values["accuracy_interval"] for evaluation in found]).mean(axis=0)
    near = low  # seeds that happen to agree tell nothing about other images
    if len(values) >= MIN_SEEDS:
        over, (low, high) = "seeds", seed_interval(values)
    counts = np.array([sum(row) for row in found[0].values["confusion"]])
    chance = float(counts.max() / counts.sum())
    return Score(
        accuracy=float(values.mean()),
        low=float(low),
        high=float(high),
        over=over,
        seeds=len(values),
        pictures=int(counts.sum()),
        chance=chance,
        uniform=1 / len(counts),
        near_chance=bool(min(low, near) <= chance),
    )


def seed_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over seeds (Student's t), cut at 0 and 1.  values: (S,), S at least 2.

    >>> [round(end, 3) for end in seed_interval(np.array([0.5, 0.6, 0.7]))]
    [0.352, 0.848]
    """
    mean, reach = float(values.mean()), _reach(values)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def _reach(values: np.ndarray) -> float:
    return float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / sqrt(len(values))


def gain(ours: Cell, reference: Cell) -> PairedDifference | None:
    """By how much ours is above the reference on the same images.

    Its interval is over seeds, each of ours against the reference's of the same seed (Student's t), where there are
    three or more; else over images, all seeds of an image drawn together. None unless both were scored on the same
    images.
    """
    first, second = _right(ours.runs), _right(reference.runs)
    if first is None or second is None or first[0] != second[0]:
        return None
    found = paired_bootstrap(first[1], second[1], list(first[0].values()))
    if not MIN_SEEDS <= len(first[1]) == len(second[1]) == len(ours.runs) == len(reference.runs):
        return found
    by_seed = first[1].mean(axis=1) - second[1].mean(axis=1)
    return replace(found, low=found.difference - _reach(by_seed), high=found.difference + _reach(by_seed))


def _right(runs: Sequence[Run]) -> tuple[dict[str, str], np.ndarray] | None:
    """Of the scored images by key what they are drawn together with, and (S, N) which were right with which seed."""
    found = [evaluation for run in runs if (evaluation := find_evaluation(run)) is not None]
    kept = [evaluation.predictions for evaluation in found if evaluation.predictions is not None]
    rows = [dict(zip(one.keys, one.is_right.tolist(), strict=True)) for one in kept]
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return None
    groups = dict(sorted(zip(kept[0].keys, kept[0].groups, strict=True)))
    return groups, np.array([[row[key] for key in groups] for row in rows])


def mark_of(cell: Cell, failed: set[str]) -> Mark:
    """What a cell is marked with: ours where anything was run, cited where only the paper has a figure.

    failed: keys of runs that failed, and of those that need them.
    """
    if score_of(cell) is not None:
        return "ours"
    if any(run.key in failed for run in cell.runs):
        return "failed"
    return "cited" if cell.paper is not None and not cell.runs else "not run"
