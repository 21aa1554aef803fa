"""Signature by which long work reports its progress."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Progress = Callable[[str, int, int | None], None]
"""Function called with the name of the work, the finished items, and all items; None: unknown."""


def silent(name: str, done: int, total: int | None) -> None:
    """Ignore progress."""


def in_parts(rows: Sequence[Row], size: int, name: str, progress: Progress) -> Iterator[Sequence[Row]]:
    """Yield rows in parts of a size, and report each part after the caller has processed it.

    Args:
        rows: All rows.
        size: Number of rows of a part.
        name: Name of the work.
        progress: Function to call.
    """
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        progress(name, min(start + size, len(rows)), len(rows))
