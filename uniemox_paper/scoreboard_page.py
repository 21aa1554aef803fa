"""The scoreboard as a page, a table and JSON."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uniemox.io import UNKNOWN, write_file, write_html, write_rows
from uniemox_paper.scoreboard import BoardRow, PairedTest, Scoreboard, title_of

CSV_FIELDS = (
    *(
        "row",
        "trained_on",
        "seeds",
        "data",
        "split",
        "runs",
        "n",
        "labels",
        "accuracy",
        "low",
        "high",
        "chance",
        "label_map",
    ),
    *("best_row", "common_n", "common_labels", "below_best", "below_best_low", "below_best_high"),
)


def write_scoreboard(board: Scoreboard, page: Path) -> None:
    """Write a page, and next to it the cells as .csv, and cells and paired tests as .json.

    Raises:
        DataError: If they can't be written.
    """
    text = io.StringIO(newline="")
    write_rows(text, _table(board))
    write_file(page.with_suffix(".csv"), text.getvalue())
    write_file(page.with_suffix(".json"), json.dumps(as_dict(board), indent=2) + "\n")
    write_html(
        page,
        "uniemox_paper/scoreboard.html",
        title="Scoreboard",
        board=board,
        titles=[title_of(column) for column in board.columns],
        pairs=[_pair(test) for test in board.tests],
        maps=_label_maps(board),
    )


def _pair(test: PairedTest) -> tuple[str, ...]:
    """Return the cells of a paired test on the page."""
    interval = UNKNOWN
    if test.interval is not None:
        interval = "{:+.3f} to {:+.3f}".format(*test.interval)
    return (
        title_of(test.column),
        test.first,
        test.second,
        str(test.n),
        str(test.labels),
        f"{test.difference:+.3f}",
        interval,
    )


def as_dict(board: Scoreboard) -> dict[str, Any]:
    """Return the JSON-serialisable form."""
    rows = []
    for row in board.rows:
        cells = [{"column": title_of(column), **asdict(cell)} for column, cell in row.cells.items()]
        rows.append({**asdict(row), "cells": cells})
    return {
        "columns": [title_of(column) for column in board.columns],
        "rows": rows,
        "tests": [{**asdict(test), "column": title_of(test.column)} for test in board.tests],
        "notes": list(board.notes),
    }


def _table(board: Scoreboard) -> Iterator[list[Any]]:
    """Yield the header, then a row for each cell."""
    yield list(CSV_FIELDS)
    for row in board.rows:
        yield from _cell_rows(row)


def _cell_rows(row: BoardRow) -> Iterator[list[Any]]:
    """Yield the cells of a row."""
    for (data, split), cell in row.cells.items():
        seeds = " ".join(map(str, row.seeds))
        low, high = cell.interval or (None, None)
        test: list[Any] = [None] * 6
        if cell.below_best is not None:
            best = cell.below_best
            test = [best.second, best.n, best.labels, best.difference, *(best.interval or (None, None))]
        yield [
            *(row.name, row.trained_on, seeds, data, split, cell.runs, cell.n, cell.labels),
            *(cell.accuracy, low, high, cell.chance, cell.label_map),
            *test,
        ]


def _label_maps(board: Scoreboard) -> list[str]:
    """Return a line for each map between labels that was used."""
    lines = []
    for row in board.rows:
        for column, cell in row.cells.items():
            if cell.label_map:
                lines.append(f"{row.name}, on {title_of(column)}: {cell.label_map}")
    return lines
