"""Downloads from many hosts at once.

A host gets one request at a time, with pauses between requests and retries after failures.
"""

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from uniemox.io import back_off, host_of
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import FetchError

# Number of consecutive addresses that fail after all tries, until the run gives their host up.
MAX_FAILED_ADDRESSES = 5


@dataclass(frozen=True, slots=True)
class Download:
    """An address to fetch."""

    address: str
    key: Any = None
    """Identifier for the caller."""
    redirects: int = 0
    """Redirects that led to the address."""


def fetch_all(
    jobs: Iterable[Download], work: Callable[[Download], Any], config: CollectConfig
) -> Generator[tuple[Download, Any], None, None]:
    """Run every job and yield each result when it is done, hosts in turn.

    A generator that is closed early waits for running jobs and starts no other.

    Args:
        jobs: Addresses to fetch.
        work: Function that fetches one, called in threads. If it returns a temporary FetchError, the job is tried again
            later, while other hosts continue. If it returns another job, that job joins the end of its host's queue.
        config: Limits of rate, workers and tries.
    """
    hosts: dict[str, _Host] = defaultdict(_Host)
    # Heap of hosts without a running request: the time from which each may be asked, and its name.
    idle: list[tuple[float, str]] = []

    def add(job: Download) -> None:
        name = host_of(job.address)
        hosts[name].queue.append((job, 0))
        if not hosts[name].is_listed:
            hosts[name].is_listed = True
            heapq.heappush(idle, (hosts[name].next_at, name))

    for job in jobs:
        add(job)
    running: dict[Future[Any], tuple[str, Download, int]] = {}
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="fetch")
    try:
        while idle or running:
            now = time.monotonic()
            while idle and len(running) < config.workers and idle[0][0] <= now:
                name = heapq.heappop(idle)[1]
                job, failures = hosts[name].queue.popleft()
                # Local files have no host.
                hosts[name].next_at = now + (1 / config.rate if name else 0)
                running[pool.submit(work, job)] = name, job, failures
            can_start = bool(idle) and len(running) < config.workers
            pause = max(0.0, idle[0][0] - now) if can_start else None
            if not running:
                time.sleep(pause or 0.0)
                continue
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                name, job, failures = running.pop(future)
                host = hosts[name]
                result = future.result()
                if isinstance(result, FetchError) and result.may_pass:
                    given_up = host.record_failure(job, failures + 1, result, config)
                    yield from ((failed_job, result) for failed_job in given_up)
                else:
                    host.failed_addresses = 0
                    if isinstance(result, Download) and (reason := hosts[host_of(result.address)].given_up):
                        yield result, reason
                    elif isinstance(result, Download):
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
    """State of a host during a run."""

    queue: deque[tuple[Download, int]] = field(default_factory=deque)
    """Jobs, and the number of failures of each."""
    next_at: float = 0.0
    """Time by time.monotonic() from which it may be asked."""
    failed_addresses: int = 0
    """Number of consecutive addresses that were given up."""
    given_up: FetchError | None = None
    """Reason, if it gets no more requests in this run."""
    is_listed: bool = False
    """True if it has a running request, or waits for its turn."""

    def record_failure(
        self, job: Download, failures: int, failure: FetchError, config: CollectConfig
    ) -> list[Download]:
        """Return the jobs that are given up: none if this one is tried again, all if the host is given up."""
        pause_s = max(back_off(failures, config.first_wait_s), failure.wait_s or 0.0)
        self.next_at = time.monotonic() + pause_s
        too_long = pause_s > config.max_wait_s
        if failures < config.tries and not too_long:
            self.queue.append((job, failures))
            return []
        self.failed_addresses += 1
        jobs = [job]
        if too_long or self.failed_addresses >= MAX_FAILED_ADDRESSES:
            jobs += [waiting for waiting, _ in self.queue]
            self.queue.clear()
            self.given_up = failure
        return jobs
