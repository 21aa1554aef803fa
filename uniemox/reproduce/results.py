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
MIN_SEEDS = 3  # minimum number for an interval over seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Result of one method on one data set. Shares are 0 to 1."""

    accuracy: float
    """Mean over seeds."""
    low: float
    high: float
    """End of the 95 % interval: over seeds (Student's t) with three or more, else over images (bootstrap)."""
    over: Literal["seeds", "pictures"]
    seeds: int
    pictures: int
    chance: float
    """Share of the most common class among the scored images, the accuracy of always predicting it."""
    uniform: float
    """Accuracy of guessing, 1 / classes."""
    near_chance: bool
    """True if the interval reaches down to chance."""


def is_done(run: Run) -> bool:
    """Return True if the run's output exists."""
    if run.scores is not None:
        return find_evaluation(run) is not None
    return run.mark.exists() if run.makes is None else (run.folder / run.makes).exists()


def find_evaluation(run: Run) -> SavedEvaluation | None:
    """Return the scores that an evaluating run wrote; None if there are no readable ones."""
    if run.scores is None:
        return None
    name = "*" if run.model is None else run.key  # otherwise it is the scored run's folder
    for file in sorted((run.folder / EVALUATIONS).glob(f"{name}.json")):
        try:
            evaluation = read_evaluation(file)
        except DataError:  # damaged or of another version: it is made again
            continue
        if (evaluation.data, evaluation.split) == run.scores:
            return evaluation
    return None


def score_of(cell: Cell) -> Score | None:
    """Return the result of the cell's finished runs; None if none is finished."""
    evaluations = [evaluation for run in cell.runs if (evaluation := find_evaluation(run)) is not None]
    evaluations = [evaluation for evaluation in evaluations if "confusion" in evaluation.values]
    if not evaluations:
        return None
    values = np.array([evaluation.values["accuracy"] for evaluation in evaluations])
    over: Literal["seeds", "pictures"] = "pictures"
    low, high = np.array([evaluation.values["accuracy_interval"] for evaluation in evaluations]).mean(axis=0)
    near = low  # agreement between seeds is no evidence for other images
    if len(values) >= MIN_SEEDS:
        over, (low, high) = "seeds", seed_interval(values)
    counts = np.array([sum(row) for row in evaluations[0].values["confusion"]])
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
    """Return the 95 % interval of the mean over seeds (Student's t), cut at 0 and 1.  values: (S,), S at least 2.

    >>> [round(end, 3) for end in seed_interval(np.array([0.5, 0.6, 0.7]))]
    [0.352, 0.848]
    """
    mean, reach = float(values.mean()), _reach(values)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def _reach(values: np.ndarray) -> float:
    return float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / sqrt(len(values))


def gain(ours: Cell, reference: Cell) -> PairedDifference | None:
    """Return the gain over the reference on the same images.

    With three or more seeds the interval is over seeds, paired by seed (Student's t). Otherwise it is over images, all
    seeds of an image resampled together. None unless both were scored on the same images.
    """
    first, second = _right(ours.runs), _right(reference.runs)
    if first is None or second is None or first[0] != second[0]:
        return None
    estimate = paired_bootstrap(first[1], second[1], list(first[0].values()))
    if not MIN_SEEDS <= len(first[1]) == len(second[1]) == len(ours.runs) == len(reference.runs):
        return estimate
    by_seed = first[1].mean(axis=1) - second[1].mean(axis=1)
    return replace(estimate, low=estimate.difference - _reach(by_seed), high=estimate.difference + _reach(by_seed))


def _right(runs: Sequence[Run]) -> tuple[dict[str, str], np.ndarray] | None:
    """Return the bootstrap group of each scored image by key, and (S, N) correct answers by seed."""
    evaluations = [evaluation for run in runs if (evaluation := find_evaluation(run)) is not None]
    kept = [evaluation.predictions for evaluation in evaluations if evaluation.predictions is not None]
    rows = [dict(zip(one.keys, one.is_right.tolist(), strict=True)) for one in kept]
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return None
    groups = dict(sorted(zip(kept[0].keys, kept[0].groups, strict=True)))
    return groups, np.array([[row[key] for key in groups] for row in rows])


def mark_of(cell: Cell, score: Score | None, failed: set[str]) -> Mark:
    """Return the cell's mark: ours if any run is done, cited if only the paper has a figure.

    score: of the cell.  failed: keys of failed runs, and of runs that need them.
    """
    if score is not None:
        return "ours"
    if any(run.key in failed for run in cell.runs):
        return "failed"
    return "cited" if cell.paper is not None and not cell.runs else "not run"


HISTOGRAM_NETWORK = "128 HSV bins and a 6 x 6 thumbnail of the scene, logistic regression; one run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Difference between a row's accuracy and the histogram's, as shares."""

    difference: float
    low: float | None = None
    """End of the 95 % interval, paired, over the same images; None if they were scored on different images."""
    high: float | None = None
    beats: bool
    """True if the interval is above 0; without one, if the row's own interval is above the histogram's accuracy."""


def histogram_cell(study: Study, target: DataSource, *, fraction: float = 1.0) -> Cell:
    """Return the histogram's cell for a data set, scored like every method."""
    return study.scored([study.fit_histogram(target, fraction=fraction)], target)


def histogram_row(study: Study) -> TableRow:
    """Return the histogram's row for all data sets."""
    cells = {target.name: histogram_cell(study, target) for target in study.targets}
    return TableRow(HISTOGRAM, cells, network=HISTOGRAM_NETWORK)


def with_baseline(rows: Sequence[TableRow], baseline: TableRow) -> tuple[TableRow, ...]:
    """Return the rows with the baseline to compare with, and the baseline below them."""
    return (*(replace(row, baseline=baseline.name) for row in rows), baseline)


def margin_of(cell: Cell, baseline: Cell, ours: Score | None, theirs: Score | None) -> Margin | None:
    """Compare a cell with the baseline's; None if one of them has no score.  ours, theirs: their scores."""
    if ours is None or theirs is None or cell.runs == baseline.runs:
        return None
    paired = gain(cell, baseline)
    if paired is None:
        return Margin(difference=ours.accuracy - theirs.accuracy, beats=ours.low > theirs.accuracy)
    return Margin(difference=paired.difference, low=paired.low, high=paired.high, beats=paired.low > 0)
