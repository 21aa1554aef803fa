"""A parallel map over images: a thread and a core for each; results come in the order of the images."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MAX_CORES = 8
MAX_AHEAD = 16  # items under way, or whose results wait
Item = TypeVar("Item")
Result = TypeVar("Result")
_THREAD = threading.local()


def parallel_map(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    ahead: int = MAX_AHEAD,
    threads: int | None = None,
    on_stop: Callable[[], None] = lambda: None,
) -> Generator[Result]:
    """Results of `work`, in the order of the items; an error is raised in its item's turn.

    ahead: maximum number of items, up to 16, that are started before the next result is taken.  threads: None: one a
    core.  on_stop: called at the end, before the threads are joined.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="parallel", initializer=_mark_worker)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > min(ahead, MAX_AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        on_stop()
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_cores() -> int:
    """Cores that one map uses."""
    return min(MAX_CORES, usable_cores())


def is_parallel_worker() -> bool:
    """Whether this thread is one of several of a map, so that it should compute on one core."""
    return getattr(_THREAD, "is_worker", False)


def _mark_worker() -> None:
    _THREAD.is_worker = True
