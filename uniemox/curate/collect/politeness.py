"""Many downloads: one at a time for each host, with pauses between requests and retries after failures."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from uniemox.curate.collect.config import PolitenessConfig
from uniemox.curate.collect.fetch import FetchFailure

MAX_LOST = 5  # consecutive addresses of a host that fail every time before the run gives the host up
Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Moved(Generic[Job]):
    """Work that continues as another job at another address, in the queue of that address's host."""

    address: str
    job: Job


def fetch_all(
    jobs: Iterable[tuple[str, Job]], work: Callable[[Job], Done | FetchFailure | Moved[Job]], config: PolitenessConfig
) -> Generator[tuple[Job, Done | FetchFailure], None, None]:
    """Run every job and yield each result when it is done, hosts in turn.

    jobs: (address, job).  work: runs in a thread. A FetchFailure that may pass is tried again later, while other hosts
    continue; a moved job joins the end of its new host's queue. Stopped early, it waits for running jobs and starts
    no other.
    """
    hosts: dict[str, _Host[Job]] = {}
    idle: list[tuple[float, str]] = []  # a heap: the time from which a host without a running request may be asked

    def add(address: str, job: Job) -> None:
        name = host_of(address)
        host = hosts.setdefault(name, _Host(name))
        host.queue.append(_Waiting(job))
        if not host.is_listed:
            host.is_listed = True
            heapq.heappush(idle, (host.next_at, name))

    for address, job in jobs:
        add(address, job)
    running: dict[Future[Done | FetchFailure | Moved[Job]], tuple[_Host[Job], _Waiting[Job]]] = {}
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="fetch")
    try:
        while idle or running:
            now = time.monotonic()
            while idle and len(running) < config.workers and idle[0][0] <= now:
                host = hosts[heapq.heappop(idle)[1]]
                waiting = host.queue.popleft()
                host.next_at = now + (1 / config.per_host_per_s if host.name else 0)  # local files have none
                running[pool.submit(work, waiting.job)] = host, waiting
            pause = max(0.0, idle[0][0] - now) if idle and len(running) < config.workers else None
            if not running:
                time.sleep(pause or 0.0)
                continue
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                host, waiting = running.pop(future)
                result = future.result()
                if isinstance(result, Moved):
                    host.lost = 0
                    add(result.address, result.job)
                else:
                    yield from host.ended(waiting, result, config)
                host.is_listed = bool(host.queue)
                if host.is_listed:
                    heapq.heappush(idle, (host.next_at, host.name))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class _Waiting(Generic[Job]):
    job: Job
    failures: int = 0


@dataclass(slots=True)
class _Host(Generic[Job]):
    name: str
    queue: "deque[_Waiting[Job]]" = field(default_factory=deque)
    next_at: float = 0.0
    lost: int = 0  # consecutive addresses that were given up
    is_listed: bool = False  # it has a running request, or waits for its turn

    def ended(
        self, waiting: _Waiting[Job], result: Done | FetchFailure, config: PolitenessConfig
    ) -> list[tuple[Job, Done | FetchFailure]]:
        """Return finished jobs: none if the job is tried again, the whole queue if the host is given up."""
        if not isinstance(result, FetchFailure) or not result.may_pass:
            self.lost = 0
            return [(waiting.job, result)]
        waiting.failures += 1
        pause_s = config.wait_after(waiting.failures, result.wait_s)
        self.next_at = time.monotonic() + pause_s
        too_long = pause_s > config.max_wait_s
        if waiting.failures < config.tries and not too_long:
            self.queue.append(waiting)
            return []
        self.lost += 1
        finished = [waiting]
        if too_long or self.lost >= MAX_LOST:
            finished += self.queue
            self.queue.clear()
        return [(one.job, result) for one in finished]


def host_of(address: str) -> str:
    """Return host and port of an address in lower case; empty if it has none."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
