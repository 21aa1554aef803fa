"""Send all questions: order, record, stopping."""

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from uniemox.ask.client import Client, Pace
from uniemox.ask.config import TOKENS_IN, TOKENS_OUT, AskConfig, tokens
from uniemox.ask.question import AskedImage, first_message, follow_up, image_url, question
from uniemox.ask.record import AnswerReader, AnswerRow, Record, key_of
from uniemox.errors import ConfigError, DataError, ImageError, StoppedError
from uniemox.io.stopping import StopRequest
from uniemox.labels import LabelSet

FAILURES_IN_A_ROW = 5  # of one model, after which the command stops
Job = tuple[AskedImage, AnswerRow]
"""Image, with a row that lacks its answer or only the follow-up's word."""


@dataclass(frozen=True, slots=True)
class AskPlan:
    """Summary of the questions, shown before any is sent."""

    host: str
    models: tuple[str, ...]
    images: int
    requests: int
    """Number of questions to send."""
    cost: float | None
    """Estimated cost; None without prices."""

    def __str__(self) -> str:
        what = f"{self.images} images x {', '.join(self.models)}"
        done = self.images * len(self.models) - self.requests
        if not self.requests:
            return f"{what}: all {done:,} answers exist"
        cost = "" if self.cost is None else f", about {self.cost:.2f} at the given prices"
        note = f" ({done:,} more are answered already)" if done else ""
        return f"{what}: sending {self.requests:,} questions{note} to {self.host}, {tokens(self.requests)}{cost}"


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
    """Send every model the questions that it has not answered yet, and save each answer at once.

    labels: the options.  out: folder of the answers.  key: of the endpoint; it is sent only there and never saved.
    on_progress: called with the number of requests done, and of all.
    Returns all rows of the folder by `key_of`, including those of other models.
    Raises ConfigError for a wrong key, model or address, and if a model fails repeatedly; StoppedError after Ctrl-C.
    All answers so far are saved, and repeating the command resumes.
    """
    text, stop = question(labels), StopRequest()
    client = Client(
        config.url,
        key,
        pace=Pace(config.rate_per_minute, stop.event),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
        first_wait_s=config.first_wait_s,
    )
    asker = _Asker(config, client, text, follow_up(labels), AnswerReader(labels))
    with Record(out, text) as record:
        every = [asker.job(asked, model, record) for asked in images for model in config.models]
        jobs = [job for job in every if job is not None]
        estimate = config.cost(len(jobs) * TOKENS_IN, len(jobs) * TOKENS_OUT)
        on_plan(AskPlan(client.host, config.models, len(images), len(jobs), estimate))
        if jobs:
            with stop:
                _ask_all(asker, jobs, record, on_progress)
            if stop.signal is not None:
                raise StoppedError(
                    f"stopped; {sum(row.answer is not None for row in record.rows.values()):,} answers are saved in "
                    f"{out}, and the same command resumes from there",
                    128 + stop.signal,
                )
        return dict(record.rows)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Shared state of the threads that send questions."""

    config: AskConfig
    client: Client
    text: str
    follow_up: str
    reader: AnswerReader

    def job(self, asked: AskedImage, model: str, record: Record) -> Job | None:
        """Return the next question about an image; None if it is answered."""
        url = self.config.url
        row = record.rows.get(key_of(url, model, asked.sha256))
        if row is not None and row.answer is not None:
            return (asked, row) if self.reader.needs_word(row) else None
        digest, name = hashlib.sha256(self.text.encode()).hexdigest(), asked.sample.key
        row = AnswerRow(endpoint=url, model=model, picture=asked.sha256, name=name, question_sha256=digest)
        return asked, row

    def answer(self, asked: AskedImage, row: AnswerRow) -> AnswerRow | None:
        """Send the question, and the follow-up if the answer is not a label; None if stopped before the end."""
        question = first_message(self.text, image_url(asked.sample))
        if row.answer is None:
            reply = self.client.ask(row.model, [question])
            if reply is None:
                return None
            row = row.with_reply(reply)
        if self.reader.needs_word(row):
            said = {"role": "assistant", "content": row.answer}
            reply = self.client.ask(row.model, [question, said, {"role": "user", "content": self.follow_up}])
            if reply is None:
                return None
            row = row.with_reply(reply)
        if row.answer is not None:
            reading = self.reader.read_row(row)
            row = replace(row, outcome=reading.outcome, label=reading.label)
        if row.tokens_in is not None and row.tokens_out is not None:
            row = replace(row, cost=self.config.cost(row.tokens_in, row.tokens_out))
        return replace(row, time=datetime.now(UTC).isoformat(timespec="seconds"))


def _ask_all(asker: _Asker, jobs: Sequence[Job], record: Record, on_progress: Callable[[int, int], None]) -> None:
    """Run all jobs in several threads and save the results; only this thread writes."""
    stop, left, lock = asker.client.pace.stop, iter(jobs), threading.Lock()
    results: queue.SimpleQueue[AnswerRow | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        """Run jobs until there is none left or it is stopped; finally put None."""
        try:
            while not stop.is_set():
                with lock:
                    job = next(left, None)
                row = None if job is None else asker.answer(*job)
                if row is None:
                    return
                results.put(row)
        except ImageError as error:
            results.put(DataError(f"{error}; it could be read a moment ago, so the data have changed: start again"))
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            results.put(error)
        finally:
            results.put(None)

    running = min(asker.config.concurrency, len(jobs))
    for _ in range(running):  # daemons, so that a second Ctrl-C ends at once
        threading.Thread(target=work, daemon=True).start()
    failures: Counter[str] = Counter()
    error: Exception | None = None
    done = 0
    try:
        while running:
            result = results.get()
            if result is None:
                running -= 1
                continue
            if isinstance(result, AnswerRow):
                done += 1
                record.append(result)
                on_progress(done, len(jobs))
                times = failures[result.model] = 0 if result.error is None else failures[result.model] + 1
                if times != FAILURES_IN_A_ROW:
                    continue
                result = ConfigError(
                    f"{result.model} at {asker.client.host} failed {times} times in a row, the last time with: "
                    f"{result.error}. Answers so far are saved; repeat the command to retry the others"
                )
            error = error or result
            stop.set()  # other threads end after the answer that they wait for, which is saved
    finally:
        stop.set()
    if error is not None:
        raise error
