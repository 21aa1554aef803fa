"""Takedown: an image leaves the project and its releases, and is not collected again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select, update

from uniemox.curate import tables as t
from uniemox.curate.project import Project
from uniemox.curate.store import Change, append, taken_down, undo
from uniemox.errors import ConfigError, DataError, UniemoxError

MIN_HASH = 12  # digits by which an image may be named


@dataclass(frozen=True, slots=True)
class TakenDown:
    """What a takedown did."""

    sha256: tuple[str, ...]
    """Images whose files were deleted."""
    releases: tuple[str, ...]
    """Folders of releases that are whole again without them."""
    gone: tuple[str, ...]
    """Folders of releases that are not where they were written; copies may be elsewhere."""
    problems: tuple[str, ...]
    """What could not be done, a sentence for each release."""


def take_down(project: Project, which: str, *, because: str, actor: str = "owner") -> TakenDown:
    """Take images down by the address of an image or its page, or by the sha256 (at least 12 digits).

    Of images of a local folder the address is the path below it, as provenance.csv has it.

    Its near duplicates go too. Files, previews and small copies are deleted; hash and addresses stay, so that it is
    not collected again. The decision can be undone: the next collect then fetches the image anew. The images go
    from all releases before any is written again, so that one that can't be written keeps them in no other.
    Raises DataError if there is no such image, ConfigError for a hash that is too short.
    """
    query = select(t.images.c.id, t.images.c.sha256, t.images.c.format)
    if which.startswith(("http://", "https://", "file://")):
        found = or_(t.candidates.c.address == which, t.candidates.c.page == which)
        query = query.join(t.candidates, t.candidates.c.picture_id == t.images.c.id).where(found).distinct()
    elif project.rows(
        of_folder := query.join(t.candidates, t.candidates.c.picture_id == t.images.c.id)
        .where(t.candidates.c.source == "folder", t.candidates.c.title == which)
        .distinct()
    ):
        query = of_folder
    elif len(which) < MIN_HASH or set(which.lower()) - set("0123456789abcdef"):
        raise ConfigError(f"expected an address, or at least {MIN_HASH} digits of a sha256, got {which!r}")
    else:
        query = query.where(t.images.c.sha256.like(f"{which.lower()}%"))
    rows = project.rows(query)
    if not rows:
        raise DataError(f"no image of {project.folder} has the address, page or hash {which}")
    rows = _with_copies(project, rows)
    numbers = [row.id for row in rows]
    with project.store.write() as connection:
        changes = [Change(row.id, "taken", "yes", because) for row in rows]
        append(connection, actor=actor, step="takedown", note=f"{which}: {because}", changes=changes)
        connection.execute(t.looks.delete().where(t.looks.c.picture_id.in_(numbers)))
        taken = update(t.candidates).where(t.candidates.c.picture_id.in_(numbers))
        connection.execute(taken.values(state="failed", reason="taken down"))
    for row in rows:
        project.image_path(row.sha256, row.format).unlink(missing_ok=True)
        (project.folder / "previews" / row.sha256[:2] / f"{row.sha256}.jpg").unlink(missing_ok=True)
    names = tuple(row.sha256 for row in rows)
    return _leave_releases(project, names)


def take_back(project: Project, batch: int, *, actor: str) -> int:
    """Undo a batch, of whatever step, and return the number of the one that undoes it. Raises DataError as `undo`."""
    with project.store.write() as connection:
        number = undo(connection, batch, actor=actor)
    give_back(project)
    return number


def give_back(project: Project) -> None:
    """Let candidates wait again whose image's takedown was undone, and none whose address is of one taken down."""
    candidates = t.candidates.c
    with project.store.write() as connection:
        taken = sorted(taken_down(connection))
        of_taken = candidates.picture_id.in_(taken)
        addresses = select(candidates.address).where(of_taken)
        is_free = ~candidates.address.in_(addresses)
        again = update(t.candidates).where(candidates.reason == "taken down", is_free)
        connection.execute(again.values(state="waiting", reason=""))
        late = update(t.candidates).where(candidates.state == "waiting", ~is_free)
        connection.execute(late.values(state="failed", reason="taken down"))


def _with_copies(project: Project, rows: Sequence[Any]) -> list[Any]:
    """The same images, and those that screening found to be nearly the same."""
    numbers = [row.id for row in rows]
    groups = select(t.looks.c.near_group).where(t.looks.c.picture_id.in_(numbers), t.looks.c.near_group.is_not(None))
    query = select(t.images.c.id, t.images.c.sha256, t.images.c.format)
    query = query.outerjoin(t.looks, t.looks.c.picture_id == t.images.c.id)
    return project.rows(query.where(or_(t.images.c.id.in_(numbers), t.looks.c.near_group.in_(groups))))


def _leave_releases(project: Project, sha256: Sequence[str]) -> TakenDown:
    """Take images out of every release that is still there, then write those again of which something is left."""
    from uniemox.curate.release.run import ReleaseConfig, empty, release, remove  # noqa: PLC0415 - heavy, and seldom needed

    there, gone, problems = [], [], []
    for row in project.rows(select(t.releases).order_by(t.releases.c.id)):
        try:
            if remove(Path(row.folder), sha256):
                there.append(row)
            else:
                gone.append(row.folder)
        except OSError as error:
            problems.append(f"{row.folder}: they can't be removed there ({error}); remove them by hand")
    written = []
    for row in there:
        folder = Path(row.folder)
        try:
            if not empty(project, folder):
                options = {"metadata": "keep"} | json.loads(row.options)  # older releases did not ask
                release(project, folder, ReleaseConfig(**options))
            written.append(row.folder)
        except (UniemoxError, OSError) as error:
            problems.append(f"{row.folder}: they went, but it can't be written again ({error})")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))
