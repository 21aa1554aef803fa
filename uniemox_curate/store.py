"""The database of a project: connections, transactions, settings, and the checks of a stranger's SQLite file."""

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, OperationalError

from uniemox.errors import ConfigError, DataError, UnavailableError
from uniemox_curate import tables as t

# One connection per thread of the web application; further ones are opened on each use.
CONNECTIONS = 40
_KEYS = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND c.pk"
_EXPRESSIONS = """
    SELECT 1 FROM sqlite_master m JOIN pragma_index_xinfo(m.name) c WHERE m.type = 'index' AND c.cid = -2
"""
# Words of SQL that no project has.
_CODE = re.compile(r"\b(check|default(?! '')|collate|generated|as|where|virtual|on (delete|update))\b", re.IGNORECASE)
# Maximum time to open a database: a damaged one may have no end.
OPEN_S = 60
# Size of a database from which a complete check takes too long; then its rows are counted.
CHECKED_BYTES = 2**26
# Minimum size of a row.
ROW_BYTES = 8
# Maximum size of a value in SQLite.
MAX_VALUE_BYTES = 2**26
# Maximum wait of a writer for another one.
BUSY_S = 30
# Time that a writer waits after another one has waited in vain.
SHORT_WAIT_S = 0.1


class Store:
    """A database with the tables of a project; missing tables are created.

    Args:
        address: SQLAlchemy URL, such as sqlite:///project/project.db.
        is_new: Accept a database without tables.

    Raises:
        ConfigError: For an unusable URL.
        DataError: For a database of another version or of another program.
    """

    def __init__(self, address: str | URL, *, is_new: bool = True) -> None:
        deadline = [time.monotonic() + OPEN_S]
        try:
            url = make_url(address)
            self.engine = create_engine(url, pool_size=CONNECTIONS)
        # The message does not repeat the address, which may hold a password.
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise ConfigError(f"the address of the database can't be used ({error})") from error
        if url.get_backend_name() == "sqlite":
            _tune_sqlite(self.engine, is_new=is_new, deadline=deadline)
        # Our own lock, because a writer that finds SQLite locked sleeps up to 100 ms at a time.
        self._turn = threading.Lock()
        self._patience_s = float(BUSY_S)
        try:
            self._create_tables(is_new=is_new)
        except (DBAPIError, sqlite3.Error) as error:
            if "locked" in str(error):
                raise UnavailableError(f"{url}: another program uses it; end that program") from error
            raise DataError(f"{url}: not a database that can be used ({getattr(error, 'orig', error)})") from error
        deadline.clear()

    def close(self) -> None:
        """Close all idle connections; later ones are opened again."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database.

        Raises:
            UnavailableError: If it can't be read.
        """
        with self._used("read"), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction: all or nothing. Only one writer runs at a time, so keep it short.

        While another program has locked the database, the first writers wait for BUSY_S in all, and later ones fail at
        once.

        Raises:
            UnavailableError: If the database is read-only, locked or damaged, or the disk is full.
        """
        deadline = time.monotonic() + self._patience_s
        with self._used("written"):
            if not self._turn.acquire(timeout=self._patience_s):
                raise UnavailableError(f"{self.engine.url}: can't be written: other writers took too long")
            try:
                with self._begun(deadline) as connection:
                    yield connection
            finally:
                self._turn.release()

    @contextmanager
    def _begun(self, deadline: float) -> Iterator[Connection]:
        """Open a transaction, waiting until `deadline`, a time by time.monotonic(), for other programs."""
        wait_ms = max(0, round(1000 * (deadline - time.monotonic())))
        with self.engine.connect() as connection:
            connection.execution_options(writes=True, wait_ms=wait_ms)
            try:
                transaction = connection.begin()
            except OperationalError as error:
                if "locked" in str(error.orig):
                    self._patience_s = SHORT_WAIT_S
                raise
            self._patience_s = float(BUSY_S)
            with transaction:
                yield connection

    @contextmanager
    def _used(self, how: str) -> Iterator[None]:
        """Convert an error of the database, other than a broken constraint, to UnavailableError."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise ConfigError(f"{error.object!r} is no text in UTF-8") from error
        except DatabaseError as error:
            if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
                raise
            if "readonly" in str(error.orig) and os.access(str(self.engine.url.database), os.W_OK):
                # Connections that were opened while the file was read-only stay so.
                self.close()
            problem = f"{self.engine.url}: can't be {how} ({error.orig})"
            remedy = "check permissions, free space, and other programs that use it"
            raise UnavailableError(f"{problem}; {remedy}") from error

    def setting(self, name: str) -> Any:
        """Return a setting's value; None if it was never set."""
        with self.read() as connection:
            return setting_of(connection, name)

    def set(self, name: str, value: Any) -> None:
        """Save a setting, any JSON value."""
        with self.write() as connection:
            put_setting(connection, name, value)

    def _create_tables(self, *, is_new: bool) -> None:
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
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
        if self.engine.dialect.name == "sqlite":
            self._log_ahead()

    def _log_ahead(self) -> None:
        """Use a write-ahead log, a property of the file that some copies lack; readers then don't wait for writers.

        Raises:
            UnavailableError: If another program uses a database without it.
        """
        deadline = time.monotonic() + BUSY_S
        # SQLite itself does not wait for a writer here.
        while self._is_locked():
            if time.monotonic() > deadline:
                problem = "another program uses it, so that a write-ahead log can't be begun"
                raise UnavailableError(f"{self.engine.url}: {problem}; end that program")
            time.sleep(0.1)

    def _is_locked(self) -> bool:
        """Switch the log on; return True if another program prevents it. A read-only database does not change."""
        with closing(self.engine.raw_connection()) as connection:
            try:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                return "locked" in str(error)
        return False


def setting_of(connection: Connection, name: str) -> Any:
    """Return a setting's value within a transaction; None if it was never set."""
    text = connection.scalar(select(t.settings.c.value).where(t.settings.c.name == name))
    return None if text is None else json.loads(text)


def put_setting(connection: Connection, name: str, value: Any) -> None:
    """Save a setting within a transaction."""
    connection.execute(t.settings.delete().where(t.settings.c.name == name))
    connection.execute(insert(t.settings).values(name=name, value=json.dumps(value)))


def _check_content(connection: Connection, name: str, tables: Sequence[Table]) -> None:
    """Raise DataError for a damaged database: a page that is used again and again claims billions of rows."""
    file = str(connection.engine.url.database)
    pragmas = ("PRAGMA page_count", "PRAGMA page_size")
    page_count, page_size = (int(connection.exec_driver_sql(pragma).scalar() or 0) for pragma in pragmas)
    size = page_count * page_size
    stored_size = size
    if os.path.exists(file):
        stored_size = getattr(os.stat(file), "st_blocks", size) * 512
    # A sparse file may claim any size.
    if size < CHECKED_BYTES or stored_size < size // 2:
        problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if problem != "ok":
            raise DataError(f"{name}: the database is damaged ({problem})")
        return
    for table in tables:
        count = connection.scalar(select(func.count()).select_from(table)) or 0
        if count > size // ROW_BYTES:
            raise DataError(f"{name}: the database is damaged (more rows than it has space for)")


def _check_schema(connection: Connection, name: str) -> None:
    """Raise DataError for an SQLite database whose schema computes something, or lacks our keys.

    In a stranger's database, an expression can take days, and without keys a query may never end.
    """
    names = inspect(connection).get_table_names()
    tables = [table for table in t.metadata.sorted_tables if table.name in names]
    _check_content(connection, name, tables)
    rows = list(connection.exec_driver_sql("SELECT type, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    computes = any(row.type not in ("table", "index") or _CODE.search(row.sql) for row in rows)
    if computes or connection.exec_driver_sql(_EXPRESSIONS).first():
        raise DataError(f"{name}: it has views, triggers or expressions, which no project has")
    keys: dict[str, set[str]] = {}
    for table, column in connection.exec_driver_sql(_KEYS):
        keys.setdefault(table, set()).add(column)
    for our_table in tables:
        if keys.get(our_table.name) != set(our_table.primary_key.columns.keys()):
            raise DataError(f"{name}: its table {our_table.name} has another key than in a project")


def _tune_sqlite(engine: Engine, *, is_new: bool, deadline: Sequence[float]) -> None:
    """Sync every commit to disk, and let writers queue instead of failing half-way.

    Args:
        engine: Engine whose connections are set up.
        is_new: Create the file.
        deadline: Time by time.monotonic() at which statements are interrupted, as only item; empty: never.
    """
    if not is_new:

        @event.listens_for(engine, "do_connect")
        def connecting(dialect: Any, _: Any, arguments: Sequence[Any], settings: Any) -> Any:
            """Open the file without creating it: one that is away for a moment would be replaced by an empty one."""
            path = str(arguments[0])
            address = path if path.startswith("file:") else f"{Path(path).absolute().as_uri()}?mode=rw"
            return dialect.connect(address, **{**settings, "uri": True})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        # The event `begin` below starts transactions.
        connection.isolation_level = None
        connection.set_progress_handler(lambda: bool(deadline) and time.monotonic() > deadline[0], 100_000)
        # An expression of a stranger's database may compute larger values.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        for pragma in (f"busy_timeout={BUSY_S * 1000}", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(f"PRAGMA busy_timeout={options.get('wait_ms', BUSY_S * 1000)}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")
