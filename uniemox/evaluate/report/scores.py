"""Scores of runs and their comparison, for the report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uniemox.data.sample import Sample
from uniemox.evaluate.calibration import BINS, expected_calibration_error
from uniemox.evaluate.compare import chance_of
from uniemox.evaluate.report.charts import reliability_bins
from uniemox.evaluate.report.examples import examples_of
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, SavedRun
from uniemox.evaluate.scores import MIN_OF_CLASS, images_by_class, score_title
from uniemox.evaluate.shared_labels import label_note
from uniemox.intervals import PairedDifference, share_difference
from uniemox.io.html import UNKNOWN, are_known, interval, is_known, number, scale_of

# Fields of an evaluation that are no scores, or have a table of their own.
NO_SCORES = (
    "data",
    "split",
    "n",
    "notes",
    "may_be_seen",
    "persons",
    "by",
    "labels",
    "scored_labels",
    "confusion",
    "per_class_recall",
    "per_class_interval",
    "positives",
    "mae_of_mean",
)
BELOW = "▼"
"""Mark of scores that do not beat the histogram."""


def evaluation_view(
    evaluation: SavedEvaluation, samples_of: Callable[[str], Mapping[str, Sample] | str]
) -> dict[str, Any]:
    """Return everything about one evaluation for the template.

    Args:
        evaluation: The evaluation.
        samples_of: Function like `open_samples`.
    """
    values = evaluation.values
    predictions = evaluation.predictions
    view: dict[str, Any] = {
        "evaluation": evaluation,
        "scores": list(_scores(values)),
        "reliability": None,
        "recalls": list(_recalls(values)),
        "groups": _groups(values["by"]) if "by" in values else None,
        "examples": (),
        "no_examples": "",
    }
    if predictions is None:
        return view
    view["reliability"] = reliability_view(predictions, values.get("temperature"))
    samples = samples_of(evaluation.data)
    if isinstance(samples, str):
        view["no_examples"] = samples
    else:
        view["examples"] = examples_of(predictions, samples)
    return view


def _scores(values: Mapping[str, Any], axis: str = "") -> Iterator[tuple[str, ...]]:
    """Yield title, value and interval of every scalar score."""
    for name, value in values.items():
        if name in NO_SCORES or name.endswith("_interval"):
            continue
        if name == "average_precision":
            yield from _precisions(value, values)
        elif isinstance(value, dict):
            yield from _scores(value, name)
        elif value is None or isinstance(value, int | float):
            if value is None and name == "polarity_accuracy":
                # Own labels are neither positive nor negative.
                continue
            yield score_title(name, axis), number(value), interval(values.get(f"{name}_interval"))


def _recalls(values: Mapping[str, Any]) -> Iterator[tuple[str, float | None, Any, int]]:
    """Yield label, recall, interval and number of images of each class; few images have no interval."""
    images = images_by_class(values)
    intervals = values.get("per_class_interval") or {}
    for label, recall in (values.get("per_class_recall") or {}).items():
        count = images.get(label, 0)
        bounds = intervals.get(label) if count >= MIN_OF_CLASS else None
        yield label, recall, bounds, count


def _precisions(by_label: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield title, average precision and interval of each label that an image has."""
    intervals = values.get("average_precision_interval") or {}
    counts = values.get("positives") or {}
    for label, value in by_label.items():
        if value is not None:
            title = f"average precision: {label} ({counts.get(label, UNKNOWN)} of {values['n']})"
            yield title, number(value), interval(intervals.get(label))


def _groups(by: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores by group, and the scale for drawing them."""
    # Older evaluations call the minimum "least", and some lack other fields.
    defaults: dict[str, Any] = {
        "groups": {},
        "measure": None,
        "worst": None,
        "best": None,
        "gap": None,
        "min_samples": by.get("least"),
    }
    by = {**defaults, **by}
    values = [value for scores in by["groups"].values() if is_known(value := scores.get(by["measure"]))]
    return {**by, "scale": (0.0, max(1.0, *values) if values else 1.0)}


def reliability_view(predictions: Predictions, temperature: float | None) -> dict[str, Any]:
    """Return the diagram and its numbers, for the saved probabilities."""
    calibration = ""
    if is_known(temperature):
        # Too few held-out images leave it at 1.
        calibration = "not calibrated (temperature 1)" if temperature == 1 else "calibrated on held-out images"
    return {
        "filled": reliability_bins(predictions),
        "probability": predictions.probabilities.max(axis=1).mean(),
        "accuracy": predictions.is_right.mean(),
        "error": expected_calibration_error(predictions.probabilities, predictions.labels),
        "calibration": calibration,
        "bins": BINS,
    }


class ScoreRow(NamedTuple):
    """Row of a comparison."""

    name: str
    run: SavedRun
    evaluation: SavedEvaluation


def comparison_view(title: str, scored: Sequence[ScoreRow], runs: Mapping[str, SavedRun]) -> dict[str, Any]:
    """Return several runs' evaluations on the same data for the template, the best first.

    Args:
        title: Title of the comparison.
        scored: Evaluations, from `shared_evaluations`.
        runs: All fine-tuning runs of the report; the notes name those without such an evaluation.
    """
    histogram = next((row for row in scored if row.run.setting("config.method") == "histogram"), None)
    measure = scored[0].evaluation.measure_of_report

    def sort_key(row: ScoreRow) -> float:
        value = row.evaluation.values.get(measure)
        return -value if is_known(value) else np.inf

    ordered = sorted(scored, key=sort_key)
    rows = [
        {
            "name": row.name,
            "value": row.evaluation.values.get(measure),
            "bounds": row.evaluation.values.get(f"{measure}_interval"),
            "lead": _lead(row, ordered),
            "over": UNKNOWN
            if histogram is None or row.run is histogram.run
            else _over(row.evaluation, histogram.evaluation, measure),
            "n": row.evaluation.values["n"],
        }
        for row in ordered
    ]
    drawn = [row["value"] for row in rows] + [end for row in rows for end in row["bounds"] or ()]
    chosen_weights = [f"{row.name} kept: {row.run.kept}." for row in scored if row.run.kept is not None]
    return {
        "title": title,
        "measure": measure,
        "histogram": histogram,
        "scale": scale_of(drawn),
        "rows": rows,
        "notes": [*_unscored_notes(scored, runs), *chosen_weights, *_baseline_notes(scored, histogram)],
    }


def shared_evaluations(runs: Mapping[str, SavedRun]) -> dict[str, list[ScoreRow]]:
    """Return the evaluations of the same data, split and measure, by title, if at least two runs have one.

    A run may have several, such as those of two label maps, or of its ONNX file.
    """
    groups: dict[str, list[ScoreRow]] = {}
    for name, run in runs.items():
        by_title: dict[str, list[SavedEvaluation]] = {}
        for evaluation in run.evaluations:
            by_title.setdefault(f"{evaluation.measure_of_report} on {evaluation.title}", []).append(evaluation)
        for title, evaluations in by_title.items():
            is_alone = len(evaluations) == 1
            groups.setdefault(title, []).extend(
                ScoreRow(name if is_alone else f"{name} ({evaluation.name})", run, evaluation)
                for evaluation in evaluations
            )
    return {title: rows for title, rows in groups.items() if len({id(row.run) for row in rows}) > 1}


def difference(ours: Predictions, theirs: Predictions) -> PairedDifference | None:
    """Return the difference of accuracies; None unless both have the same images and labels, as far as known.

    Samples of one image or group are resampled together.
    """
    if ours.keys != theirs.keys or ours.words != theirs.words:
        return None
    if ours.hashes and theirs.hashes and ours.hashes != theirs.hashes:
        return None
    return share_difference(ours.is_right, theirs.is_right, ours.groups)


def _lead(ours: ScoreRow, ordered: Sequence[ScoreRow]) -> str:
    """Return the difference to the best row that was scored on the same images and labels.

    Args:
        ours: The row.
        ordered: All rows, the best first.
    """
    for row in ordered:
        if row is ours:
            return "the best" if row is ordered[0] else "the best on its images"
        if ours.evaluation.predictions is None or row.evaluation.predictions is None:
            return UNKNOWN
        if (lead := difference(ours.evaluation.predictions, row.evaluation.predictions)) is not None:
            return _signed(lead)
    raise ValueError("the row is none of these")


def _over(ours: SavedEvaluation, histogram: SavedEvaluation, measure: str) -> str:
    """Return the difference from the histogram, marked if it is not beaten; paired if the images are the same."""
    lead = None
    if ours.predictions is not None and histogram.predictions is not None:
        lead = difference(ours.predictions, histogram.predictions)
    if lead is not None:
        mark = "" if lead.is_above_zero else f"{BELOW} "
        return mark + _signed(lead)
    value = ours.values[measure]
    baseline = histogram.values[measure]
    bounds = ours.values.get(f"{measure}_interval")
    if not is_known(value) or not is_known(baseline) or not are_known(bounds):
        return UNKNOWN
    mark = "" if bounds[0] > baseline else f"{BELOW} "
    return f"{mark}{value - baseline:+.3f}, not paired"


def _signed(lead: PairedDifference) -> str:
    return f"{lead.difference:+.3f} ({lead.low:+.3f} to {lead.high:+.3f})"


def _unscored_notes(scored: Sequence[ScoreRow], runs: Mapping[str, SavedRun]) -> Iterator[str]:
    """Yield a sentence that names the runs that a comparison lacks."""
    unscored = [name for name, run in runs.items() if all(row.run is not run for row in scored)]
    if unscored:
        yield f"Not scored on this data: {', '.join(unscored)}; run uniemox evaluate with each of them."


def _baseline_notes(scored: Sequence[ScoreRow], histogram: ScoreRow | None) -> Iterator[str]:
    """Yield sentences about the baselines that every run should beat."""
    predictions = [row.evaluation.predictions for row in scored if row.evaluation.predictions is not None]
    if predictions:
        commonest, _ = chance_of(predictions[0])
        if note := label_note(predictions):
            yield f"Runs {note}."
        # Runs with more labels have a lower chance.
        uniform = sorted({f"{chance_of(item)[1]:.3f}" for item in predictions})
        yield f"Chance: {commonest:.3f} for the commonest class, {' or '.join(uniform)} for one class of all."
    if histogram is not None:
        yield (
            f"{BELOW}: does not beat the colour histogram (run {histogram.name}): the 95 % interval of the difference "
            "on the same images is not above 0. Without predictions of the same images: the run's own interval "
            "contains the histogram's value or lies below it."
        )
    elif predictions:
        yield "No scored run is a colour baseline: run uniemox finetune --method histogram to compare with colours."
