"""Bounded queue; one worker thread processes images in batches and drops images that no client waits for."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from uniemox.serve.answers import RefusedError
from uniemox.serve.config import ServeConfig
from uniemox.serve.metrics import Metrics
from uniemox.serve.models import PUT_BACK

Work = Callable[[Any, list[bytes]], Iterable[tuple[int, Any]]]
"""Function of the worker thread: yields place and result, or PUT_BACK, of each image of equal asks."""


SLOW = 4  # turns that a slow image takes


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Image in the queue."""

    data: bytes
    ask: Hashable
    """Requested work; images with equal asks are processed together."""
    answer: "asyncio.Future[Any]"
    deadline: float
    """Value of time.monotonic() after which the result is not needed."""
    is_slow: bool
    """True to process it alone, so that other images need not wait for slow ones."""
    client: str = ""
    """Address of the client."""
    turn: int = 0
    """Place in the queue: clients take turns, whatever number of images each has."""

    @property
    def is_wanted(self) -> bool:
        """Return True if a client still waits."""
        return not self.answer.done() and time.monotonic() < self.deadline


class Batcher:
    """Collects images and feeds them to one worker thread.  All methods run in the event loop."""

    def __init__(self, work: Work, config: ServeConfig, metrics: Metrics) -> None:
        self._work = work
        self._config = config
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "uniemox-worker")
        self._task: asyncio.Task[None] | None = None
        self._turn = 0
        self._turns = dict[str, int]()
        """The turn being served, and the last one of each client."""
        self._seconds_each = 0.05  # measured from the first batch on
        metrics.queue_length.set_function(lambda: len(self._waiting))

    def start(self) -> None:
        """Start the worker."""
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def stop(self) -> None:
        """Answer waiting requests, then stop."""
        while any(job.is_wanted for job in self._waiting):
            await asyncio.sleep(0.01)
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._worker.shutdown)

    def submit(
        self, images: Sequence[bytes], ask: Hashable, *, is_slow: bool = False, client: str = ""
    ) -> "list[asyncio.Future[Any]]":
        """Put all images of one request into the queue, or none.

        If the queue is full, the client with the most images in it loses the newest ones.

        Raises:
            RefusedError: If there is no room even so.
        """
        self._forget_unwanted()
        for job in self._to_drop(len(self._waiting) + len(images) - self._config.queue, len(images), client):
            job.answer.set_exception(self.refusal())
        self._forget_unwanted()
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._config.timeout_s
        turn = max(self._turns.get(client, 0), self._turn)  # start-time fair queueing
        jobs = [
            Job(data, ask, loop.create_future(), deadline, is_slow, client, turn + number * (SLOW if is_slow else 1))
            for number, data in enumerate(images, start=1)
        ]
        self._turns[client] = turn + len(images) * (SLOW if is_slow else 1)
        self._waiting.extend(jobs)
        self._arrived.set()
        return [job.answer for job in jobs]

    def _to_drop(self, count: int, arriving: int, client: str) -> list[Job]:
        """Return this number of newest jobs of greedier clients.

        Raises:
            RefusedError: If there are not enough.
        """
        dropped = list[Job]()
        left = list(self._waiting)
        while len(dropped) < count:
            waiting = Counter(job.client for job in left)
            greediest, most = max(waiting.items(), key=lambda one: one[1], default=("", 0))
            if greediest == client or most <= waiting[client] + arriving:
                raise self.refusal()
            dropped.append(next(job for job in reversed(left) if job.client == greediest))
            left.remove(dropped[-1])
        return dropped

    def refusal(self) -> RefusedError:
        """Return an error for further images, with the time until half of the queue is probably done."""
        seconds = max(1, math.ceil(self._seconds_each * self._config.queue / 2))
        sentence = f"too many images are waiting; try again in {seconds} s"
        return RefusedError(503, "queue_full", sentence, {"Retry-After": str(seconds)})

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._let_others_come()
            batch = self._take()
            if batch:
                await self._answer(batch)
            if not self._waiting:
                self._arrived.clear()

    async def _let_others_come(self) -> None:
        """Wait up to max_wait_ms, while the batch is not full."""
        end = time.monotonic() + self._config.max_wait_ms / 1000
        while len(self._waiting) < self._config.batch_size and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.001))

    def _forget_unwanted(self) -> None:
        self._waiting = deque(job for job in self._waiting if job.is_wanted)

    def _take(self) -> list[Job]:
        """Take the next image, and later ones with an equal ask; others stay in the queue."""
        self._forget_unwanted()
        if not self._waiting:
            return []
        order = sorted(self._waiting, key=lambda job: job.turn)
        first = order[0]
        self._turn = max(self._turn, first.turn)
        self._turns = {client: turn for client, turn in self._turns.items() if turn > self._turn}
        limit = 1 if first.is_slow else self._config.batch_size
        batch = [job for job in order if (job.ask, job.is_slow) == (first.ask, first.is_slow)][:limit]
        taken = set(map(id, batch))
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        """Let the worker process a batch and answer each image at once; if it raises, that is the rest's result."""
        self._metrics.batch_size.observe(len(batch))
        loop = asyncio.get_running_loop()
        start = time.monotonic()

        def work() -> None:
            for place, answer in self._work(batch[0].ask, [job.data for job in batch]):
                loop.call_soon_threadsafe(self._set, batch[place], answer)

        done = loop.run_in_executor(self._worker, work)
        await asyncio.wait([done])
        seconds = (time.monotonic() - start) / len(batch)
        self._seconds_each += 0.2 * (seconds - self._seconds_each)
        if error := done.exception():
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)

    def _set(self, job: Job, answer: Any) -> None:
        if answer is PUT_BACK:  # last and alone, so that it delays no other image
            self._waiting.append(replace(job, is_slow=True, turn=job.turn + self._config.queue))
        elif not job.answer.done():
            job.answer.set_result(answer)
