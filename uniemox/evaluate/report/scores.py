"""Scores of runs and their comparison, for the report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from uniemox.evaluate.calibration import BINS, expected_calibration_error, reliability
from uniemox.evaluate.compare import chance_of
from uniemox.evaluate.report.plots import ImageLikes, examples, reliability_diagram
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, SavedRun
from uniemox.intervals import PairedDifference, paired_bootstrap
from uniemox.io.html import (
    UNKNOWN,
    Html,
    are_known,
    element,
    interval,
    is_known,
    number,
    percent,
    scrolling,
    table,
    track,
)

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


def evaluation_section(evaluation: SavedEvaluation, images: ImageLikes) -> Html:
    """All that is known of one evaluation."""
    values = evaluation.values
    parts = [element("h3", f"Scored on {evaluation.title}")]
    parts.append(element("p", f"{values['n']:,} images; intervals hold for other images of the kind, 95 %."))
    parts += [element("p", str(note), class_="note") for note in values.get("notes") or ()]
    scores = element("h4", "Scores"), table("scores", ("score", "value", "95 % interval"), _scores(values))
    found = evaluation.predictions
    shown = () if found is None else _reliability(found, has_temperature=is_known(values.get("temperature")))
    parts.append(_pair(scores, shown))
    if evaluation.missing is not None:
        parts.append(element("p", evaluation.missing, class_="missing"))
    if "confusion" in values:
        parts.append(_pair(_confusion(values), _recalls(values)))
    if "by" in values:
        parts += _groups(values["by"])
    if found is not None:
        parts += examples(evaluation, found, images)
    return element("section", *parts)


def _pair(left: Iterable[Html], right: Iterable[Html]) -> Html:
    """Beside each other where there is room."""
    return element("div", element("div", *left), element("div", *right), class_="pair")


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


def _confusion(values: Mapping[str, Any]) -> list[Html]:
    labels = [str(label) for label in values["labels"]]
    rows = []
    for label, counts in zip(labels, values["confusion"], strict=True):
        cells = [_cell(label, labels[i], count, sum(counts)) for i, count in enumerate(counts)]
        rows.append(element("tr", element("th", label, scope="row"), *cells))
    head = [element("th", "true \\ predicted", scope="col"), *(element("th", label, scope="col") for label in labels)]
    whole = element(
        "table",
        element("caption", "Images, a row for each true class; the colour is their share of the row."),
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="confusion",
    )
    return [element("h4", "Confusion"), scrolling("confusion", whole)]


def _cell(true: str, predicted: str, count: int, total: int) -> Html:
    share = count / total if total else 0.0
    words = f"true {true}, predicted {predicted}: {count} of {total} ({percent(share)})"
    colour = "var(--good)" if true == predicted else "var(--bad)"
    style = f"background:color-mix(in srgb, {colour} {100 * share * 0.75:.0f}%, transparent)"
    return element("td", str(count) if count else "·", title=words, style=style)


def _recalls(values: Mapping[str, Any]) -> list[Html]:
    bounds, rows = values.get("per_class_interval") or {}, []
    counts = dict(zip(values["labels"], (sum(row) for row in values["confusion"]), strict=True))
    for label, recall in (values.get("per_class_recall") or {}).items():
        bar = track(recall, bounds.get(label))
        rows.append((label, bar, number(recall), interval(bounds.get(label)), f"{counts.get(label, 0):,}"))
    headings = ("class", "recall, 0 to 1", "recall", "95 % interval", "images")
    words = "Where all of a class are right, or all wrong, the interval has no width; the truth is wider."
    return [
        element("h4", "Recall by class"),
        table("recall by class", headings, rows),
        element("p", words, class_="note"),
    ]


def _groups(by: Mapping[str, Any]) -> list[Html]:
    measure, groups = str(by.get("measure")), by.get("groups") or {}
    known = [value for scores in groups.values() if is_known(value := scores.get(measure))]
    scale = (0.0, max(1.0, *known) if known else 1.0)
    rows = []
    for name, scores in groups.items():
        value, bounds = scores.get(measure), scores.get(f"{measure}_interval")
        mark = " ◂ worst" if name == by.get("worst") else ""
        rows.append(
            (f"{name}{mark}", track(value, bounds, scale=scale), number(value), interval(bounds), str(scores["n"]))
        )
    min_samples = by.get("min_samples", by.get("least"))  # least: in older evaluations
    if by.get("worst") is None:
        words = f"Less than two groups have {min_samples} images, so none is called the worst."
    else:
        words = (
            f"Worst: {by['worst']}, {number(by.get('gap'))} from the best, {by.get('best')}; of groups with at least "
            f"{min_samples} images. The lowest of many groups is low by chance too: read its interval."
        )
    headings = ("group", f"{measure}, 0 to {scale[1]:.3g}", measure, "95 % interval", "images")
    return [element("h4", "By group"), element("p", words), table("groups", headings, rows)]


def _reliability(found: Predictions, *, has_temperature: bool) -> list[Html]:
    """The diagram, of the probabilities that were written down."""
    bins, error = (
        reliability(found.probabilities, found.labels),
        expected_calibration_error(found.probabilities, found.labels),
    )
    said, true = _mean(bins.confidence, bins.count), _mean(bins.accuracy, bins.count)
    alt = f"Reliability diagram: mean probability of the answer {said:.3f}, fraction right {true:.3f}, ECE {error:.3f}."
    how = "divided by their temperature" if has_temperature else "as the network gives them"
    caption = (
        f"Logits {how}, {BINS} bins; ECE {error:.3f}. Dots on the dashed line: of answers given with 70 % probability, "
        f"70 % are right. On average it says {said:.3f}, and {true:.3f} are right."
    )
    figure = element("figure", reliability_diagram(bins, alt), element("figcaption", caption), class_="reliability")
    return [element("h4", "Reliability"), figure]


def _mean(values: np.ndarray, counts: Sequence[int] | np.ndarray) -> float:
    """Over samples, from means over bins; nan where a bin has none."""
    return float(np.nansum(values * counts) / np.sum(counts))


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
