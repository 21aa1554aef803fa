"""Results of a plan: scores, intervals, marks against the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uniemox.errors import DataError
from uniemox.evaluate import Predictions, SavedEvaluation, read_evaluation
from uniemox.intervals import PairedDifference, interval_over_runs, paired_bootstrap
from uniemox.io import EVALUATIONS
from uniemox_paper.plan import Cell, PlannedRun

Mark = Literal["ours", "cited", "not run", "failed"]
Basis = Literal["seeds and pictures", "pictures", "none"]
MEASURES = ("accuracy", "mean_average_precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Result of one method on one data set. Shares are 0 to 1."""

    measure: str
    """One of `MEASURES`."""
    value: float
    """Mean of the measure over seeds."""
    low: float | None
    high: float | None
    """End of the 95 % interval; None if there is none."""
    over: Basis
    """Basis of the interval: images for one run; seeds and images for three or more runs with an accuracy; else
    nothing."""
    seeds: int
    pictures: int
    chance: float
    """Share of the most common class among the scored images, the accuracy of always predicting it. For mean average
    precision: mean share of the images that have a label, which a random order of the images reaches."""
    uniform: float | None
    """Accuracy of guessing, 1 / classes; None for mean average precision."""
    near_chance: bool
    """True if the interval, or the mean of the runs' intervals over images, reaches down to chance."""


def is_done(run: PlannedRun) -> bool:
    """Return True if the run's output exists."""
    if run.scores is not None:
        return find_evaluation(run) is not None
    if run.makes is None:
        return run.mark.exists()
    return (run.folder / run.makes).exists()


def find_evaluation(run: PlannedRun) -> SavedEvaluation | None:
    """Return the scores that an evaluating run wrote; None if there are no readable ones."""
    if run.scores is None:
        return None
    # The folder of a scored run may hold other evaluations too; a run's own folder holds only one.
    name = "*" if run.model is None else run.key
    for file in sorted((run.folder / EVALUATIONS).glob(f"{name}.json")):
        try:
            evaluation = read_evaluation(file)
        except DataError:
            # A file that is damaged, or of another version, is written again.
            continue
        if (evaluation.data, evaluation.split) == run.scores:
            return evaluation
    return None


def score_of(cell: Cell) -> Score | None:
    """Return the result of the cell's finished runs; None if none is finished."""
    evaluations = [evaluation for run in cell.runs if (evaluation := find_evaluation(run)) is not None]
    evaluations = [evaluation for evaluation in evaluations if evaluation.measure in MEASURES]
    evaluations = [evaluation for evaluation in evaluations if evaluation.values[evaluation.measure] is not None]
    if not evaluations:
        return None
    measure = evaluations[0].measure
    values = np.array([evaluation.values[measure] for evaluation in evaluations])
    over_images = np.array([evaluation.values[f"{measure}_interval"] for evaluation in evaluations]).mean(axis=0)
    interval: Sequence[float] | None
    over: Basis
    if len(values) == 1:
        over = "pictures"
        interval = over_images
    else:
        predictions = (evaluation.predictions for evaluation in evaluations)
        interval = _interval([item for item in predictions if item is not None])
        over = "seeds and pictures"
    low = None
    high = None
    lower_end = over_images[0]
    if interval is None:
        over = "none"
    else:
        low = max(0.0, float(interval[0]))
        high = min(1.0, float(interval[1]))
        lower_end = min(interval[0], over_images[0])
    chance, uniform = _chance(evaluations[0])
    return Score(
        measure=measure,
        value=float(values.mean()),
        low=low,
        high=high,
        over=over,
        seeds=len(values),
        pictures=evaluations[0].values["n"],
        chance=chance,
        uniform=uniform,
        near_chance=bool(lower_end <= chance),
    )


def _chance(evaluation: SavedEvaluation) -> tuple[float, float | None]:
    """Return `Score.chance` and `Score.uniform`."""
    if evaluation.measure == "mean_average_precision":
        # A label that no image has is not part of the mean.
        counts = np.array([count for count in evaluation.values["positives"].values() if count])
        return float(counts.mean() / evaluation.values["n"]), None
    counts = np.array([sum(row) for row in evaluation.values["confusion"]])
    return float(counts.max() / counts.sum()), 1 / len(counts)


def _interval(runs: Sequence[Predictions]) -> Sequence[float] | None:
    """Return the interval over runs; None for two runs, or if their predictions are not of the same images."""
    if not runs or len({(run.keys, run.groups) for run in runs}) > 1:
        return None
    return interval_over_runs(np.array([run.is_right for run in runs]), runs[0].groups)


def gain(ours: Cell, reference: Cell) -> PairedDifference | None:
    """Return the gain over the reference on the same images, see `paired_bootstrap`.

    Runs are paired by seed if both cells have the same number of runs and all are finished.

    Returns:
        The gain; None unless both were scored on the same images.
    """
    first = _predictions(ours.runs)
    second = _predictions(reference.runs)
    if not first or not second or len({(run.keys, run.groups) for run in first + second}) > 1:
        return None
    our_hits, reference_hits = (np.array([run.is_right for run in runs]) for runs in (first, second))  # (S, N)
    pair_seeds = len(our_hits) == len(reference_hits) == len(ours.runs) == len(reference.runs)
    return paired_bootstrap(our_hits, reference_hits, first[0].groups, pair_seeds=pair_seeds)


def _predictions(runs: Sequence[PlannedRun]) -> list[Predictions]:
    evaluations = (find_evaluation(run) for run in runs)
    predictions = (evaluation.predictions for evaluation in evaluations if evaluation is not None)
    return [item for item in predictions if item is not None]


def mark_of(cell: Cell, score: Score | None, failed: set[str]) -> Mark:
    """Return the cell's mark: ours if any run is done, cited if only the paper has a figure.

    Args:
        cell: The cell.
        score: Result of the cell; None if no run is finished.
        failed: Keys of failed runs, and of runs that need them.
    """
    if score is not None:
        return "ours"
    if any(run.key in failed for run in cell.runs):
        return "failed"
    if cell.paper is not None and not cell.runs:
        return "cited"
    return "not run"


def margin_of(cell: Cell, baseline: Cell, ours: Score | None, theirs: Score | None) -> dict[str, Any]:
    """Return the difference to the baseline as fields of a record; no fields if one of them has no score.

    The interval is paired, over the same images. A row beats the histogram if it is above 0; if they were scored on
    different images or by mean average precision, if the row's own interval is above the histogram's score. With two
    seeds, which have no interval, the means are compared.

    Args:
        cell: The cell to compare.
        baseline: The histogram's cell for the same data set.
        ours: Score of the cell.
        theirs: Score of the baseline.
    """
    if ours is None or theirs is None or cell.runs == baseline.runs:
        return {}
    paired = gain(cell, baseline)
    if paired is None:
        lower_end = ours.value if ours.low is None else ours.low
        beats = lower_end > theirs.value
        return {"over_histogram": ours.value - theirs.value, "beats_histogram": beats}
    ends = {"over_histogram_low": paired.low, "over_histogram_high": paired.high}
    return {"over_histogram": paired.difference, **ends, "beats_histogram": paired.is_above_zero}
