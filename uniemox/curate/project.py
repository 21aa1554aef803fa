"""A project: its folder, database, and decisions, which are only appended so that each can be undone."""

import hashlib
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Subquery,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from uniemox.curate import tables as t
from uniemox.curate.plan import CollectionPlan, paper_plan, plan_of
from uniemox.errors import ConfigError, DataError, NotSavedError
from uniemox.io.files import open_regular, read_limited, refuse_special, write_file

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
SUFFIXES |= {"AVIF": "avif", "PPM": "ppm", "HEIF": "heic"}
CONNECTIONS = 40  # one per thread of the web application; further ones are opened on each use
_KEYS = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND c.pk"
_EXPRESSIONS = """
    SELECT 1 FROM sqlite_master m JOIN pragma_index_xinfo(m.name) c WHERE m.type = 'index' AND c.cid = -2
"""
# In no project:
_CODE = re.compile(r"\b(check|default(?! '')|collate|generated|as|where|virtual|on (delete|update))\b", re.IGNORECASE)
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
OPEN_S = 60  # maximum time to open a database: a damaged one may have no end
CHECKED_BYTES = 2**26  # size of a database from which a complete check takes too long; then its rows are counted
ROW_BYTES = 8  # minimum size of a row
MAX_VALUE_BYTES = 2**26  # of a value in SQLite
BUSY_S = 30  # maximum wait of a writer for another one
LEAVE_OUT = "leave out"  # step of a batch that excludes an annotator
NONE, SKIP = "none", "skip"  # answers: no label fits; skipped for a reason


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about one image."""

    picture: int
    field: str
    """screen, style, verdict or taken."""
    value: str
    reason: str = ""


class Store:
    """A database with the tables of a project; missing tables are created.

    address: an SQLAlchemy URL, such as sqlite:///project/project.db.  is_new: it may be a database without tables.
    Raises ConfigError for an unusable URL, DataError for a database of another version or of another program.
    """

    def __init__(self, address: str, *, is_new: bool = True) -> None:
        deadline = [time.monotonic() + OPEN_S]
        try:
            url = make_url(address)
            self.engine = create_engine(url, pool_size=CONNECTIONS)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigError(f"{address!r} is not a usable database address ({error})") from error
        if url.get_backend_name() == "sqlite":
            _tune_sqlite(self.engine, is_new=is_new, deadline=deadline)
        self._turn = threading.Lock()  # a writer that finds SQLite locked sleeps up to 100 ms at a time
        self._writing = self.engine.execution_options(writes=True)
        try:
            self._create_tables(is_new=is_new)
        except (DBAPIError, sqlite3.Error) as error:
            raise DataError(f"{address}: not a database that can be used ({getattr(error, 'orig', error)})") from error
        deadline.clear()

    def close(self) -> None:
        """Close all idle connections; later ones are opened again."""
        self.engine.dispose()

    def read(self) -> Connection:
        """Open a connection, for a with statement, that sees one state of the database."""
        return self.engine.connect()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction: all or nothing. Only one writer runs at a time, so keep it short.

        Raises NotSavedError if the database is read-only or locked, or the disk is full.
        """
        try:
            with self._turn, self._writing.begin() as connection:
                yield connection
        except OperationalError as error:
            if "readonly" in str(error.orig) and os.access(str(self.engine.url.database), os.W_OK):
                self.close()  # connections that were opened while it was read-only stay so
            problem = f"{self.engine.url}: can't be written ({error.orig})"
            raise NotSavedError(f"{problem}; check permissions, free space, and other programs that use it") from error

    def setting(self, name: str) -> Any:
        """Return a setting's value; None if it was never set."""
        with self.read() as connection:
            text = connection.scalar(select(t.settings.c.value).where(t.settings.c.name == name))
        return None if text is None else json.loads(text)

    def set(self, name: str, value: Any) -> None:
        """Save a setting, any JSON value."""
        with self.write() as connection:
            put_setting(connection, name, value)

    def _create_tables(self, *, is_new: bool) -> None:
        if self.engine.dialect.name == "sqlite":
            with self.read() as connection:
                _check_schema(connection, str(self.engine.url))
        names = set(inspect(self.engine).get_table_names())
        if not is_new and "settings" not in names:
            raise DataError(f"{self.engine.url}: holds no project, or creating it was interrupted")
        version = self.setting("schema") if "settings" in names else t.SCHEMA
        if version != t.SCHEMA:
            raise DataError(
                f"{self.engine.url}: its tables are of version {version}, this uniemox knows {t.SCHEMA}; "
                "use the version of uniemox that made it"
            )
        if t.metadata.tables.keys() - names:
            with self.write() as connection:
                t.metadata.create_all(connection)
                put_setting(connection, "schema", t.SCHEMA)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder and its database."""

    folder: Path
    store: Store
    plan: CollectionPlan

    def image_path(self, sha256: str, image_format: str) -> Path:
        """Return the path of an image file."""
        return self._below("pictures", sha256, SUFFIXES[image_format])

    def preview_path(self, sha256: str) -> Path:
        """Return the path of an image's preview."""
        return self._below("previews", sha256, "jpg")

    def _below(self, kind: str, sha256: str, ending: str) -> Path:
        """Return the place of an image's file. Raises DataError if it is outside of the folder."""
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise DataError(f"{self.folder}: {sha256!r} is not the sha256 of an image; the database was changed")
        path = self.folder / kind / sha256[:2] / f"{sha256}.{ending}"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"{path}: a link leads out of the project; put the file in its place")
        return path

    def keep_file(self, data: bytes, image_format: str) -> str:
        """Write an image's bytes if they are new, and return their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.image_path(sha256, image_format)
        if not path.exists():
            write_file(path, data)
        return sha256

    def rows(self, query: Any) -> list[Any]:
        """Return all rows of a query."""
        with self.store.read() as connection:
            return list(connection.execute(query))

    def count(self, query: Any) -> int:
        """Return the number of rows of a query."""
        with self.store.read() as connection:
            return connection.scalar(select(func.count()).select_from(query.subquery())) or 0


def create_project(folder: Path, plan: CollectionPlan | None = None, *, database: str | None = None) -> Project:
    """Create a project.

    plan: labels and search words; None takes the paper's.  database: an SQLAlchemy URL; None keeps it in the folder.
    Raises ConfigError if the folder holds a project already.
    """
    plan = plan or paper_plan()
    if is_project(folder):
        raise ConfigError(f"{folder} holds a project already; continue it, or name another folder")
    for name in ("project.db", "database.txt"):  # links that lead nowhere
        refuse_special(folder / name)
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        if database is not None:
            (folder / "database.txt").write_text(database + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{folder}: can't be made a project ({error.strerror})") from error
    store = Store(database or _own_address(folder))
    store.set("id", secrets.token_hex(8))
    store.set("plan", json.loads(plan.to_json()))
    return Project(folder, store, plan)


def open_project(folder: Path) -> Project:
    """Open the project in a folder. Raises DataError if there is none."""
    if not is_project(folder):
        raise DataError(f"{folder} holds no project; begin one: uniemox curate init {folder}")
    refuse_special(folder / "project.db")
    elsewhere = folder / "database.txt"
    _refuse_foreign_journal(folder / "project.db-journal")
    address = read_limited(elsewhere).decode("utf-8", "replace").strip() if elsewhere.exists() else _own_address(folder)
    store = Store(address, is_new=False)
    content = store.setting("plan")
    if content is None:
        raise DataError(f"{folder}: creating the project was interrupted; remove the folder and start again")
    return Project(folder, store, plan_of(content, str(folder)))


def _refuse_foreign_journal(path: Path) -> None:
    """Raise DataError for a journal that names a file, which SQLite would delete; uniemox writes none."""
    refuse_special(path)
    if path.exists():
        with open_regular(path) as journal:
            journal.seek(max(journal.seek(0, os.SEEK_END) - 8, 0))
            if journal.read(8) == _JOURNAL_MAGIC:
                raise DataError(f"{path}: it names another file, which SQLite would delete; remove this journal")


def is_project(folder: Path) -> bool:
    """Return True if a folder holds a project."""
    return (folder / "project.db").exists() or (folder / "database.txt").exists()


def searched_labels(project: Project, images: Sequence[int] | None = None) -> dict[int, set[str]]:
    """Return the labels whose keywords found each image, by image.  images: None for all."""
    candidates = t.candidates.c
    query = select(candidates.picture_id, candidates.label).where(candidates.picture_id.is_not(None)).distinct()
    if images is not None:
        query = query.where(candidates.picture_id.in_(images))
    labels: dict[int, set[str]] = defaultdict(set)
    for row in project.rows(query.where(candidates.label.is_not(None))):
        labels[row.picture_id].add(row.label)
    return labels


def put_setting(connection: Connection, name: str, value: Any) -> None:
    """Save a setting within a transaction."""
    connection.execute(t.settings.delete().where(t.settings.c.name == name))
    connection.execute(insert(t.settings).values(name=name, value=json.dumps(value)))


def append(connection: Connection, *, actor: str, step: str, note: str, changes: Iterable[Change]) -> int | None:
    """Write decisions as one batch and return its number; without decisions write nothing and return None."""
    rows = [{"picture_id": c.picture, "field": c.field, "value": c.value, "reason": c.reason} for c in changes]
    if not rows:
        return None
    batch = _new_batch(connection, actor=actor, step=step, note=note)
    connection.execute(insert(t.events), [{**row, "batch_id": batch} for row in rows])
    return batch


def person_of(connection: Connection, name: str) -> int:
    """Return the number of an invited person. Raises DataError for an unknown name."""
    number: int | None = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
    if number is None:
        raise DataError(f"nobody named {name!r} was invited; uniemox curate status lists who was")
    return number


def leave_out(connection: Connection, name: str, *, actor: str) -> int:
    """Stop counting an annotator's answers, by a batch that can be undone. Raises DataError for an unknown name."""
    person_of(connection, name)
    return _new_batch(connection, actor=actor, step=LEAVE_OUT, note=name)


def undo(connection: Connection, batch: int, *, actor: str) -> int:
    """Undo a batch by another batch, which can be undone too, and return its number.

    Raises DataError for a number that does not exist or is undone already.
    """
    query = select(t.batches.c.step, t.batches.c.note, IS_UNDONE).where(t.batches.c.id == batch)
    row = connection.execute(query).first()
    if row is None:
        raise DataError(f"there is no batch {batch} to undo; uniemox curate status lists them")
    if row.is_undone:
        raise DataError(f"batch {batch} is undone already; to restore it, undo the batch that undid it")
    number = _new_batch(connection, actor=actor, step="undo", note=f"{row.step} {batch}: {row.note}", undoes=batch)
    follow_takedowns(connection)
    return number


def _undone() -> Select[Any]:
    """Return a query for the batches that do not hold.

    Of several undos of a batch only the last one counts, because all others were undone. A batch is undone if the chain
    from it to its last undo, to that one's last undo, and so on, has an odd number of undos.
    """
    batches = t.batches.c
    newest = select(func.max(batches.id)).where(batches.undoes.is_not(None)).group_by(batches.undoes)
    undos = select(batches.id, batches.undoes).where(batches.id.in_(newest)).cte("undos")
    holding = undos.c.id.not_in(select(undos.c.undoes))
    chain = select(undos.c.undoes.label("id"), literal(1).label("length")).where(holding).cte("chain", recursive=True)
    longer = select(undos.c.undoes, chain.c.length + 1).join(undos, undos.c.id == chain.c.id)
    longer = longer.where(undos.c.undoes < undos.c.id)  # as always, unless a stranger's chain has no end
    chain = chain.union_all(longer)
    return select(chain.c.id).where(chain.c.length % 2 == 1)


UNDONE = _undone()
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


def utc(seconds: float) -> str:
    """Return a time in UTC (ISO 8601).  seconds: since 1970."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def inserted_id(result: Any) -> int:
    """Return the key of the row that an insert added."""
    return int(result.inserted_primary_key[0])


def _new_batch(connection: Connection, **values: Any) -> int:
    return inserted_id(connection.execute(insert(t.batches).values(at=time.time(), **values)))


def _check_content(connection: Connection, name: str, tables: Sequence[Table]) -> None:
    """Raise DataError for a damaged database: a page that is used again and again claims billions of rows."""
    file = str(connection.engine.url.database)
    pragmas = ("PRAGMA page_count", "PRAGMA page_size")
    count, page = (int(connection.exec_driver_sql(one).scalar() or 0) for one in pragmas)
    size = stored = count * page
    if os.path.exists(file):
        stored = getattr(os.stat(file), "st_blocks", size) * 512
    if size < CHECKED_BYTES or stored < size // 2:
        problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if problem != "ok":
            raise DataError(f"{name}: the database is damaged ({problem})")
    elif any((connection.scalar(select(func.count()).select_from(one)) or 0) > size // ROW_BYTES for one in tables):
        raise DataError(f"{name}: the database is damaged (more rows than it has space for)")


def _check_schema(connection: Connection, name: str) -> None:
    """Raise DataError for an SQLite database whose schema computes something, or lacks our keys.

    In a stranger's database, an expression can take days, and without keys a query may never end.
    """
    names = inspect(connection).get_table_names()
    _check_content(connection, name, [one for one in t.metadata.sorted_tables if one.name in names])
    rows = list(connection.exec_driver_sql("SELECT type, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    computes = any(row.type not in ("table", "index") or _CODE.search(row.sql) for row in rows)
    if computes or connection.exec_driver_sql(_EXPRESSIONS).first():
        raise DataError(f"{name}: it has views, triggers or expressions, which no project has")
    keys: dict[str, set[str]] = {}
    for table, column in connection.exec_driver_sql(_KEYS):
        keys.setdefault(table, set()).add(column)
    wrong = [one.name for one in t.metadata.sorted_tables if one.name in names]
    wrong = [one for one in wrong if keys.get(one) != set(t.metadata.tables[one].primary_key.columns.keys())]
    if wrong:
        raise DataError(f"{name}: its table {wrong[0]} has another key than in a project")


def _own_address(folder: Path) -> str:
    return f"sqlite:///{(folder / 'project.db').absolute()}"


def _tune_sqlite(engine: Engine, *, is_new: bool, deadline: Sequence[float]) -> None:
    """Use a write-ahead log, sync every commit to disk, and let writers queue instead of failing half-way.

    is_new: the log is a property of the file, and only a new database may be changed before it is known to be ours.
    deadline: time at which statements are interrupted; empty: never.
    """
    pragmas = [*(["journal_mode=WAL"] if is_new else []), "synchronous=FULL", f"busy_timeout={BUSY_S * 1000}"]

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event below starts transactions
        connection.set_progress_handler(lambda: bool(deadline) and time.monotonic() > deadline[0], 100_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)  # that an expression may compute
        for pragma in (*pragmas, "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
