"""Scores of runs and their comparison, for the report."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from uniemox.data.sample import Sample
from uniemox.evaluate.calibration import BINS, expected_calibration_error, reliability
from uniemox.evaluate.compare import chance_of
from uniemox.evaluate.report.plots import examples_of, reliability_url
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, SavedRun
from uniemox.intervals import PairedDifference, paired_bootstrap
from uniemox.io.html import UNKNOWN, are_known, interval, is_known, number, scale_of

NAMES = {
    "macro_f1": "macro F1",
    "top2_accuracy": "top-2 accuracy",
    "polarity_accuracy": "polarity accuracy",
    "ece": "calibration error (ECE)",
    "ece_calibrated": "ECE, calibrated",
    "kl": "KL divergence",
    "ccc": "concordance (CCC)",
    "mae": "mean absolute error",
    "pearson": "Pearson correlation",
    "cosine": "cosine similarity",
    "clark": "Clark distance",
    "canberra": "Canberra distance",
    "chebyshev": "Chebyshev distance",
    "coverage": "likely sets for 90 % that hold the label",
    "set_size": "labels in such a set",
    "flagged": "flagged as unfamiliar",
}
NO_SCORES = ("data", "split", "n", "notes", "by", "labels", "confusion", "per_class_recall", "per_class_interval")
BELOW = "▼"  # before what does not beat the histogram


def evaluation_view(
    evaluation: SavedEvaluation, samples_of: Callable[[str], Mapping[str, Sample] | str]
) -> dict[str, Any]:
    """All that is known of one evaluation, as the template shows it.  samples_of: as `open_samples`."""
    values, found = evaluation.values, evaluation.predictions
    samples = {} if found is None else samples_of(evaluation.data)
    return {
        "evaluation": evaluation,
        "scores": list(_scores(values)),
        "reliability": None if found is None else _reliability(found, is_known(values.get("temperature"))),
        "groups": _groups(values["by"]) if "by" in values else None,
        "examples": () if found is None or isinstance(samples, str) else examples_of(found, values["labels"], samples),
        "no_examples": samples if isinstance(samples, str) else "",
    }


def _scores(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Name, value and interval of every score that is one number."""
    for name, value in values.items():
        if name in NO_SCORES or name.endswith("_interval"):
            continue
        if isinstance(value, dict):
            yield from _scores(value, f"{name}: ")
        elif value is None or isinstance(value, int | float):
            shown = NAMES.get(name, name.replace("_", " "))
            yield prefix + shown, number(value), interval(values.get(f"{name}_interval"))


def _groups(by: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by group, and the scale on which they are drawn.  least: in older evaluations."""
    by = {"groups": {}, **dict.fromkeys(("measure", "worst", "best", "gap")), "min_samples": by.get("least"), **by}
    known = [value for scores in by["groups"].values() if is_known(value := scores.get(by["measure"]))]
    return {**by, "scale": (0.0, max(1.0, *known) if known else 1.0)}


def _reliability(found: Predictions, has_temperature: bool) -> dict[str, Any]:
    """The diagram and its numbers, of the probabilities that were written down."""
    bins = reliability(found.probabilities, found.labels)
    return {
        "url": reliability_url(bins),
        "said": _mean(bins.confidence, bins.count),
        "true": _mean(bins.accuracy, bins.count),
        "error": expected_calibration_error(found.probabilities, found.labels),
        "has_temperature": has_temperature,
        "bins": BINS,
    }


def _mean(values: np.ndarray, counts: np.ndarray) -> float:
    """Over samples, from means over bins; nan where a bin has none."""
    return float(np.nansum(values * counts) / np.sum(counts))


def comparison_view(title: str, found: Mapping[str, SavedEvaluation], runs: Mapping[str, SavedRun]) -> dict[str, Any]:
    """Several runs' evaluations on the same data, the best first, as the template shows them.

    found: of `shared_evaluations`.  runs: by name, those of `found` among them.
    """
    histogram = next((name for name in found if runs[name].setting("config.method") == "histogram"), None)
    measure = _measure(next(iter(found.values())))
    values = {name: one.values.get(measure) for name, one in found.items()}
    intervals = {name: one.values.get(f"{measure}_interval") for name, one in found.items()}
    order = sorted(found, key=lambda name: -value if is_known(value := values[name]) else np.inf)
    rows = [
        {
            "name": name,
            "value": values[name],
            "bounds": intervals[name],
            "lead": "the best" if name == order[0] else _lead(found[name], found[order[0]]),
            "over": UNKNOWN if histogram in (None, name) else _over(found[name], found[histogram], measure),
            "n": found[name].values["n"],
        }
        for name in order
    ]
    kept = [f"{name} kept: {runs[name].kept}." for name in found if runs[name].kept is not None]
    return {
        "title": title,
        "measure": measure,
        "histogram": histogram,
        "scale": scale_of([*values.values(), *(end for bounds in intervals.values() for end in bounds or ())]),
        "rows": rows,
        "notes": [*kept, *_floor(found, histogram)],
    }


def shared_evaluations(runs: Mapping[str, SavedRun]) -> dict[str, dict[str, SavedEvaluation]]:
    """Evaluations of the same data and split with the same measure, of two runs or more: by title and run."""
    found: dict[tuple[str, str], dict[str, SavedEvaluation]] = {}
    for name, run in runs.items():
        for evaluation in run.evaluations:
            found.setdefault((evaluation.title, _measure(evaluation)), {})[name] = evaluation
    return {f"{measure} on {title}": members for (title, measure), members in found.items() if len(members) > 1}


def difference(ours: Predictions, theirs: Predictions) -> PairedDifference | None:
    """Return the difference of accuracies; None unless both have the same images and labels.

    What belongs to one image or group is drawn together.
    """
    places = {key: place for place, key in enumerate(theirs.keys)}
    if places.keys() != set(ours.keys) or len(places) != len(ours.keys):
        return None
    order = [places[key] for key in ours.keys]
    if not np.array_equal(ours.labels, theirs.labels[order]):
        return None
    return paired_bootstrap(ours.is_right, theirs.is_right[order], ours.groups)


def _lead(ours: SavedEvaluation, best: SavedEvaluation) -> str:
    if ours.predictions is None or best.predictions is None:
        return UNKNOWN
    found = difference(ours.predictions, best.predictions)
    return "other images" if found is None else _signed(found)


def _over(ours: SavedEvaluation, histogram: SavedEvaluation, measure: str) -> str:
    """The difference to the histogram, with a sign where it is not beaten; paired where the images are the same."""
    found = None
    if ours.predictions is not None and histogram.predictions is not None:
        found = difference(ours.predictions, histogram.predictions)
    if found is not None:
        return ("" if found.low > 0 else f"{BELOW} ") + _signed(found)
    value, floor, bounds = ours.values[measure], histogram.values[measure], ours.values.get(f"{measure}_interval")
    if not is_known(value) or not is_known(floor) or not are_known(bounds):
        return UNKNOWN
    return f"{'' if bounds[0] > floor else f'{BELOW} '}{value - floor:+.3f}, not paired"


def _signed(found: PairedDifference) -> str:
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _measure(evaluation: SavedEvaluation) -> str:
    """Accuracy, which classifiers and distributions have, or concordance."""
    return "accuracy" if "accuracy" in evaluation.values else evaluation.measure


def _floor(found: Mapping[str, SavedEvaluation], histogram: str | None) -> Iterator[str]:
    """Return the baselines that every run should beat."""
    known = [evaluation.predictions for evaluation in found.values() if evaluation.predictions is not None]
    if known:
        commonest, uniform = chance_of(known[0])
        yield f"Chance: {commonest:.3f} for the commonest class, {uniform:.3f} for one class of all."
    if histogram is not None:
        yield (
            f"{BELOW}: does not beat the colour histogram {histogram}: the 95 % interval of the difference on the same "
            "images is not above 0; or, without predictions of the same images, its own interval holds the histogram's "
            "value or lies below it."
        )
    elif known:
        yield "What colours alone give is not known here: uniemox finetune --method histogram is a run to compare with."
