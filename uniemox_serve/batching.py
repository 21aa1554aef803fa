"""Bounded queue; one worker thread processes images in batches and drops images that no client waits for."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from uniemox_serve.answers import RefusedError
from uniemox_serve.config import ServeConfig
from uniemox_serve.metrics import Metrics
from uniemox_serve.models import PUT_BACK

Work = Callable[[Any, list[bytes]], Iterable[tuple[int, Any]]]
"""Function of the worker thread: yields index and result, or PUT_BACK, of each image of equal asks."""
SLOW_TURNS = 4
"""Number of turns that a slow image takes."""


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
    """Order in the queue: clients take turns, whatever number of images each has."""

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
        self._current_turn = 0
        self._last_turns = dict[str, int]()
        """Last turn of each client that has images in the queue."""
        # An assumption; it is measured from the first batch on.
        self._seconds_each = 0.05
        metrics.queue_length.set_function(lambda: len(self._waiting))

    def start(self) -> None:
        """Start the worker."""
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def stop(self) -> None:
        """Wait until the requests in the queue are answered, then stop."""
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

        Args:
            images: The content of their files.
            ask: Requested work.
            is_slow: Process each image alone.
            client: Address of the client.

        Returns:
            A future result for each image.

        Raises:
            RefusedError: If there is no room even so.
        """
        self._remove_unwanted()
        surplus = len(self._waiting) + len(images) - self._config.queue
        for job in self._jobs_to_drop(surplus, len(images), client):
            job.answer.set_exception(self.refusal())
        self._remove_unwanted()
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._config.timeout_s
        # Start-time fair queueing: a client's images follow its last one, but never precede the current turn.
        turn = max(self._last_turns.get(client, 0), self._current_turn)
        jobs = []
        for data in images:
            turn += SLOW_TURNS if is_slow else 1
            jobs.append(Job(data, ask, loop.create_future(), deadline, is_slow, client, turn))
        self._last_turns[client] = turn
        self._waiting.extend(jobs)
        self._arrived.set()
        return [job.answer for job in jobs]

    def _jobs_to_drop(self, count: int, arriving: int, client: str) -> list[Job]:
        """Return the newest jobs of clients that have more of them than an arriving request's client.

        Args:
            count: Number of jobs to return; none if it is not positive.
            arriving: Number of images in the arriving request.
            client: Address of its client.

        Raises:
            RefusedError: If there are not enough.
        """
        dropped = list[Job]()
        remaining = list(self._waiting)
        while len(dropped) < count:
            counts = Counter(job.client for job in remaining)
            greediest, max_count = max(counts.items(), key=lambda item: item[1], default=("", 0))
            if greediest == client or max_count <= counts[client] + arriving:
                raise self.refusal()
            newest = next(job for job in reversed(remaining) if job.client == greediest)
            dropped.append(newest)
            remaining.remove(newest)
        return dropped

    def refusal(self) -> RefusedError:
        """Return an error for further images, with the time until half of the queue is probably done."""
        seconds = max(1, math.ceil(self._seconds_each * self._config.queue / 2))
        sentence = f"too many images are waiting; try again in {seconds} s"
        return RefusedError(503, "queue_full", sentence, {"Retry-After": str(seconds)})

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._wait_for_full_batch()
            batch = self._take_batch()
            if batch:
                await self._answer(batch)
            if not self._waiting:
                self._arrived.clear()

    async def _wait_for_full_batch(self) -> None:
        """Wait up to max_wait_ms, while the batch is not full."""
        end = time.monotonic() + self._config.max_wait_ms / 1000
        while len(self._waiting) < self._config.batch_size and (seconds := end - time.monotonic()) > 0:
            await asyncio.sleep(min(seconds, 0.001))

    def _remove_unwanted(self) -> None:
        self._waiting = deque(job for job in self._waiting if job.is_wanted)

    def _take_batch(self) -> list[Job]:
        """Take the next image, and later ones with an equal ask; others stay in the queue."""
        self._remove_unwanted()
        if not self._waiting:
            return []
        order = sorted(self._waiting, key=lambda job: job.turn)
        first = order[0]
        self._current_turn = max(self._current_turn, first.turn)
        # Clients whose turns are over start at the current one, as new clients do.
        self._last_turns = {client: turn for client, turn in self._last_turns.items() if turn > self._current_turn}
        limit = 1 if first.is_slow else self._config.batch_size
        batch = [job for job in order if (job.ask, job.is_slow) == (first.ask, first.is_slow)][:limit]
        batch_ids = set(map(id, batch))
        self._waiting = deque(job for job in self._waiting if id(job) not in batch_ids)
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        """Let the worker process a batch, and answer each image as soon as it is ready.

        If the worker raises, the images without an answer get its exception.
        """
        self._metrics.batch_size.observe(len(batch))
        loop = asyncio.get_running_loop()
        start = time.monotonic()

        def work() -> None:
            for index, answer in self._work(batch[0].ask, [job.data for job in batch]):
                loop.call_soon_threadsafe(self._set_answer, batch[index], answer)

        future = loop.run_in_executor(self._worker, work)
        await asyncio.wait([future])
        seconds = (time.monotonic() - start) / len(batch)
        # A moving average, for Retry-After.
        self._seconds_each += 0.2 * (seconds - self._seconds_each)
        if error := future.exception():
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)

    def _set_answer(self, job: Job, answer: Any) -> None:
        if answer is PUT_BACK:
            # Last and alone, so that it delays no other image.
            self._waiting.append(replace(job, is_slow=True, turn=job.turn + self._config.queue))
        elif not job.answer.done():
            job.answer.set_result(answer)
