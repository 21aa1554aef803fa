"""Tables for the commands that build a data set, and helpers that these commands share."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from uniemox.cli import need, say, shell_quoted
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox_curate.annotate.agree import AgreementStats, Figure
    from uniemox_curate.annotate.verdicts import Verdict
    from uniemox_curate.project import Project
    from uniemox_curate.status import ProjectStatus

PACKAGES = ("sqlalchemy", "fastapi", "uvicorn", "sklearn", "scipy", "matplotlib")
Folder = Annotated[Path, Parameter(help="Folder of the project.")]


def opened(folder: Path) -> "Project":
    """Open a project.

    Raises:
        MissingPackageError: Without the extra `curate`.
        DataError: If there is no project.
    """
    need(*PACKAGES, extra="curate")
    from uniemox_curate.project import open_project

    return open_project(folder)


def say_next(project: "Project", folder: Path) -> None:
    """Print the next step, which is the same after all commands.

    Args:
        folder: Folder of the project as the user gave it.
    """
    from uniemox_curate.status import status

    say(f"next: {status(project, shell_quoted(folder)).next}")


def status_tables(status: "ProjectStatus") -> Iterator[Table | str]:
    """Yield tables of steps, annotators and recent batches, then the next command."""
    steps = Table("step", "progress", title=_title(f"project {status.folder}"))
    for name, sentence in status.sentences.items():
        _add(steps, name, sentence)
    yield steps
    if status.annotators:
        annotators = Table("annotator", "answered", "checks passed", "median s", "access")
        for annotator in status.annotators:
            time_s = "" if annotator.median_s is None else f"{annotator.median_s:.1f}"
            access = "ended" if annotator.is_revoked else "yes"
            if annotator.is_left_out:
                access += ", left out"
            checks = f"{annotator.checks_passed}/{annotator.checks}" if annotator.checks else "no checks"
            _add(annotators, annotator.name, str(annotator.answered), checks, time_s, access)
        yield annotators
    if status.history:
        batches = Table("number", "when", "who", "step", "what", "images")
        for batch in status.history[:10]:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(batch["at"]))
            note = f"{batch['note']} (undone)" if batch["is_undone"] else batch["note"]
            _add(batches, str(batch["id"]), when, batch["actor"], batch["step"], note, str(batch["changes"]))
        yield batches
    yield f"next: {status.next}"


def agreement_tables(stats: "AgreementStats", verdicts: "Mapping[int, Verdict]") -> Iterator[Table | str]:
    """Yield statistics with intervals, confusion matrices, and the number of verdicts by reason."""
    figures = Table(
        "figure",
        "value",
        "95 % interval",
        title=f"{counted(stats.pictures, 'image')}, {counted(stats.answers, 'answer')}",
    )
    rows = [("same answer", stats.percent), ("Krippendorff's α", stats.alpha)]
    rows += [(f"α of {label}", figure) for label, figure in stats.per_class.items()]
    rows += [(f"α of the scale {name}", figure) for name, figure in stats.ratings.items()]
    rows += [(f"{name} with the others", figure) for name, figure in stats.per_annotator.items()]
    rows += [(f"Cohen's κ, {pair.first} and {pair.second}", pair.kappa) for pair in stats.pairs]
    for name, figure in rows:
        _add(figures, name, *_cells(figure))
    yield figures
    for pair in stats.pairs[:3]:
        confusion = Table("", *map(escape, stats.labels), title=_title(f"{pair.first} (rows), {pair.second} (columns)"))
        for label, row in zip(stats.labels, pair.confusion, strict=True):
            _add(confusion, label, *map(str, row))
        yield confusion
    kept_count = sum(verdict.label is not None for verdict in verdicts.values())
    reasons = Table("images", "", title=f"{kept_count} kept")
    for reason, number in Counter(verdict.reason for verdict in verdicts.values()).most_common():
        _add(reasons, str(number), reason)
    yield reasons


def _add(table: Table, *cells: str) -> None:
    """Add a row of plain text. People wrote some cells, in which rich would read [...] as markup."""
    table.add_row(*map(Text, cells))


def _title(words: str) -> Text:
    return Text(words, "table.title")


def _cells(figure: "Figure") -> tuple[str, str]:
    if math.isnan(figure.value):
        return "not defined", ""
    # Resamples of answers that are all equal, or of a single one, show no spread.
    interval = "" if figure.low == figure.high else f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{figure.value:.3f}", interval
