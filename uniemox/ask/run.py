"""Send all questions: order, record, stopping."""

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from uniemox.ask.client import Client, Pace
from uniemox.ask.config import TOKENS_IN, TOKENS_OUT, AskConfig, tokens
from uniemox.ask.question import AskedImage, first_message, follow_up, image_url, question
from uniemox.ask.record import AnswerReader, AnswerRow, key_of, open_record
from uniemox.errors import ConfigError, DataError, ImageError, StoppedError
from uniemox.io.progress import Progress, silent
from uniemox.io.stopping import StopRequest
from uniemox.labels import LabelSet

FAILURES_IN_A_ROW = 5  # of one model, after which the command stops
Job = tuple[AskedImage, AnswerRow]
"""Image, with a row that lacks its answer or only the follow-up's word."""


def ask(
    config: AskConfig,
    images: Sequence[AskedImage],
    labels: LabelSet,
    out: Path,
    *,
    key: str | None = None,
    on_plan: Callable[[str], None] = lambda plan: None,
    on_progress: Progress = silent,
) -> dict[str, AnswerRow]:
    """Send every model the questions that it has not answered yet, and save each answer at once.

    All answers so far are saved, and repeating the command resumes.

    Args:
        labels: The options.
        out: Folder of the answers.
        key: Of the endpoint; it is sent only there and never saved.
        on_plan: Called with a summary of the questions before any is sent.

    Returns:
        All rows of the folder by `key_of`, including those of other models.

    Raises:
        ConfigError: For a wrong key, model or address, and if a model fails repeatedly.
        StoppedError: After Ctrl-C.
    """
    text = question(labels)
    stop = StopRequest()
    client = Client(
        config.url,
        key,
        pace=Pace(config.rate_per_minute, stop.event),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
        first_wait_s=config.first_wait_s,
    )
    asker = _Asker(config, client, text, follow_up(labels), AnswerReader(labels))
    file, rows = open_record(out, text)

    def save(row: AnswerRow) -> None:
        file.append(row.key, asdict(row))
        rows[row.key] = row

    with file:
        every = [asker.job(asked, model, rows) for asked in images for model in config.models]
        jobs = [job for job in every if job is not None]
        on_plan(_summary(config, client.host, len(images), len(jobs)))
        if jobs:
            with stop:
                _ask_all(asker, jobs, save, on_progress)
            if stop.signal is not None:
                raise StoppedError(
                    f"stopped; {sum(row.answer is not None for row in rows.values()):,} answers are saved in "
                    f"{out}, and the same command resumes from there",
                    128 + stop.signal,
                )
        return rows


def _summary(config: AskConfig, host: str, images: int, requests: int) -> str:
    """Describe the questions to send.  requests: their number; other questions are answered already."""
    what = f"{images} images x {', '.join(config.models)}"
    done = images * len(config.models) - requests
    if not requests:
        return f"{what}: all {done:,} answers exist"
    estimate = config.cost(requests * TOKENS_IN, requests * TOKENS_OUT)
    if estimate is None:
        cost = ""
    else:
        cost = f", about {estimate:.2f} at the given prices"
    if done:
        note = f" ({done:,} more are answered already)"
    else:
        note = ""
    return f"{what}: sending {requests:,} questions{note} to {host}, {tokens(requests)}{cost}"


@dataclass(frozen=True, slots=True)
class _Asker:
    """Shared state of the threads that send questions."""

    config: AskConfig
    client: Client
    text: str
    follow_up: str
    reader: AnswerReader

    def job(self, asked: AskedImage, model: str, rows: Mapping[str, AnswerRow]) -> Job | None:
        """Return the next question about an image; None if it is answered."""
        url = self.config.url
        row = rows.get(key_of(url, model, asked.sha256))
        if row is not None and row.answer is not None:
            if self.reader.needs_word(row):
                return (asked, row)
            return None
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        name = asked.sample.key
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
            row = self.reader.read_row(row)
        if row.tokens_in is not None and row.tokens_out is not None:
            row = replace(row, cost=self.config.cost(row.tokens_in, row.tokens_out))
        return replace(row, time=datetime.now(UTC).isoformat(timespec="seconds"))


def _ask_all(asker: _Asker, jobs: Sequence[Job], save: Callable[[AnswerRow], None], on_progress: Progress) -> None:
    """Run all jobs in several threads and save the results; only this thread writes."""
    stop = asker.client.pace.stop
    left = iter(jobs)
    lock = threading.Lock()
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
                save(result)
                on_progress("asking", done, len(jobs))
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
