"""Many downloads, one at a time for each host, with pauses between them and patience after failures."""

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from uniemox.curate.collect.fetch import FetchFailure
from uniemox.errors import ConfigError

LOST = 5  # addresses of one host in a row that fail every time, after which the host is given up for this run
Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolitenessConfig:
    """How hard hosts may be asked."""

    per_host_per_s: float = 2.0
    """Requests to one host; it never has more than one at a time."""
    workers: int = 16
    """Hosts that are asked at the same time."""
    tries: int = 4
    """For one address."""
    first_wait_s: float = 1.0
    """After the first failure; each further one doubles it, up to a minute, and a server may ask for more."""
    max_wait_s: float = 300.0
    """A host that asks for a longer pause is given up for this run."""

    def __post_init__(self) -> None:
        if self.per_host_per_s <= 0 or self.workers < 1 or self.tries < 1:
            raise ConfigError(
                f"per_host_per_s must be above 0, workers and tries at least 1, got {self.per_host_per_s}, "
                f"{self.workers} and {self.tries}"
            )
        if self.first_wait_s < 0 or self.max_wait_s < 0:
            raise ConfigError(f"waits must be at least 0, got {self.first_wait_s} and {self.max_wait_s}")

    def wait_after(self, failures: int, asked: float | None) -> float:
        """Seconds to leave a host alone after so many failures of one address."""
        doubled = min(60.0, self.first_wait_s * 2 ** (failures - 1)) * random.uniform(0.75, 1.25)
        return max(doubled, asked or 0.0)


@dataclass(frozen=True, slots=True)
class Moved(Generic[Job]):
    """Work that continues as another job at another address, when it is the turn of that one's host."""

    address: str
    job: Job


def fetch_all(
    jobs: Iterable[tuple[str, Job]], work: Callable[[Job], Done | FetchFailure | Moved[Job]], config: PolitenessConfig
) -> Generator[tuple[Job, Done | FetchFailure], None, None]:
    """Do the work of every job, and yield each as it ends, hosts in turn.

    jobs: (address, job); addresses of one host follow each other.  work: runs in a thread; a FetchFailure that may pass
    is tried again later, while other hosts go on, and what has moved waits behind what its new host is asked for
    already. Stopped early, what runs is waited for and nothing else begun.
    """
    hosts: dict[str, _Host[Job]] = {}
    idle: list[tuple[float, str]] = []  # a heap: when a host that is not asked now may be

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
                host.next_at = now + (1 / config.per_host_per_s if host.name else 0)  # files of this machine have none
                running[pool.submit(work, waiting.job)] = host, waiting
            pause = max(0.0, idle[0][0] - now) if idle and len(running) < config.workers else None
            if not running:
                time.sleep(pause or 0.0)
                continue
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                host, waiting = running.pop(future)
                found = future.result()
                if isinstance(found, Moved):
                    host.lost = 0
                    add(found.address, found.job)
                else:
                    yield from host.ended(waiting, found, config)
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
    lost: int = 0  # addresses in a row that were given up
    is_listed: bool = False  # whether it is asked now, or waits for its turn

    def ended(
        self, waiting: _Waiting[Job], found: Done | FetchFailure, config: PolitenessConfig
    ) -> list[tuple[Job, Done | FetchFailure]]:
        """What is over by that: nothing if it is tried again, all that waits if the host is given up."""
        if not isinstance(found, FetchFailure) or not found.may_pass:
            self.lost = 0
            return [(waiting.job, found)]
        waiting.failures += 1
        pause_s = config.wait_after(waiting.failures, found.wait_s)
        self.next_at = time.monotonic() + pause_s
        too_long = pause_s > config.max_wait_s
        if waiting.failures < config.tries and not too_long:
            self.queue.append(waiting)
            return []
        self.lost += 1
        over = [waiting]
        if too_long or self.lost >= LOST:
            over += self.queue
            self.queue.clear()
        return [(one.job, found) for one in over]


def host_of(address: str) -> str:
    """Host and port of an address, in lower case; empty if it has none."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
