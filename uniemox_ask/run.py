"""Questions of a whole call: their order, the record of answers, and stopping."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from uniemox.errors import ConfigError, DataError, ImageError, StoppedError
from uniemox.io import Progress, StopRequest, silent
from uniemox.plurals import counted
from uniemox_ask.client import Client, Pace
from uniemox_ask.config import TOKENS_IN, TOKENS_OUT, AskConfig, describe_tokens
from uniemox_ask.forms import AskedQuestion, QuestionSet
from uniemox_ask.probabilities import option_probabilities
from uniemox_ask.question import AskedImage, first_message, image_url
from uniemox_ask.record import AnswerRow, key_of, open_record

# Failures of one model in a row after which the command stops, because each costs time and perhaps money.
MAX_FAILURES_IN_A_ROW = 5

Job = tuple[AskedImage, AskedQuestion, AnswerRow]
"""Image and question, with a row that lacks its answer or only the follow-up's word."""


def ask(
    config: AskConfig,
    images: Sequence[AskedImage],
    questions: QuestionSet,
    out: Path,
    *,
    key: str | None = None,
    on_plan: Callable[[str], None] = lambda plan: None,
    on_progress: Progress = silent,
) -> dict[str, AnswerRow]:
    """Send every model the questions that it has not answered yet, and save each answer at once.

    All answers so far are saved, and repeating the command resumes.

    Args:
        config: Endpoint, models, pace and prices.
        images: The images to ask about.
        questions: The questions about each image.
        out: Folder of the answers.
        key: The endpoint's key; it is sent only there and never saved.
        on_plan: Called with a summary of the questions before any is sent.
        on_progress: Called after each answer.

    Returns:
        All rows of the folder by `key_of`, including those of other models.

    Raises:
        ConfigError: For a wrong key, model or address, and if a model fails repeatedly.
        StoppedError: After Ctrl-C.
    """
    config.check_size(len(images), questions)
    stop = StopRequest()
    client = Client(
        config.url,
        key,
        pace=Pace(config.rate_per_minute, stop.event),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
        first_wait_s=config.first_wait_s,
    )
    asker = _Asker(config, client)
    file, rows = open_record(out, questions.text)

    def save(row: AnswerRow) -> None:
        file.append(row.key, asdict(row))
        rows[row.key] = row

    with file:
        # Image by image, so that a command that is stopped leaves models with nearly the same images.
        possible_jobs = [
            asker.next_job(image, question, model, rows)
            for image in images
            for question in questions.questions
            for model in config.models
        ]
        jobs = [job for job in possible_jobs if job is not None]
        on_plan(_summary(config, client.host, questions.describe(len(images)), len(possible_jobs), len(jobs)))
        if jobs:
            with stop:
                _ask_all(asker, jobs, save, on_progress)
            if stop.signal is not None:
                answers = sum(row.answer is not None for row in rows.values())
                raise StoppedError(
                    f"stopped; {counted(answers, 'answer is', 'answers are')} saved in {out}, "
                    "and the same command resumes from there",
                    128 + stop.signal,
                )
        return rows


def _summary(config: AskConfig, host: str, scope: str, total: int, unanswered: int) -> str:
    """Describe the questions to send.

    Args:
        config: Models and prices.
        host: The endpoint's host.
        scope: Images and prompts, from `QuestionSet.describe`.
        total: Number of questions to all models.
        unanswered: Number of questions to send; the others are answered already.
    """
    scope = f"{scope} x {', '.join(config.models)}"
    answered = total - unanswered
    if not unanswered:
        return f"{scope}: {counted(answered, 'answer exists', 'answers exist')}, nothing to send"
    summary = f"{scope}: sending {counted(unanswered, 'question')}"
    if answered:
        summary += f" ({counted(answered, 'more is', 'more are')} answered already)"
    summary += f" to {host}, {describe_tokens(unanswered)}"
    cost = config.cost(unanswered * TOKENS_IN, unanswered * TOKENS_OUT)
    if cost is not None:
        summary += f", about {cost:.2f} at the given prices"
    return summary


@dataclass(frozen=True, slots=True)
class _Asker:
    """Shared state of the threads that send questions."""

    config: AskConfig
    client: Client

    def next_job(
        self, image: AskedImage, question: AskedQuestion, model: str, rows: Mapping[str, AnswerRow]
    ) -> Job | None:
        """Return the next question about an image; None if it is answered.

        An answer to another wording, of an earlier version, is replaced.
        """
        url = self.config.url
        row = rows.get(key_of(url, model, image.sha256, question.id))
        is_same_question = row is not None and row.question_sha256 == question.sha256
        if row is not None and is_same_question and row.answer is not None:
            return (image, question, row) if row.needs_word(question.reader) else None
        row = AnswerRow(
            endpoint=url,
            model=model,
            picture=image.sha256,
            name=image.sample.key,
            question_sha256=question.sha256,
            question_id=question.id,
        )
        return image, question, row

    def run_job(self, image: AskedImage, question: AskedQuestion, row: AnswerRow) -> AnswerRow | None:
        """Send the question, and the follow-up if the answer is no option; None if stopped before the end."""
        message = first_message(question.text, image_url(image.sample))
        with_logprobs = bool(question.tokens)
        reply = None
        if row.answer is None:
            reply = self.client.ask(row.model, [message], with_logprobs=with_logprobs)
            if reply is None:
                return None
            row = row.with_reply(reply)
        if row.needs_word(question.reader):
            answer = {"role": "assistant", "content": row.answer}
            follow_up = {"role": "user", "content": question.follow_up}
            reply = self.client.ask(row.model, [message, answer, follow_up], with_logprobs=with_logprobs)
            if reply is None:
                return None
            row = row.with_reply(reply)
        if row.answer is not None:
            row = row.read_with(question.reader)
        if reply is not None and reply.answer is not None and row.label is not None:
            # The last reply is the one that names the option.
            probabilities = option_probabilities(reply.positions, reply.answer, row.label, question.tokens)
            row = replace(row, probabilities=probabilities)
        if row.tokens_in is not None and row.tokens_out is not None:
            row = replace(row, cost=self.config.cost(row.tokens_in, row.tokens_out))
        return replace(row, time=datetime.now(UTC).isoformat(timespec="seconds"))


class _Failures:
    """Consecutive failures of each model."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.in_a_row: Counter[str] = Counter()

    def error_after(self, row: AnswerRow) -> Exception | None:
        """Count an answer or a failure; return the error that ends the run if its model failed too often in a row."""
        if row.error is None:
            self.in_a_row[row.model] = 0
            return None
        self.in_a_row[row.model] += 1
        times = self.in_a_row[row.model]
        if times != MAX_FAILURES_IN_A_ROW:
            return None
        return ConfigError(
            f"{row.model} at {self.host} failed {times} times in a row, the last time with: {row.error}. "
            "Answers so far are saved; repeat the command to retry the others"
        )


def _ask_all(asker: _Asker, jobs: Sequence[Job], save: Callable[[AnswerRow], None], on_progress: Progress) -> None:
    """Run all jobs in several threads and save the results; only this thread writes.

    Raises:
        ConfigError: If a model fails repeatedly, or a thread raised it.
        DataError: If an image can no longer be read.
    """
    stop = asker.client.pace.stop
    remaining = iter(jobs)
    lock = threading.Lock()
    results: queue.SimpleQueue[AnswerRow | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        """Run jobs until there is none left or it is stopped; finally put None."""
        try:
            while not stop.is_set():
                with lock:
                    job = next(remaining, None)
                row = None if job is None else asker.run_job(*job)
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
    for _ in range(running):
        # Daemons, so that a second Ctrl-C ends the process at once.
        threading.Thread(target=work, daemon=True).start()
    failures = _Failures(asker.client.host)
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
                failure = failures.error_after(result)
            else:
                failure = result
            if failure is not None:
                error = error or failure
                # The other threads end after the answer that they wait for, which is saved.
                stop.set()
    finally:
        stop.set()
    if error is not None:
        raise error
