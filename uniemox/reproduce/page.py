"""Page of a plan: table and drawing, our scores next to the paper's, every figure marked; also as CSV and JSON."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from uniemox.errors import UniemoxError
from uniemox.evaluate.report.scores import BELOW
from uniemox.intervals import PairedDifference
from uniemox.io.files import write_file
from uniemox.io.html import UNKNOWN, Html, write_html
from uniemox.reproduce.audit import audit
from uniemox.reproduce.execute import RunOutcome
from uniemox.reproduce.findings import Findings
from uniemox.reproduce.plan import Cell, Plan, Run, TableRow
from uniemox.reproduce.plots import Dot, curves, dots
from uniemox.reproduce.results import Margin, Score, is_done
from uniemox.reproduce.study import HISTOGRAM

BELOW_NOTE = (
    f"{BELOW}: does not beat the {HISTOGRAM}: the 95 % interval of the difference on the same images, over images, is "
    "not above 0. If the two were scored on different images: the row's own interval is not above the histogram's "
    "accuracy."
)
OVER = {"seeds": "training seeds (Student's t)", "pictures": "images (bootstrap)"}  # basis of the intervals
CLASSES = {"UBE": 6, "FI": 8, "Emotion6": 6, "EmoSet": 8, "Emo8": 8, "CAER-S": 7, "HECO": 8}
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
        classes_of=CLASSES,
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
