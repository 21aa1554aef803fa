"""Answers: what one may contain, and saving them so that an acknowledged answer is on disk."""

import json
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from uniemox.errors import UnavailableError
from uniemox_curate import tables as t
from uniemox_curate.counters import STORE_EVERY, count
from uniemox_curate.plan import MAX_LABELS, CollectionPlan
from uniemox_curate.project import NONE, SKIP
from uniemox_curate.questions import MAX_QUESTIONS, MAX_WORDS
from uniemox_curate.store import Store

ID = r"^[A-Za-z0-9-]{8,64}$"
# Limit for row numbers: JavaScript rounds larger ones, and databases refuse them.
MAX_ROWS = 2**53
# Number of waiting answers from which a transaction begins.
MAX_ANSWERS_PER_COMMIT = 2000
# Maximum number of fields of an object. Each unknown one would become an error, which takes time.
MAX_FIELDS = 20
# Fields of an answer that tables.answers keeps; tables.details keeps the others.
COLUMNS = frozenset(("id", "task", "label", "seconds"))


class Strict(BaseModel):
    """A request body without unknown fields or converted types."""

    model_config = ConfigDict(extra="forbid", strict=True)
    max_fields: ClassVar[int] = MAX_FIELDS

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > cls.max_fields:
            raise ValueError(f"more than {cls.max_fields} fields")
        return value


class AnswerIn(Strict):
    """One answer of a page or a file. The page makes the id: sent again with the same id, it is the same answer.

    `read_answer` adds a field for each question.
    """

    max_fields: ClassVar[int] = MAX_FIELDS + MAX_QUESTIONS

    id: str = Field(pattern=ID)
    task: int = Field(ge=1, lt=MAX_ROWS)
    label: str = Field(max_length=60)
    seconds: float = Field(ge=0, le=86400, strict=False)
    labels: list[str] = Field(default=[], max_length=MAX_LABELS)
    skip: Literal["unseen", "upsetting", "unsure", "other"] | None = None
    suggested: str | None = Field(default=None, max_length=60)

    def fits(self, labels: Sequence[str]) -> bool:
        """Return True if it names labels of the plan, each once, or none of them, or gives a reason to skip."""
        if self.suggested is not None and self.suggested not in labels:
            return False
        if self.label == SKIP:
            return self.skip is not None and not self.labels
        named = self.labels or [self.label]
        are_labels = named == [NONE] or set(named) <= {*labels}
        return self.skip is None and named[0] == self.label and are_labels and len(set(named)) == len(named)

    def details(self) -> dict[str, Any]:
        """Return the fields besides the label that have a value."""
        names = type(self).model_fields.keys() - COLUMNS
        return {name: value for name in sorted(names) if (value := getattr(self, name)) not in (None, "", [])}


def read_answer(value: Any, plan: CollectionPlan) -> AnswerIn | None:
    """Return one answer; None if it is invalid.

    Args:
        value: JSON value from a page or a file.
        plan: Plan of the project, with labels and questions.
    """
    scales = tuple((question.name, question.scale) for question in plan.answer.known)
    try:
        answer = _answer_model(scales).model_validate(value)
    except ValidationError:
        return None
    return answer if answer.fits(plan.labels) else None


@cache
def _answer_model(scales: tuple[tuple[str, int | None], ...]) -> type[AnswerIn]:
    """Return the model of answers with a field for each question.

    Args:
        scales: Name and highest value of each question; None for words.
    """
    fields: dict[str, Any] = {}
    for name, highest in scales:
        if highest is None:
            fields[name] = (str, Field(default="", max_length=MAX_WORDS))
        else:
            fields[name] = (int | None, Field(default=None, ge=1, le=highest))
    return create_model("AnswerIn", __base__=AnswerIn, **fields)


def has_id(value: Any) -> bool:
    """Return True if an invalid answer still has an id, by which it can be refused."""
    return isinstance(value, dict) and re.fullmatch(ID, str(value.get("id"))) is not None


PersonAnswer = tuple[int, AnswerIn]
"""A person and an answer."""
_Job = tuple[Sequence[PersonAnswer], "Future[frozenset[str]]"]


class AnswerWriter:
    """Thread that writes all waiting answers in one transaction: a hundred annotators cost a few commits per second."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Earlier programs may have left answers uncounted, so the first answer is counted at once.
        self._uncounted = STORE_EVERY
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def save(self, person: int, answers: Sequence[AnswerIn]) -> "Future[frozenset[str]]":
        """Queue answers of a person; the result is the ids of those that are on disk.

        An answer to a task of another person is not written. The future raises UnavailableError if the
        database can't be written.
        """
        done: Future[frozenset[str]] = Future()
        self._jobs.put(([(person, answer) for answer in answers], done))
        return done

    def close(self) -> None:
        """Write the waiting answers and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        for job in iter(self._jobs.get, None):
            jobs = [job]
            while sum(len(answers) for answers, _ in jobs) < MAX_ANSWERS_PER_COMMIT and not self._jobs.empty():
                next_job = self._jobs.get()
                if next_job is None:
                    # The end of the loop above comes after this transaction.
                    self._jobs.put(None)
                    break
                jobs.append(next_job)
            self._write(jobs)

    def _write(self, jobs: Sequence[_Job]) -> None:
        try:
            with self.store.write() as connection:
                saved = save_answers(connection, [answer for answers, _ in jobs for answer in answers])
        except (SQLAlchemyError, UnavailableError) as error:
            for _, done in jobs:
                done.set_exception(UnavailableError(f"answers can't be written: {error}"))
            return
        for answers, done in jobs:
            done.set_result(frozenset(answer.id for person, answer in answers if (person, answer.id) in saved))
        self._uncounted += len(saved)
        if self._uncounted >= STORE_EVERY:
            self._uncounted = 0
            # The status counts what is not counted here.
            with suppress(SQLAlchemyError, UnavailableError):
                count(self.store)


def save_answers(
    connection: Connection, answers: Sequence[PersonAnswer], times: Mapping[str, float] | None = None
) -> set[tuple[int, str]]:
    """Add new answers and return person and id of all of these answers that are in the database now.

    Args:
        answers: Answers with their people; those to tasks of another person are not added.
        times: When answers were given, seconds since 1970, by id; None, and for others: now.
    """
    tasks = t.tasks.c
    rows = t.answers.c
    of_tasks = select(tasks.id, tasks.person_id).where(tasks.id.in_({answer.task for _, answer in answers}))
    person_of_task = {row.id: row.person_id for row in connection.execute(of_tasks)}
    of_ids = rows.client_id.in_({answer.id for _, answer in answers})
    of_people = rows.person_id.in_({person for person, _ in answers})
    existing = connection.execute(select(rows.person_id, rows.client_id).where(of_ids, of_people))
    saved = {(row.person_id, row.client_id) for row in existing}
    fresh: dict[tuple[int, str], AnswerIn] = {}
    for person, answer in answers:
        if (person, answer.id) not in saved and person_of_task.get(answer.task) == person:
            fresh.setdefault((person, answer.id), answer)
    if fresh:
        now = time.time()
        values = [
            {"person_id": person, "task_id": answer.task, "client_id": answer.id, "label": answer.label}
            | {"seconds": answer.seconds, "at": (times or {}).get(answer.id, now)}
            for (person, _), answer in fresh.items()
        ]
        added = connection.execute(insert(t.answers).returning(rows.id, rows.person_id, rows.client_id), values)
        details = [(row.id, fresh[row.person_id, row.client_id].details()) for row in added]
        contents = [{"answer_id": number, "content": json.dumps(content)} for number, content in details if content]
        if contents:
            connection.execute(insert(t.details), contents)
    return saved | fresh.keys()
