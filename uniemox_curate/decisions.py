"""Decisions about images, of people and of steps: a log that only grows, in batches that can be undone."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, Subquery, func, insert, literal, select, update

from uniemox.errors import DataError
from uniemox_curate import tables as t
from uniemox_curate.project import inserted_id

# Step of a batch that excludes an annotator.
LEAVE_OUT = "leave out"


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about one image."""

    picture: int
    """Number of the image."""
    field: str
    """screen, style, verdict or taken."""
    value: str
    reason: str = ""


def append(connection: Connection, *, actor: str, step: str, note: str, changes: Iterable[Change]) -> int | None:
    """Write decisions as one batch and return its number; without decisions write nothing and return None."""
    rows = [{"picture_id": c.picture, "field": c.field, "value": c.value, "reason": c.reason} for c in changes]
    if not rows:
        return None
    batch = _new_batch(connection, actor=actor, step=step, note=note)
    connection.execute(insert(t.events), [{**row, "batch_id": batch} for row in rows])
    return batch


def person_of(connection: Connection, name: str) -> int:
    """Return the number of an invited person.

    Raises:
        DataError: For an unknown name.
    """
    number: int | None = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
    if number is None:
        raise DataError(f"nobody named {name!r} was invited; uniemox curate status lists who was")
    return number


def leave_out(connection: Connection, name: str, *, actor: str) -> int:
    """Stop counting an annotator's answers, by a batch that can be undone.

    Raises:
        DataError: For an unknown name.
    """
    person_of(connection, name)
    return _new_batch(connection, actor=actor, step=LEAVE_OUT, note=name)


def undo(connection: Connection, batch: int, *, actor: str) -> int:
    """Undo a batch by another batch, which can be undone too, and return its number.

    Raises:
        DataError: For a number that does not exist or is undone already.
    """
    query = select(t.batches.c.step, t.batches.c.note, IS_UNDONE).where(t.batches.c.id == batch)
    # Databases refuse larger numbers.
    row = connection.execute(query).first() if abs(batch) < 2**63 else None
    if row is None:
        raise DataError(f"there is no batch {batch} to undo; uniemox curate status lists them")
    if row.is_undone:
        raise DataError(f"batch {batch} is undone already; to restore it, undo the batch that undid it")
    number = _new_batch(connection, actor=actor, step="undo", note=f"{row.step} {batch}: {row.note}", undoes=batch)
    follow_takedowns(connection)
    # The undo of an undo may have taken images down again.
    connection.execute(t.looks.delete().where(t.looks.c.picture_id.in_(taken_down())))
    return number


def undone(until: int | None = None) -> Select[Any]:
    """Return a query for the batches that do not hold.

    Of several undos of a batch only the last one counts, because all others were undone. A batch is undone if the chain
    from it to its last undo, to that one's last undo, and so on, has an odd number of undos.

    Args:
        until: Number of the last batch that counts, for the state at that time; None: all.
    """
    batches = t.batches.c
    newest = select(func.max(batches.id)).where(batches.undoes.is_not(None))
    if until is not None:
        newest = newest.where(batches.id <= until)
    newest = newest.group_by(batches.undoes)
    undos = select(batches.id, batches.undoes).where(batches.id.in_(newest)).cte("undos")
    holding = undos.c.id.not_in(select(undos.c.undoes))
    chain = select(undos.c.undoes.label("id"), literal(1).label("length")).where(holding).cte("chain", recursive=True)
    longer = select(undos.c.undoes, chain.c.length + 1).join(undos, undos.c.id == chain.c.id)
    # It always is smaller, except in a stranger's database, where the chain could have no end.
    longer = longer.where(undos.c.undoes < undos.c.id)
    chain = chain.union_all(longer)
    return select(chain.c.id).where(chain.c.length % 2 == 1)


UNDONE = undone()
IS_UNDONE = t.batches.c.id.in_(UNDONE).label("is_undone")
LEFT_OUT = select(t.batches.c.note).where(t.batches.c.step == LEAVE_OUT, ~IS_UNDONE)
"""Query for the names of annotators whose answers do not count."""


def current(field: str) -> Subquery:
    """Return the current decision about a field for each image, the last one that was not undone.

    Its columns are picture_id, value, reason and batch_id.
    """
    events = t.events.c
    holds = events.field == field, events.batch_id.not_in(UNDONE)
    newest = select(func.max(events.id)).where(*holds).group_by(events.picture_id)
    return select(t.events).where(events.id.in_(newest)).subquery()


def decisions(connection: Connection, field: str) -> dict[int, Any]:
    """Return the rows of `current` by image."""
    return {row.picture_id: row for row in connection.execute(select(current(field)))}


def taken_down() -> Select[Any]:
    """Return a query for the images that were taken down; no step may use them."""
    taken = current("taken")
    return select(taken.c.picture_id).where(taken.c.value == "yes")


def pool() -> Select[Any]:
    """Return a query for the images that passed the screen and were not taken down."""
    screened = current("screen").c
    return select(screened.picture_id).where(screened.value == "keep", screened.picture_id.not_in(taken_down()))


def dropped() -> Select[Any]:
    """Return a query for the images that the screen, or a person, dropped."""
    screened = current("screen").c
    return select(screened.picture_id).where(screened.value == "drop")


def follow_takedowns(connection: Connection) -> None:
    """Queue candidates of images whose takedown was undone, and stop candidates of images that were taken down."""
    candidates = t.candidates.c
    is_free = candidates.address.not_in(select(candidates.address).where(candidates.picture_id.in_(taken_down())))
    again = update(t.candidates).where(candidates.reason == "taken down", is_free)
    connection.execute(again.values(state="waiting", reason=""))
    late = update(t.candidates).where(candidates.state == "waiting", ~is_free)
    connection.execute(late.values(state="failed", reason="taken down"))


def last_batch(connection: Connection) -> int:
    """Return the number of the newest batch, 0 without any: a cache of decisions is valid until it changes."""
    return connection.scalar(select(func.max(t.batches.c.id))) or 0


def history(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the newest batches first: id, at, actor, step, note, changes, is_undone."""
    query = select(t.batches, func.count(t.events.c.id).label("changes"), IS_UNDONE).outerjoin(t.events)
    rows = connection.execute(query.group_by(t.batches.c.id).order_by(t.batches.c.id.desc()).limit(limit))
    return [dict(row) for row in rows.mappings()]


def _new_batch(connection: Connection, **values: Any) -> int:
    return inserted_id(connection.execute(insert(t.batches).values(at=time.time(), **values)))
