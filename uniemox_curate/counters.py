"""Counts of answers and decisions, kept in the database so that the status of a large project needs seconds.

Answers, tasks and decisions are never changed or deleted. Kept counts therefore stay true for the answers and decisions
that they count, and only newer answers are added to them. After a new decision, images are counted again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, case, func, select

from uniemox.errors import DataError, UnavailableError
from uniemox.io import check_json
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import LAST_ANSWERS, counted_answers
from uniemox_curate.project import LEFT_OUT, SKIP, Project, current, pool, taken_down

# Name of the setting with the counts.
SETTING = "counts"
# Minimum number of answers of a project whose counts are kept; fewer are counted in no time.
MIN_KEPT = 50_000
# Maximum number of new answers that are added to the counts; more are counted together with all others.
MAX_ADDED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTime:
    """Number of answers of one person, of one kind, that took the same time."""

    person: int
    kind: str
    """passed, missed (attention checks), skipped or answered."""
    tenths: float
    """Time in tenths of a second."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of a project."""

    newest_answer: int = 0
    """Number of the newest counted answer."""
    answers: int = 0
    """Number of counted answers, including replaced ones."""
    newest_batch: int = 0
    """Number of the newest counted batch of decisions."""
    batches: int = 0
    """Number of counted batches."""
    answered_twice: int = 0
    """Number of images with answers that count of two people or more."""
    disputed: int = 0
    """Number of images on which people disagree and the owner has not decided."""
    kept: int = 0
    """Number of images that passed the screen and were not taken down."""
    taken_down: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of images that the screen dropped, by reason, the most frequent first."""
    styles: dict[str, int] = field(default_factory=dict)
    """Number of images by style, the most frequent first."""
    times: tuple[AnswerTime, ...] = ()
    """Number of answers by person, kind and time."""


def count(project: Project) -> Counts:
    """Return the counts of a project; a large project keeps them."""
    kept_counts = _read(project)
    with project.store.read() as connection:
        newest = connection.scalar(select(func.max(t.answers.c.id))) or 0
        answers = connection.scalar(select(func.count()).select_from(t.answers)) or 0
        newest_batch, batches = connection.execute(select(func.max(t.batches.c.id), func.count())).one()
        counts = replace(kept_counts, newest_batch=newest_batch or 0, batches=batches)
        has_decided = counts != kept_counts
        if has_decided:
            counts = _count_decisions(connection, counts)

        before = kept_counts.newest_answer
        added = connection.scalar(select(func.count()).where(t.answers.c.id > before)) or 0
        # A database that many programs write may show an answer after one with a larger number.
        has_all = kept_counts.answers + added == answers
        can_add = has_all and kept_counts.answers > 0 and added <= MAX_ADDED
        counts = replace(counts, newest_answer=newest, answers=answers)
        if not can_add:
            counts = replace(counts, times=_all_times(connection))
        elif added:
            counts = replace(counts, times=_add_times(connection, counts.times, before))
        if has_decided or not can_add:
            counts = _count_images(connection, counts)
        elif added:
            counts = _add_images(connection, counts, before)
    if answers >= MIN_KEPT and counts != kept_counts:
        # A database that can't be written now is counted again the next time.
        with suppress(UnavailableError):
            project.store.set(SETTING, asdict(counts))
    return counts


def _read(project: Project) -> Counts:
    """Return the kept counts, or counts of nothing if there are none that can be used."""
    saved = project.store.setting(SETTING)
    try:
        return Counts() if saved is None else check_json(saved, Counts, "counts", remedy="they are counted again")
    except DataError:
        return Counts()


def _count_decisions(connection: Connection, counts: Counts) -> Counts:
    """Return the counts with those of the screen."""
    screened = current("screen").c
    is_dropped = (screened.value == "drop") & screened.picture_id.not_in(taken_down())
    rows = connection.execute(select(screened.reason).where(is_dropped))
    reasons = Counter(row.reason.split(":")[0] for row in rows)
    styles = current("style").c
    tagged = select(styles.value, func.count().label("n")).where(styles.value != "").group_by(styles.value)
    return replace(
        counts,
        kept=connection.scalar(select(func.count()).select_from(pool().subquery())) or 0,
        taken_down=connection.scalar(select(func.count()).select_from(taken_down().subquery())) or 0,
        dropped=dict(reasons.most_common()),
        styles={row.value: row.n for row in connection.execute(tagged.order_by(func.count().desc()))},
    )


def _count_images(connection: Connection, counts: Counts) -> Counts:
    """Return the counts with those of answered images."""
    judged = select(current("verdict").c.picture_id)
    answers = counted_answers().subquery().c
    differ = func.min(answers.label) != func.max(answers.label)
    images = select(answers.picture_id, func.count().label("n"), differ.label("differ")).group_by(answers.picture_id)
    image = images.subquery().c
    twice = func.count().filter(image.n >= 2)
    # The number of rows of `verdicts.disputed`, in the same pass over all answers.
    disputed = func.count().filter(image.differ, image.picture_id.not_in(judged))
    answered_twice, disputed_count = connection.execute(select(twice, disputed)).one()
    return replace(counts, answered_twice=answered_twice, disputed=disputed_count)


def _add_images(connection: Connection, counts: Counts, before: int) -> Counts:
    """Return the counts with the images of new answers as they are now, instead of as they were.

    Args:
        connection: Connection to the database.
        counts: Counts of all other images and of the earlier answers to these.
        before: Number of the newest answer that is counted.
    """
    tasks = t.tasks.c
    new_tasks = select(t.answers.c.task_id).where(t.answers.c.id > before)
    images = select(tasks.picture_id).where(tasks.id.in_(new_tasks), tasks.picture_id.is_not(None))
    verdict = current("verdict").c
    judged = set(connection.scalars(select(verdict.picture_id).where(verdict.picture_id.in_(images))))
    query = (
        select(t.answers.c.id, t.answers.c.task_id, t.answers.c.label, tasks.picture_id)
        .join(t.tasks, tasks.id == t.answers.c.task_id)
        .join(t.people, t.people.c.id == t.answers.c.person_id)
        .where(tasks.picture_id.in_(images), tasks.picture_id.in_(pool()), t.people.c.name.not_in(LEFT_OUT))
    )
    rows = list(connection.execute(query.order_by(t.answers.c.id)))
    twice = counts.answered_twice
    disputed = counts.disputed
    for sign, part in ((-1, [row for row in rows if row.id <= before]), (1, rows)):
        for image, labels in _labels_by_image(part).items():
            twice += sign * (len(labels) >= 2)
            disputed += sign * (len(set(labels)) > 1 and image not in judged)
    return replace(counts, answered_twice=twice, disputed=disputed)


def _labels_by_image(rows: Iterable[Any]) -> Mapping[int, list[str]]:
    """Return the labels of the last answers to each image, without skipped ones.

    Args:
        rows: Answers, the oldest first.
    """
    labels: dict[int, list[str]] = defaultdict(list)
    for row in {row.task_id: row for row in rows}.values():
        if row.label != SKIP:
            labels[row.picture_id].append(row.label)
    return labels


# Columns of an answer as its person's times count it.
_KIND = case(
    (t.answers.c.label == t.tasks.c.check_label, "passed"),
    (t.tasks.c.check_label.is_not(None), "missed"),
    (t.answers.c.label == SKIP, "skipped"),
    else_="answered",
).label("kind")
_TENTHS = func.round(10 * t.answers.c.seconds).label("tenths")
_PERSON = t.tasks.c.person_id.label("person")


def _all_times(connection: Connection) -> tuple[AnswerTime, ...]:
    query = select(_PERSON, _KIND, _TENTHS, func.count().label("n")).join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
    query = query.where(t.answers.c.id.in_(LAST_ANSWERS)).group_by(_PERSON, _KIND, _TENTHS)
    rows = connection.execute(query)
    return _as_times({(row.person, row.kind, row.tenths): row.n for row in rows})


def _add_times(connection: Connection, times: Iterable[AnswerTime], before: int) -> tuple[AnswerTime, ...]:
    """Return the times with new answers, and without answers that they replace; see `_add_images`."""
    numbers = Counter({(time.person, time.kind, time.tenths): time.count for time in times})
    new_tasks = select(t.answers.c.task_id).where(t.answers.c.id > before)
    query = select(t.answers.c.id, t.answers.c.task_id, _PERSON, _KIND, _TENTHS)
    query = query.join(t.tasks, t.tasks.c.id == t.answers.c.task_id).where(t.answers.c.task_id.in_(new_tasks))
    rows = list(connection.execute(query.order_by(t.answers.c.id)))
    replaced = {row.task_id: row for row in rows if row.id <= before}
    latest = {row.task_id: row for row in rows}
    numbers.subtract((row.person, row.kind, row.tenths) for row in replaced.values())
    numbers.update((row.person, row.kind, row.tenths) for row in latest.values())
    return _as_times(numbers)


def _as_times(numbers: Mapping[tuple[int, str, float], int]) -> tuple[AnswerTime, ...]:
    return tuple(
        AnswerTime(person=person, kind=kind, tenths=tenths, count=number)
        for (person, kind, tenths), number in sorted(numbers.items())
        if number
    )
