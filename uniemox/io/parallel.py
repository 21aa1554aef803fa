"""Parallel maps: threads for images, machines of a Ray cluster."""

import math
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from uniemox.bounds import check_numbers
from uniemox.errors import MissingPackageError
from uniemox.io.shortage import naming_shortage

MAX_CORES = 8
# Maximum number of items in progress, or whose results wait.
MAX_AHEAD = 16
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
    """Yield the results of `work`, in the order of the items; an error is raised at its item.

    Args:
        items: The items; they are taken as work on earlier ones is done.
        work: Function that is called with an item, in a thread.
        ahead: Maximum number of items, up to 16, in progress before the next result is taken.
        threads: Number of threads; None: one per core.
        on_stop: Called at the end, before the threads are joined.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="parallel", initializer=_mark_worker)
    try:
        for item in items:
            with naming_shortage():
                future = pool.submit(work, item)
            waiting.append(future)
            if len(waiting) > min(ahead, MAX_AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        on_stop()
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Return the number of cores that this process may use: its own, at most the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


@cache
def _cpu_quota(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the number of cores whose time the process may use, such as 1.5 of `docker run --cpus 1.5`; None: all.

    Args:
        root: Folder of control groups, of version 2 or 1.
        process: File with the groups of the process.
    """
    quotas = []
    try:
        lines = process.read_text("ascii").splitlines()
        group = next((line.removeprefix("0::").lstrip("/") for line in lines if line.startswith("0::")), "")
        folder = root / group
        # Each group around this one may have a smaller quota.
        for limits in (folder, *folder.parents):
            if limits.is_relative_to(root) and (limits / "cpu.max").is_file():
                quota, period = (limits / "cpu.max").read_text("ascii").split()
                quotas += [] if quota == "max" else [int(quota) / int(period)]
        first_version = root / "cpu"
        if (first_version / "cpu.cfs_quota_us").is_file():
            quota, period = ((first_version / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
            quotas += [int(quota) / int(period)]
    # Other systems, and files that a sandbox hides.
    except (OSError, ValueError):
        return None
    # -1: no quota.
    return min((quota for quota in quotas if quota > 0), default=None)


def count_cores() -> int:
    """Return the number of cores that one map uses."""
    return min(MAX_CORES, usable_cores())


def is_parallel_worker() -> bool:
    """Return True if this thread is a worker of `parallel_map`, so that it should compute on one core."""
    return getattr(_THREAD, "is_worker", False)


def _mark_worker() -> None:
    _THREAD.is_worker = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Settings of the processes that read the images of a data set."""

    workers: int | None = None
    """Maximum number of processes; 1: no extra processes. Default: one per core, or up to 8 with a GPU."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine. ray: all machines of a Ray cluster, which must see the files at the same paths."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", at_least={"workers": 1})


ONE_A_CORE = PoolConfig()
# Number of batches that are submitted together, to limit memory.
AT_ONCE = 4_000
DIED = "the worker process died, for lack of memory or because of a fault in a library"


def map_on_ray(
    open_work: Callable[[], Callable[[Item], Result]], batches: Iterable[Item], workers: int | None = None
) -> Iterator[Result | None]:
    """Yield the results of batches, in order; None for a batch at which its worker died twice.

    Uses the cluster that this process is connected to, else that of RAY_ADDRESS, else this machine.
    Exceptions of the function are raised here.

    Args:
        open_work: Called once per worker, on one core each; returns the function that processes a batch. Its folder is
            this process's, if the machine has it.
        batches: What the function is called with; each must be picklable.
        workers: Maximum number of workers; None: as many as the cluster has cores.

    Raises:
        MissingPackageError: If Ray is not installed.
    """
    # Ray would send usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415 - an extra
        import ray.data  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("--engine ray needs Ray; run: pip install 'uniemox[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Results of a dead worker are missing; all others are returned.
    context.max_errored_blocks = -1
    workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    numbered = enumerate(batches)
    while submitted := list(islice(numbered, AT_ONCE)):
        rows = [{"number": number, "batch": pickle.dumps(batch)} for number, batch in submitted]
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(open_work, os.getcwd()),
            batch_size=1,
            num_cpus=1,
            concurrency=(1, min(workers, len(rows))),
            max_restarts=-1,
            max_task_retries=1,
        )
        # Numbers that are missing among the answers are batches whose worker died.
        due_numbers = (number for number, _ in submitted)
        for row in answers.iter_rows():
            while next(due_numbers) != row["number"]:
                yield None
            answer, error = pickle.loads(row["answer"])  # noqa: S301 - what a worker of ours has written
            if error is not None:
                raise error
            yield answer
        yield from (None for _ in due_numbers)


class _Worker:
    """Actor that processes batches, on one core of the cluster."""

    def __init__(self, open_work: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        with suppress(OSError):  # file names may be absolute
            os.chdir(folder)
        self.open_work = cache(open_work)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Process a batch; returns the result, or the error, pickled."""
        try:
            batch = pickle.loads(rows["batch"][0])  # noqa: S301 - what this process's parent has written
            answer: tuple[Any, Exception | None] = (self.open_work()(batch), None)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is read
            answer = (None, error)
        return {"number": list(rows["number"]), "answer": [pickle.dumps(answer)]}
