"""The database of a project: short transactions, and decisions that are appended, so that each can be undone."""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from uniemox.curate import tables as t
from uniemox.errors import ConfigError, DataError

CONNECTIONS = 40  # as many as the web application has threads: those beyond are opened and closed at each use
BUSY_S = 30  # how long a writer waits for another one
LEAVE_OUT = "leave out"  # the step of a batch that is about an annotator
NONE, SKIP = "none", "skip"  # answers: no label fits; none is given, for a reason
_LAST_BATCH = select(func.max(t.batches.c.id))


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about one image."""

    picture: int
    field: str
    """screen, style, verdict or taken."""
    value: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds for an image and a field now."""

    value: str
    reason: str
    batch: int


class Store:
    """A database with the tables of a project.

    address: of SQLAlchemy, such as sqlite:///project/project.db. The tables are made if there are none.
    Raises ConfigError for an address that can't be used, DataError for a database of another version.
    """

    def __init__(self, address: str) -> None:
        try:
            url = make_url(address)
            self.engine = create_engine(url, pool_size=CONNECTIONS)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigError(f"{address!r} is no database address that can be used ({error})") from error
        if url.get_backend_name() == "sqlite":
            _tune_sqlite(self.engine)
        self._turn = threading.Lock()  # SQLite lets those who find it locked sleep, for up to 100 ms at a time
        self._writing = self.engine.execution_options(writes=True)
        try:
            self._prepare()
        except DBAPIError as error:
            raise DataError(f"{address}: not a database that can be used ({error.orig})") from error

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all or nothing; one writer at a time, and it must be short."""
        with self._turn, self._writing.begin() as connection:
            yield connection

    def setting(self, name: str) -> Any:
        """A setting's value; None if it was never set."""
        with self.read() as connection:
            text = connection.scalar(select(t.settings.c.value).where(t.settings.c.name == name))
        return None if text is None else json.loads(text)

    def set(self, name: str, value: Any) -> None:
        """Keep a setting, any JSON value."""
        with self.write() as connection:
            put_setting(connection, name, value)

    def _prepare(self) -> None:
        if not inspect(self.engine).has_table("settings"):
            with self.write() as connection:
                t.metadata.create_all(connection)
                if not connection.scalar(select(func.count()).select_from(t.settings)):
                    put_setting(connection, "schema", t.SCHEMA)
        elif not inspect(self.engine).has_table(t.LATER[-1].name):
            with self.write() as connection:
                t.metadata.create_all(connection, tables=t.LATER)
        found = self.setting("schema")
        if found != t.SCHEMA:
            raise DataError(
                f"{self.engine.url}: its tables are of version {found}, this uniemox knows {t.SCHEMA}; "
                "use the version of uniemox that made it"
            )


def put_setting(connection: Connection, name: str, value: Any) -> None:
    """Keep a setting within a transaction."""
    connection.execute(t.settings.delete().where(t.settings.c.name == name))
    connection.execute(insert(t.settings).values(name=name, value=json.dumps(value)))


def append(connection: Connection, *, actor: str, step: str, note: str, changes: Iterable[Change]) -> int | None:
    """Write decisions down as one batch and return its number; None, and nothing is written, if there are none."""
    rows = [{"picture_id": c.picture, "field": c.field, "value": c.value, "reason": c.reason} for c in changes]
    if not rows:
        return None
    batch = _new_batch(connection, actor=actor, step=step, note=note)
    connection.execute(insert(t.events), [{**row, "batch_id": batch} for row in rows])
    return batch


def leave_out(connection: Connection, name: str, *, actor: str) -> int:
    """Count an annotator's answers no more, by a batch that can be undone. Raises DataError if nobody has that name."""
    if connection.scalar(select(t.people.c.id).where(t.people.c.name == name)) is None:
        raise DataError(f"nobody named {name!r} was invited; uniemox curate status lists who was")
    return _new_batch(connection, actor=actor, step=LEAVE_OUT, note=name)


def left_out(connection: Connection) -> set[str]:
    """Names of annotators whose answers do not count."""
    rows = connection.execute(select(t.batches.c.id, t.batches.c.note).where(t.batches.c.step == LEAVE_OUT))
    gone = undone(connection)
    return {row.note for row in rows if row.id not in gone}


def undo(connection: Connection, batch: int, *, actor: str) -> int:
    """Take a batch back, by another one that can be taken back too. Raises DataError for a number that is none."""
    row = connection.execute(select(t.batches.c.step, t.batches.c.note).where(t.batches.c.id == batch)).first()
    if row is None:
        raise DataError(f"there is no batch {batch} to undo; uniemox curate status lists them")
    if batch in undone(connection):
        raise DataError(f"batch {batch} is undone already; undo what undid it, to have it back")
    return _new_batch(connection, actor=actor, step="undo", note=f"{row.step} {batch}: {row.note}", undoes=batch)


def undone(connection: Connection) -> set[int]:
    """Batches that do not hold: those that a batch undoes which itself holds."""
    rows = connection.execute(
        select(t.batches.c.id, t.batches.c.undoes)
        .where(t.batches.c.undoes.is_not(None))
        .order_by(t.batches.c.id.desc())
    )
    gone: set[int] = set()
    for row in rows:
        if row.id not in gone:
            gone.add(row.undoes)
    return gone


def decisions(connection: Connection, field: str) -> dict[int, Decision]:
    """What holds for a field now, by image: the last decision that was not undone."""
    newest = (
        select(func.max(t.events.c.id).label("id"))
        .where(t.events.c.field == field, t.events.c.batch_id.not_in(sorted(undone(connection))))
        .group_by(t.events.c.picture_id)
        .subquery()
    )
    rows = connection.execute(
        select(t.events.c.picture_id, t.events.c.value, t.events.c.reason, t.events.c.batch_id).join(
            newest, newest.c.id == t.events.c.id
        )
    )
    return {row.picture_id: Decision(row.value, row.reason, row.batch_id) for row in rows}


def taken_down(connection: Connection) -> set[int]:
    """Images that were taken down: no step may use them."""
    return {image for image, one in decisions(connection, "taken").items() if one.value == "yes"}


def last_batch(connection: Connection) -> int:
    """The number of the newest batch, 0 without any: what was derived from decisions holds until it changes."""
    return connection.scalar(_LAST_BATCH) or 0


def history(connection: Connection, limit: int) -> list[Mapping[str, Any]]:
    """The newest batches first: id, at, actor, step, note, changes, is_undone."""
    gone = undone(connection)
    counts = select(t.events.c.batch_id, func.count().label("changes")).group_by(t.events.c.batch_id).subquery()
    rows = connection.execute(
        select(t.batches, func.coalesce(counts.c.changes, 0).label("changes"))
        .outerjoin(counts, counts.c.batch_id == t.batches.c.id)
        .order_by(t.batches.c.id.desc())
        .limit(limit)
    ).mappings()
    return [{**row, "is_undone": row["id"] in gone} for row in rows]


def _new_batch(connection: Connection, **values: Any) -> int:
    result = connection.execute(insert(t.batches).values(at=time.time(), **values))
    key = result.inserted_primary_key
    assert key is not None, "a table with a key gives it"
    return int(key[0])


def _tune_sqlite(engine: Engine) -> None:
    """Write-ahead log, every commit on disk, and writers that queue instead of failing half-way."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # so that the line below says when a transaction begins
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_S * 1000}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
