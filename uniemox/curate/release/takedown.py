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
from uniemox.curate.release.run import IMAGES, MARK, NAME_DIGITS, NEW_README, check_folder, mark_of, write_texts
from uniemox.curate.release.splitting import FILE
from uniemox.data.readers.csv_table import read_json, read_rows, read_text
from uniemox.data.splits import write_splits
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io.files import PARTIAL, FileLock, read_limited, write_file

MIN_HASH = 12  # digits of a sha256 that name an image
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
    The decision can be undone: the next collect then fetches the image again. Images leave all releases before the
    tables of any release are written, so that a release that can't be written keeps them in no other.
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
    """Remove all images that were taken down from every release that is still there, then from their tables and texts.

    problems: sentences for the result, to which further ones are added.
    """
    releases = project.rows(select(t.releases).order_by(t.releases.c.id))
    gone = [row.folder for row in releases if not (Path(row.folder) / MARK).exists()]
    taken = project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))
    names = {row.sha256[:NAME_DIGITS] for row in taken}
    removed, written = [], []
    for row in releases:
        folder = Path(row.folder)
        try:
            if row.folder in gone:
                continue
            if not folder.is_absolute() or not read_limited(folder / MARK).startswith(mark_of(project).encode()):
                problems.append(f"{folder}: not a release of this project; if it is, repeat curate release on it")
                continue
            check_folder(folder)
            if row.pictures and _is_away(folder, names):
                remedy = "repeat the takedown when they are there, or curate release on it"
                problems.append(f"{folder}: its images are missing; {remedy}")
                continue
            named = [path for path in (folder / IMAGES).rglob("*") if path.stem in names]
            if failures := list(_unlink(named + list(folder.glob(f"*{PARTIAL}")))):
                problems += failures
            else:
                removed.append(row)
        except (OSError, DataError) as error:
            problems.append(f"{folder}: the images can't be removed ({error}); remove them by hand")
    for row in removed:
        try:
            _write_again(project, row, names)
            written.append(row.folder)
            if (Path(row.folder) / NEW_README).exists():
                problems.append(f"{row.folder}: README.md was edited, so it stays; {NEW_README} has the new numbers")
        except (UniemoxError, OSError, csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
            problems += _unlink(path for name in LISTS if _is_named((path := Path(row.folder) / name), names))
            failure = f"the images are removed, but it can't be written again ({error})"
            problems.append(f"{row.folder}: {failure}; repeat curate release on it")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))


def _write_again(project: Project, row: Any, names: Set[str]) -> None:
    """Remove images from the tables of a release, and write its texts again; the rest of it stays as it was.

    row: of tables.releases.  names: of the images, without their endings.
    Raises one of many errors for tables that were changed by hand.
    """
    folder = Path(row.folder)
    with ExitStack() as at_end:
        at_end.callback(FileLock(folder / MARK).release)
        for table in (path for name in LISTS if (path := folder / name).suffix == ".csv" and path.exists()):
            lines, text = csv.reader(io.StringIO(read_text(table), newline="")), io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(line for line in lines if not _has_name(str(line), names))
            write_file(table, text.getvalue())
        scheme = {image["path"]: image["split"] for _, image in read_rows(folder / "labels.csv", columns=("split",))}
        if scheme:
            _write_texts(project, folder, ReleaseConfig(**json.loads(row.options)), scheme, names)
        else:
            for name in LISTS:
                (folder / name).unlink(missing_ok=True)
        with project.store.write() as connection:
            connection.execute(update(t.releases).where(t.releases.c.id == row.id).values(pictures=len(scheme)))


def _write_texts(
    project: Project, folder: Path, config: ReleaseConfig, scheme: dict[str, str], names: Set[str]
) -> None:
    """Write splits, statistics, checksums and documents of a release that has lost images.

    scheme: splits of the others, by path.  names: as for `_write_again`.
    """
    tasks, splits, figures = (read_json(folder / name) for name in ("label_studio.json", FILE, "statistics.json"))
    write_file(folder / "label_studio.json", as_json([one for one in tasks if not _has_name(json.dumps(one), names)]))
    write_splits(folder / FILE, scheme, source=splits["data"], how=splits["how"])
    if figures["metadata"]["still there"]:
        data = ((folder / IMAGES / path).read_bytes() for path in scheme)
        figures["metadata"]["still there"] = sum(without_metadata(one, orientation_of(one, "")) is None for one in data)
    pairs = (line.partition(f"  {IMAGES}/") for line in read_text(folder / "SHA256SUMS").splitlines())
    sums = {path: digest for digest, _, path in pairs if path in scheme}
    write_texts(project, folder, config, figures, sums)


def _has_name(text: str, names: Set[str]) -> bool:
    return not names.isdisjoint(re.findall(f"[0-9a-f]{{{NAME_DIGITS}}}", text))


def _is_named(path: Path, names: Set[str]) -> bool:
    """Return True for a file that has one of the names, or can't be read."""
    try:
        return _has_name(read_text(path), names)
    except DataError:
        return path.exists()


def _is_away(folder: Path, names: Set[str]) -> bool:
    """Return True if a release without any image should have some: its folder was moved, or is not mounted.

    names: of the images that were taken down, without their endings.
    """
    images, table = folder / IMAGES, folder / "labels.csv"
    if not images.is_dir() or not any(images.iterdir()):  # a takedown leaves the folders of classes
        return True
    if any(path.is_file() for path in images.rglob("*")):
        return False
    listed = {Path(row["path"]).stem for _, row in read_rows(table, columns=("path",))} if table.is_file() else set()
    return not listed <= names
