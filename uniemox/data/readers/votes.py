"""Vote columns of tables: which columns are classes, and which only look like one."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError

MIN_CLASSES, MIN_ROWS = 3, 3  # in smaller tables, equal sums are no evidence
MANY_ROWS = 8  # in a smaller table, a class may have the same number of votes in all rows, or one more in each
TOLERANCE = 0.02  # of a sum; shares are often rounded to two digits
NO_CLASS = re.compile(
    r"total|sum|n|num|count|votes?|(n|num|number)_(votes|raters|annotators|answers)|raters|annotators|answers|"
    r"(is|has)_\w+|valid|flag(ged)?|gold|checked|duplicate|id|idx|index|\w+_id|width|height|year"
)
"""Names of columns in which tables of votes hold something else, in lower case."""


def refuse_other_columns(rows: Sequence[tuple[str, Mapping[str, str]]], classes: Sequence[str], table: Path) -> None:
    """Raise DataError for a column that can't be a class, because it would win most votes.

    rows: place and cells of each row.  classes: names of the columns that are taken as classes.
    A total equals the sum of the other columns. A flag or a second total varies, or is there for all images, while the
    sum of the others stays the same: of a fixed number of votes, a class takes its votes from the others. An index
    counts the rows.
    """
    remedy = "remove it, or name the classes, as in ?labels=a,b"
    is_other = {name: NO_CLASS.fullmatch(name.lower()) is not None for name in classes}
    for name in classes:
        if is_other[name] and not all(is_other.values()):
            raise DataError(f"{table}:1: column {name!r} is not a class; {remedy}")
    votes = _numbers(rows, classes)
    if votes is None or len(votes) < MIN_ROWS:
        return
    for name, column, others in zip(classes, votes.T, (votes.sum(axis=1, keepdims=True) - votes).T, strict=True):
        if len(column) >= MANY_ROWS and np.array_equal(column - column[0], np.arange(len(column))):
            raise DataError(f"{table}:1: column {name!r} numbers the rows, so it is not a class; {remedy}")
        if len(classes) < MIN_CLASSES or not column.any():
            continue
        if np.allclose(column, others, rtol=TOLERANCE):
            raise DataError(f"{table}:1: column {name!r} is the sum of the others, so it is not a class; {remedy}")
        is_evident = len(column) >= MANY_ROWS or (column != column[0]).any()
        if is_evident and others[0] > 0 and np.allclose(others, others[0], rtol=TOLERANCE):
            raise DataError(
                f"{table}:1: the votes of all other columns add up to {others[0]:g} in every row, whatever {name!r} "
                f"is, so it is not a class; {remedy}"
            )


def _numbers(rows: Sequence[tuple[str, Mapping[str, str]]], classes: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the values of all rows, (N, E); None if one is no number, which is reported later with its line."""
    try:
        return np.array([[float(row[name]) for name in classes] for _, row in rows])
    except ValueError:
        return None
