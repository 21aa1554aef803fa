"""What annotators said, as the tables of a release."""

import io
from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any

from uniemox.curate.annotate.answer_files import cells, given_answers
from uniemox.curate.annotate.verdicts import read_answers
from uniemox.curate.project import Project
from uniemox.io.csv_files import write_rows

if TYPE_CHECKING:
    from uniemox.curate.release.run import ReleasedImage

SCALES = ("intensity", "valence", "arousal")
TOLD = ("labels", *SCALES, "suggested")  # of what answers say beside their label


def answer_tables(project: Project, rows: "Sequence[ReleasedImage]") -> tuple[dict[str, str], int]:
    """Every annotator's answers under a number instead of a name, without comments; means where values were asked.

    Returns the files' texts by name, and how many answers were given in sight of a suggestion.
    """
    answers = read_answers(project)
    number = {name: f"annotator {i + 1}" for i, name in enumerate(answers.people)}
    details = {(one.picture, one.annotator): one.details for one in given_answers(project)}
    more = [name for name in TOLD if any(name in content for content in details.values())]
    lines, means, suggested = [], [], 0
    for row in rows:
        own = [
            (name, label, details[row.picture, name]) for name, label in answers.by_picture.get(row.picture, {}).items()
        ]
        lines += [[row.path, number[name], label, *cells(content, more)] for name, label, content in own]
        suggested += sum("suggested" in content for _, _, content in own)
        values = [[content[name] for _, _, content in own if name in content] for name in SCALES]
        if any(values):
            means.append([row.path, max(map(len, values)), *(round(fmean(one), 3) if one else None for one in values)])
    tables = {"answers.csv": as_csv(["path", "annotator", "label", *more], lines)}
    if means:
        tables["ratings.csv"] = as_csv(["path", "answers", *SCALES], means)
    return tables, suggested


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
