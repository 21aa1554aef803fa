"""Takedown: images leave the project and all its releases."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import false, or_, select, update

from uniemox.curate import tables as t
from uniemox.curate.project import Change, Project, append, taken_down
from uniemox.curate.release.config import ReleaseConfig
from uniemox.curate.release.run import IMAGES, MARK, NAME_DIGITS, check_folder, mark_of, release
from uniemox.data.readers.csv_table import read_rows
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io.files import PARTIAL, read_limited

MIN_HASH = 12  # digits of a sha256 that name an image
OLD_MARK = "uniemox curate release\n"  # of versions that did not name the project
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", "ratings.csv", "splits.json"),
    *("label_studio.json", "statistics.json", "agreement.json", "croissant.json", "SHA256SUMS"),
)
"""Files of a release that name or count its images."""


@dataclass(frozen=True, slots=True)
class TakenDown:
    """Result of a takedown."""

    sha256: tuple[str, ...]
    """Hashes of the deleted images."""
    releases: tuple[str, ...]
    """Folders of releases that were written again without them."""
    gone: tuple[str, ...]
    """Folders of releases that are no longer there; copies may exist elsewhere."""
    problems: tuple[str, ...]
    """A sentence for each file that could not be deleted, and for each release that could not be changed."""


def take_down(project: Project, which: str, *, because: str, actor: str = "owner") -> TakenDown:
    """Remove images from the project and its releases, so that they are not collected again.

    which: address of an image or its page, path below a local folder as in provenance.csv, or at least 12 digits of the
    sha256. Near duplicates go too. Files, previews and thumbnails are deleted; hash and addresses stay in the database.
    The decision can be undone: the next collect then fetches the image again. Images leave all releases before any
    release is written again, so that a release that can't be written keeps them in no other.
    Raises DataError if there is no such image, ConfigError for a hash that is too short.
    """
    images, looks, candidates = t.images.c, t.looks.c, t.candidates.c
    of_folder = (candidates.source == "folder") & (candidates.title == which)
    named = or_(candidates.address == which, candidates.page == which, of_folder)
    if not which.strip():  # many images have no page
        raise ConfigError("expected an address or a hash, got an empty text; which image is to be taken down?")
    is_hash = MIN_HASH <= len(which) <= 64 and not set(which.lower()) - set("0123456789abcdef")
    has_hash = images.sha256.like(f"{which.lower()}%") if is_hash else false()
    is_meant = or_(images.id.in_(select(candidates.picture_id).where(named)), has_hash)
    groups = select(looks.near_group).where(looks.picture_id.in_(select(images.id).where(is_meant)))
    copies = select(looks.picture_id).where(looks.near_group.in_(groups))
    rows = project.rows(select(t.images).where(or_(is_meant, images.id.in_(copies))))
    if not rows and not is_hash and not which.startswith(("http://", "https://", "file://")):
        raise ConfigError(f"expected an address, or at least {MIN_HASH} digits of a sha256, got {which!r}")
    if not rows:
        raise DataError(f"no image of {project.folder} has the address, page or hash {which}")
    numbers = [row.id for row in rows]
    with project.store.write() as connection:
        changes = [Change(row.id, "taken", "yes", because) for row in rows]
        append(connection, actor=actor, step="takedown", note=f"{which}: {because}", changes=changes)
        connection.execute(t.looks.delete().where(looks.picture_id.in_(numbers)))
        taken = update(t.candidates).where(candidates.picture_id.in_(numbers))
        connection.execute(taken.values(state="failed", reason="taken down"))
    problems = list(dict.fromkeys(one for row in rows for one in _delete_files(project, row)))
    return _leave_releases(project, [row.sha256 for row in rows], problems)


def _delete_files(project: Project, row: Any) -> Iterator[str]:
    """Delete an image and its preview, and parts of them that a killed writer left. Yield a sentence per failure."""
    for path_of, is_optional in (
        (lambda: project.image_path(row.sha256, row.format), False),
        (lambda: project.preview_path(row.sha256), True),
    ):
        try:
            path = path_of()
            names = os.listdir(path.parent)
        except DataError as error:  # a link that leads out of the project
            yield f"{error}; then repeat the takedown"
        except FileNotFoundError:
            if not is_optional:
                yield f"{path.parent}: this folder of images is missing; repeat the takedown when it is there"
        except OSError as error:
            yield f"{path.parent}: it can't be read ({error.strerror}); repeat the takedown"
        else:
            yield from _unlink(path.with_name(name) for name in names if name.startswith(row.sha256))


def _unlink(paths: Iterable[Path]) -> Iterator[str]:
    """Delete files. Yield a sentence for each one that can't be deleted."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            yield f"{path}: it can't be deleted ({error.strerror}); repeat the takedown"


def _leave_releases(project: Project, sha256: Sequence[str], problems: list[str]) -> TakenDown:
    """Remove images from every release that is still there, then write the non-empty ones again.

    problems: sentences for the result, to which further ones are added.
    """
    releases = project.rows(select(t.releases).order_by(t.releases.c.id))
    gone = [row.folder for row in releases if not (Path(row.folder) / MARK).exists()]
    removed, written, before = [], [], dict[str, dict[str, str]]()
    for row in releases:
        try:
            if row.folder in gone:
                continue
            if not Path(row.folder).is_absolute() or not _is_ours(project, Path(row.folder)):
                problems.append(f"{row.folder}: not a release of this project; if it is, repeat curate release on it")
                continue
            check_folder(Path(row.folder))
            if row.pictures and _is_away(project, Path(row.folder)):
                remedy = "repeat the takedown when they are there, or curate release on it"
                problems.append(f"{row.folder}: its images are missing; {remedy}")
                continue
            before[row.folder] = _paths_in(Path(row.folder))
            if failures := _remove(Path(row.folder), sha256):
                problems += failures
            else:
                removed.append(row)
        except (OSError, DataError) as error:
            problems.append(f"{row.folder}: the images can't be removed ({error}); remove them by hand")
    for row in removed:
        try:
            others = _write_again(project, row, before[row.folder])
            written.append(row.folder)
            if others:
                change = f"{others} other images left it, or have another label or split"
                problems.append(f"{row.folder}: {change}, because the project has changed since; look at its tables")
        except (UniemoxError, OSError) as error:
            failure = f"the images are removed, but it can't be written again ({error})"
            problems.append(f"{row.folder}: {failure}; repeat curate release on it")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))


def _is_ours(project: Project, folder: Path) -> bool:
    """Return True if a release is of this project. Raises OSError, or DataError for a damaged table."""
    mark = read_limited(folder / MARK).decode("utf-8", "replace")
    if mark != OLD_MARK:
        return mark == mark_of(project)
    listed = {row["sha256"] for _, row in read_rows(folder / "provenance.csv", columns=("sha256",))}
    return listed <= {row.sha256 for row in project.rows(select(t.images.c.sha256))}


def _write_again(project: Project, row: Any, before: Mapping[str, str]) -> int:
    """Write a release from today's project, and return the number of other images whose path changed.

    row: of tables.releases.  before: its images' paths by sha256.
    """
    folder = Path(row.folder)
    if any(path.is_file() for path in (folder / IMAGES).rglob("*")):
        release(project, folder, ReleaseConfig(**json.loads(row.options)))
    else:
        with project.store.write() as connection:
            connection.execute(update(t.releases).where(t.releases.c.id == row.id).values(pictures=0))
    now, taken = _paths_in(folder), _taken_down(project)
    return sum(now.get(sha256) != path for sha256, path in before.items() if sha256 not in taken)


def _is_away(project: Project, folder: Path) -> bool:
    """Return True if a release without any image should have some: its folder was moved, or is not mounted."""
    images = folder / IMAGES
    if not images.is_dir() or not any(images.iterdir()):  # a takedown leaves the folders of classes
        return True
    if any(path.is_file() for path in images.rglob("*")):
        return False
    return not _paths_in(folder).keys() <= _taken_down(project)


def _paths_in(folder: Path) -> dict[str, str]:
    """Return the paths of a release's images, with split and label, by sha256; none if its table is missing."""
    table = folder / "provenance.csv"
    rows = read_rows(table, columns=("path", "sha256")) if table.is_file() else ()
    return {row["sha256"]: row["path"] for _, row in rows}


def _taken_down(project: Project) -> set[str]:
    return {row.sha256 for row in project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))}


def _remove(folder: Path, sha256: Iterable[str]) -> list[str]:
    """Remove images from a release, with the lists that may name them. Return a sentence per failure."""
    names = {digest[:NAME_DIGITS] for digest in sha256}
    paths = [path for path in (folder / IMAGES).rglob("*") if path.stem in names]
    is_empty = not any(path.is_file() for path in (folder / IMAGES).rglob("*"))  # then the lists aren't written again
    lists = [*folder.glob(f"*{PARTIAL}"), *(folder / name for name in LISTS)] if paths or is_empty else []
    return list(_unlink(paths + lists))
