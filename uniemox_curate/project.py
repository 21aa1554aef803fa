"""A project: its folder, its database and its plan."""

import hashlib
import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, func, select

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
# Answers that are not labels: no label fits; the image was skipped for a reason.
NONE = "none"
SKIP = "skip"


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


def utc(seconds: float) -> str:
    """Return a time in UTC (ISO 8601).

    Args:
        seconds: Seconds since 1970.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def inserted_id(result: Any) -> int:
    """Return the key of the row that an insert added."""
    return int(result.inserted_primary_key[0])


def _own_address(folder: Path) -> URL:
    path = str((folder / "project.db").absolute())
    if not path.isascii() and path.encode("utf-8", "replace").decode() != path:
        raise ConfigError(f"{folder}: the path is no text in UTF-8; rename the folder")
    return URL.create("sqlite", database=path)
