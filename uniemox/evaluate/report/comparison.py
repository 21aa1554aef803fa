"""Fine-tuning runs side by side, on what several of them were scored on."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from uniemox.evaluate.compare import chance_of
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, SavedRun
from uniemox.intervals import PairedDifference, paired_bootstrap
from uniemox.io.html import UNKNOWN, Html, are_known, element, interval, is_known, number, table, track

BELOW = "▼"  # before what does not beat the histogram


def comparison_section(runs: Mapping[str, SavedRun]) -> Html:
    """A table with dots and intervals for every evaluation that several runs share.

    runs: of fine-tuning, by name, at least two.
    """
    parts = [element("h2", "Comparison", id="comparison")]
    shared = shared_evaluations(runs)
    if not shared:
        words = "No two of these runs were scored on the same data; run uniemox evaluate with each of them."
        return element("section", *parts, element("p", words, class_="missing"), class_="comparison")
    words = (
        "Differences are of the same images, so that they are known better than the values alone; where their "
        "interval holds 0, the images do not tell the two apart. The best of several is a little lucky."
    )
    parts.append(element("p", words, class_="note"))
    for title, found in shared.items():
        histogram = next((name for name in found if runs[name].setting("config.method") == "histogram"), None)
        parts += [element("h3", title), _comparison(title, found, histogram)]
        kept = [f"{name} kept: {runs[name].kept}." for name in found if runs[name].kept is not None]
        parts += [element("p", line, class_="note") for line in kept]
        parts += [element("p", line, class_="note") for line in _floor(found, histogram)]
    return element("section", *parts, class_="comparison")


def shared_evaluations(runs: Mapping[str, SavedRun]) -> dict[str, dict[str, SavedEvaluation]]:
    """Evaluations of the same data and split with the same measure, of two runs or more: by title and run."""
    found: dict[tuple[str, str], dict[str, SavedEvaluation]] = {}
    for name, run in runs.items():
        for evaluation in run.evaluations:
            found.setdefault((evaluation.title, _measure(evaluation)), {})[name] = evaluation
    return {f"{measure} on {title}": members for (title, measure), members in found.items() if len(members) > 1}


def difference(ours: Predictions, theirs: Predictions) -> PairedDifference | None:
    """By how much our accuracy is above theirs; None unless both are of the same images with the same labels.

    What belongs to one image or group is drawn together.
    """
    places = {key: place for place, key in enumerate(theirs.keys)}
    if places.keys() != set(ours.keys) or len(places) != len(ours.keys):
        return None
    order = [places[key] for key in ours.keys]
    if not np.array_equal(ours.labels, theirs.labels[order]):
        return None
    return paired_bootstrap(ours.is_right, theirs.is_right[order], ours.groups)


def _measure(evaluation: SavedEvaluation) -> str:
    """Accuracy, which classifiers and distributions have, or concordance."""
    return "accuracy" if "accuracy" in evaluation.values else evaluation.measure


def _floor(found: Mapping[str, SavedEvaluation], histogram: str | None) -> Iterator[str]:
    """What every run should be above."""
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


def _comparison(title: str, found: Mapping[str, SavedEvaluation], histogram: str | None) -> Html:
    """The best run first.  histogram: the run that all others must beat, if it is there."""
    measure = _measure(next(iter(found.values())))
    value_of = {name: evaluation.values.get(measure) for name, evaluation in found.items()}
    order = sorted(found, key=lambda name: -value if is_known(value := value_of[name]) else np.inf)
    best, rows = found[order[0]], []
    scale = scale_of([found[name].values.get(f"{measure}_interval") for name in order], list(value_of.values()))
    for name in order:
        bounds = found[name].values.get(f"{measure}_interval")
        dot = track(value_of[name], bounds, scale=scale, is_bar=False)
        lead = "the best" if name == order[0] else _lead(found[name], best)
        cells = [name, dot, number(value_of[name]), interval(bounds), lead]
        if histogram is not None:
            cells.append(UNKNOWN if name == histogram else _over(found[name], found[histogram]))
        rows.append((*cells, f"{found[name].values['n']:,}"))
    headings = (
        *("run", f"{scale[0]:.2f} to {scale[1]:.2f}", measure, "95 % interval"),
        "difference to the best, 95 % interval",
        *(["difference to the histogram"] if histogram is not None else []),
        "images",
    )
    return table(title, headings, rows)


def scale_of(intervals: Sequence[Sequence[float] | None], values: Sequence[float | None]) -> tuple[float, float]:
    """The least scale in steps of 0.05 on which everything can be drawn."""
    ends = [end for bounds in intervals if are_known(bounds) for end in bounds] + [v for v in values if is_known(v)]
    if not ends:
        return 0.0, 1.0
    low, high = np.floor(min(ends) * 20) / 20, np.ceil(max(ends) * 20) / 20
    return float(low), float(high if high > low else low + 0.05)


def _over(ours: SavedEvaluation, histogram: SavedEvaluation) -> str:
    """The difference to the histogram, with a sign where it is not beaten; paired where the images are the same."""
    found = None
    if ours.predictions is not None and histogram.predictions is not None:
        found = difference(ours.predictions, histogram.predictions)
    if found is None:
        measure = _measure(ours)
        value, of_histogram, bounds = (
            ours.values[measure],
            histogram.values[measure],
            ours.values.get(f"{measure}_interval"),
        )
        if not is_known(value) or not is_known(of_histogram) or not are_known(bounds):
            return UNKNOWN
        return f"{'' if bounds[0] > of_histogram else f'{BELOW} '}{value - of_histogram:+.3f}, not paired"
    sign = "" if found.low > 0 else f"{BELOW} "
    return f"{sign}{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _lead(ours: SavedEvaluation, best: SavedEvaluation) -> str:
    if ours.predictions is None or best.predictions is None:
        return UNKNOWN
    found = difference(ours.predictions, best.predictions)
    if found is None:
        return "other images"
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
