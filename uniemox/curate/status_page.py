"""Page about a project's progress and its annotators' agreement, as one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.curate.annotate.agree import AgreementStats, Figure
from uniemox.errors import DataError
from uniemox.io.files import write_text
from uniemox.io.html import Html, element, page, scaled_image, table


def write_status_page(
    path: Path, found: Mapping[str, Any], agreement: AgreementStats | None, plot: Path | None
) -> None:
    """Write the page.

    found: of `status`.  plot: the image of the split, if there is one. Raises DataError if the file can't be written.
    """
    parts = [element("h1", f"Project {found['folder']}"), element("p", f"Next: {found['next']}", class_="note")]
    rows = list(found["told"].items())
    parts += [element("h2", "Steps"), table("Steps", ("step", "how far"), rows)]
    people = [
        (one["name"], str(one["answered"]), f"{one['checks_passed']} of {one['checks']}", _seconds(one["median_s"]))
        for one in found["people"]
    ]
    headings = ("annotator", "answered", "attention checks passed", "median time")
    parts += [element("h2", "Annotators"), table("Annotators", headings, people)]
    if agreement is not None:
        parts += _agreement(agreement)
    if plot is not None and plot.exists():
        with Image.open(plot) as image:
            parts += [element("h2", "Split"), scaled_image(image, "Colours of the splits", max_side_px=1600)]
    batches = [
        (
            str(one["id"]),
            one["actor"],
            one["step"],
            one["note"],
            str(one["changes"]),
            "undone" if one["is_undone"] else "",
        )
        for one in found["history"]
    ]
    parts += [element("h2", "What was done")]
    parts += [table("What was done", ("number", "who", "step", "what", "images", ""), batches)]
    try:
        write_text(path, page(f"Project {found['folder']}", parts))
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror})") from error


def _agreement(found: AgreementStats) -> list[Html]:
    rows = [("same answer", _figure(found.percent)), ("Krippendorff's α", _figure(found.alpha))]
    rows += [(f"α of {label}", _figure(value)) for label, value in found.per_class.items()]
    rows += [(f"{name} with the others", _figure(value)) for name, value in found.per_annotator.items()]
    rows += [(f"Cohen's κ of {pair.first} and {pair.second}", _figure(pair.kappa)) for pair in found.pairs]
    note = f"{found.pictures} images with {found.answers} answers; 95 % bootstrap intervals over images"
    parts = [element("h2", "AgreementStats"), element("p", note, class_="note")]
    parts.append(table("AgreementStats", ("figure", "value"), rows))
    for pair in found.pairs:
        lines = [(label, *map(str, row)) for label, row in zip(found.labels, pair.confusion, strict=True)]
        parts += [element("h3", f"{pair.first} (rows) and {pair.second} (columns)")]
        parts.append(table("Confusion", ("", *found.labels), lines))
    return parts


def _figure(figure: Figure) -> str:
    if figure.value != figure.value:
        return "not defined"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
