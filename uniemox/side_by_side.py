"""Images are worked on side by side: a thread and a core for each, and what is made of them comes in their order."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MAX_CORES = 8
MAX_AHEAD = 16  # items that are worked on, or whose results wait
Item = TypeVar("Item")
Result = TypeVar("Result")
_THREAD = threading.local()


def side_by_side(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    ahead: int = MAX_AHEAD,
    threads: int | None = None,
    on_stop: Callable[[], None] = lambda: None,
) -> Generator[Result]:
    """What is made of each item, in order; what `work` raises is raised in its turn.

    ahead: how many, at most 16, are taken ahead of the one whose result is asked for.  threads: None: one a core.
    on_stop: called at the end, before the threads are waited for.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="side-by-side", initializer=_use_one_core)
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
    """How many are used at once."""
    return min(MAX_CORES, usable_cores())


def has_one_core() -> bool:
    """Whether this thread has others beside it, which use the other cores."""
    return getattr(_THREAD, "has_one_core", False)


def _use_one_core() -> None:
    _THREAD.has_one_core = True
