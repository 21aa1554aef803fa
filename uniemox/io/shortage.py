"""Too few processes, threads or open files: a fault of the machine's settings, not of an image or a model."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from uniemox.errors import ShortageError

_FILES = (errno.EMFILE, errno.ENFILE)
# How Python, OpenMP's and onnxruntime's threads report that none can be started.
_NO_THREAD = ("can't start new thread", "pthread_create", "Resource temporarily unavailable")


def shortage_of(error: BaseException | None) -> str:
    """Return what to do about the shortage that caused an error; empty if none did."""
    cause = error
    while cause is not None:
        code = cause.errno if isinstance(cause, OSError) else None
        if code in _FILES:
            return "this process may open no more files: raise the limit (ulimit -n 4096), or use fewer workers"
        if code == errno.EAGAIN or any(words in _text_of(cause) for words in _NO_THREAD):
            return (
                "the machine allows no more processes or threads: raise the limit (ulimit -u; a container's "
                "--pids-limit or pids.max), end other programs, or use fewer workers"
            )
        cause = cause.__cause__
    return ""


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error whose text can't be made
        return ""


def refuse_shortage(error: BaseException) -> None:
    """Raise ShortageError if a shortage caused an error."""
    if shortage := shortage_of(error):
        raise ShortageError(shortage) from error


@contextmanager
def naming_shortage() -> Iterator[None]:
    """Convert an error whose cause is a shortage to ShortageError; others pass unchanged."""
    try:
        yield
    # onnxruntime's errors have no base in common but Exception.
    except Exception as error:
        refuse_shortage(error)
        raise
