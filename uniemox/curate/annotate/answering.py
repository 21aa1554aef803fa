"""Saving answers: those that wait go to disk together, and each is acknowledged only once it is there."""

import json
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import SQLAlchemyError

from uniemox.curate import tables as t
from uniemox.curate.store import Store
from uniemox.errors import DataError

MAX_CONCURRENT = 2000  # answers of one transaction
IN_A_QUERY = 500  # parameters that every database takes
_OWNERS = select(t.tasks.c.id, t.tasks.c.person_id).where(t.tasks.c.id.in_(bindparam("tasks", expanding=True)))
_KNOWN = select(t.answers.c.person_id, t.answers.c.client_id).where(
    t.answers.c.client_id.in_(bindparam("ids", expanding=True))
)
_NUMBERS = select(t.answers.c.id, t.answers.c.person_id, t.answers.c.client_id).where(
    t.answers.c.client_id.in_(bindparam("ids", expanding=True))
)
_ADD = insert(t.answers)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator said of a task. Sent again with the same id, it is the same answer."""

    person: int
    task: int
    id: str
    label: str
    """One of the plan's, none or skip."""
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    """What it says beside the label: see tables.details."""


@dataclass(frozen=True, slots=True)
class _Job:
    answers: Sequence[Answer]
    done: "Future[frozenset[str]]"


class AnswerWriter:
    """One thread that writes what waits in one transaction: a hundred annotators cost a few commits a second."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def save(self, answers: Sequence[Answer]) -> "Future[frozenset[str]]":
        """Write answers of one person; the result is the ids of those that are on disk then.

        An answer to a task that is not that person's is not written. The future raises DataError if the database can't
        be written.
        """
        job = _Job(answers, Future())
        self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Write what waits, and end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            jobs, is_last = [job], False
            while sum(len(one.answers) for one in jobs) < MAX_CONCURRENT and not self._jobs.empty():
                more = self._jobs.get()
                if more is None:
                    is_last = True
                    break
                jobs.append(more)
            self._write(jobs)
            if is_last:
                return

    def _write(self, jobs: Sequence[_Job]) -> None:
        answers = [answer for job in jobs for answer in job.answers]
        try:
            with self.store.write() as connection:
                saved = save_answers(connection, answers)
        except SQLAlchemyError as error:
            for job in jobs:
                job.done.set_exception(DataError(f"answers can't be written: {error}"))
            return
        for job in jobs:
            job.done.set_result(frozenset(one.id for one in job.answers if (one.person, one.id) in saved))


def save_answers(connection: Connection, answers: Sequence[Answer]) -> set[tuple[int, str]]:
    """Add answers that are not there yet; returns person and id of all that are there now."""
    people = {answer.person for answer in answers}
    owner: dict[int, int] = {}
    for part in _parts({answer.task for answer in answers}):
        rows = connection.execute(_OWNERS, {"tasks": part})
        owner |= {row.id: row.person_id for row in rows}
    known: set[tuple[int, str]] = set()
    for part in _parts({answer.id for answer in answers}):
        rows = connection.execute(_KNOWN, {"ids": part})
        known |= {(row.person_id, row.client_id) for row in rows if row.person_id in people}
    rows_to_add = []
    detailed: dict[tuple[int, str], Mapping[str, Any]] = {}
    for answer in answers:
        if (answer.person, answer.id) in known or owner.get(answer.task) != answer.person:
            continue
        known.add((answer.person, answer.id))
        rows_to_add.append(
            {
                "person_id": answer.person,
                "task_id": answer.task,
                "client_id": answer.id,
                "label": answer.label,
                "seconds": answer.seconds,
                "at": time.time(),
            }
        )
        detailed[answer.person, answer.id] = answer.details
    if rows_to_add:
        connection.execute(_ADD, rows_to_add)
        _add_details(connection, {key: content for key, content in detailed.items() if content})
    return known


def _add_details(connection: Connection, detailed: Mapping[tuple[int, str], Mapping[str, Any]]) -> None:
    """What answers that were just added say beside their label.  detailed: by person and id."""
    for part in _parts({client for _, client in detailed}):
        rows = connection.execute(_NUMBERS, {"ids": part})
        found = [(row.id, detailed.get((row.person_id, row.client_id))) for row in rows]
        contents = [{"answer_id": number, "content": json.dumps(content)} for number, content in found if content]
        connection.execute(insert(t.details), contents)


def _parts(values: Iterable[int] | Iterable[str]) -> list[list[int | str]]:
    listed: list[int | str] = list(values)
    return [listed[i : i + IN_A_QUERY] for i in range(0, len(listed), IN_A_QUERY)]
