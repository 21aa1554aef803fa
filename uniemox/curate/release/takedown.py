"""Takedown: images leave the project and all its releases."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import false, or_, select, update

from uniemox.curate import tables as t
from uniemox.curate.project import Change, Project, append, taken_down
from uniemox.curate.release.config import ReleaseConfig
from uniemox.curate.release.documents import as_json
from uniemox.curate.release.metadata import orientation_of, without_metadata
from uniemox.curate.release.run import (
    IMAGES,
    MARK,
    NAME_DIGITS,
    NEW_README,
    SUMS,
    check_folder,
    digest_of,
    mark_of,
    write_texts,
)
from uniemox.curate.release.splitting import FILE
from uniemox.data.readers.csv_table import read_json, read_rows, read_text
from uniemox.data.readers.folders import inside
from uniemox.data.splits import write_splits
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io.files import PARTIAL, FileLock, read_limited, write_file
from uniemox.io.images import MAX_BYTES

MIN_HASH = 12  # digits of a sha256 that name an image
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", "ratings.csv", "splits.json"),
    *("label_studio.json", "statistics.json", "agreement.json", "croissant.json", SUMS),
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
    The decision can be undone: the next collect then fetches the image again. Images leave all releases before the
    tables of any release are written, so that a release that can't be written keeps them in no other.
    Raises DataError if there is no such image, ConfigError for a hash that is too short.
    """
    images, looks, candidates, events = t.images.c, t.looks.c, t.candidates.c, t.events.c
    of_folder = (candidates.source == "folder") & (candidates.title == which)
    named = or_(candidates.address == which, candidates.page == which, of_folder)
    if not which.strip():  # many images have no page
        raise ConfigError("expected an address or a hash, got an empty text; which image is to be taken down?")
    is_hash = MIN_HASH <= len(which) <= 64 and not set(which.lower()) - set("0123456789abcdef")
    has_hash = images.sha256.like(f"{which.lower()}%") if is_hash else false()
    is_meant = or_(images.id.in_(select(candidates.picture_id).where(named)), has_hash)
    meant = select(images.id).where(is_meant)
    groups = select(looks.near_group).where(looks.picture_id.in_(meant))
    copies = select(looks.picture_id).where(looks.near_group.in_(groups))
    batches = select(events.batch_id).where(events.field == "taken", events.picture_id.in_(meant))
    before = select(events.picture_id).where(events.batch_id.in_(batches))  # copies of an earlier takedown
    rows = project.rows(select(t.images).where(or_(is_meant, images.id.in_(copies), images.id.in_(before))))
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
    """Remove all images that were taken down from every release that is still there, then from their tables and texts.

    problems: sentences for the result, to which further ones are added.
    """
    taken = project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))
    names = {row.sha256[:NAME_DIGITS] for row in taken}
    gone, written, removed = [], [], dict[str, set[str]]()
    releases = project.rows(select(t.releases).order_by(t.releases.c.id))
    for row in releases:
        folder = Path(row.folder)
        try:
            if _is_there(folder / MARK) or _is_there(folder / IMAGES):
                removed[row.folder] = _remove_files(project, folder, names)
            else:
                gone.append(row.folder)
        except (OSError, DataError) as error:
            problems.append(f"{folder}: the images can't be removed ({error}); remove them by hand")
    for row in (row for row in releases if row.folder in removed):
        try:
            absent = _write_again(project, row, names) - removed[row.folder]
            if absent:
                problems.append(
                    f"{row.folder}: {len(absent)} images were not there; repeat the takedown if they return"
                )
            else:
                written.append(row.folder)
            if (Path(row.folder) / NEW_README).exists():
                problems.append(f"{row.folder}: README.md was edited, so it stays; {NEW_README} has the new numbers")
        except (UniemoxError, OSError, csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
            problems += _unlink(path for name in LISTS if _is_named((path := Path(row.folder) / name), names))
            failure = f"the images are removed, but it can't be written again ({error})"
            problems.append(f"{row.folder}: {failure}; repeat curate release on it")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))


def _remove_files(project: Project, folder: Path, names: Set[str]) -> set[str]:
    """Delete images of a release, and return their names. Raises DataError or OSError where it can't.

    names: of all images that were taken down, without their endings.
    """
    if not _is_there(folder / MARK):
        raise DataError(f"it has no {MARK}")
    if not folder.is_absolute() or not read_limited(folder / MARK).startswith(mark_of(project).encode()):
        raise DataError("it is not a release of this project")
    check_folder(folder)
    named = [path for path in _files_in(folder / IMAGES) if path.name[:NAME_DIGITS] in names]
    if failures := list(_unlink([*named, *folder.glob(f"*{PARTIAL}")])):
        raise DataError("; ".join(failures))
    return {path.name[:NAME_DIGITS] for path in named}


def _is_there(path: Path) -> bool:
    """Return True if a path exists. Raises OSError if that can't be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in all folders below one. Raises OSError for a folder that can't be read."""

    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, _, names in os.walk(folder, onerror=stop):
        yield from (Path(place, name) for name in names)


def _write_again(project: Project, row: Any, names: Set[str]) -> set[str]:
    """Remove images from the tables of a release, and write its texts again; the rest of it stays as it was.

    row: of tables.releases.  names: of the images, without their endings.  Returns those that labels.csv had.
    Raises one of many errors for tables that were changed by hand.
    """
    folder = Path(row.folder)
    with ExitStack() as at_end:
        at_end.callback(FileLock(folder / MARK).release)
        listed = _paths_in(folder)
        for table in (path for name in LISTS if (path := folder / name).suffix == ".csv" and path.exists()):
            content, text = read_text(table), io.StringIO()
            delimiter = max(",;\t", key=content.partition("\n")[0].count)  # a spreadsheet may have changed it
            rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
            rest = (one for one in rows if one and Path(one[0]).stem not in names)  # the path is the first column
            csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rest)
            write_file(table, text.getvalue())
        if scheme := _paths_in(folder):
            _write_texts(project, folder, ReleaseConfig(**json.loads(row.options)), scheme, names)
        else:
            for name in LISTS:
                (folder / name).unlink(missing_ok=True)
        with project.store.write() as connection:
            connection.execute(update(t.releases).where(t.releases.c.id == row.id).values(pictures=len(scheme)))
    return {Path(path).stem for path in listed} & names


def _paths_in(folder: Path) -> dict[str, str]:
    """Return the splits of a release's images, by path; none after all images were taken down, which removes tables."""
    table = folder / "labels.csv"
    is_empty = not table.exists() and not any(_files_in(folder / IMAGES))
    rows = () if is_empty else read_rows(table, columns=("path", "split"))
    return {row["path"]: row["split"] for _, row in rows}


def _write_texts(
    project: Project, folder: Path, config: ReleaseConfig, scheme: dict[str, str], names: Set[str]
) -> None:
    """Write splits, statistics, checksums and documents of a release that has lost images.

    scheme: splits of the others, by path.  names: as for `_write_again`.
    """
    tasks, splits, figures = (read_json(folder / name) for name in ("label_studio.json", FILE, "statistics.json"))
    left = [task for task in tasks if Path(task["data"]["image"]).stem not in names]
    write_file(folder / "label_studio.json", as_json(left))
    write_splits(folder / FILE, scheme, source=splits["data"], how=splits["how"])
    files = {path: inside(folder / IMAGES, path, "labels.csv") for path in scheme}
    if figures["metadata"]["still there"]:
        data = (read_limited(file, MAX_BYTES) for file in files.values())
        figures["metadata"]["still there"] = sum(without_metadata(one, orientation_of(one, "")) is None for one in data)
    lines = re.findall(rf"(?m)^([0-9a-f]{{64}}) [ *](?:\./)?{IMAGES}/(.+)$", read_text(folder / SUMS))
    known = {path: digest for digest, path in lines}
    sums = {path: known.get(path) or digest_of(read_limited(file, MAX_BYTES)) for path, file in files.items()}
    write_texts(project, folder, config, figures, sums)


def _is_named(path: Path, names: Set[str]) -> bool:
    """Return True for a file that has one of the names, or can't be read."""
    try:
        text = read_text(path)
    except DataError:
        return path.exists()
    return any(name in text for name in names)
