"""Results of a plan: scores, intervals, marks against the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np
from scipy.stats import t as student

from uniemox.errors import DataError
from uniemox.evaluate.run_records import SavedEvaluation, read_evaluation
from uniemox.intervals import PairedDifference, paired_bootstrap
from uniemox.io.files import EVALUATIONS
from uniemox.reproduce.plan import Cell, Run, TableRow
from uniemox.reproduce.sources import DataSource
from uniemox.reproduce.study import HISTOGRAM, Study

Mark = Literal["ours", "cited", "not run", "failed"]
MIN_SEEDS = 3  # of which an interval can be made


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Result of one method on one data set. Shares are 0 to 1."""

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


def is_done(run: Run) -> bool:
    """Return whether what the run makes is there."""
    if run.scores is not None:
        return find_evaluation(run) is not None
    return run.mark.exists() if run.makes is None else (run.folder / run.makes).exists()


def find_evaluation(run: Run) -> SavedEvaluation | None:
    """The scores that an evaluating run wrote; None if there are none that can be read."""
    if run.scores is None:
        return None
    name = "*" if run.model is None else run.key  # else it is the folder of the run that is scored
    for file in sorted((run.folder / EVALUATIONS).glob(f"{name}.json")):
        try:
            found = read_evaluation(file)
        except DataError:  # cut off while it was written by hand, or of another version: it is made again
            continue
        if (found.data, found.split) == run.scores:
            return found
    return None


def score_of(cell: Cell) -> Score | None:
    """Return the result of the cell's finished runs; None if none is finished."""
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
    """Return the gain over the reference on the same images.

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
    """Return the bootstrap group of each scored image by key, and (S, N) correct answers by seed."""
    found = [evaluation for run in runs if (evaluation := find_evaluation(run)) is not None]
    kept = [evaluation.predictions for evaluation in found if evaluation.predictions is not None]
    rows = [dict(zip(one.keys, one.is_right.tolist(), strict=True)) for one in kept]
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return None
    groups = dict(sorted(zip(kept[0].keys, kept[0].groups, strict=True)))
    return groups, np.array([[row[key] for key in groups] for row in rows])


def mark_of(cell: Cell, failed: set[str]) -> Mark:
    """Return the cell's mark: ours if anything was run, cited if only the paper has a figure.

    failed: keys of runs that failed, and of those that need them.
    """
    if score_of(cell) is not None:
        return "ours"
    if any(run.key in failed for run in cell.runs):
        return "failed"
    return "cited" if cell.paper is not None and not cell.runs else "not run"


HISTOGRAM_NETWORK = "128 HSV bins and a 6 x 6 thumbnail of the scene, logistic regression; one run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Margin of a row's accuracy over the histogram's, as shares."""

    difference: float
    low: float | None = None
    """95 %, paired, over the same images; None where the two were scored on different ones."""
    high: float | None = None
    beats: bool
    """The interval lies above 0; without one, the row's own interval lies above the histogram's accuracy."""


def histogram_cell(study: Study, target: DataSource, *, fraction: float = 1.0) -> Cell:
    """The histogram on a data set, scored as every method is."""
    return study.scored([study.fit_histogram(target, fraction=fraction)], target)


def histogram_row(study: Study) -> TableRow:
    """The histogram on all data sets."""
    cells = {target.name: histogram_cell(study, target) for target in study.targets}
    return TableRow(HISTOGRAM, cells, network=HISTOGRAM_NETWORK)


def with_baseline(rows: Sequence[TableRow], baseline: TableRow) -> tuple[TableRow, ...]:
    """The rows, each to be compared with the baseline, and the baseline below them."""
    return (*(replace(row, baseline=baseline.name) for row in rows), baseline)


def margin_of(cell: Cell, baseline: Cell) -> Margin | None:
    """Compare a cell with the baseline's; None if one of them has no score."""
    ours, theirs = score_of(cell), score_of(baseline)
    if ours is None or theirs is None or cell.runs == baseline.runs:
        return None
    paired = gain(cell, baseline)
    if paired is None:
        return Margin(difference=ours.accuracy - theirs.accuracy, beats=ours.low > theirs.accuracy)
    return Margin(difference=paired.difference, low=paired.low, high=paired.high, beats=paired.low > 0)
