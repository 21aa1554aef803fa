"""The page of a plan: its table and drawing, ours beside the paper's, every figure marked; the same as CSV and JSON."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uniemox.csv_files import write_rows
from uniemox.errors import DataError, UniemoxError
from uniemox.files import write_text
from uniemox.html import UNKNOWN, Html, element, join, page, scrolling, table
from uniemox.intervals import PairedDifference
from uniemox.reproduce.audit import audit
from uniemox.reproduce.baseline import Margin, margin_of
from uniemox.reproduce.costs import NetworkCost, measure_run
from uniemox.reproduce.execute import RunOutcome, seconds_of
from uniemox.reproduce.marks import BELOW_NOTE, chance_cell, mark_label, our_score, over_histogram, paper_figure, points
from uniemox.reproduce.plan import Cell, Plan, TableRow
from uniemox.reproduce.plots import Dot, curves, dots
from uniemox.reproduce.results import gain, is_done, mark_of, score_of
from uniemox.training.run_folder import WEIGHTS

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
CSV_FIELDS = (
    *("method", "network", "data", "mark", "accuracy", "low", "high", "over", "seeds", "pictures", "chance", "uniform"),
    *("near_chance", "paper_percent", "gain", "gain_low", "gain_high"),
    *("over_histogram", "over_histogram_low", "over_histogram_high", "beats_histogram", "why"),
)


def write_page(plan: Plan, outcome: RunOutcome, root: Path) -> Path:
    """Write ROOT/NAME-SCALE.html, and .json and .csv beside it. Returns the page. Raises DataError if it can't."""
    path = root / f"{plan.name}-{plan.scale}.html"
    found = _Found(plan, outcome, root)
    try:
        write_text(path, page(plan.title, found.parts()))
        write_text(path.with_suffix(".json"), json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
        write_text(path.with_suffix(".csv"), found.as_csv())
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another --out") from error
    return path


class _Found:
    """What a plan found, read once."""

    def __init__(self, plan: Plan, outcome: RunOutcome, root: Path) -> None:
        self.plan, self.outcome, self.root = plan, outcome, root
        self.scores = {(row.name, name): score_of(cell) for row in plan.rows for name, cell in row.cells.items()}
        self.gains = dict(self._gains())
        self.margins = dict(self._margins())
        self.costs = {row.name: cost for row in plan.rows if (cost := _cost(row)) is not None}
        self.ours = [name for name in plan.columns if any(self._is_planned(row, name) for row in plan.rows)]
        self.seconds = seconds_of(root)

    def _is_planned(self, row: TableRow, name: str) -> bool:
        return bool(row.cells.get(name, Cell()).runs)

    def _gains(self) -> Iterator[tuple[tuple[str, str], PairedDifference]]:
        reference = next((row for row in self.plan.rows if row.name == self.plan.reference), None)
        for row in self.plan.rows if reference is not None else ():
            for name, cell in row.cells.items():
                other = reference.cells.get(name) if reference is not None else None
                if other is not None and row is not reference and cell.runs and cell.runs != other.runs:
                    found = gain(cell, other)
                    if found is not None:
                        yield (row.name, name), found

    def _margins(self) -> Iterator[tuple[tuple[str, str], Margin]]:
        cells = {row.name: row.cells for row in self.plan.rows}
        for row in self.plan.rows:
            baseline = cells[row.baseline] if row.baseline is not None else {}
            for name, cell in row.cells.items():
                found = margin_of(cell, baseline[name]) if name in baseline else None
                if found is not None:
                    yield (row.name, name), found

    def parts(self) -> Iterator[Html]:
        """The page from above."""
        yield element("style", Html(LOOK))
        yield element("header", element("h1", self.plan.title), *(element("p", words) for words in self.plan.about))
        yield self._state()
        if self.plan.rows:
            yield self._table()
            yield from (self._drawing(name) for name in self.ours if not self.plan.is_curve and self._has_scores(name))
            if self.plan.is_curve and self.ours:
                yield self._curves()
            if self.costs:
                yield self._costs()
            cited = [name for name in self.plan.columns if name not in self.ours]
            if any(row.cells.get(name, Cell()).paper is not None for row in self.plan.rows for name in cited):
                yield self._cited(cited)
        for part in self.plan.parts:
            yield element("section", part())
        yield self._runs()

    def _state(self) -> Html:
        runs = self.plan.runs
        done = sum(is_done(run) for run in runs)
        minutes = sum(self.seconds.get(run.key, 0.0) for run in runs) / 60
        words = (
            f"Scale: {self.plan.scale}. {done} of {len(runs)} runs are done; they took {minutes:.1f} minutes together. "
        )
        marks = [part for mark, meaning in LEGEND for part in (mark_label(mark), f" {meaning}  ")]
        scored = [score for score in self.scores.values() if score is not None]
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
        notes = [about, *([BELOW_NOTE] if self.margins else [])]
        return element("div", element("p", words, *marks), *(element("p", note, class_="note") for note in notes))

    def _table(self) -> Html:
        reference = self.plan.reference
        heads = ["method"]
        for name in self.ours:
            heads += [name, *([f"over {reference}"] if self._has_gains(name) else [])]
        rows = [self._line(row) for row in self.plan.rows if self._is_shown(row)]
        rows += [self._chance_line()] if any(self.scores.values()) else []
        head = element("thead", element("tr", *(element("th", word, scope="col") for word in heads)))
        return scrolling("results", element("table", head, element("tbody", *rows)))

    def _line(self, row: TableRow) -> Html:
        cells = [element("th", row.name, *([element("small", row.network)] if row.network else []), scope="row")]
        for name in self.ours:
            cells.append(element("td", self._cell(row, name), class_="two"))
            if self._has_gains(name):
                found = self.gains.get((row.name, name))
                cells.append(element("td", UNKNOWN if found is None else points(found)))
        return element("tr", *cells)

    def _is_shown(self, row: TableRow) -> bool:
        """Cited rows stand among ours only where the paper has figures for the same columns."""
        return not row.is_cited or any(row.cells.get(name, Cell()).paper is not None for name in self.ours)

    def _chance_line(self) -> Html:
        cells = [element("th", "chance", scope="row")]
        for name in self.ours:
            scores = [score for (_, column), score in self.scores.items() if score is not None and column == name]
            cells.append(element("td", chance_cell(scores), class_="two"))
            cells += [element("td", UNKNOWN)] if self._has_gains(name) else []
        return element("tr", *cells)

    def _has_gains(self, name: str) -> bool:
        """Whether a column of gains stands beside this one; curves have too many columns for that."""
        return not self.plan.is_curve and any(column == name for _, column in self.gains)

    def _cell(self, row: TableRow, name: str) -> Html:
        """Ours above, the paper's below."""
        cell, score = row.cells.get(name, Cell()), self.scores.get((row.name, name))
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
        found = self.gains.get((row.name, name)) if self.plan.is_curve else None
        lines += [element("small", f"{points(found)} over {self.plan.reference}")] if found is not None else []
        margin = self.margins.get((row.name, name))
        lines += [over_histogram(margin)] if margin is not None else []
        if cell.paper is not None:
            lines.append(join([paper_figure(cell.paper, name), mark_label("cited")]))
        return Html("<br>".join(lines) or UNKNOWN)

    def _has_scores(self, name: str) -> bool:
        return any(self.scores.get((row.name, name)) is not None for row in self.plan.rows)

    def _dot(self, row: TableRow, name: str) -> Dot:
        cell, score = row.cells.get(name, Cell()), self.scores.get((row.name, name))
        paper = None if cell.paper is None else cell.paper / 100
        if score is None:
            return Dot(paper=paper)
        return Dot(score.accuracy, score.low, score.high, paper, is_faint=score.near_chance)

    def _chance(self, name: str | None = None) -> float | None:
        """The chance of a column, or of all; None where it is not known, or not the same for all."""
        known = {score.chance for (_, column), score in self.scores.items() if score and name in (None, column)}
        return known.pop() if len(known) == 1 else None

    def _drawing(self, name: str) -> Html:
        drawn = dots(
            f"Accuracy on {name}", {row.name: self._dot(row, name) for row in self.plan.rows}, chance=self._chance(name)
        )
        words = "Dots: ours, with interval, faint where near chance; squares: the paper's; dashed: chance."
        return element("figure", element("h2", f"Accuracy on {name}"), drawn, element("figcaption", words))

    def _curves(self) -> Html:
        rows = {row.name: [self._dot(row, name) for name in self.plan.columns] for row in self.plan.rows}
        rows = {name: line for name, line in rows.items() if any(dot.value is not None for dot in line)}
        drawn = curves("Accuracy over the share of the training data", self.plan.columns, rows, chance=self._chance())
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
            if (cost := self.costs.get(row.name)) is not None
        ]
        words = (
            "Measured on this machine's CPU, on the classifiers as they were run here: one image, all streams. The "
            "paper's columns mix classifiers with what pre-training holds; `uniemox models` measures its networks."
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
            took = f"{self.seconds[run.key]:.0f} s" if run.key in self.seconds else UNKNOWN
            rows.append((run.name, state, took, _audited(run.folder), element("code", run.command)))
        heads = ("run", "state", "time", "says all that repeats it", "command")
        words = "Every run is a plain command; `uniemox reproduce verify RUN` scores stored weights again."
        return element(
            "details", element("summary", f"All {len(rows)} runs"), element("p", words), table("runs", heads, rows)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.plan.name,
            "title": self.plan.title,
            "scale": self.plan.scale,
            "reference": self.plan.reference,
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
                for run in self.plan.runs
            ],
        }

    def as_csv(self) -> str:
        """A line for each method and data set."""
        buffer = io.StringIO()
        write_rows(buffer, [CSV_FIELDS, *([record[name] for name in CSV_FIELDS] for record in self._records())])
        return buffer.getvalue()

    def _records(self) -> Iterator[dict[str, Any]]:
        for row in self.plan.rows:
            for name, cell in row.cells.items():
                score, found = self.scores[row.name, name], self.gains.get((row.name, name))
                margin = self.margins.get((row.name, name))
                yield {
                    "method": row.name,
                    "network": row.network,
                    "data": name,
                    "mark": mark_of(cell, set(self.outcome.failed)),
                    **dict.fromkeys(("accuracy", "low", "high", "over", "seeds", "pictures")),
                    **dict.fromkeys(("chance", "uniform", "near_chance")),
                    **({} if score is None else score.as_dict()),
                    "paper_percent": cell.paper,
                    "gain": None if found is None else found.difference,
                    "gain_low": None if found is None else found.low,
                    "gain_high": None if found is None else found.high,
                    "over_histogram": None if margin is None else margin.difference,
                    "over_histogram_low": None if margin is None else margin.low,
                    "over_histogram_high": None if margin is None else margin.high,
                    "beats_histogram": None if margin is None else margin.beats,
                    "why": cell.why,
                }


def _cost(row: TableRow) -> NetworkCost | None:
    """Of the first finished classifier of a row; None for rows without one."""
    for cell in row.cells.values():
        for run in cell.runs:
            if is_done(run) and (run.folder / WEIGHTS).exists():
                return measure_run(run.folder)
    return None


def _audited(folder: Path) -> str:
    """Of runs that train."""
    try:
        lacking = audit(folder)
    except UniemoxError:
        return UNKNOWN
    return "; ".join(lacking) or "yes"
