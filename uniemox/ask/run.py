"""Ask all questions: order, record, stopping."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniemox.ask.client import Client, Pace, Reply
from uniemox.ask.config import TOKENS_IN, TOKENS_OUT, AskConfig, tokens
from uniemox.ask.question import AskedImage, data_url, first_message, follow_up, question
from uniemox.ask.record import AnswerReader, AnswerRow, Reading, Record, key_of, row_of, sha256_of, with_word
from uniemox.errors import ConfigError, DataError, ImageError, StoppedError, UniemoxError
from uniemox.io.stopping import StopRequest
from uniemox.labels import LabelSet

FAILURES_IN_A_ROW = 5  # of one model, after which asking on only costs time


@dataclass(frozen=True, slots=True)
class AskJob:
    """An image that a model is asked about."""

    asked: AskedImage
    model: str
    earlier: AnswerRow | None
    """Its answer in sentences, which lacks only the one word."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Outcome of a job: the answer, and the follow-up's word if the answer was no label."""

    first: Reply | None
    """None: it was there already."""
    word: Reply | None


@dataclass(frozen=True, slots=True)
class AskPlan:
    """Summary of the questions, shown before anything is sent."""

    host: str
    models: tuple[str, ...]
    images: int
    requests: int
    """That are left."""
    cost: float | None
    """Roughly; None without prices."""

    def __str__(self) -> str:
        what = f"{self.images} images x {', '.join(self.models)}"
        done = self.images * len(self.models) - self.requests
        if not self.requests:
            return f"{what}: all {done:,} answers are there"
        cost = "" if self.cost is None else f", about {self.cost:.2f} at the given prices"
        known = f" ({done:,} more are answered already)" if done else ""
        return f"{what}: sending {self.requests:,} questions{known} to {self.host}, {tokens(self.requests)}{cost}"


def ask(
    config: AskConfig,
    images: Sequence[AskedImage],
    labels: LabelSet,
    out: Path,
    *,
    key: str | None = None,
    on_plan: Callable[[AskPlan], None] = lambda plan: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, AnswerRow]:
    """Ask every model about every image that it has not answered yet, and keep each answer at once.

    labels: the options.  out: folder of the answers.  key: of the endpoint; it is sent there and kept nowhere.
    on_progress: called with the requests that are done, of how many.
    Returns all rows of the folder by `key_of`, also those of other models that were asked before.
    Raises ConfigError for a wrong key, model or address, and if a model fails time after time; StoppedError after
    Ctrl-C. What was answered is kept each time, and the same command resumes from there.
    """
    text = question(labels)
    with Record(out, text) as record:
        reader = AnswerReader(labels)
        jobs = []
        for asked in images:
            for model in config.models:
                row = record.rows.get(key_of(config.url, model, asked.sha256))
                if row is None or row.answer is None or lacks_word(row, reader):
                    jobs.append(AskJob(asked, model, None if row is None or row.answer is None else row))
        stop = StopRequest()
        client = Client(
            config.url,
            key,
            pace=Pace(config.rate_per_minute, stop.event),
            timeout_s=config.timeout_s,
            attempts=config.attempts,
            first_wait_s=config.first_wait_s,
        )
        estimate = config.cost(len(jobs) * TOKENS_IN, len(jobs) * TOKENS_OUT)
        on_plan(AskPlan(client.host, config.models, len(images), len(jobs), estimate))
        if jobs:
            with stop:
                _ask_all(_Asker(config, client, text, follow_up(labels), reader), jobs, record, on_progress)
            if stop.signal is not None:
                raise StoppedError(
                    f"stopped; {sum(row.answer is not None for row in record.rows.values()):,} answers are kept in "
                    f"{out}, and the same command resumes from there",
                    128 + stop.signal,
                )
        return dict(record.rows)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Shared state of the threads that ask."""

    config: AskConfig
    client: Client
    text: str
    follow_up: str
    reader: AnswerReader

    def work(self, jobs: Iterator[AskJob], lock: threading.Lock, results: "queue.SimpleQueue[_Result]") -> None:
        """Ask until there is no job left, or it is stopped; None at the end."""
        try:
            while not self.client.pace.stop.is_set():
                with lock:
                    job = next(jobs, None)
                if job is None:
                    return
                exchange = self._exchange(job)
                if exchange is None:
                    return
                results.put((job, exchange))
        except ImageError as error:
            results.put(DataError(f"{error}; it could be read a moment ago, so the data have changed: start again"))
        except UniemoxError as error:
            results.put(error)
        finally:
            results.put(None)

    def _exchange(self, job: AskJob) -> Exchange | None:
        """The question, and the follow-up where its answer is no label; None if it was stopped before the end."""
        question = first_message(self.text, data_url(job.asked.sample))
        first = None
        if job.earlier is not None:
            answer = job.earlier.answer
        else:
            first = self.client.ask(job.model, [question])
            if first is None:
                return None
            answer = None if first.is_refused else first.answer
        if answer is None or self.reader.read(answer).outcome != "unlisted":
            return Exchange(first, None)
        said = {"role": "assistant", "content": answer}
        word = self.client.ask(job.model, [question, said, {"role": "user", "content": self.follow_up}])
        return None if word is None else Exchange(first, word)


_Result = tuple[AskJob, Exchange] | UniemoxError | None


def _ask_all(asker: _Asker, jobs: Sequence[AskJob], record: Record, on_progress: Callable[[int, int], None]) -> None:
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
                row = _keep(*result, asker, record)
                on_progress(done, len(jobs))
                failures[row.model] = 0 if row.error is None else failures[row.model] + 1
                if failures[row.model] == FAILURES_IN_A_ROW and error is None:
                    error = _failing(asker.client.host, row, failures[row.model])
                    stop.set()
    finally:
        stop.set()
    if error is not None:
        raise error


def _keep(job: AskJob, exchange: Exchange, asker: _Asker, record: Record) -> AnswerRow:
    config = asker.config
    row = row_of(job.asked, (config.url, job.model), exchange.first, job.earlier, question=sha256_of(asker.text))
    row = row if exchange.word is None else with_word(row, exchange.word)
    reading = None if row.answer is None else read_row(asker.reader, row)
    cost = None
    if row.tokens_in is not None and row.tokens_out is not None:
        cost = config.cost(row.tokens_in, row.tokens_out)
    found = (None, None) if reading is None else (reading.outcome, reading.label)
    row = replace(row, outcome=found[0], label=found[1], cost=cost)
    record.append(row)
    return row


def read_row(reader: AnswerReader, row: AnswerRow) -> Reading:
    """Read an answer, or else the follow-up's word, unless the service refused."""
    if row.is_refused:
        return Reading("refused")
    first = reader.read(row.answer or "")
    return reader.read(row.word) if first.outcome == "unlisted" and row.word is not None else first


def lacks_word(row: AnswerRow, reader: AnswerReader) -> bool:
    """Return whether a model that answered in sentences is still to be asked for one word."""
    return row.word is None and not row.is_refused and reader.read(row.answer or "").outcome == "unlisted"


def _failing(host: str, row: AnswerRow, times: int) -> ConfigError:
    return ConfigError(
        f"{row.model} at {host} failed {times} times in a row, the last time with: {row.error}. What was answered is "
        "kept; the same command tries the others again"
    )
