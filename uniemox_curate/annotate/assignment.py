"""Assignment of images to annotators: order, attention checks, and suggestions of a model."""

import hashlib
import heapq
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select

from uniemox.io import Progress, in_parts, silent
from uniemox_curate import tables as t
from uniemox_curate.decisions import LEFT_OUT, last_batch, pool
from uniemox_curate.project import SKIP, Project
from uniemox_curate.scoring import IMAGES_PER_PREDICTION, samples_of, scorer
from uniemox_curate.store import put_setting

# Number of tasks that are assigned at a time.
BLOCK = 60
# Time after a request for which no image was left, until the pool is searched again for this person.
PAUSE_S = 5
# Time that an image waits for an annotator it was assigned to.
RESERVED_S = 2 * 3600


class TaskAssigner:
    """Assigns tasks: each annotator has their own order, and nobody sees an image twice."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._pool: frozenset[int] = frozenset()
        self._pool_batch = -1
        self._lock = threading.Lock()
        self._turns: dict[int, threading.Lock] = {}
        self._nothing_until: dict[int, tuple[int, float]] = {}

    def pool(self, connection: Connection) -> frozenset[int]:
        """Return the images in the pool, cached until the next batch of decisions."""
        newest = last_batch(connection)
        with self._lock:
            if newest != self._pool_batch:
                self._pool = frozenset(connection.scalars(pool()))
                self._pool_batch = newest
            return self._pool

    def next_tasks(self, person: int, after: int, limit: int) -> list[Any]:
        """Return the next unanswered tasks with a number above `after`; if too few, assign a block of new ones.

        Nobody has more than three blocks of unanswered tasks. Tasks have id, picture_id, or check_label (asked for by
        an attention check), and suggestion (of a model).
        """
        tasks = self._open_tasks(person, after, limit)
        if len(tasks) < limit and self._assign_in_turn(person):
            tasks = self._open_tasks(person, after, limit)
        return tasks

    def _assign_in_turn(self, person: int) -> bool:
        """Assign a block as `_assign`, one request of a person at a time; after a failure not for a few seconds."""
        with self._turns.setdefault(person, threading.Lock()):
            with self.project.store.read() as connection:
                newest = last_batch(connection)
            batch, until = self._nothing_until.get(person, (-1, 0.0))
            has_enough = len(self._open_tasks(person, 0, 2 * BLOCK)) == 2 * BLOCK
            if has_enough or (batch == newest and time.monotonic() < until):
                return False
            is_assigned = self._assign(person)
            if not is_assigned:
                self._nothing_until[person] = newest, time.monotonic() + PAUSE_S
            return is_assigned

    def count(self, person: int) -> tuple[int, int]:
        """Return the number of images that a person has answered, and the number of images in the pool."""
        answered = (
            select(func.count(func.distinct(t.tasks.c.id)))
            .join(t.answers, t.answers.c.task_id == t.tasks.c.id)
            .where(t.tasks.c.person_id == person, t.tasks.c.picture_id.is_not(None))
        )
        with self.project.store.read() as connection:
            return int(connection.scalar(answered) or 0), len(self.pool(connection))

    def task_of(self, person: int, task: int) -> Any:
        """Return one of a person's own tasks; None if there is none, or its image may not be shown any more."""
        query = select(t.tasks).where(t.tasks.c.id == task, t.tasks.c.person_id == person)
        with self.project.store.read() as connection:
            return next(self._allowed(connection, connection.execute(query)), None)

    def suggestions(self, person: int, claims: Mapping[int, str]) -> dict[int, str]:
        """Return the label suggested for each task. The page's claims count only if suggestions were withdrawn."""
        query = select(t.tasks.c.id, t.suggestions.c.label).join(
            t.suggestions, t.suggestions.c.picture_id == t.tasks.c.picture_id
        )
        rows = self.project.rows(query.where(t.tasks.c.person_id == person, t.tasks.c.id.in_(claims)))
        withdrawn = claims if self.project.store.setting("suggested by") else {}
        return {**withdrawn, **{row.id: row.label for row in rows}}

    def own_answers(self, person: int, limit: int) -> list[dict[str, Any]]:
        """Return a person's last answers, the newest first: task, label and details."""
        query = select(t.answers.c.task_id, t.answers.c.label, t.details.c.content)
        query = query.outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        query = query.where(t.answers.c.person_id == person).order_by(t.answers.c.id.desc()).limit(limit)
        rows = self.project.rows(query)
        return [{"task": row.task_id, "label": row.label, "details": json.loads(row.content or "{}")} for row in rows]

    def _open_tasks(self, person: int, after: int, limit: int) -> list[Any]:
        query = (
            select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label, t.suggestions.c.label.label("suggestion"))
            .outerjoin(t.answers, t.answers.c.task_id == t.tasks.c.id)
            .outerjoin(t.suggestions, t.suggestions.c.picture_id == t.tasks.c.picture_id)
            .where(t.tasks.c.person_id == person, t.tasks.c.id > after, t.answers.c.id.is_(None))
            .order_by(t.tasks.c.id)
        )
        with self.project.store.read() as connection:
            return list(islice(self._allowed(connection, connection.execute(query)), limit))

    def _allowed(self, connection: Connection, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield the tasks whose image may be shown, and attention checks."""
        images = self.pool(connection)
        return (row for row in tasks if row.picture_id is None or row.picture_id in images)

    def _assign(self, person: int) -> bool:
        """Assign a block of tasks; return False if nothing is left for this person."""
        plan = self.project.plan
        limit = plan.answers_per_picture
        labels = plan.labels
        check_every = plan.check_every

        def may_take(image: int) -> bool:
            return image not in assigned and (limit is None or counts.get(image, 0) < limit)

        with self.project.store.read() as connection:
            assigned = set(connection.scalars(select(t.tasks.c.picture_id).where(t.tasks.c.person_id == person)))
            counts = {} if limit is None else _count_annotators(connection)
            available = [image for image in self.pool(connection) if may_take(image)]
        # With a limit, some of the chosen images may be assigned to others meanwhile.
        size = BLOCK if limit is None else 4 * BLOCK
        # Images that others have begun come first, so that they are complete soon.
        chosen = heapq.nsmallest(size, available, key=lambda image: (-counts.get(image, 0), _order(person, image)))
        # The transaction is short, because answers wait for it; all is checked again for the chosen images.
        with self.project.store.write() as connection:
            of_person = (t.tasks.c.person_id == person) & t.tasks.c.picture_id.in_(chosen)
            assigned = set(connection.scalars(select(t.tasks.c.picture_id).where(of_person)))
            counts = {} if limit is None else _count_annotators(connection, chosen)
            rows = list[dict[str, object]]()
            for image in list(filter(may_take, chosen))[:BLOCK]:
                draw = int.from_bytes(_order(person, -image))
                # An attention check about every `check_every` images, at random places.
                if check_every and draw % check_every == 0:
                    rows.append({"picture_id": None, "check_label": labels[draw // check_every % len(labels)]})
                rows.append({"picture_id": image, "check_label": None})
            if rows:
                common = {"person_id": person, "given_at": time.time()}
                connection.execute(insert(t.tasks), [{**common, **row} for row in rows])
        return bool(chosen)


def _count_annotators(connection: Connection, images: Sequence[int] | None = None) -> dict[int, int]:
    """Count the annotators who answered each image or were just assigned it.

    Args:
        images: Images to count for; None: all.
    """
    now = time.time()
    # Times later than that come from a clock that was wrong.
    is_reserved = t.tasks.c.given_at.between(now - RESERVED_S, now + RESERVED_S)
    query = (
        select(t.tasks.c.picture_id, func.count(func.distinct(t.tasks.c.person_id)).label("n"))
        .join(t.people, t.people.c.id == t.tasks.c.person_id)
        .outerjoin(t.answers, t.answers.c.task_id == t.tasks.c.id)
        .where(t.tasks.c.picture_id.is_not(None), t.people.c.name.not_in(LEFT_OUT))
        .where(or_(t.answers.c.label != SKIP, t.answers.c.id.is_(None) & is_reserved))
        .group_by(t.tasks.c.picture_id)
    )
    if images is not None:
        query = query.where(t.tasks.c.picture_id.in_(images))
    return {row.picture_id: row.n for row in connection.execute(query)}


def _order(person: int, image: int) -> bytes:
    """Return a sort key that differs for each annotator, so that order and neighbours reveal nothing."""
    return hashlib.blake2b(f"{person} {image}".encode(), digest_size=8).digest()


def suggest(project: Project, model: str, progress: Progress = silent) -> int:
    """Show annotators the most probable label of every image in the pool; return the number of suggestions.

    Args:
        model: Name of the model, as `uniemox.load` takes it.

    Raises:
        ConfigError: If the model does not know all labels of the plan.
    """
    score = scorer(model, project.plan.label_set, needs_all=True)
    rows = project.rows(select(t.images).where(t.images.c.id.in_(pool())).order_by(t.images.c.id))
    forget(project)
    count = 0
    models = sorted({*suggested_by(project), model})
    for part in in_parts(rows, IMAGES_PER_PREDICTION, "predicting", progress):
        values = []
        for row, shares in zip(part, score(samples_of(project, part)), strict=True):
            plan_shares = {label: share for label, share in (shares or {}).items() if label in project.plan.labels}
            if plan_shares:
                label = max(plan_shares, key=plan_shares.__getitem__)
                values.append({"picture_id": row.id, "label": label, "share": plan_shares[label]})
        if values:
            with project.store.write() as connection:
                put_setting(connection, "suggested by", models)
                connection.execute(insert(t.suggestions), values)
        count += len(values)
    return count


def forget(project: Project) -> None:
    """Stop showing suggestions; answers keep those that their annotators saw."""
    with project.store.write() as connection:
        connection.execute(t.suggestions.delete())


def suggested_by(project: Project) -> list[str]:
    """Return the names of all models whose suggestions were ever shown."""
    models: list[str] = project.store.setting("suggested by") or []
    return models
