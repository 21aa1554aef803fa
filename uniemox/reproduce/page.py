"""Page of a plan: table and drawing, our scores next to the paper's, every figure marked; also as CSV and JSON."""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import cycle
from pathlib import Path
from typing import Any

from uniemox.errors import UniemoxError
from uniemox.evaluate.report.scores import BELOW
from uniemox.intervals import PairedDifference
from uniemox.io.files import WEIGHTS, write_file, write_rows
from uniemox.io.html import UNKNOWN, Html, position, render, scale_of, write_html
from uniemox.reproduce.audit import audit
from uniemox.reproduce.costs import NetworkCost, measure_run
from uniemox.reproduce.execute import RunOutcome, seconds_of
from uniemox.reproduce.plan import Cell, Plan, Run, TableRow
from uniemox.reproduce.results import Margin, Score, gain, is_done, margin_of, mark_of, score_of
from uniemox.reproduce.sources import PAPER_SETS
from uniemox.reproduce.study import HISTOGRAM

CSV_FIELDS = (
    *("method", "network", "data", "mark", *(one.name for one in fields(Score))),
    *("paper_percent", "gain", "gain_low", "gain_high"),
    *("over_histogram", "over_histogram_low", "over_histogram_high", "beats_histogram", "why"),
)


class Findings:
    """Findings of one plan, after its runs."""

    def __init__(self, plan: Plan, outcome: RunOutcome, root: Path) -> None:
        self.plan, self.outcome, self.seconds = plan, outcome, seconds_of(root)
        self.scores = {(row.name, name): score_of(cell) for row in plan.rows for name, cell in row.cells.items()}
        self.gains = dict(self._gains())
        self.margins = dict(self._margins())
        self.costs = {row.name: cost for row in plan.rows if (cost := _cost(row)) is not None}
        self.ours = [name for name in plan.columns if any(row.cells.get(name, Cell()).runs for row in plan.rows)]

    def _gains(self) -> Iterator[tuple[tuple[str, str], PairedDifference]]:
        reference = next((row for row in self.plan.rows if row.name == self.plan.reference), None)
        for row in self.plan.rows if reference is not None else ():
            for name, cell in row.cells.items():
                other = reference.cells.get(name) if reference is not None else None
                if other is not None and row is not reference and cell.runs and cell.runs != other.runs:
                    difference = gain(cell, other)
                    if difference is not None:
                        yield (row.name, name), difference

    def _margins(self) -> Iterator[tuple[tuple[str, str], Margin]]:
        rows = {row.name: row for row in self.plan.rows}
        for (method, name), score in self.scores.items():
            baseline = rows[method].baseline
            if baseline is not None and name in rows[baseline].cells:
                cells = rows[method].cells[name], rows[baseline].cells[name]
                margin = margin_of(*cells, score, self.scores[baseline, name])
                if margin is not None:
                    yield (method, name), margin

    def has_gains(self, name: str) -> bool:
        """Return True if this column has a column of gains next to it; curves have too many columns for that."""
        return not self.plan.is_curve and any(column == name for _, column in self.gains)

    def chance(self, name: str | None = None) -> float | None:
        """Return the chance level of a column, or of all; None if unknown or different."""
        levels = {score.chance for (_, column), score in self.scores.items() if score and name in (None, column)}
        return levels.pop() if len(levels) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        plan = self.plan
        return {
            **{"name": plan.name, "title": plan.title, "scale": plan.scale, "reference": plan.reference},
            "rows": list(self._records()),
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "runs": [
                {
                    "name": run.name,
                    "command": run.command,
                    "folder": str(run.folder),
                    "is_done": is_done(run),
                    "missing": run.missing,
                    "failed": self.outcome.failed.get(run.key),
                    "seconds": self.seconds.get(run.key),
                }
                for run in plan.runs
            ],
        }

    def as_csv(self) -> str:
        """Return CSV with one line per method and data set."""
        buffer = io.StringIO()
        write_rows(buffer, [CSV_FIELDS, *(list(record.values()) for record in self._records())])
        return buffer.getvalue()

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yield a dictionary of `CSV_FIELDS`, in their order, for each method and data set."""
        rows, failed = {row.name: row for row in self.plan.rows}, set(self.outcome.failed)
        for (method, name), score in self.scores.items():
            row = rows[method]
            cell, difference, margin = row.cells[name], self.gains.get((method, name)), self.margins.get((method, name))
            record: dict[str, Any] = {"method": method, "network": row.network, "data": name}
            record |= {"mark": mark_of(cell, score, failed), "paper_percent": cell.paper, "why": cell.why}
            record |= {} if score is None else asdict(score)
            if difference is not None:
                record |= {"gain": difference.difference, "gain_low": difference.low, "gain_high": difference.high}
            if margin is not None:
                over = {"": margin.difference, "_low": margin.low, "_high": margin.high}
                record |= {f"over_histogram{end}": value for end, value in over.items()}
                record["beats_histogram"] = margin.beats
            yield dict.fromkeys(CSV_FIELDS) | record


def _cost(row: TableRow) -> NetworkCost | None:
    """Return the cost of a row's first finished classifier; None if there is none."""
    runs = (run for cell in row.cells.values() for run in cell.runs if is_done(run))
    return next((measure_run(run.folder) for run in runs if (run.folder / WEIGHTS).exists()), None)


LEFT_PX, WIDTH_PX = 330, 840  # left: names of 50 letters
TOP_PX, BOTTOM_PX = 26, 346  # of a drawing of lines
TICKS = 5
COLOURS = ("#4a80d9", "#d9773f", "#2e8b57", "#a05fc4", "#b8902c", "#c2466b", "#3f9c9c", "#7a7f87")


@dataclass(frozen=True, slots=True)
class Dot:
    """Score with its interval, and the paper's figure; all are shares, 0 to 1."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    is_faint: bool = False
    """True if near chance."""


def dots(title: str, rows: Mapping[str, Dot], *, chance: float | None) -> Html:
    """Draw one row per method: our score as a dot with its interval, the paper's as a hollow square, chance dashed.

    rows: at least one with a value.
    """
    shown = {name: dot for name, dot in rows.items() if dot.value is not None or dot.paper is not None}
    scale = _scale(shown.values(), chance)
    return render(
        "reproduce/dots.svg",
        title=title,
        rows=shown,
        chance=chance,
        ticks=_ticks(scale),
        x=lambda share: LEFT_PX + position(share, scale) / 100 * (WIDTH_PX - LEFT_PX - 16),
        left=LEFT_PX,
        width=WIDTH_PX,
        colour=COLOURS[0],
    )


def curves(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Dot]], *, chance: float | None) -> Html:
    """Draw one line per method over the columns, placed by their numeric value.

    columns: such as 10%, rising.  rows: one Dot per column.
    """
    scale = _scale([dot for line in rows.values() for dot in line], chance)
    shares = [float(column.rstrip("%")) for column in columns]
    span = (shares[-1] - shares[0]) or 1.0
    places = [LEFT_PX + 30 + (share - shares[0]) / span * (WIDTH_PX - LEFT_PX - 60) for share in shares]
    return render(
        "reproduce/curves.svg",
        title=title,
        columns=dict(zip(columns, places, strict=True)),
        rows=[
            (name, colour, [(x, dot) for x, dot in zip(places, line, strict=True) if dot.value is not None])
            for (name, line), colour in zip(rows.items(), cycle(COLOURS), strict=False)
        ],
        chance=chance,
        ticks=_ticks(scale),
        y=lambda share: BOTTOM_PX - position(share, scale) / 100 * (BOTTOM_PX - TOP_PX),
        left=LEFT_PX,
        width=WIDTH_PX,
        top=TOP_PX,
        bottom=BOTTOM_PX,
    )


def _scale(points: Iterable[Dot], chance: float | None) -> tuple[float, float]:
    return scale_of([chance, *(end for dot in points for end in (dot.value, dot.low, dot.high, dot.paper))])


def _ticks(scale: tuple[float, float]) -> list[float]:
    low, high = scale
    return [low + (high - low) * tick / TICKS for tick in range(TICKS + 1)]


BELOW_NOTE = (
    f"{BELOW}: does not beat the {HISTOGRAM}: the 95 % interval of the difference on the same images, over images, is "
    "not above 0. If the two were scored on different images: the row's own interval is not above the histogram's "
    "accuracy."
)
OVER = {"seeds": "training seeds (Student's t)", "pictures": "images (bootstrap)"}  # basis of the intervals
PAPER_NEAR_PERCENT = 1.0  # figures of the paper within this distance of 1 / classes are flagged


def write_page(plan: Plan, outcome: RunOutcome, root: Path) -> Path:
    """Write ROOT/NAME-SCALE.html, with .json and .csv next to it. Returns the page. Raises DataError if it can't."""
    path = root / f"{plan.name}-{plan.scale}.html"
    findings = Findings(plan, outcome, root)
    scores = {name: _scores_of(findings, name) for name in findings.ours}
    cited = [name for name in plan.columns if name not in findings.ours]
    runs = [_run(run, findings) for run in plan.runs]
    write_html(
        path,
        "reproduce/page.html",
        title=plan.title,
        plan=plan,
        found=findings,
        runs=runs,
        seconds=sum(run["seconds"] or 0.0 for run in runs),
        notes=list(_notes(findings)),
        # cited rows are shown only if the paper has figures for the same columns
        rows=[row for row in plan.rows if not row.is_cited or _is_cited(row, findings.ours)],
        failure_of=lambda row, name: _failure(_cell(row, name), outcome),
        paper_of=lambda row, name: _cell(row, name).paper,
        classes_of={name: len(labels) for name, (*_, labels) in PAPER_SETS.items()},
        near_percent=PAPER_NEAR_PERCENT,
        points=_points,
        below=BELOW,
        histogram=HISTOGRAM,
        chances={
            name: (_percents({one.chance for one in those}), _percents({one.uniform for one in those}))
            for name, those in scores.items()
            if those
        },
        drawings=list(_drawings(findings)) if plan.rows else (),
        cited=cited,
        cited_rows=[row for row in plan.rows if _is_cited(row, cited)],
        parts=[part() for part in plan.parts],
    )
    write_file(path.with_suffix(".json"), json.dumps(findings.as_dict(), indent=2, ensure_ascii=False) + "\n")
    write_file(path.with_suffix(".csv"), findings.as_csv())
    return path


def _cell(row: TableRow, name: str) -> Cell:
    return row.cells.get(name, Cell())


def _is_cited(row: TableRow, columns: Collection[str]) -> bool:
    return any(_cell(row, name).paper is not None for name in columns)


def _scores_of(findings: Findings, column: str) -> list[Score]:
    return [score for (_, name), score in findings.scores.items() if score is not None and name == column]


def _failure(cell: Cell, outcome: RunOutcome) -> str | None:
    """Return why a run of the cell failed."""
    return next((outcome.failed[run.key] for run in cell.runs if run.key in outcome.failed), None)


def _notes(findings: Findings) -> Iterator[str]:
    """Yield explanations of the intervals and marks."""
    ways = {score.over for score in findings.scores.values() if score is not None}
    if ways:
        over = " or, with fewer than three seeds, ".join(words for name, words in OVER.items() if name in ways)
        yield (
            f"Intervals are 95 % over {over}. Near chance: the interval, or the one over images, contains the "
            "accuracy of the most common class."
        )
    if findings.margins:
        yield BELOW_NOTE


def _points(margin: PairedDifference | Margin) -> str:
    """Format a difference in percentage points."""
    words = f"{100 * margin.difference:+.1f}"
    if margin.low is None or margin.high is None:
        return f"{words} (different images)"
    return f"{words} ({100 * margin.low:+.1f} to {100 * margin.high:+.1f})"


def _percents(shares: Collection[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{100 * low:.1f} %" if low == high else f"{100 * low:.1f} to {100 * high:.1f} %"


def _drawings(findings: Findings) -> Iterator[tuple[str, Html, str]]:
    """Yield title, drawing and caption: one per data set, or one for all points of a curve."""
    plan = findings.plan
    if plan.is_curve and findings.ours:
        rows = {row.name: [_dot(findings, row, name) for name in plan.columns] for row in plan.rows}
        rows = {name: line for name, line in rows.items() if any(dot.value is not None for dot in line)}
        title = "Accuracy over the share of the training data"
        words = "Vertical lines: 95 % intervals; dashed: chance, if it is the same for all."
        yield "", curves(title, plan.columns, rows, chance=findings.chance()), words
    for name in findings.ours if not plan.is_curve else ():
        if _scores_of(findings, name):
            title, points = f"Accuracy on {name}", {row.name: _dot(findings, row, name) for row in plan.rows}
            words = "Dots: ours, with interval, faint where near chance; squares: the paper's; dashed: chance."
            yield title, dots(title, points, chance=findings.chance(name)), words


def _dot(findings: Findings, row: TableRow, name: str) -> Dot:
    percent, score = _cell(row, name).paper, findings.scores.get((row.name, name))
    paper = None if percent is None else percent / 100
    if score is None:
        return Dot(paper=paper)
    return Dot(score.accuracy, score.low, score.high, paper, is_faint=score.near_chance)


def _run(run: Run, findings: Findings) -> dict[str, Any]:
    """Return a run for the template."""
    state = findings.outcome.failed.get(run.key) or (f"needs {run.missing}" if run.missing else "not run")
    return {
        "name": run.name,
        "is_done": is_done(run),
        "state": "done" if is_done(run) else state,
        "seconds": findings.seconds.get(run.key),
        "audited": _audited(run.folder),
        "command": run.command,
    }


def _audited(folder: Path) -> str:
    """Return settings of the runs that train."""
    try:
        lacking = audit(folder)
    except UniemoxError:
        return UNKNOWN
    return "; ".join(lacking) or "yes"
