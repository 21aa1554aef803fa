"""A project's folder: project.db, pictures/, and what the steps write."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from uniemox.curate import tables as t
from uniemox.curate.plan import CollectionPlan, paper_plan, plan_of
from uniemox.curate.store import Store
from uniemox.errors import ConfigError, DataError

ENDING = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
ENDING |= {"AVIF": "avif", "PPM": "ppm", "HEIF": "heic"}

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder and its database."""

    folder: Path
    store: Store
    plan: CollectionPlan

    def image_path(self, sha256: str, image_format: str) -> Path:
        """Where an image lies."""
        return self.folder / "pictures" / sha256[:2] / f"{sha256}.{ENDING[image_format]}"

    def keep_file(self, data: bytes, image_format: str) -> str:
        """Write an image's bytes, if they are not there yet, and return their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.image_path(sha256, image_format)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        return sha256

    def rows(self, query: Any) -> list[Any]:
        """All rows of a query."""
        with self.store.read() as connection:
            return list(connection.execute(query))

    def count(self, query: Any) -> int:
        """The number that a query counts."""
        with self.store.read() as connection:
            return int(connection.scalar(query) or 0)


def create_project(folder: Path, plan: CollectionPlan | None = None, *, database: str | None = None) -> Project:
    """A new project.

    plan: what to look for; None takes the paper's.  database: SQLAlchemy's address of one elsewhere; None keeps it in
    the folder. Raises ConfigError if the folder holds a project already.
    """
    plan = plan or paper_plan()
    if is_project(folder):
        raise ConfigError(f"{folder} holds a project already; continue it, or name another folder")
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
    """The project in a folder. Raises DataError if there is none."""
    if not is_project(folder):
        raise DataError(f"{folder} holds no project; begin one: uniemox curate init {folder}")
    elsewhere = folder / "database.txt"
    store = Store(elsewhere.read_text("utf-8").strip() if elsewhere.exists() else _own_address(folder))
    content = store.setting("plan")
    if content is None:
        raise DataError(f"{folder}: making the project was cut off; remove the folder and begin anew")
    return Project(folder, store, plan_of(content, str(folder)))


def is_project(folder: Path) -> bool:
    """Whether a folder holds a project."""
    return (folder / "project.db").exists() or (folder / "database.txt").exists()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: can't be written ({error.strerror})") from error


def searched_labels(project: Project) -> dict[int, set[str]]:
    """By image: the labels whose keywords found it."""
    query = select(t.candidates.c.picture_id, t.candidates.c.label).where(
        t.candidates.c.picture_id.is_not(None), t.candidates.c.label.is_not(None)
    )
    found: dict[int, set[str]] = {}
    for row in project.rows(query.distinct()):
        found.setdefault(row.picture_id, set()).add(row.label)
    return found


def _own_address(folder: Path) -> str:
    return f"sqlite:///{(folder / 'project.db').absolute()}"
