"""Asking several models about the same pictures, where it was left off."""

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniemox.ask.answers import AnswerReader, Reading
from uniemox.ask.client import Client, Reply
from uniemox.ask.config import TOKENS_IN, TOKENS_OUT, AskConfig, tokens
from uniemox.ask.pace import Pace
from uniemox.ask.question import AskedImage, data_url, question
from uniemox.ask.record import AnswerRow, Record, key_of, row_of
from uniemox.ask.stopping import AskedToStop
from uniemox.errors import ConfigError, DataError, ImageError, StoppedError, UniemoxError
from uniemox.labels import LabelSet

FAILURES_IN_A_ROW = 5  # of one model, after which asking on only costs time

Job = tuple[AskedImage, str]  # a picture and a model


@dataclass(frozen=True, slots=True)
class AskPlan:
    """What is going to be asked, said before anything is sent."""

    host: str
    models: tuple[str, ...]
    pictures: int
    requests: int
    """That are left."""
    cost: float | None
    """Roughly; None without prices."""

    def __str__(self) -> str:
        what = f"{self.pictures} pictures x {', '.join(self.models)}"
        done = self.pictures * len(self.models) - self.requests
        if not self.requests:
            return f"{what}: all {done:,} answers are there"
        cost = "" if self.cost is None else f", about {self.cost:.2f} at the given prices"
        known = f" ({done:,} more are answered already)" if done else ""
        return f"{what}: sending {self.requests:,} requests{known} to {self.host}, {tokens(self.requests)}{cost}"


def ask(
    config: AskConfig,
    pictures: Sequence[AskedImage],
    labels: LabelSet,
    out: Path,
    *,
    key: str | None = None,
    on_plan: Callable[[AskPlan], None] = lambda plan: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, AnswerRow]:
    """Ask every model about every picture that it has not answered yet, and keep each answer at once.

    labels: the options.  out: folder of the answers.  key: of the endpoint; it is sent there and kept nowhere.
    on_progress: called with the requests that are done, of how many.
    Returns all rows of the folder by `key_of`, also those of other models that were asked before.
    Raises ConfigError for a wrong key, model or address, and if a model fails time after time; StoppedError after
    Ctrl-C. What was answered is kept each time, and the same command resumes from there.
    """
    text = question(labels)
    with Record(out, text) as record:
        jobs = [
            (asked, model)
            for asked in pictures
            for model in config.models
            if not record.is_answered(key_of(config.url, model, asked.sha256))
        ]
        stop = threading.Event()
        client = Client(
            config.url,
            key,
            pace=Pace(config.rate_per_minute, stop),
            timeout_s=config.timeout_s,
            attempts=config.attempts,
            first_wait_s=config.first_wait_s,
        )
        estimate = config.cost(len(jobs) * TOKENS_IN, len(jobs) * TOKENS_OUT)
        on_plan(AskPlan(client.host, config.models, len(pictures), len(jobs), estimate))
        if jobs:
            with AskedToStop(stop) as asked_to_stop:
                _ask_all(_Asker(config, client, text), jobs, record, AnswerReader(labels), on_progress)
            if asked_to_stop.signal is not None:
                raise StoppedError(
                    f"stopped; {sum(row.answer is not None for row in record.rows.values()):,} answers are kept in "
                    f"{out}, and the same command resumes from there",
                    128 + asked_to_stop.signal,
                )
        return dict(record.rows)


@dataclass(frozen=True, slots=True)
class _Asker:
    """What threads need to ask."""

    config: AskConfig
    client: Client
    text: str

    def work(self, jobs: Iterator[Job], lock: threading.Lock, results: "queue.SimpleQueue[_Result]") -> None:
        """Ask until there is no job left, or it is stopped; None at the end."""
        try:
            while not self.client.pace.stop.is_set():
                with lock:
                    job = next(jobs, None)
                if job is None:
                    return
                reply = self.client.ask(job[1], self.text, data_url(job[0].sample))
                if reply is None:
                    return
                results.put((job, reply))
        except ImageError as error:
            results.put(DataError(f"{error}; it could be read a moment ago, so the data have changed: start again"))
        except UniemoxError as error:
            results.put(error)
        finally:
            results.put(None)


_Result = tuple[Job, Reply] | UniemoxError | None


def _ask_all(
    asker: _Asker, jobs: Sequence[Job], record: Record, reader: AnswerReader, on_progress: Callable[[int, int], None]
) -> None:
    """Ask all jobs by several threads and keep what comes; only this thread writes."""
    config, stop = asker.config, asker.client.pace.stop
    results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    left, lock = iter(jobs), threading.Lock()
    running = min(config.concurrency, len(jobs))
    for _ in range(running):  # daemons: a second Ctrl-C waits for none of them
        threading.Thread(target=asker.work, args=(left, lock, results), daemon=True).start()
    failures: Counter[str] = Counter()
    error: UniemoxError | None = None
    done = 0
    try:
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, UniemoxError):
                error = error or result
                stop.set()  # the others end with the answer they wait for, which is kept
            else:
                done += 1
                row = _keep(result, config, record, reader, asker.text)
                on_progress(done, len(jobs))
                failures[row.model] = 0 if row.error is None else failures[row.model] + 1
                if failures[row.model] == FAILURES_IN_A_ROW and error is None:
                    error = _failing(asker.client.host, row, failures[row.model])
                    stop.set()
    finally:
        stop.set()
    if error is not None:
        raise error


def _keep(result: tuple[Job, Reply], config: AskConfig, record: Record, reader: AnswerReader, text: str) -> AnswerRow:
    (asked, model), reply = result
    cost = None
    if reply.tokens_in is not None and reply.tokens_out is not None:
        cost = config.cost(reply.tokens_in, reply.tokens_out)
    digest = hashlib.sha256(text.encode()).hexdigest()
    reading = None if reply.answer is None else read_reply(reader, reply.answer, is_refused=reply.is_refused)
    row = row_of(asked, (config.url, model), reply, reading, question=digest, cost=cost)
    record.append(row)
    return row


def read_reply(reader: AnswerReader, answer: str, *, is_refused: bool) -> Reading:
    """What an answer says, unless the service has refused it."""
    return Reading("refused") if is_refused else reader.read(answer)


def _failing(host: str, row: AnswerRow, times: int) -> ConfigError:
    return ConfigError(
        f"{row.model} at {host} failed {times} times in a row, the last time with: {row.error}. What was answered is "
        "kept; the same command tries the others again"
    )
