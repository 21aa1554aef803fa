"""Processes that read images beside this one, and end with it however it ends."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import TypeVar

from uniemox.data.sample import Sample
from uniemox.errors import ConfigError
from uniemox.parallel import usable_cores

CHUNK = 32  # images that a process takes at once
MAX_TEMP_DIR = 103 - len("/pymp-12345678/listener-12345678")  # characters; a socket's address has 103 on every system
R = TypeVar("R")


def worker_context() -> BaseContext:
    """How processes start that load or read: as the program has set it, else by fork on Linux, on every Python.

    A forked process has the data and the modules at once and shares their memory. From 3.14 on Python's own default
    there is forkserver, where each of them, in each epoch, would import torch for seconds and copy the data. They
    only decode, so the threads that a fork leaves behind are not missed.
    """
    is_free = multiprocessing.get_start_method(allow_none=True) is None
    return multiprocessing.get_context("fork" if is_free and sys.platform == "linux" else None)


def loader_context() -> BaseContext:
    """`worker_context` for processes that hand over tensors, through sockets in the folder for temporary files.

    Raises ConfigError where a socket's address in that folder is too long: torch would then wait for ever.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > MAX_TEMP_DIR:
        raise ConfigError(
            f"the folder for temporary files, {folder}, has a path too long for the sockets of worker processes: "
            f"set TMPDIR to one of at most {MAX_TEMP_DIR} characters, or hardware.workers to 0"
        )
    return worker_context()


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """So many processes, which end when this one does: those of a parent that was killed wait for work for ever."""
    return ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=_watch_parent)


def map_samples(
    function: Callable[[Sequence[Sample]], list[R]],
    samples: Sequence[Sample],
    *,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[R]:
    """What a function finds in samples, in their order; it is given some at a time.

    workers: processes; None: one a core. Few samples need none.  on_progress: called with the number of samples done.
    """
    workers = workers or usable_cores()
    found: list[R] = []
    for some in _map(function, [samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK)], workers):
        found += some
        on_progress(len(found))
    return found


def _map(
    function: Callable[[Sequence[Sample]], list[R]], chunks: Sequence[Sequence[Sample]], workers: int
) -> Iterator[list[R]]:
    if workers == 1 or len(chunks) < 3:
        yield from map(function, chunks)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(function, chunks)


def _watch_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has one"

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_it, name="parent", daemon=True).start()
