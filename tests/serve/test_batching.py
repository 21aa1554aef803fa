"""The queue alone: order, batches, stopping, and unwanted work."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from uniemox.errors import ConfigError
from uniemox_serve.answers import RefusedError
from uniemox_serve.batching import Batcher
from uniemox_serve.config import ServeConfig
from uniemox_serve.metrics import Metrics
from uniemox_serve.models import PUT_BACK


class Recorder:
    """Work that returns its input and records its calls; `rest` delays all images of a batch but the first."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self.gate = threading.Event()
        self.rest = threading.Event()
        self.gate.set()
        self.rest.set()

    def __call__(self, ask: str, images: list[bytes]) -> Iterator[tuple[int, object]]:
        self.batches.append((ask, images))
        assert self.gate.wait(10)
        if ask == "broken":
            raise ConfigError("broken")
        for index, image in enumerate(images):
            assert index == 0 or self.rest.wait(10)
            yield index, (ask, image)


def with_batcher(
    use: Callable[[Batcher, Recorder], Awaitable[None]], work: Recorder | None = None, **settings: object
) -> tuple[Recorder, Metrics]:
    """Call a coroutine function with a running batcher."""
    work = work or Recorder()
    metrics = Metrics()

    async def run() -> None:
        batcher = Batcher(work, ServeConfig(**settings), metrics)
        batcher.start()
        await asyncio.sleep(0)
        try:
            await use(batcher, work)
        finally:
            work.gate.set()
            await batcher.stop()

    asyncio.run(run())
    return work, metrics


async def occupy(batcher: Batcher, work: Recorder, *images: bytes) -> "list[asyncio.Future[object]]":
    """Let the worker begin with images; it does not finish before the gate opens."""
    work.gate.clear()
    answers = batcher.submit(images, "a")
    while not work.batches:
        await asyncio.sleep(0.001)
    return answers


def test_simultaneous_images_are_processed_in_batches_in_order() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        answers = [answer for i in range(5) for answer in batcher.submit([bytes([i])], "same")]
        assert await asyncio.gather(*answers) == [("same", bytes([i])) for i in range(5)]

    work, metrics = with_batcher(use, max_wait_ms=20, batch_size=4)
    assert [len(images) for _, images in work.batches] == [4, 1]
    assert metrics.registry.get_sample_value("uniemox_batch_size_sum") == 5
    assert metrics.registry.get_sample_value("uniemox_batch_size_count") == 2


def test_different_asks_have_separate_batches_oldest_first() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        answers = [answer for i, ask in enumerate("abacb") for answer in batcher.submit([bytes([i])], ask)]
        await asyncio.gather(*answers)

    work, _ = with_batcher(use, max_wait_ms=20)
    assert work.batches == [("a", [b"\0", b"\2"]), ("b", [b"\1", b"\4"]), ("c", [b"\3"])]


class Impatient(Recorder):
    """Puts every image of a batch back but the first."""

    def __call__(self, ask: str, images: list[bytes]) -> Iterator[tuple[int, object]]:
        for index, answer in super().__call__(ask, images):
            yield index, PUT_BACK if index else answer


def test_put_back_images_are_processed_alone_after_the_others() -> None:
    work = Impatient()

    async def use(batcher: Batcher, _: Recorder) -> None:
        first = await occupy(batcher, work, b"1", b"2", b"3")
        later = batcher.submit([b"4", b"5"], "a")
        work.gate.set()
        assert await asyncio.gather(*first, *later) == [("a", b"%d" % i) for i in range(1, 6)]

    with_batcher(use, work, max_wait_ms=0)
    assert [images for _, images in work.batches] == [[b"1", b"2", b"3"], [b"4", b"5"], [b"2"], [b"3"], [b"5"]]


def test_an_image_is_answered_before_slower_ones_of_its_batch() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        work.rest.clear()
        [quick] = batcher.submit([b"quick"], "a")
        [slow] = batcher.submit([b"slow"], "a", client="other")
        assert await asyncio.wait_for(quick, 5) == ("a", b"quick")
        assert not slow.done()
        work.rest.set()
        assert await slow == ("a", b"slow")

    work, _ = with_batcher(use, max_wait_ms=20)
    assert len(work.batches) == 1


def test_slow_images_are_processed_one_by_one() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        await asyncio.gather(*batcher.submit([b"1", b"2"], "map", is_slow=True))

    work, _ = with_batcher(use, max_wait_ms=20)
    assert work.batches == [("map", [b"1"]), ("map", [b"2"])]


def test_all_images_of_a_request_enter_the_queue_or_none() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        first = await occupy(batcher, work, b"0")
        waiting = batcher.submit([b"1", b"2"], "a")
        with pytest.raises(RefusedError, match="try again in 1 s") as full:
            batcher.submit([b"3", b"4"], "a")
        assert full.value.headers == {"Retry-After": "1"}
        third = batcher.submit([b"5"], "a")
        work.gate.set()
        assert [data for _, data in await asyncio.gather(*first, *waiting, *third)] == [b"0", b"1", b"2", b"5"]

    with_batcher(use, queue=3, max_wait_ms=0)


def test_cancelled_images_are_not_processed_and_make_room() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        first = await occupy(batcher, work, b"0")
        for answer in batcher.submit([b"1", b"2"], "a"):
            answer.cancel()
        # These fit, because the others are cancelled.
        later = batcher.submit([b"3", b"4"], "a")
        work.gate.set()
        await asyncio.gather(*first, *later)

    work, _ = with_batcher(use, queue=2, max_wait_ms=0)
    assert [data for _, images in work.batches for data in images] == [b"0", b"3", b"4"]


def test_images_after_their_deadline_are_not_processed() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        first = await occupy(batcher, work, b"0")
        old = batcher.submit([b"1"], "a")
        await asyncio.sleep(0.1)
        work.gate.set()
        await asyncio.gather(*first)
        await asyncio.sleep(0.05)
        assert not old[0].done()

    work, _ = with_batcher(use, timeout_s=0.05, max_wait_ms=0)
    assert [images for _, images in work.batches] == [[b"0"]]


def test_an_error_affects_only_its_batch() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        bad = batcher.submit([b"1", b"2"], "broken")
        good = batcher.submit([b"3"], "fine")
        results = await asyncio.gather(*bad, *good, return_exceptions=True)
        assert [type(result) for result in results] == [ConfigError, ConfigError, tuple]

    with_batcher(use, max_wait_ms=0)


def test_stopping_answers_waiting_images() -> None:
    answers = []

    async def use(batcher: Batcher, work: Recorder) -> None:
        for i in range(10):
            answers.extend(batcher.submit([bytes([i])], "a"))

    with_batcher(use, batch_size=2)
    assert [answer.result() for answer in answers] == [("a", bytes([i])) for i in range(10)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue", 0), ("batch_size", 0), ("max_mb", 0), ("timeout_s", float("nan")), ("max_wait_ms", -1), ("max_mb", -1)],
)
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        ServeConfig(**{name: value})


def test_a_request_never_has_more_files_than_the_queue_holds() -> None:
    assert ServeConfig(queue=4).files == 4
    assert ServeConfig(queue=100).files == ServeConfig().max_files


def test_a_greedy_client_does_not_shut_others_out() -> None:
    async def use(batcher: Batcher, work: Recorder) -> None:
        await occupy(batcher, work, b"0")
        greedy = [batcher.submit([b"g"] * 2, "a", client="greedy") for _ in range(4)]
        polite = batcher.submit([b"p"], "a", client="polite")
        with pytest.raises(RefusedError):
            batcher.submit([b"g"], "a", client="greedy")
        work.gate.set()
        assert await polite[0] == ("a", b"p")
        with pytest.raises(RefusedError):
            await greedy[-1][-1]

    work, _ = with_batcher(use, queue=8, batch_size=2, max_wait_ms=0)
    # It is in the next batch, not after the eight.
    assert b"p" in work.batches[1][1]


def test_a_waiting_client_keeps_its_turn_while_others_send_more() -> None:
    """Clients that send one slow image at a time do not overtake one that waits."""

    async def use(batcher: Batcher, work: Recorder) -> None:
        await occupy(batcher, work, b"0")
        patient = batcher.submit([b"p"] * 4, "a", client="patient")

        async def one_by_one(client: str) -> None:
            for _ in range(50):
                await batcher.submit([client.encode()], "b", is_slow=True, client=client)[0]

        others = [asyncio.create_task(one_by_one(client)) for client in ("b", "c")]
        await asyncio.sleep(0)
        work.gate.set()
        await asyncio.gather(*patient, *others)

    work, _ = with_batcher(use, queue=64, batch_size=1, max_wait_ms=0)
    order = [image for _, images in work.batches for image in images]
    assert len(order) == 1 + 4 + 100
    assert max(index for index, image in enumerate(order) if image == b"p") <= 1 + 4 * 3
