"""Vote columns of tables: which columns are classes, and which only look like one."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.data.readers.rows import votes_in
from uniemox.errors import DataError
from uniemox.labels import EMOTIC, LABEL_SETS, clean

# In smaller tables, equal sums are no evidence.
MIN_CLASSES = 3
MIN_ROWS = 3
# In a smaller table, a class may have the same number of votes in all rows, or one more in each.
MIN_ROWS_OF_PATTERNS = 8
# A column that is the largest in this share of the rows is a score, time or number of people.
MIN_TOP_SHARE = 0.95
# Share of the rows in which a flag is 1; the votes of a rare class are also 0 or 1.
MIN_FLAG_SHARE = 0.25
# A single label with a separator may be one word, as doubt/confusion.
MIN_LISTS = 2
_SEPARATOR = re.compile(r"[;,|/+&]")
# Relative tolerance of a sum; shares are often rounded to two digits.
TOLERANCE = 0.02
NO_CLASS = re.compile(
    r"total|sum|n|num|count|votes?|(n|num|number)_(votes|raters|annotators|answers)|raters|annotators|answers|"
    r"(is|has)_\w+|valid|flag(ged)?|gold|checked|duplicate|id|idx|index|\w+_id|width|height|year|"
    r"verified|keep|used|outlier|nsfw|ambiguous|rownames?|seconds|duration|respondents|workers|age|"
    r"(confidence|certainty|score|quality|agreement)(_\w+)?"
)
"""Names of columns in which tables of votes hold something else, in lower case."""
# Nobody votes for one of EMOTIC's categories, and tables have other columns of such names: confidence, engagement.
_VOTED_SETS = [labels for labels in LABEL_SETS if labels is not EMOTIC]
EMOTIONS = frozenset(word for labels in _VOTED_SETS for word in (*labels.labels, *labels.aliases) if not word.isdigit())
"""Names of columns that are classes even if all images show this emotion."""


def list_notes(labels: Collection[str]) -> tuple[str, ...]:
    """Return a note if labels are lists of other labels, such as awe;fear: each list is a class of its own.

    >>> list_notes(["awe;fear", "fear;sadness", "sadness;awe"])[0][:41]
    'labels such as awe;fear look like lists: '
    >>> list_notes(["joy, love", "fear"])
    ()
    """
    parts_of = {label: [clean(part) for part in _SEPARATOR.split(label)] for label in labels}
    counts = Counter(part for parts in parts_of.values() for part in parts)
    lists = [label for label, parts in parts_of.items() if len(parts) > 1 and all(counts[part] > 1 for part in parts)]
    if len(lists) < MIN_LISTS:
        return ()
    return (
        f"labels such as {lists[0]} look like lists: each list counts as a class of its own; for shares of several "
        "labels, give a column of votes for each label",
    )


def refuse_other_columns(rows: Sequence[tuple[str, Mapping[str, str]]], classes: Sequence[str], table: Path) -> None:
    """Refuse a column that is not a class, because it would win votes.

    Args:
        rows: Place and cells of each row.
        classes: Names of the columns that are taken as classes.

    Raises:
        DataError: For a column whose name or values show that it is something else.
    """
    remedy = "remove it, or name the classes, as in ?labels=a,b"
    # If all columns have such names, they are the classes of an unusual set.
    is_other = {name: NO_CLASS.fullmatch(name.lower()) is not None for name in classes}
    for name in classes:
        if is_other[name] and not all(is_other.values()):
            raise DataError(f"{table}:1: column {name!r} is not a class; {remedy}")
    votes = _numbers(rows, classes)
    if votes is None or len(votes) < MIN_ROWS:
        return
    for i, name in enumerate(classes):
        column = votes[:, i]
        others = np.delete(votes, i, axis=1)
        reason = _why_computed(column, others)
        if reason is None and clean(name) not in EMOTIONS:
            reason = _why_apart(column, others) or _why_measured(column, others)
        if reason is not None:
            raise DataError(f"{table}:1: column {name!r} {reason}, so it is not a class; {remedy}")


def _why_computed(column: NDArray[np.float64], others: NDArray[np.float64]) -> str | None:
    """Return why a column is computed from the others, or from the order of the rows; None if it isn't.

    A total equals the sum of the other columns. An index counts the rows, in any order.

    Args:
        column: Values of all rows, (N,).
        others: Values of the other columns, (N, E - 1).
    """
    is_large = len(column) >= MIN_ROWS_OF_PATTERNS
    varies = bool((column != column[0]).any())
    if is_large and np.array_equal(np.sort(column) - column.min(), np.arange(len(column))):
        return "numbers the rows"
    if others.shape[1] + 1 < MIN_CLASSES or not column.any():
        return None
    sums = others.sum(axis=1)
    if np.allclose(column, sums, rtol=TOLERANCE):
        return "is the sum of the others"
    if is_large and varies and np.allclose(column, others.max(axis=1), rtol=TOLERANCE):
        return "is the largest of the others"
    if is_large and varies and np.allclose(column, others.mean(axis=1), rtol=TOLERANCE):
        return "is the mean of the others"
    return None


def _why_apart(column: NDArray[np.float64], others: NDArray[np.float64]) -> str | None:
    """Return why a column is none of the votes: the others have the same sum without it; None if they don't.

    A flag or a second total varies, or is there for all images, while the sum of the others stays the same: of a fixed
    number of votes, a class takes its votes from the others.

    Args:
        column: Values of all rows, (N,).
        others: Values of the other columns, (N, E - 1).
    """
    if others.shape[1] + 1 < MIN_CLASSES or not column.any():
        return None
    sums = others.sum(axis=1)
    is_flag = len(column) >= MIN_ROWS_OF_PATTERNS or (column != column[0]).any()
    if is_flag and sums[0] > 0 and np.allclose(sums, sums[0], rtol=TOLERANCE):
        return f"is not among the votes, which add up to {sums[0]:g} in all other columns of every row"
    return None


def _why_measured(column: NDArray[np.float64], others: NDArray[np.float64]) -> str | None:
    """Return why a column counts or measures something else than the others; None if nothing shows it.

    Args:
        column: Values of all rows, (N,).
        others: Values of the other columns, (N, E - 1).
    """
    if len(column) < MIN_ROWS_OF_PATTERNS or others.shape[1] + 1 < MIN_CLASSES:
        return None
    totals = column + others.sum(axis=1)
    if np.allclose(totals, totals[0], rtol=TOLERANCE):
        # The votes of every image add up to the same number only together with this column.
        return None
    if (column == column[0]).all() and column[0] != 0 and (others != others[0]).any():
        return f"is {column[0]:g} in every row"
    are_counts = bool((others == np.floor(others)).all()) and bool((others.max(axis=0) > 1).sum() >= MIN_CLASSES - 1)
    if are_counts and (column != np.floor(column)).any():
        return "has fractions beside columns of whole numbers"
    if are_counts and set(np.unique(column)) == {0.0, 1.0} and column.mean() >= MIN_FLAG_SHARE:
        return "is 0 or 1 beside columns of larger counts"
    wins = int((column > others.max(axis=1)).sum())
    if wins >= MIN_TOP_SHARE * len(column) and _has_several_winners(others):
        return f"is the largest in {wins} of {len(column)} rows, whichever of the others comes second"
    return None


def _has_several_winners(votes: NDArray[np.float64]) -> bool:
    """Return True if different columns are alone at the top of different rows.  votes: (N, E)."""
    is_top = votes == votes.max(axis=1, keepdims=True)  # (N, E)
    winners = is_top[is_top.sum(axis=1) == 1].argmax(axis=1)
    return len(np.unique(winners)) > 1


def _numbers(rows: Sequence[tuple[str, Mapping[str, str]]], classes: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the values of all rows, (N, E); None if one is no finite number, which is reported with its line later."""
    try:
        values = np.array([[float(votes_in(row, name)) for name in classes] for _, row in rows])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
