"""Process all images of a data set in many processes or on a cluster."""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any, TypeVar

from uniemox.data.sample import Sample
from uniemox.errors import ConfigError, DataError
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig, map_on_ray, usable_cores
from uniemox.io.progress import Progress, silent
from uniemox.io.shortage import refuse_shortage

CHUNK = 32  # images per task of a process
# Maximum length of the folder for temporary files: a socket's address has up to 103 characters (macOS; Linux has 107).
MAX_TEMP_DIR = 103 - len("/pymp-12345678/listener-12345678")
# Maximum number of processes that share a GPU; each loads its own networks into its memory.
MAX_ON_GPU = 8
# If this number of workers die before any result, the work or the machine is at fault, not an image.
MAX_DEATHS = 3
T = TypeVar("T")
R = TypeVar("R")
# In a worker: the function that opens its work ("open"), and the opened work ("work").
_WORKER: dict[str, Callable[..., Any]] = {}


def worker_context() -> BaseContext:
    """Return the start method of loading processes: the program's, else fork on Linux.

    A forked process has the data and the modules at once and shares their memory. From 3.14 on Python's own default is
    forkserver: each process, in each epoch, would then import torch for seconds and copy the data. Loading processes
    only decode, so they do not need the threads that a fork loses.
    """
    is_free = multiprocessing.get_start_method(allow_none=True) is None
    return multiprocessing.get_context("fork" if is_free and sys.platform == "linux" else None)


def loader_context() -> BaseContext:
    """Return `worker_context` for processes that hand over tensors, through sockets in the folder for temporary files.

    Raises:
        ConfigError: If a socket's address in that folder is too long; torch would then wait forever.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > MAX_TEMP_DIR:
        raise ConfigError(
            f"the folder for temporary files, {folder}, has a path too long for the sockets of worker processes: "
            f"set TMPDIR to one of at most {MAX_TEMP_DIR} characters, or hardware.workers to 0"
        )
    return worker_context()


def worker_pool(
    workers: int, open_work: Callable[[], Callable[[Any], Any]] | None = None, *, on_gpu: bool = False
) -> ProcessPoolExecutor:
    """Build a pool whose processes end with this process; workers of a killed parent would otherwise wait forever.

    Args:
        open_work: Called once per worker; returns the function that processes a batch. None: workers get functions
            with their tasks.
        on_gpu: The function uses the GPU, so processes are spawned, see `map_batches`.
    """
    context = multiprocessing.get_context("spawn") if on_gpu else worker_context()
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_init_worker, initargs=(open_work,))


def map_batches(
    open_work: Callable[[], Callable[[T], R]], batches: Sequence[T], pool: PoolConfig, *, on_gpu: bool = False
) -> Generator[R | None]:
    """Yield the results of batches, in order; None for a batch at which its worker died twice.

    Exceptions of the function are raised here. With one worker this process does the work and a crash ends it.

    Args:
        open_work: Called once per worker; returns the function that processes a batch.
        on_gpu: The function uses the GPU, so processes are spawned: a fork can't share a GPU with its parent.
    """
    if not batches:
        return
    if pool.engine == "ray":
        yield from map_on_ray(open_work, batches, pool.workers)
        return
    if pool.workers == 1:
        yield from map(open_work(), batches)
        return
    workers = pool.workers or min(usable_cores(), MAX_ON_GPU if on_gpu else sys.maxsize)
    make_pool = partial(worker_pool, open_work=open_work, on_gpu=on_gpu)
    yield from _in_processes(make_pool, min(workers, len(batches)), batches)


def map_each(
    open_work: Callable[[], Callable[[Sequence[T]], Sequence[R]]],
    items: Sequence[T],
    pool: PoolConfig,
    *,
    batch: int,
    on_gpu: bool = False,
) -> Generator[R | None]:
    """Yield the results of items, in order, processed in batches; None for an item at which its worker died.

    If a batch kills its worker, each of its items is tried alone.

    Args:
        open_work: Called once per worker; returns the function that processes a batch.
        batch: Maximum number of items per batch.
        on_gpu: The function uses the GPU, see `map_batches`.

    Raises:
        DataError: If workers died at all of the first items, because the items are then not the cause.
    """
    batches = [items[i : i + batch] for i in range(0, len(items), batch)]
    batch_results = map_batches(open_work, batches, pool, on_gpu=on_gpu)
    done = 0
    deaths = 0
    for batch_items, answers in zip(batches, batch_results, strict=True):
        results: Iterable[R | None] = answers or ()
        if answers is None:
            alone = map_batches(open_work, [[item] for item in batch_items], pool, on_gpu=on_gpu)
            results = (None if answer is None else answer[0] for answer in alone)
        for result in results:
            done += result is not None
            deaths += result is None
            if deaths == MAX_DEATHS and not done:
                raise DataError(f"{DIED}, with the first {deaths} of {len(items)} images; --workers 1 shows the fault")
            yield result


def map_samples(
    function: Callable[[Sample], R],
    samples: Sequence[Sample],
    task: str,
    *,
    pool: PoolConfig = ONE_A_CORE,
    on_progress: Progress = silent,
    if_died: R | None = None,
) -> list[R]:
    """Return the results of a function for samples, in order. Few samples need no processes.

    Args:
        task: Name of the work, for progress.
        if_died: Result for a sample at which a worker died; None: raise DataError.
    """
    if len(samples) < 2 * CHUNK and pool == ONE_A_CORE:
        pool = PoolConfig(workers=1)
    results: list[R] = []
    on_progress(task, 0, len(samples))
    yielded = map_each(partial(_for_each, function), samples, pool, batch=CHUNK)
    for sample, result in zip(samples, yielded, strict=True):
        if result is None:
            result = if_died  # noqa: PLW2901
        if result is None:
            raise DataError(f"{sample.image}: {DIED}")
        results.append(result)
        if len(results) % CHUNK == 0 or len(results) == len(samples):
            on_progress(task, len(results), len(samples))
    return results


def _for_each(function: Callable[[T], R]) -> Callable[[Sequence[T]], list[R]]:
    return lambda items: list(map(function, items))


def _in_processes(
    make_pool: Callable[[int], ProcessPoolExecutor], workers: int, batches: Sequence[Any]
) -> Iterator[Any]:
    """Yield the results of processes. If one dies, all end; their unfinished batches are done again, each alone."""
    others = set(multiprocessing.active_children())
    pool = make_pool(workers)
    waiting: deque[tuple[Any, Future[Any]]] = deque()

    def next_answer() -> Any:
        batch, future = waiting.popleft()
        with suppress(BrokenProcessPool):
            return future.result()
        # Any batch may have killed the worker; alone, only the guilty one does so again.
        with suppress(BrokenProcessPool), make_pool(1) as alone:
            return alone.submit(_answer, batch).result()
        return None

    def submit(batch: Any) -> Future[Any]:
        try:
            return pool.submit(_answer, batch)
        except (OSError, RuntimeError) as error:
            # The processes that did start would wait for the others forever.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            refuse_shortage(error)
            raise

    try:
        for batch in batches:
            try:
                future = submit(batch)
            except BrokenProcessPool:
                pool.shutdown()
                pool = make_pool(workers)
                future = submit(batch)
            waiting.append((batch, future))
            # A bounded queue: results wait in memory until the caller takes them.
            if len(waiting) > 2 * workers:
                yield next_answer()
        while waiting:
            yield next_answer()
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(batch: Any) -> Any:
    """Process a batch in a worker."""
    # Opened here and not when the worker starts, so that an error becomes the batch's result.
    if "work" not in _WORKER:
        _WORKER["work"] = _WORKER["open"]()
    return _WORKER["work"](batch)


def _init_worker(open_work: Callable[[], Callable[[Any], Any]] | None) -> None:
    """Initialise a worker: it ignores Ctrl-C, and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if open_work is not None:
        _WORKER["open"] = open_work
    parent = parent_process()
    assert parent is not None, "a worker has one"

    def exit_with_parent() -> None:
        parent.join()
        os._exit(1)

    # Where no thread can be started, only a killed parent leaves this process behind.
    with suppress(RuntimeError):
        Thread(target=exit_with_parent, name="parent", daemon=True).start()
