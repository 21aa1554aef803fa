"""The signature by which long work reports how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with the name of the work, the finished items, and all items; None: their number is not known."""


def silent(what: str, done: int, total: int | None) -> None:
    """Ignore progress."""
