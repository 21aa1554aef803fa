"""Findings of a plan: scores, gains, margins and costs, as JSON and CSV."""

import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uniemox.intervals import PairedDifference
from uniemox.io.files import WEIGHTS, write_rows
from uniemox.reproduce.costs import NetworkCost, measure_run
from uniemox.reproduce.execute import RunOutcome, seconds_of
from uniemox.reproduce.plan import Cell, Plan, TableRow
from uniemox.reproduce.results import Margin, gain, is_done, margin_of, mark_of, score_of

CSV_FIELDS = (
    *("method", "network", "data", "mark", "accuracy", "low", "high", "over", "seeds", "pictures", "chance", "uniform"),
    *("near_chance", "paper_percent", "gain", "gain_low", "gain_high"),
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
        cells = {row.name: row.cells for row in self.plan.rows}
        for row in self.plan.rows:
            baseline = cells[row.baseline] if row.baseline is not None else {}
            for name, cell in row.cells.items():
                margin = margin_of(cell, baseline[name]) if name in baseline else None
                if margin is not None:
                    yield (row.name, name), margin

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
        rows = {row.name: row for row in self.plan.rows}
        for (method, name), score in self.scores.items():
            row = rows[method]
            cell, difference, margin = row.cells[name], self.gains.get((method, name)), self.margins.get((method, name))
            record: dict[str, Any] = {"method": method, "network": row.network, "data": name}
            record |= {"mark": mark_of(cell, set(self.outcome.failed)), "paper_percent": cell.paper, "why": cell.why}
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
