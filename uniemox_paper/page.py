"""Page of a plan: table and drawing, our scores next to the paper's, every figure marked; also as CSV and JSON."""

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import cycle
from pathlib import Path
from typing import Any

from uniemox.evaluate import BELOW
from uniemox.io import WEIGHTS, Html, position, render, scale_of, write_file, write_html, write_rows
from uniemox_paper.costs import NetworkCost, measure_run
from uniemox_paper.execute import RunOutcome, seconds_of
from uniemox_paper.plan import Cell, Plan, TableRow
from uniemox_paper.results import MEASURES, Score, gain, is_done, margin_of, mark_of, score_of
from uniemox_paper.sources import PAPER_SETS
from uniemox_paper.study import HISTOGRAM

CSV_FIELDS = (
    *("method", "network", "data", "mark", *MEASURES),
    *(score_field.name for score_field in fields(Score) if score_field.name not in ("measure", "value")),
    *("paper_percent", "paper_from", "gain", "gain_low", "gain_high"),
    *("over_histogram", "over_histogram_low", "over_histogram_high", "beats_histogram", "why"),
)
Record = Mapping[str, Any]
"""Result of a method on a data set: `CSV_FIELDS` by name."""


class Findings:
    """Findings of one plan, after its runs."""

    def __init__(self, plan: Plan, outcome: RunOutcome, root: Path) -> None:
        self.plan = plan
        self.outcome = outcome
        self.records = records_of(plan, set(outcome.failed))
        self.costs = {row.name: cost for row in plan.rows if (cost := _cost(row)) is not None}
        self.ours = [name for name in plan.columns if any(row.cells.get(name, Cell()).runs for row in plan.rows)]
        seconds = seconds_of(root)
        self.runs = [
            {
                "name": run.name,
                "command": run.command,
                "folder": str(run.folder),
                "is_done": is_done(run),
                "missing": run.missing,
                "failed": outcome.failed.get(run.key),
                "seconds": seconds.get(run.key),
            }
            for run in plan.runs
        ]

    def record(self, row: TableRow, name: str) -> Record:
        """Return a row's record of a column, empty if the row has no such cell."""
        return self.records.get((row.name, name)) or dict.fromkeys(CSV_FIELDS)

    def scored(self, name: str | None = None) -> list[Record]:
        """Return the records with a score, of a column or of all."""
        return [
            record for record in self.records.values() if record["mark"] == "ours" and name in (None, record["data"])
        ]

    def has_gains(self, name: str) -> bool:
        """Return True if this column has a column of gains next to it; curves have too many columns for that."""
        return not self.plan.is_curve and any(record["gain"] is not None for record in self.scored(name))

    def chance(self, name: str | None = None) -> float | None:
        """Return the chance level of a column, or of all; None if unknown or different."""
        levels = {record["chance"] for record in self.scored(name)}
        return levels.pop() if len(levels) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        plan = self.plan
        return {
            **{"name": plan.name, "title": plan.title, "scale": plan.scale, "reference": plan.reference},
            "rows": list(self.records.values()),
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "runs": self.runs,
        }


def records_of(plan: Plan, failed: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return a dictionary of `CSV_FIELDS`, in their order, for each method and data set.

    Args:
        plan: The plan.
        failed: Keys of failed runs.
    """
    rows = {row.name: row for row in plan.rows}
    records = {}
    scores = {(row.name, name): score_of(cell) for row in plan.rows for name, cell in row.cells.items()}
    reference = rows[plan.reference].cells if plan.reference in rows else {}
    for (method, name), score in scores.items():
        row = rows[method]
        cell = rows[method].cells[name]
        other = reference.get(name)
        record: dict[str, Any] = {"method": method, "network": row.network, "data": name}
        record |= {
            "mark": mark_of(cell, score, failed),
            "paper_percent": cell.paper,
            "paper_from": cell.paper_from,
            "why": cell.why,
        }
        if score is not None:
            values = asdict(score)
            record |= {values.pop("measure"): values.pop("value"), **values}
        if other is not None and cell.runs != other.runs and (difference := gain(cell, other)) is not None:
            record |= {"gain": difference.difference, "gain_low": difference.low, "gain_high": difference.high}
        if row.baseline is not None and name in rows[row.baseline].cells:
            record |= margin_of(cell, rows[row.baseline].cells[name], score, scores[row.baseline, name])
        records[method, name] = dict.fromkeys(CSV_FIELDS) | record
    return records


def value_of(record: Record) -> float | None:
    """Return the score of a record, whatever its measure; None without one."""
    return next((record[measure] for measure in MEASURES if record[measure] is not None), None)


def _cost(row: TableRow) -> NetworkCost | None:
    """Return the cost of a row's first finished classifier; None if there is none."""
    runs = (run for cell in row.cells.values() for run in cell.runs if is_done(run))
    return next((measure_run(run.folder) for run in runs if (run.folder / WEIGHTS).exists()), None)


# Margin on the left, wide enough for names of 50 letters.
LEFT_PX = 330
WIDTH_PX = 840
# Upper and lower end of the curves.
TOP_PX = 26
BOTTOM_PX = 346
TICKS = 5
COLOURS = ("#4a80d9", "#d9773f", "#2e8b57", "#a05fc4", "#b8902c", "#c2466b", "#3f9c9c", "#7a7f87")


def dots(title: str, rows: Mapping[str, Record], *, chance: float | None) -> Html:
    """Draw one row per method: our score as a dot with its interval, the paper's as a hollow square, chance dashed.

    Args:
        title: Title of the drawing.
        rows: Records by method, at least one with a score.
        chance: Accuracy of chance; None: do not draw it.
    """
    visible = {
        name: record
        for name, record in rows.items()
        if value_of(record) is not None or record["paper_percent"] is not None
    }
    scale = _scale(visible.values(), chance)
    return render(
        "uniemox_paper/dots.svg",
        title=title,
        rows=visible,
        value_of=value_of,
        chance=chance,
        ticks=_ticks(scale),
        x=lambda share: LEFT_PX + position(share, scale) / 100 * (WIDTH_PX - LEFT_PX - 16),
        left=LEFT_PX,
        width=WIDTH_PX,
        colour=COLOURS[0],
    )


def curves(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Record]], *, chance: float | None) -> Html:
    """Draw one line per method over the columns, placed by their numeric value.

    Args:
        title: Title of the drawing.
        columns: Rising percentages, such as 10%.
        rows: Records by method, one per column.
        chance: Accuracy of chance; None: do not draw it.
    """
    scale = _scale([record for records in rows.values() for record in records], chance)
    shares = [float(column.rstrip("%")) for column in columns]
    span = (shares[-1] - shares[0]) or 1.0
    positions = [LEFT_PX + 30 + (share - shares[0]) / span * (WIDTH_PX - LEFT_PX - 60) for share in shares]
    return render(
        "uniemox_paper/curves.svg",
        title=title,
        columns=dict(zip(columns, positions, strict=True)),
        rows=[
            (
                name,
                colour,
                [(x, record) for x, record in zip(positions, records, strict=True) if value_of(record) is not None],
            )
            for (name, records), colour in zip(rows.items(), cycle(COLOURS), strict=False)
        ],
        value_of=value_of,
        chance=chance,
        ticks=_ticks(scale),
        y=lambda share: BOTTOM_PX - position(share, scale) / 100 * (BOTTOM_PX - TOP_PX),
        left=LEFT_PX,
        width=WIDTH_PX,
        top=TOP_PX,
        bottom=BOTTOM_PX,
    )


def _scale(points: Collection[Record], chance: float | None) -> tuple[float, float]:
    papers = [record["paper_percent"] / 100 for record in points if record["paper_percent"] is not None]
    ends = [end for record in points for end in (value_of(record), record["low"], record["high"])]
    return scale_of([chance, *papers, *ends])


def _ticks(scale: tuple[float, float]) -> list[float]:
    low, high = scale
    return [low + (high - low) * tick / TICKS for tick in range(TICKS + 1)]


BELOW_NOTE = (
    f"{BELOW}: does not beat the {HISTOGRAM}: the 95 % interval of the difference on the same images is not above 0. "
    "If the two were scored on different images, or by mean average precision: the row's own interval is not above the "
    "histogram's score. With two seeds, which have no interval: the mean is not above the histogram's score."
)
# Words for the basis of an interval, see `Score.over`.
INTERVAL_BASES = {
    "seeds and pictures": "over training seeds (Student's t) and images",
    "pictures": "with one seed, over images (bootstrap), for this run",
    "none": "with two seeds, none",
}
# Figures of the paper within this distance of 1 / classes are flagged.
PAPER_NEAR_PERCENT = 1.0


def write_page(plan: Plan, outcome: RunOutcome, root: Path) -> Path:
    """Write ROOT/NAME-SCALE.html, with .json and .csv next to it, and return the page.

    Raises:
        DataError: If a file can't be written.
    """
    path = root / f"{plan.name}-{plan.scale}.html"
    findings = Findings(plan, outcome, root)
    scores = {name: findings.scored(name) for name in findings.ours}
    cited = [name for name in plan.columns if name not in findings.ours]
    write_html(
        path,
        "uniemox_paper/page.html",
        title=plan.title,
        plan=plan,
        found=findings,
        seconds=sum(run["seconds"] or 0.0 for run in findings.runs),
        notes=list(_notes(findings)),
        # Cited rows are shown only if the paper has figures for the same columns.
        rows=[row for row in plan.rows if not row.is_cited or _is_cited(row, findings.ours)],
        record_of=findings.record,
        failure_of=lambda row, name: next(
            filter(None, (outcome.failed.get(run.key) for run in _cell(row, name).runs)), None
        ),
        classes_of={name: len(paper_set.labels) for name, paper_set in PAPER_SETS.items()},
        near_percent=PAPER_NEAR_PERCENT,
        points=_points,
        below=BELOW,
        histogram=HISTOGRAM,
        value_of=value_of,
        chances={name: list(_chances(records)) for name, records in scores.items() if records},
        column_headings={name: f"{name}, mAP" for name, records in scores.items() if _has_several_labels(records)},
        drawings=list(_drawings(findings)) if plan.rows else (),
        cited=cited,
        cited_rows=[row for row in plan.rows if _is_cited(row, cited)],
        parts=[part() for part in plan.parts],
    )
    write_file(path.with_suffix(".json"), json.dumps(findings.as_dict(), indent=2, ensure_ascii=False) + "\n")
    buffer = io.StringIO()
    write_rows(buffer, [CSV_FIELDS, *(list(record.values()) for record in findings.records.values())])
    write_file(path.with_suffix(".csv"), buffer.getvalue())
    return path


def _cell(row: TableRow, name: str) -> Cell:
    return row.cells.get(name, Cell())


def _is_cited(row: TableRow, columns: Collection[str]) -> bool:
    return any(_cell(row, name).paper is not None for name in columns)


def _notes(findings: Findings) -> Iterator[str]:
    """Yield explanations of the intervals and marks."""
    bases = {record["over"] for record in findings.scored()}
    if bases:
        intervals = "; ".join(words for name, words in INTERVAL_BASES.items() if name in bases)
        yield (
            f"95 % intervals: {intervals}. Near chance: the interval, or the one over images, contains the accuracy "
            "of the most common class."
        )
    if _has_several_labels(findings.scored()):
        yield (
            "mAP: mean average precision over the labels that an image of the data has, because an image may have "
            "several. Its chance is the mean share of the images with a label. Differences are not paired, and "
            "means over seeds have no interval."
        )
    if any(record["beats_histogram"] is not None for record in findings.records.values()):
        yield BELOW_NOTE


def _points(record: Record, name: str) -> str:
    """Format a difference of a record in percentage points.

    Args:
        record: The record.
        name: Field of the difference, gain or over_histogram.
    """
    difference, low, high = (record[f"{name}{end}"] for end in ("", "_low", "_high"))
    if low is None:
        reason = "two seeds" if record["over"] == "none" else "different images"
        if record["mean_average_precision"] is not None:
            reason = "not paired"
        return f"{100 * difference:+.1f} (no interval: {reason})"
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _has_several_labels(records: Sequence[Record]) -> bool:
    """Return True for a column that is scored by mean average precision."""
    return any(record["mean_average_precision"] is not None for record in records)


def _chances(records: Sequence[Record]) -> Iterator[str]:
    """Yield the levels of chance of a column, in words."""
    level = _percents({record["chance"] for record in records})
    if _has_several_labels(records):
        yield f"{level} (random order)"
    else:
        yield f"{level} (most common class)"
        yield f"{_percents({record['uniform'] for record in records})} (random class)"


def _percents(shares: Collection[float]) -> str:
    low = min(shares)
    high = max(shares)
    if low == high:
        return f"{100 * low:.1f} %"
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _drawings(findings: Findings) -> Iterator[tuple[str, Html, str]]:
    """Yield title, drawing and caption: one per data set, or one for all points of a curve."""
    plan = findings.plan
    if plan.is_curve and findings.ours:
        rows = {row.name: [findings.record(row, name) for name in plan.columns] for row in plan.rows}
        rows = {name: line for name, line in rows.items() if any(value_of(record) is not None for record in line)}
        title = "Score over the share of the training data"
        words = "Vertical lines: 95 % intervals; dashed: chance, if it is the same for all."
        yield "", curves(title, plan.columns, rows, chance=findings.chance()), words
    for name in findings.ours if not plan.is_curve else ():
        if findings.scored(name):
            records = findings.scored(name)
            measure = "Mean average precision" if _has_several_labels(records) else "Accuracy"
            title = f"{measure} on {name}"
            points = {row.name: findings.record(row, name) for row in plan.rows}
            words = "Dots: ours, with interval, faint where near chance; squares: the paper's; dashed: chance."
            yield title, dots(title, points, chance=findings.chance(name)), words
