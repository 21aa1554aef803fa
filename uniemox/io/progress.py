"""Signature by which long work reports its progress."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Progress = Callable[[str, int, int | None], None]
"""Function called with the name of the work, the finished items, and all items; None: unknown."""


def silent(what: str, done: int, total: int | None) -> None:
    """Ignore progress."""


def in_parts(rows: Sequence[Row], size: int, what: str, progress: Progress) -> Iterator[Sequence[Row]]:
    """Yield rows in parts of a size, and report each part after the caller has processed it."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        progress(what, min(start + size, len(rows)), len(rows))
