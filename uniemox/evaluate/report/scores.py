"""An evaluation on a page: every score, the confusion matrix, recalls, the reliability diagram, groups, examples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from uniemox.evaluate.calibration import BINS, expected_calibration_error, reliability
from uniemox.evaluate.report.examples import ImageLikes, examples
from uniemox.evaluate.report.plots import reliability_diagram
from uniemox.evaluate.run_records import Predictions, SavedEvaluation
from uniemox.io.html import Html, element, interval, is_known, number, percent, scrolling, table, track

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
