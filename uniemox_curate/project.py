"""A project: its folder, database, and decisions, which are only appended so that each can be undone."""

import hashlib
import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Select, Subquery, func, insert, literal, select, update

from uniemox.errors import ConfigError, DataError
from uniemox.io import open_regular, read_limited, refuse_special, write_file
from uniemox_curate import tables as t
from uniemox_curate.plan import CollectionPlan, paper_plan, plan_of
from uniemox_curate.store import Store

SUFFIXES = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "DIB": "dib",
    "TIFF": "tif",
    "AVIF": "avif",
    "PPM": "ppm",
    "HEIF": "heic",
}
"""Ending of a stored image file, by Pillow's name of its format."""
# End of a journal of SQLite that names a further file.
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# Step of a batch that excludes an annotator.
LEAVE_OUT = "leave out"
# Answers that are not labels: no label fits; the image was skipped for a reason.
NONE = "none"
SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about one image."""

    picture: int
    """Number of the image."""
    field: str
    """screen, style, verdict or taken."""
    value: str
    reason: str = ""


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
        """Return the path of an image's file.

        Raises:
            DataError: If it is outside of the folder.
        """
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

    Args:
        folder: Folder of the project, which is created if it is missing.
        plan: Labels and search words; None takes the paper's.
        database: SQLAlchemy URL; None keeps the database in the folder.

    Raises:
        ConfigError: If the folder holds a project already.
    """
    plan = plan or paper_plan()
    if database is not None and re.fullmatch(r"sqlite(\+\w+)?:/*(:memory:)?", database):
        raise ConfigError(f"{database} names no file; give sqlite:////folder/project.db")
    if is_project(folder):
        raise ConfigError(f"{folder} holds a project already; continue it, or name another folder")
    # Links that lead nowhere are not seen above, and would be written through.
    for name in ("project.db", "database.txt"):
        refuse_special(folder / name)
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        store = Store(_own_address(folder) if database is None else database)
        if store.setting("plan") is not None:
            raise ConfigError(f"{store.engine.url} holds a project already; continue it in the folder that began it")
        if database is not None:
            url = store.engine.url
            if url.get_backend_name() == "sqlite" and not str(url.database).startswith("file:"):
                # Commands may run in other folders.
                database = str(url.set(database=os.path.abspath(str(url.database))))
            (folder / "database.txt").write_text(database + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{folder}: can't be made a project ({error.strerror})") from error
    store.set("id", secrets.token_hex(8))
    store.set("plan", json.loads(plan.to_json()))
    return Project(folder, store, plan)


def open_project(folder: Path) -> Project:
    """Open the project in a folder.

    Raises:
        DataError: If there is none.
    """
    if not is_project(folder):
        raise DataError(f"{folder} holds no project; begin one: uniemox curate init {folder}")
    for name in ("project.db", "pictures", "previews"):
        refuse_special(folder / name)
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
    """Return the labels whose keywords found each image, by image.

    Args:
        images: Numbers of images; None: all.
    """
    candidates = t.candidates.c
    query = select(candidates.picture_id, candidates.label).where(candidates.picture_id.is_not(None)).distinct()
    if images is not None:
        query = query.where(candidates.picture_id.in_(images))
    labels: dict[int, set[str]] = defaultdict(set)
    for row in project.rows(query.where(candidates.label.is_not(None))):
        labels[row.picture_id].add(row.label)
    return labels


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
    """Return a time in UTC (ISO 8601).

    Args:
        seconds: Seconds since 1970.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def inserted_id(result: Any) -> int:
    """Return the key of the row that an insert added."""
    return int(result.inserted_primary_key[0])


def _new_batch(connection: Connection, **values: Any) -> int:
    return inserted_id(connection.execute(insert(t.batches).values(at=time.time(), **values)))


def _own_address(folder: Path) -> URL:
    path = str((folder / "project.db").absolute())
    if not path.isascii() and path.encode("utf-8", "replace").decode() != path:
        raise ConfigError(f"{folder}: the path is no text in UTF-8; rename the folder")
    return URL.create("sqlite", database=path)
