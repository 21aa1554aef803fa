"""Takedown: a picture leaves the project and its releases, and is not collected again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select, update

from uniemox.curate import tables as t
from uniemox.curate.project import Project
from uniemox.curate.store import Change, append, taken_down
from uniemox.errors import ConfigError, DataError

LEAST_HASH = 12  # digits by which a picture may be named


@dataclass(frozen=True, slots=True)
class TakenDown:
    """What a takedown did."""

    sha256: tuple[str, ...]
    """Pictures whose files were deleted."""
    releases: tuple[str, ...]
    """Folders from which they went."""


def take_down(project: Project, which: str, *, because: str, actor: str = "owner") -> TakenDown:
    """Take pictures down by the address of a picture or its page, or by the sha256 (at least 12 digits).

    Its near duplicates go too. Files, previews and small copies are deleted; hash and addresses stay, so that it is
    not collected again. The decision can be undone: the next collect then fetches the picture anew. Releases are
    written again without it.
    Raises DataError if there is no such picture, ConfigError for a hash that is too short.
    """
    query = select(t.pictures.c.id, t.pictures.c.sha256, t.pictures.c.format)
    if which.startswith(("http://", "https://", "file://")):
        found = or_(t.candidates.c.address == which, t.candidates.c.page == which)
        query = query.join(t.candidates, t.candidates.c.picture_id == t.pictures.c.id).where(found).distinct()
    elif len(which) < LEAST_HASH or set(which.lower()) - set("0123456789abcdef"):
        raise ConfigError(f"expected an address, or at least {LEAST_HASH} digits of a sha256, got {which!r}")
    else:
        query = query.where(t.pictures.c.sha256.like(f"{which.lower()}%"))
    rows = project.rows(query)
    if not rows:
        raise DataError(f"no picture of {project.folder} has the address, page or hash {which}")
    rows = _with_copies(project, rows)
    numbers = [row.id for row in rows]
    with project.store.write() as connection:
        changes = [Change(row.id, "taken", "yes", because) for row in rows]
        append(connection, actor=actor, step="takedown", note=f"{which}: {because}", changes=changes)
        connection.execute(t.looks.delete().where(t.looks.c.picture_id.in_(numbers)))
        taken = update(t.candidates).where(t.candidates.c.picture_id.in_(numbers))
        connection.execute(taken.values(state="failed", reason="taken down"))
    for row in rows:
        project.picture_path(row.sha256, row.format).unlink(missing_ok=True)
        (project.folder / "previews" / row.sha256[:2] / f"{row.sha256}.jpg").unlink(missing_ok=True)
    names = tuple(row.sha256 for row in rows)
    return TakenDown(names, _write_releases(project, names))


def give_back(project: Project) -> int:
    """Let pictures be fetched again whose takedown was undone; returns their number."""
    query = select(t.candidates.c.id, t.candidates.c.picture_id).where(t.candidates.c.reason == "taken down")
    with project.store.write() as connection:
        taken = taken_down(connection)
        rows = [row for row in connection.execute(query) if row.picture_id not in taken]
        for row in rows:
            again = update(t.candidates).where(t.candidates.c.id == row.id)
            connection.execute(again.values(state="waiting", reason=""))
    return len({row.picture_id for row in rows})


def _with_copies(project: Project, rows: Sequence[Any]) -> list[Any]:
    """The same pictures, and those that screening found to be nearly the same."""
    numbers = [row.id for row in rows]
    groups = select(t.looks.c.near_group).where(t.looks.c.picture_id.in_(numbers), t.looks.c.near_group.is_not(None))
    query = select(t.pictures.c.id, t.pictures.c.sha256, t.pictures.c.format)
    query = query.outerjoin(t.looks, t.looks.c.picture_id == t.pictures.c.id)
    return project.rows(query.where(or_(t.pictures.c.id.in_(numbers), t.looks.c.near_group.in_(groups))))


def _write_releases(project: Project, gone: Sequence[str]) -> tuple[str, ...]:
    """Every release that is still there, without these pictures, even if nothing is left of it."""
    from uniemox.curate.release import NAME_DIGITS, PICTURES, ReleaseConfig, release  # noqa: PLC0415 - heavy, and seldom needed

    written = []
    for row in project.rows(select(t.releases)):
        if Path(row.folder).is_dir():
            for path in Path(row.folder, PICTURES).rglob("*"):
                if path.stem in {sha256[:NAME_DIGITS] for sha256 in gone}:
                    path.unlink()
            release(project, Path(row.folder), ReleaseConfig(**json.loads(row.options)))
            written.append(row.folder)
    return tuple(written)
