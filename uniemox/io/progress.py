"""One way to report progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None while that is unknown)."""


def silent(what: str, done: int, total: int | None) -> None:
    """Report nothing."""
