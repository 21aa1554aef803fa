"""Results of a plan: scores, intervals, marks against the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from uniemox.errors import DataError
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, read_evaluation
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
        reach = _reach(values)
        over, low, high = "seeds", max(0.0, values.mean() - reach), min(1.0, values.mean() + reach)
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


def _reach(values: np.ndarray) -> float:
    """Return half the width of the 95 % interval of the mean over seeds (Student's t).  values: (S,), S at least 2."""
    return float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / sqrt(len(values))


def gain(ours: Cell, reference: Cell) -> PairedDifference | None:
    """Return the gain over the reference on the same images.

    With three or more seeds the interval is over seeds, paired by seed (Student's t). Otherwise it is over images, all
    seeds of an image resampled together. None unless both were scored on the same images.
    """
    first, second = _predictions(ours.runs), _predictions(reference.runs)
    if not first or not second or len({(one.keys, one.groups) for one in first + second}) > 1:
        return None
    own, other = (np.array([one.is_right for one in several]) for several in (first, second))  # (S, N)
    estimate = paired_bootstrap(own, other, first[0].groups)
    if not MIN_SEEDS <= len(own) == len(other) == len(ours.runs) == len(reference.runs):
        return estimate
    by_seed = own.mean(axis=1) - other.mean(axis=1)
    return replace(estimate, low=estimate.difference - _reach(by_seed), high=estimate.difference + _reach(by_seed))


def _predictions(runs: Sequence[Run]) -> list[Predictions]:
    found = [evaluation.predictions for run in runs if (evaluation := find_evaluation(run)) is not None]
    return [one for one in found if one is not None]


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


def histogram_cell(study: Study, target: DataSource, *, fraction: float = 1.0) -> Cell:
    """Return the histogram's cell for a data set, scored like every method."""
    return study.scored([study.fit_histogram(target, fraction=fraction)], target, target)


def histogram_row(study: Study) -> TableRow:
    """Return the histogram's row for all data sets."""
    cells = {target.name: histogram_cell(study, target) for target in study.targets}
    return TableRow(HISTOGRAM, cells, network=HISTOGRAM_NETWORK)


def with_baseline(rows: Sequence[TableRow], baseline: TableRow) -> tuple[TableRow, ...]:
    """Return the rows with the baseline to compare with, and the baseline below them."""
    return (*(replace(row, baseline=baseline.name) for row in rows), baseline)


def margin_of(cell: Cell, baseline: Cell, ours: Score | None, theirs: Score | None) -> dict[str, Any]:
    """Return the difference to the baseline as fields of a record; none if one of them has no score.

    ours, theirs: their scores.  The interval is paired, over the same images. A row beats the histogram if it is above
    0; without one, because they were scored on different images, if the row's own is above the histogram's accuracy.
    """
    if ours is None or theirs is None or cell.runs == baseline.runs:
        return {}
    paired = gain(cell, baseline)
    if paired is None:
        beats = ours.low > theirs.accuracy
        return {"over_histogram": ours.accuracy - theirs.accuracy, "beats_histogram": beats}
    ends = {"over_histogram_low": paired.low, "over_histogram_high": paired.high}
    return {"over_histogram": paired.difference, **ends, "beats_histogram": paired.low > 0}
