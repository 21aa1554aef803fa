"""Many downloads: one at a time for each host, with pauses between requests and retries after failures."""

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from uniemox.curate.collect.config import CollectConfig
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
    jobs: Iterable[tuple[str, Job]], work: Callable[[Job], Done | FetchFailure | Moved[Job]], config: CollectConfig
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
        host.queue.append((job, 0))
        if not host.is_listed:
            host.is_listed = True
            heapq.heappush(idle, (host.next_at, name))

    for address, job in jobs:
        add(address, job)
    running: dict[Future[Done | FetchFailure | Moved[Job]], tuple[_Host[Job], Job, int]] = {}
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="fetch")
    try:
        while idle or running:
            now = time.monotonic()
            while idle and len(running) < config.workers and idle[0][0] <= now:
                host = hosts[heapq.heappop(idle)[1]]
                job, failures = host.queue.popleft()
                host.next_at = now + (1 / config.rate if host.name else 0)  # local files have no host
                running[pool.submit(work, job)] = host, job, failures
            pause = max(0.0, idle[0][0] - now) if idle and len(running) < config.workers else None
            if not running:
                time.sleep(pause or 0.0)
                continue
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                host, job, failures = running.pop(future)
                result = future.result()
                if isinstance(result, Moved):
                    host.lost = 0
                    add(result.address, result.job)
                elif isinstance(result, FetchFailure) and result.may_pass:
                    yield from ((one, result) for one in host.failed(job, failures + 1, result, config))
                else:
                    host.lost = 0
                    yield job, result
                host.is_listed = bool(host.queue)
                if host.is_listed:
                    heapq.heappush(idle, (host.next_at, host.name))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class _Host(Generic[Job]):
    name: str
    queue: "deque[tuple[Job, int]]" = field(default_factory=deque)  # jobs and how often each one failed
    next_at: float = 0.0
    lost: int = 0  # consecutive addresses that were given up
    is_listed: bool = False  # it has a running request, or waits for its turn

    def failed(self, job: Job, failures: int, failure: FetchFailure, config: CollectConfig) -> list[Job]:
        """Return the jobs that are given up: none if this one is tried again, all if the host is given up."""
        pause_s = wait_after(failures, failure.wait_s, config)
        self.next_at = time.monotonic() + pause_s
        too_long = pause_s > config.max_wait_s
        if failures < config.tries and not too_long:
            self.queue.append((job, failures))
            return []
        self.lost += 1
        lost = [job]
        if too_long or self.lost >= MAX_LOST:
            lost += [waiting for waiting, _ in self.queue]
            self.queue.clear()
        return lost


def wait_after(failures: int, asked_s: float | None, config: CollectConfig) -> float:
    """Return the pause in seconds after a number of failures of one address.  asked_s: by the server."""
    doubled = min(60.0, config.first_wait_s * 2 ** (failures - 1)) * random.uniform(0.75, 1.25)
    return max(doubled, asked_s or 0.0)


def host_of(address: str) -> str:
    """Return host and port of an address in lower case; empty if it has none."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
