"""Counts of answers and decisions, stored in the database so that the status of a large project needs seconds.

Answers, tasks and decisions are never changed or deleted. Stored counts therefore stay true for the answers and
decisions that they count. Images with newer answers or decisions are subtracted as they were, and added as they are.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, CompoundSelect, Connection, case, cast, func, select, union

from uniemox.errors import DataError, UnavailableError
from uniemox.io import check_json
from uniemox_curate import tables as t
from uniemox_curate.annotate.kept_sets import KeptSet
from uniemox_curate.annotate.verdicts import LAST_ANSWERS
from uniemox_curate.decisions import LEAVE_OUT, LEFT_OUT, current, pool, taken_down, undone
from uniemox_curate.image_numbers import ImageNumbers, ImageTally
from uniemox_curate.plan import Rule
from uniemox_curate.project import SKIP
from uniemox_curate.store import Store, setting_of

# Name of the setting with the counts; another one than that of older versions, whose verdicts had other rules.
SETTING = "stored counts"
# Minimum number of answers of a project whose counts are stored; fewer are counted in no time.
MIN_STORED = 50_000
# Maximum number of new answers, and of images with new answers or decisions, that are added to the counts; more are
# counted together with all others.
MAX_ADDED = 100_000
# Maximum number of batches that were undone or restored, because databases limit the values in a statement.
MAX_SWITCHED = 1_000
# Number of answers after which a program that saves answers stores the counts.
STORE_EVERY = 20_000


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
class Basis:
    """All that decides about images beside answers and decisions; when it changes, all images are counted again."""

    rule: Rule = "both"
    """Rule of the last split or release."""
    searched: str = ""
    """Digest of the labels for which images were searched, if the rule depends on them."""


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
    answered_or_skipped: int = 0
    """Number of images that two people or more, whose answers count, answered or skipped."""
    disputed: int = 0
    """Number of images without agreement by the rule on which the owner has not decided."""
    labelled: KeptSet = field(default_factory=KeptSet)
    """Images that the rule keeps."""
    basis: Basis = field(default_factory=Basis)
    passed_screen: int = 0
    """Number of images that passed the screen and were not taken down."""
    taken_down: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of images that the screen dropped, by reason, the most frequent first."""
    styles: dict[str, int] = field(default_factory=dict)
    """Number of images by style, the most frequent first."""
    times: tuple[AnswerTime, ...] = ()
    """Number of answers by person, kind and time."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """State of a project after some answers and decisions."""

    answer: int
    """Number of the newest answer."""
    batch: int
    """Number of the newest batch of decisions."""
    undone: frozenset[int]
    """Batches that did not hold."""
    left_out: frozenset[int]
    """People whose answers did not count."""


def count(store: Store) -> Counts:
    """Return the counts of a project; a large project stores them."""
    stored_counts = _read(store)
    with store.read() as connection:
        newest = connection.scalar(select(func.max(t.answers.c.id))) or 0
        answers = connection.scalar(select(func.count()).select_from(t.answers)) or 0
        newest_batch, batches = connection.execute(select(func.max(t.batches.c.id), func.count())).one()
        counts = replace(stored_counts, newest_batch=newest_batch or 0, batches=batches)
        before = stored_counts.newest_answer
        new_answers = connection.scalar(select(func.count()).where(t.answers.c.id > before)) or 0
        new_batches = select(func.count()).where(t.batches.c.id > stored_counts.newest_batch)
        # A database that many programs write may show a row after one with a larger number.
        has_all_answers = stored_counts.answers + new_answers == answers
        has_all_batches = stored_counts.batches + (connection.scalar(new_batches) or 0) == batches
        can_add = has_all_answers and stored_counts.answers > 0 and new_answers <= MAX_ADDED
        counts = replace(counts, newest_answer=newest, answers=answers, basis=_basis(connection))
        if not can_add:
            counts = replace(counts, times=_all_times(connection))
        elif new_answers:
            counts = replace(counts, times=_add_times(connection, counts.times, before))
        added = None
        if can_add and has_all_batches and counts.basis == stored_counts.basis:
            added = _add_images(connection, stored_counts, counts)
        counts = _count_images(connection, _count_decisions(connection, counts)) if added is None else added
    if answers >= MIN_STORED and counts != stored_counts:
        # A database that can't be written now is counted again the next time.
        with suppress(UnavailableError):
            store.set(SETTING, asdict(counts))
    return counts


def _read(store: Store) -> Counts:
    """Return the stored counts, or counts of nothing if there are none that can be used."""
    saved = store.setting(SETTING)
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
        passed_screen=connection.scalar(select(func.count()).select_from(pool().subquery())) or 0,
        taken_down=connection.scalar(select(func.count()).select_from(taken_down().subquery())) or 0,
        dropped=_most_frequent_first(reasons),
        styles=_most_frequent_first({row.value: row.n for row in connection.execute(tagged)}),
    )


def _most_frequent_first(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers that are not zero, in an order that depends on nothing else."""
    return {name: numbers[name] for name in sorted(numbers, key=lambda name: (-numbers[name], name)) if numbers[name]}


def _basis(connection: Connection) -> Basis:
    """Return what decides about images now."""
    rule: Rule = setting_of(connection, "rule") or "both"
    searched = ""
    if rule == "both":
        candidates = t.candidates.c
        number = cast(candidates.picture_id, BigInteger)
        # A label that moves from some images to others changes at least one of these sums.
        sums = func.count(), func.sum(number), func.sum(number * number % 1_000_003)
        query = select(candidates.label, *sums).where(candidates.picture_id.is_not(None), candidates.label.is_not(None))
        rows = connection.execute(query.group_by(candidates.label).order_by(candidates.label))
        searched = sha256(repr([(label, *map(int, numbers)) for label, *numbers in rows]).encode()).hexdigest()
    return Basis(rule=rule, searched=searched)


def _count_images(connection: Connection, counts: Counts) -> Counts:
    """Return the counts with those of answered images."""
    left_out = select(t.people.c.id).where(t.people.c.name.in_(LEFT_OUT))
    query = (
        select(t.tasks.c.picture_id, t.answers.c.label)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .where(t.tasks.c.picture_id.in_(pool()), t.answers.c.id.in_(LAST_ANSWERS))
        .where(t.answers.c.person_id.not_in(left_out))
    )
    judged = {row.picture_id: row.value for row in connection.execute(select(current("verdict")))}
    tally = ImageTally(counts.basis.rule, _searched_labels(connection, counts.basis))
    rows = connection.execute(query.order_by(t.tasks.c.picture_id))
    for image, answers in groupby(rows, key=itemgetter(0)):
        tally.add(image, [label for _, label in answers], judged.get(image))
    without_answers = replace(counts, answered_twice=0, answered_or_skipped=0, disputed=0, labelled=KeptSet())
    return _plus(without_answers, tally.numbers)


def _searched_labels(connection: Connection, basis: Basis, images: Any = None) -> dict[int, frozenset[str]]:
    """Return the labels whose keywords found each image, for a rule that depends on them.

    Args:
        images: Query for the numbers of images; None: all.
    """
    if basis.rule != "both":
        return {}
    candidates = t.candidates.c
    query = select(candidates.picture_id, candidates.label).where(candidates.picture_id.is_not(None))
    query = query.where(candidates.label.is_not(None)).distinct()
    if images is not None:
        query = query.where(candidates.picture_id.in_(images))
    labels: dict[int, frozenset[str]] = {}
    # Most images have the same few sets, which are stored once.
    sets: dict[frozenset[str], frozenset[str]] = {}
    for image, label in connection.execute(query):
        joined = labels.get(image, frozenset()) | {label}
        labels[image] = sets.setdefault(joined, joined)
    return labels


def _plus(counts: Counts, numbers: ImageNumbers) -> Counts:
    """Return the counts with further images."""
    return replace(
        counts,
        answered_twice=counts.answered_twice + numbers.answered_twice,
        answered_or_skipped=counts.answered_or_skipped + numbers.answered_or_skipped,
        disputed=counts.disputed + numbers.disputed,
        labelled=counts.labelled.plus(numbers.labelled, numbers.fingerprint),
        passed_screen=counts.passed_screen + numbers.passed_screen,
        taken_down=counts.taken_down + numbers.taken_down,
        dropped=_most_frequent_first(_sum_by_name(counts.dropped, numbers.dropped)),
        styles=_most_frequent_first(_sum_by_name(counts.styles, numbers.styles)),
    )


def _sum_by_name(numbers: Mapping[str, int], changes: Mapping[str, int]) -> dict[str, int]:
    return {name: numbers.get(name, 0) + changes.get(name, 0) for name in numbers.keys() | changes.keys()}


def _add_images(connection: Connection, earlier: Counts, counts: Counts) -> Counts | None:
    """Return the counts with changed images as they are now, instead of as they were; None if these are too many.

    Args:
        connection: Connection to the database.
        earlier: The stored counts.
        counts: Counts whose images are the earlier ones.
    """
    before = _moment(connection, earlier)
    now = _moment(connection, counts)
    if len(before.undone ^ now.undone) > MAX_SWITCHED:
        return None
    changed = _changed_images(before, now)
    if (connection.scalar(select(func.count()).select_from(changed.subquery())) or 0) > MAX_ADDED:
        return None
    decisions, answers = _decisions_and_answers(connection, changed)
    searched = _searched_labels(connection, counts.basis, changed)
    numbers_before = _count_at(before, decisions, answers, ImageTally(counts.basis.rule, searched))
    numbers_now = _count_at(now, decisions, answers, ImageTally(counts.basis.rule, searched))
    return _plus(counts, numbers_now.minus(numbers_before))


def labelled_at(connection: Connection, images: Any, *, rule: Rule, newest_answer: int, newest_batch: int) -> KeptSet:
    """Return which of some images a rule kept at a moment.

    Args:
        connection: Connection to the database.
        images: Query for the numbers of images; each is read, so that there should be few.
        rule: Rule for keeping images.
        newest_answer: Number of the newest answer at that moment.
        newest_batch: Number of the newest batch of decisions at that moment.
    """
    moment = _moment(connection, Counts(newest_answer=newest_answer, newest_batch=newest_batch))
    searched = _searched_labels(connection, Basis(rule=rule), images)
    numbers = _count_at(moment, *_decisions_and_answers(connection, images), ImageTally(rule, searched))
    return KeptSet().plus(numbers.labelled, numbers.fingerprint)


def switched_people(connection: Connection, counts: Counts, newest_batch: int) -> frozenset[int]:
    """Return the numbers of the people whose answers count now but did not at a moment, or the reverse.

    Args:
        connection: Connection to the database.
        counts: Counts of the project.
        newest_batch: Number of the newest batch of decisions at that moment.
    """
    before = _moment(connection, replace(counts, newest_batch=newest_batch))
    return before.left_out ^ _moment(connection, counts).left_out


def _decisions_and_answers(connection: Connection, images: Any) -> tuple[list[Any], list[Any]]:
    """Return the rows of all decisions about some images, and of all answers to them, the oldest first."""
    events = t.events.c
    of_images = select(events.id, events.batch_id, events.picture_id, events.field, events.value, events.reason)
    decisions = list(connection.execute(of_images.where(events.picture_id.in_(images)).order_by(events.id)))
    rows = t.answers.c
    of_tasks = select(rows.id, rows.task_id, rows.person_id, rows.label, t.tasks.c.picture_id)
    of_tasks = of_tasks.join(t.tasks, t.tasks.c.id == rows.task_id).where(t.tasks.c.picture_id.in_(images))
    return decisions, list(connection.execute(of_tasks.order_by(rows.id)))


def _moment(connection: Connection, counts: Counts) -> _Moment:
    """Return the state that the counts describe."""
    batches = t.batches.c
    undone_batches = frozenset(connection.scalars(undone(counts.newest_batch)))
    left_out = select(batches.id, t.people.c.id.label("person")).join(t.people, t.people.c.name == batches.note)
    left_out = left_out.where(batches.step == LEAVE_OUT, batches.id <= counts.newest_batch)
    people = frozenset(row.person for row in connection.execute(left_out) if row.id not in undone_batches)
    return _Moment(counts.newest_answer, counts.newest_batch, undone_batches, people)


def _changed_images(before: _Moment, now: _Moment) -> CompoundSelect[Any]:
    """Return a query for the images that may count otherwise than before."""
    tasks = t.tasks.c
    events = t.events.c
    of_images = select(tasks.picture_id).where(tasks.picture_id.is_not(None))
    with_answers = of_images.where(tasks.id.in_(select(t.answers.c.task_id).where(t.answers.c.id > before.answer)))
    of_people = of_images.where(tasks.person_id.in_(before.left_out ^ now.left_out))
    decided = select(events.picture_id).where(events.batch_id > before.batch)
    switched = select(events.picture_id).where(events.batch_id.in_(before.undone ^ now.undone))
    return union(with_answers, of_people, decided, switched)


def _count_at(moment: _Moment, decisions: Sequence[Any], answers: Sequence[Any], tally: ImageTally) -> ImageNumbers:
    """Count images as they were at a moment.

    Args:
        moment: Decisions and answers that count.
        decisions: Rows of the events of these images, the oldest first.
        answers: Rows of the answers to these images, the oldest first.
        tally: Empty tally, which counts the images.
    """
    current_decisions = {
        (row.field, row.picture_id): row
        for row in decisions
        if row.batch_id <= moment.batch and row.batch_id not in moment.undone
    }
    numbers = tally.numbers
    taken = {image for (name, image), row in current_decisions.items() if name == "taken" and row.value == "yes"}
    passed = set()
    judged: dict[int, str] = {}
    for (name, image), row in current_decisions.items():
        if name == "verdict":
            judged[image] = row.value
        elif name == "style" and row.value:
            numbers.styles[row.value] += 1
        elif name == "screen" and image not in taken:
            if row.value == "keep":
                passed.add(image)
            elif row.value == "drop":
                numbers.dropped[row.reason.split(":")[0]] += 1
    labels: dict[int, list[str]] = defaultdict(list)
    last_answers = {row.task_id: row for row in answers if row.id <= moment.answer}
    for row in last_answers.values():
        if row.picture_id in passed and row.person_id not in moment.left_out:
            labels[row.picture_id].append(row.label)
    numbers.taken_down = len(taken)
    numbers.passed_screen = len(passed)
    for image, image_labels in labels.items():
        tally.add(image, image_labels, judged.get(image))
    return numbers


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
