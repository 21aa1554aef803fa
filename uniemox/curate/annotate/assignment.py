"""Which images an annotator sees, and in which order; attention checks among them."""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from uniemox.curate import tables as t
from uniemox.curate.project import Project
from uniemox.curate.store import SKIP, decisions, last_batch, left_out, taken_down

BLOCK = 60  # tasks that are given at once
RESERVED_S = 2 * 3600  # how long an image waits for an annotator who was given it
_TASK = select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label).where(
    t.tasks.c.id == bindparam("task"), t.tasks.c.person_id == bindparam("person")
)


@dataclass(frozen=True, slots=True)
class Task:
    """What an annotator is shown next."""

    id: int
    picture: int | None
    check_label: str | None
    """The label that the image itself asks for, in an attention check."""
    suggestion: str | None = None
    """What the model says that the owner has named."""


class TaskAssigner:
    """Gives tasks out: each annotator has an order of their own, and nobody sees an image twice."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._pool: frozenset[int] = frozenset()
        self._pool_of = -1
        self._lock = threading.Lock()

    def pool(self, connection: Connection) -> frozenset[int]:
        """Images that passed the screen and were not taken down."""
        newest = last_batch(connection)
        with self._lock:
            if newest != self._pool_of:
                self._pool, self._pool_of = pool(connection), newest
            return self._pool

    def next_tasks(self, person: int, after: int, limit: int) -> list[Task]:
        """The next unanswered tasks with a number above `after`; new ones are given if there are too few."""
        with self.project.store.read() as connection:
            found = self._open_tasks(connection, person, after, limit)
        while len(found) < limit and self._give(person):
            with self.project.store.read() as connection:
                found = self._open_tasks(connection, person, after, limit)
        return found

    def count(self, person: int) -> tuple[int, int]:
        """How many images somebody has answered, and how many there are to see for them at most."""
        answered = (
            select(func.count(func.distinct(t.tasks.c.id)))
            .join(t.answers, t.answers.c.task_id == t.tasks.c.id)
            .where(t.tasks.c.person_id == person, t.tasks.c.picture_id.is_not(None))
        )
        with self.project.store.read() as connection:
            return int(connection.scalar(answered) or 0), len(self.pool(connection))

    def task_of(self, person: int, task: int) -> Task | None:
        """One of somebody's own tasks, if its image may still be shown."""
        with self.project.store.read() as connection:
            row = connection.execute(_TASK, {"task": task, "person": person}).first()
            if row is None or (row.picture_id is not None and row.picture_id not in self.pool(connection)):
                return None
        return Task(row.id, row.picture_id, row.check_label)

    def suggestions(self, person: int, claims: Mapping[int, str]) -> dict[int, str]:
        """What was suggested for somebody's tasks; claims, by task, count only where suggestions were withdrawn."""
        query = select(t.tasks.c.id, t.suggestions.c.label).join(
            t.suggestions, t.suggestions.c.picture_id == t.tasks.c.picture_id
        )
        rows = self.project.rows(query.where(t.tasks.c.person_id == person, t.tasks.c.id.in_(claims)))
        withdrawn = claims if self.project.store.setting("suggested by") else {}
        return {**withdrawn, **{row.id: row.label for row in rows}}

    def own_answers(self, person: int, limit: int) -> list[dict[str, Any]]:
        """Somebody's last answers, the newest first: task, label and details."""
        query = select(t.answers.c.task_id, t.answers.c.label, t.details.c.content)
        query = query.outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        query = query.where(t.answers.c.person_id == person).order_by(t.answers.c.id.desc()).limit(limit)
        rows = self.project.rows(query)
        return [{"task": row.task_id, "label": row.label, "details": json.loads(row.content or "{}")} for row in rows]

    def _open_tasks(self, connection: Connection, person: int, after: int, limit: int) -> list[Task]:
        query = (
            select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label, t.suggestions.c.label)
            .outerjoin(t.answers, t.answers.c.task_id == t.tasks.c.id)
            .outerjoin(t.suggestions, t.suggestions.c.picture_id == t.tasks.c.picture_id)
            .where(t.tasks.c.person_id == person, t.tasks.c.id > after, t.answers.c.id.is_(None))
            .order_by(t.tasks.c.id)
        )
        allowed = self.pool(connection)
        found: list[Task] = []
        for row in connection.execute(query):
            if row.picture_id is None or row.picture_id in allowed:
                found.append(Task(row.id, row.picture_id, row.check_label, row.label))
            if len(found) == limit:
                break
        return found

    def _give(self, person: int) -> bool:
        """Give a block of tasks out; False if nothing is left for this person."""
        plan = self.project.plan
        limit = plan.answers_per_picture
        with self.project.store.read() as connection:
            mine = set(connection.scalars(select(t.tasks.c.picture_id).where(t.tasks.c.person_id == person)))
            taken = {} if limit is None else _taken(connection)
            left = [p for p in self.pool(connection) if p not in mine and (limit is None or taken.get(p, 0) < limit)]
        left.sort(key=lambda image: (-taken.get(image, 0), _order(person, image)))
        chosen = left[: BLOCK if limit is None else 4 * BLOCK]  # some may be given to others meanwhile
        with self.project.store.write() as connection:  # short, because whoever answers waits for it
            own = (t.tasks.c.person_id == person) & t.tasks.c.picture_id.in_(chosen)
            mine = set(connection.scalars(select(t.tasks.c.picture_id).where(own)))
            taken = {} if limit is None else _taken(connection, chosen)
            fit = [p for p in chosen if p not in mine and (limit is None or taken.get(p, 0) < limit)]
            rows = _with_checks(person, fit[:BLOCK], plan.labels, plan.check_every)
            if rows:
                common = {"person_id": person, "given_at": time.time()}
                connection.execute(insert(t.tasks), [{**common, **row} for row in rows])
        return bool(chosen)


def pool(connection: Connection) -> frozenset[int]:
    """Images that passed the screen and were not taken down."""
    taken = taken_down(connection)
    return frozenset(
        image
        for image, decision in decisions(connection, "screen").items()
        if decision.value == "keep" and image not in taken
    )


def _taken(connection: Connection, among: Sequence[int] | None = None) -> dict[int, int]:
    """How many annotators have answered an image or were just given it. among: None looks at all images."""
    is_reserved = t.tasks.c.given_at > time.time() - RESERVED_S
    query = (
        select(t.tasks.c.picture_id, func.count(func.distinct(t.tasks.c.person_id)).label("n"))
        .join(t.people, t.people.c.id == t.tasks.c.person_id)
        .outerjoin(t.answers, t.answers.c.task_id == t.tasks.c.id)
        .where(t.tasks.c.picture_id.is_not(None), t.people.c.name.not_in(sorted(left_out(connection))))
        .where(or_(t.answers.c.label != SKIP, t.answers.c.id.is_(None) & is_reserved))
        .group_by(t.tasks.c.picture_id)
    )
    if among is not None:
        query = query.where(t.tasks.c.picture_id.in_(among))
    return {row.picture_id: row.n for row in connection.execute(query)}


def _with_checks(person: int, images: Sequence[int], labels: Sequence[str], every: int) -> list[dict[str, object]]:
    """Tasks of these images, with an attention check about every so many, at no fixed place."""
    rows: list[dict[str, object]] = []
    for image in images:
        drawn = int.from_bytes(_order(person, -image))
        if every and drawn % every == 0:
            rows.append({"picture_id": None, "check_label": labels[drawn // every % len(labels)]})
        rows.append({"picture_id": image, "check_label": None})
    return rows


def _order(person: int, image: int) -> bytes:
    """Mixes the labels, differently for each annotator, so that neither order nor neighbours tell anything."""
    return hashlib.blake2b(f"{person} {image}".encode(), digest_size=8).digest()
