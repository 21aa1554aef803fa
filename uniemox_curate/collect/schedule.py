"""Downloads from many hosts at once.

A host gets one request at a time, with pauses between requests and retries after failures.
"""

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
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
    hosts = _Hosts(config)
    for job in jobs:
        hosts.add(job)
    running: dict[Future[Any], _Turn] = {}
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="fetch")
    try:
        while hosts.idle or running:
            while len(running) < config.workers and (turn := hosts.next_turn()) is not None:
                running[pool.submit(work, turn.job)] = turn
            has_free_worker = len(running) < config.workers
            pause_s = hosts.pause_s() if has_free_worker else None
            if not running:
                time.sleep(pause_s or 0.0)
                continue
            for future in wait(running, timeout=pause_s, return_when=FIRST_COMPLETED).done:
                yield from hosts.finish(running.pop(future), future.result())
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A request that a host gets now."""

    host: str
    """Name of the host; empty for local files."""
    job: Download
    failures: int
    """Number of earlier tries of the job, which all failed."""


class _Hosts:
    """All hosts of a run, and the order in which they are asked."""

    def __init__(self, config: CollectConfig) -> None:
        self.config = config
        self.by_name: dict[str, _Host] = defaultdict(_Host)
        # Heap of hosts without a running request: the time from which each may be asked, and its name.
        self.idle: list[tuple[float, str]] = []

    def add(self, job: Download) -> None:
        """Put a job at the end of its host's queue."""
        name = host_of(job.address)
        host = self.by_name[name]
        host.queue.append((job, 0))
        if not host.is_listed:
            host.is_listed = True
            heapq.heappush(self.idle, (host.next_at, name))

    def next_turn(self) -> _Turn | None:
        """Return the next request; None if no host may be asked now."""
        now = time.monotonic()
        if not self.idle or self.idle[0][0] > now:
            return None
        _, name = heapq.heappop(self.idle)
        host = self.by_name[name]
        job, failures = host.queue.popleft()
        # Local files have no host.
        host.next_at = now + (1 / self.config.rate if name else 0)
        return _Turn(name, job, failures)

    def pause_s(self) -> float | None:
        """Return the time until a host may be asked, s; None if none is idle."""
        return max(0.0, self.idle[0][0] - time.monotonic()) if self.idle else None

    def finish(self, turn: _Turn, result: Any) -> Iterator[tuple[Download, Any]]:
        """Yield the jobs that a result ends, with their results, and let the host wait for its next turn."""
        host = self.by_name[turn.host]
        if isinstance(result, FetchError) and result.may_pass:
            given_up = host.record_failure(turn.job, turn.failures + 1, result, self.config)
            yield from ((job, result) for job in given_up)
        else:
            host.failed_addresses = 0
            if not isinstance(result, Download):
                yield turn.job, result
            elif (reason := self.by_name[host_of(result.address)].given_up) is not None:
                yield result, reason
            else:
                self.add(result)
        host.is_listed = bool(host.queue)
        if host.is_listed:
            heapq.heappush(self.idle, (host.next_at, turn.host))


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
        self.next_at = max(self.next_at, time.monotonic() + pause_s)
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
