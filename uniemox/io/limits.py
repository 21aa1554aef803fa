"""Limits of this process's memory and processor time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ONE_AT_A_TIME = threading.Lock()


def limit_memory(more: int) -> None:
    """Limit this process to this many bytes more than it has now, if the system can (Linux)."""
    with suppress(ImportError, FileNotFoundError):
        _lower("RLIMIT_AS", _used(0) + more)


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let this process allocate this many bytes more, if the system can limit that (Linux); then MemoryError is raised.

    Mapped files don't count.
    """
    try:
        import resource  # noqa: PLC0415 - not on Windows

        used = _used(5)
    except (ImportError, FileNotFoundError):
        yield
        return
    with _ONE_AT_A_TIME:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        _lower("RLIMIT_DATA", used + more)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def limit_cpu(seconds: int) -> None:
    """Let the system end this process after so much processor time, even without its parent; not on Windows."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - not on Windows

        _lower("RLIMIT_CPU", int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + seconds + 1)


def _used(field: int) -> int:
    """Return the bytes in a field of Linux's statm: 0 all addresses, 5 data and stack."""
    import resource  # noqa: PLC0415 - not on Windows

    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[field]) * resource.getpagesize()


def _lower(name: str, limit: int) -> None:
    """Set a limit of the system, at most to the one that can't be raised."""
    import resource  # noqa: PLC0415 - not on Windows

    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))
