"""Many downloads: one at a time for each host, with pauses between requests and retries after failures."""

import heapq
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from uniemox.curate.collect.config import CollectConfig
from uniemox.curate.collect.fetch import FetchFailure

MAX_LOST = 5  # consecutive addresses of a host that fail every time before the run gives the host up


@dataclass(frozen=True, slots=True)
class Job:
    """An address to fetch."""

    address: str
    key: Any = None
    """Whatever the caller knows it by."""
    redirects: int = 0
    """Redirects that led to the address."""


def fetch_all(
    jobs: Iterable[Job], work: Callable[[Job], Any], config: CollectConfig
) -> Generator[tuple[Job, Any], None, None]:
    """Run every job and yield each result when it is done, hosts in turn.

    work: runs in a thread. A FetchFailure that may pass is tried again later, while other hosts continue; if it returns
    another job, that one joins the end of its host's queue. Stopped early, it waits for running jobs and starts no
    other.
    """
    hosts: dict[str, _Host] = defaultdict(_Host)
    idle: list[tuple[float, str]] = []  # a heap: the time from which a host without a running request may be asked

    def add(job: Job) -> None:
        name = host_of(job.address)
        hosts[name].queue.append((job, 0))
        if not hosts[name].is_listed:
            hosts[name].is_listed = True
            heapq.heappush(idle, (hosts[name].next_at, name))

    for job in jobs:
        add(job)
    running: dict[Future[Any], tuple[str, Job, int]] = {}
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="fetch")
    try:
        while idle or running:
            now = time.monotonic()
            while idle and len(running) < config.workers and idle[0][0] <= now:
                name = heapq.heappop(idle)[1]
                job, failures = hosts[name].queue.popleft()
                hosts[name].next_at = now + (1 / config.rate if name else 0)  # local files have no host
                running[pool.submit(work, job)] = name, job, failures
            pause = max(0.0, idle[0][0] - now) if idle and len(running) < config.workers else None
            if not running:
                time.sleep(pause or 0.0)
                continue
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                name, job, failures = running.pop(future)
                host, result = hosts[name], future.result()
                if isinstance(result, FetchFailure) and result.may_pass:
                    yield from ((one, result) for one in host.failed(job, failures + 1, result, config))
                else:
                    host.lost = 0
                    if isinstance(result, Job):
                        add(result)
                    else:
                        yield job, result
                host.is_listed = bool(host.queue)
                if host.is_listed:
                    heapq.heappush(idle, (host.next_at, name))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class _Host:
    queue: deque[tuple[Job, int]] = field(default_factory=deque)  # jobs and how often each one failed
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
