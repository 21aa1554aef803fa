"""Limits of this process's memory and processor time."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_ONE_AT_A_TIME = threading.Lock()


def limit_memory(more: int) -> None:
    """Limit the addresses of this process, if the system can (Linux).

    Args:
        more: Number of bytes in addition to those that it has now.
    """
    if sys.platform == "linux" and (used := _used(0)):
        _lower(resource.RLIMIT_AS, used + more)


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Limit the memory that this process allocates inside the context, if the system can (Linux).

    Beyond the limit, MemoryError is raised. Mapped files don't count.

    Args:
        more: Number of bytes in addition to those that it has now.
    """
    if sys.platform == "linux" and (used := _used(5)):
        # The limit is the process's, and two threads would restore each other's.
        with _ONE_AT_A_TIME:
            before = resource.getrlimit(resource.RLIMIT_DATA)
            _lower(resource.RLIMIT_DATA, used + more)
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, before)
    else:
        yield


def limit_cpu(seconds: int) -> None:
    """Let the system end this process after more processor time, even without its parent; not on Windows.

    Args:
        seconds: Processor time from now.
    """
    if sys.platform != "win32" and resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


if sys.platform != "win32":

    def _used(field: int) -> int:
        """Return the bytes in a field of Linux's statm: 0 all addresses, 5 data and stack; 0 without /proc."""
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[field]) * resource.getpagesize()
        except FileNotFoundError:
            return 0

    def _lower(kind: int, limit: int) -> None:
        """Set a limit of the system, at most to the one that can't be raised."""
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))
