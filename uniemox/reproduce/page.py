"""The page of a plan: its table and drawing, ours beside the paper's, every figure marked; the same as CSV and JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

from uniemox.errors import DataError, UniemoxError
from uniemox.io.files import write_text
from uniemox.io.html import UNKNOWN, Html, element, join, page, scrolling, table
from uniemox.reproduce.audit import audit
from uniemox.reproduce.execute import RunOutcome
from uniemox.reproduce.findings import Findings
from uniemox.reproduce.plan import Cell, Plan, TableRow
from uniemox.reproduce.plots import Dot, curves, dots
from uniemox.reproduce.results import (
    BELOW_NOTE,
    chance_cell,
    is_done,
    mark_label,
    mark_of,
    our_score,
    over_histogram,
    paper_figure,
    points,
)

LOOK = """
.mark { font-size: .7rem; padding: .05rem .35rem; border-radius: .5rem; border: 1px solid var(--line);
  margin-left: .3rem; color: var(--soft); white-space: nowrap }
.mark.ours { border-color: var(--accent); color: var(--accent) }
.mark.failed, .chance, small.below { color: var(--bad) } td.two { line-height: 1.35 }
td small { white-space: normal; display: inline-block; max-width: 12rem } tbody th small { color: var(--soft);
  font-weight: 400; display: block; max-width: 22rem } code { font-size: .8rem; overflow-wrap: anywhere }
"""
LEGEND = (
    ("ours", "run here"),
    ("cited", "the paper's figure"),
    ("not run", "why is said beside it"),
)


def write_page(plan: Plan, outcome: RunOutcome, root: Path) -> Path:
    """Write ROOT/NAME-SCALE.html, and .json and .csv beside it. Returns the page. Raises DataError if it can't."""
    path = root / f"{plan.name}-{plan.scale}.html"
    found = Findings(plan, outcome, root)
    try:
        write_text(path, page(plan.title, _Page(found).parts()))
        write_text(path.with_suffix(".json"), json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
        write_text(path.with_suffix(".csv"), found.as_csv())
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another --out") from error
    return path


class _Page:
    """The page of what a plan found."""

    def __init__(self, found: Findings) -> None:
        self.found, self.plan, self.outcome = found, found.plan, found.outcome

    def parts(self) -> Iterator[Html]:
        """The page from above."""
        yield element("style", Html(LOOK))
        yield element("header", element("h1", self.plan.title), *(element("p", words) for words in self.plan.about))
        yield self._state()
        if self.plan.rows:
            yield self._table()
            if not self.plan.is_curve:
                yield from (self._drawing(name) for name in self.found.ours if self.found.has_scores(name))
            if self.plan.is_curve and self.found.ours:
                yield self._curves()
            if self.found.costs:
                yield self._costs()
            cited = [name for name in self.plan.columns if name not in self.found.ours]
            if any(row.cells.get(name, Cell()).paper is not None for row in self.plan.rows for name in cited):
                yield self._cited(cited)
        for part in self.plan.parts:
            yield element("section", part())
        yield self._runs()

    def _state(self) -> Html:
        runs = self.plan.runs
        done = sum(is_done(run) for run in runs)
        minutes = sum(self.found.seconds.get(run.key, 0.0) for run in runs) / 60
        words = (
            f"Scale: {self.plan.scale}. {done} of {len(runs)} runs are done; they took {minutes:.1f} minutes together. "
        )
        marks = [part for mark, meaning in LEGEND for part in (mark_label(mark), f" {meaning}  ")]
        scored = [score for score in self.found.scores.values() if score is not None]
        about = ""
        if scored:
            overs = {"seeds": "training seeds (Student's t)", "pictures": "images (bootstrap)"}
            over = " or, where there are fewer than three seeds, ".join(
                words for name, words in overs.items() if any(score.over == name for score in scored)
            )
            about = (
                f"Intervals are 95 % over {over}. Near chance: the interval, or the one over images, holds what the "
                "commonest class alone gives."
            )
        notes = [about, *([BELOW_NOTE] if self.found.margins else [])]
        return element("div", element("p", words, *marks), *(element("p", note, class_="note") for note in notes))

    def _table(self) -> Html:
        reference = self.plan.reference
        heads = ["method"]
        for name in self.found.ours:
            heads += [name, *([f"over {reference}"] if self.found.has_gains(name) else [])]
        rows = [self._line(row) for row in self.plan.rows if self._is_shown(row)]
        rows += [self._chance_line()] if any(self.found.scores.values()) else []
        head = element("thead", element("tr", *(element("th", word, scope="col") for word in heads)))
        return scrolling("results", element("table", head, element("tbody", *rows)))

    def _line(self, row: TableRow) -> Html:
        cells = [element("th", row.name, *([element("small", row.network)] if row.network else []), scope="row")]
        for name in self.found.ours:
            cells.append(element("td", self._cell(row, name), class_="two"))
            if self.found.has_gains(name):
                found = self.found.gains.get((row.name, name))
                cells.append(element("td", UNKNOWN if found is None else points(found)))
        return element("tr", *cells)

    def _is_shown(self, row: TableRow) -> bool:
        """Cited rows stand among ours only where the paper has figures for the same columns."""
        return not row.is_cited or any(row.cells.get(name, Cell()).paper is not None for name in self.found.ours)

    def _chance_line(self) -> Html:
        cells = [element("th", "chance", scope="row")]
        for name in self.found.ours:
            scores = [score for (_, column), score in self.found.scores.items() if score is not None and column == name]
            cells.append(element("td", chance_cell(scores), class_="two"))
            cells += [element("td", UNKNOWN)] if self.found.has_gains(name) else []
        return element("tr", *cells)

    def _cell(self, row: TableRow, name: str) -> Html:
        """Ours above, the paper's below."""
        cell, score = row.cells.get(name, Cell()), self.found.scores.get((row.name, name))
        mark = mark_of(cell, set(self.outcome.failed))
        lines: list[Html] = []
        if score is not None:
            lines.append(join([our_score(score), mark_label("ours")]))
        elif mark == "failed":
            why = next((self.outcome.failed[run.key] for run in cell.runs if run.key in self.outcome.failed), "")
            lines.append(join([element("span", "failed", title=why), mark_label("failed")]))
        elif not row.is_cited:
            lines.append(join([element("span", UNKNOWN, title=cell.why), mark_label("not run")]))
            lines += [element("small", cell.why)] if cell.why else []
        found = self.found.gains.get((row.name, name)) if self.plan.is_curve else None
        lines += [element("small", f"{points(found)} over {self.plan.reference}")] if found is not None else []
        margin = self.found.margins.get((row.name, name))
        lines += [over_histogram(margin)] if margin is not None else []
        if cell.paper is not None:
            lines.append(join([paper_figure(cell.paper, name), mark_label("cited")]))
        return Html("<br>".join(lines) or UNKNOWN)

    def _dot(self, row: TableRow, name: str) -> Dot:
        cell, score = row.cells.get(name, Cell()), self.found.scores.get((row.name, name))
        paper = None if cell.paper is None else cell.paper / 100
        if score is None:
            return Dot(paper=paper)
        return Dot(score.accuracy, score.low, score.high, paper, is_faint=score.near_chance)

    def _drawing(self, name: str) -> Html:
        drawn = dots(
            f"Accuracy on {name}",
            {row.name: self._dot(row, name) for row in self.plan.rows},
            chance=self.found.chance(name),
        )
        words = "Dots: ours, with interval, faint where near chance; squares: the paper's; dashed: chance."
        return element("figure", element("h2", f"Accuracy on {name}"), drawn, element("figcaption", words))

    def _curves(self) -> Html:
        rows = {row.name: [self._dot(row, name) for name in self.plan.columns] for row in self.plan.rows}
        rows = {name: line for name, line in rows.items() if any(dot.value is not None for dot in line)}
        drawn = curves(
            "Accuracy over the share of the training data", self.plan.columns, rows, chance=self.found.chance()
        )
        words = "Lines down: 95 % intervals; dashed: chance, where it is the same for all."
        return element("figure", drawn, element("figcaption", words))

    def _costs(self) -> Html:
        heads = ("method", "M parameters", "G multiply-adds", "ms an image", "px", "streams", "cited: M", "cited: G")
        rows = [
            (
                row.name,
                f"{cost.parameters_m:.2f}",
                f"{cost.multiply_adds_g:.3f}",
                f"{cost.latency_ms:.1f}",
                str(cost.size_px),
                cost.streams,
                *(UNKNOWN if value is None else f"{value:g}" for value in row.paper_costs),
            )
            for row in self.plan.rows
            if (cost := self.found.costs.get(row.name)) is not None
        ]
        words = (
            "Measured on this machine's CPU, on the classifiers as they were run here: one image, all streams. The "
            "paper's columns mix classifiers with pre-training networks; `python -m benchmarks.models` measures both."
        )
        return join([element("h2", "Costs"), element("p", words, class_="note"), table("costs", heads, rows)])

    def _cited(self, columns: list[str]) -> Html:
        rows = [
            (
                row.name,
                *(
                    paper_figure(value, name) if (value := row.cells.get(name, Cell()).paper) is not None else UNKNOWN
                    for name in columns
                ),
            )
            for row in self.plan.rows
            if any(row.cells.get(name, Cell()).paper is not None for name in columns)
        ]
        words = "Accuracy in percent, as the paper prints it, on data that were not given here."
        return join(
            [
                element("h2", "The paper's figures, cited"),
                element("p", words),
                table("cited", ("method", *columns), rows),
            ]
        )

    def _runs(self) -> Html:
        rows = []
        for run in self.plan.runs:
            state = (
                "done"
                if is_done(run)
                else self.outcome.failed.get(run.key) or (f"needs {run.missing}" if run.missing else "not run")
            )
            took = f"{self.found.seconds[run.key]:.0f} s" if run.key in self.found.seconds else UNKNOWN
            rows.append((run.name, state, took, _audited(run.folder), element("code", run.command)))
        heads = ("run", "state", "time", "says all that repeats it", "command")
        words = "Every run is a plain command; `uniemox reproduce verify RUN` scores stored weights again."
        return element(
            "details", element("summary", f"All {len(rows)} runs"), element("p", words), table("runs", heads, rows)
        )


def _audited(folder: Path) -> str:
    """Return settings of the runs that train."""
    try:
        lacking = audit(folder)
    except UniemoxError:
        return UNKNOWN
    return "; ".join(lacking) or "yes"
