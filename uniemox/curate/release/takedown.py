"""Takedown: images leave the project and all its releases."""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from uniemox.data.readers.csv_table import read_bytes, read_json, read_rows, read_text
from uniemox.data.readers.folders import inside
from uniemox.data.splits import write_splits
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io.files import PARTIAL, FileLock, read_limited, write_file
from uniemox.io.images import MAX_BYTES

BOM = codecs.BOM_UTF8.decode("latin-1")
MIN_HASH = 12  # digits of a sha256 that name an image
TASKS = "label_studio.json"
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", "ratings.csv", "splits.json"),
    *(TASKS, "statistics.json", "agreement.json", "croissant.json", SUMS),
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

    Args:
        which: Address of an image or its page, path below a local folder as in provenance.csv, or at least 12 digits of
            the sha256. Near duplicates go too. Files, previews and thumbnails are deleted; hash and addresses stay in
            the database. The decision can be undone: the next collect then fetches the image again. Images leave all
            releases before the tables of any release are written, so that a release that can't be written keeps them in
            no other.

    Raises:
        DataError: If there is no such image.
        ConfigError: For a hash that is too short.
    """
    images = t.images.c
    looks = t.looks.c
    candidates = t.candidates.c
    events = t.events.c
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
    before = before.where(events.picture_id.not_in(select(looks.picture_id)))  # after an undo, screen finds them anew
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


def count_undeleted(project: Project) -> int:
    """Return how many images are taken down, but still have files, as after the undo of an undo."""
    rows = project.rows(select(t.images.c.sha256, t.images.c.format).where(t.images.c.id.in_(taken_down())))
    return sum(project.image_path(*row).exists() for row in rows)


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

    Args:
        problems: Sentences for the result, to which further ones are added.
    """
    taken = project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))
    names = {row.sha256[:NAME_DIGITS] for row in taken}
    gone = []
    written = []
    removed = dict[str, set[str]]()
    every = project.rows(select(t.releases).order_by(t.releases.c.id))
    releases = {os.path.realpath(row.folder): row for row in every}.values()  # links may lead to the same one
    with ExitStack() as locks:
        for row in releases:
            folder = Path(row.folder)
            try:
                if _is_there(folder / MARK) or _is_there(folder / IMAGES):
                    removed[row.folder] = _remove_files(project, folder, names, locks)
                else:
                    gone.append(row.folder)
            except (OSError, UniemoxError) as error:
                remedy = "repeat the takedown, or remove them by hand"
                problems.append(f"{folder}: the images can't be removed ({error}); {remedy}")
        for row in (row for row in releases if row.folder in removed):
            folder = Path(row.folder)
            texts = None
            try:
                texts = _read_without(folder, names)
                _write_again(project, row, texts)
                if absent := len(texts.named - removed[row.folder]):
                    problems.append(f"{folder}: {absent} images were not there; repeat the takedown if they return")
                else:
                    written.append(row.folder)
                if (folder / NEW_README).exists():
                    problems.append(f"{folder}: README.md was edited, so it stays; {NEW_README} has the new numbers")
            except (UniemoxError, OSError, csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
                remedy = "repeat the takedown, or curate release on it"
                if texts is None:  # files were changed by hand, and may still name the images
                    problems += _forget(folder, names)
                    remedy = "run curate release on it"
                problems.append(f"{folder}: the images are removed, but it can't be written again ({error}); {remedy}")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))


def _remove_files(project: Project, folder: Path, names: Set[str], locks: ExitStack) -> set[str]:
    """Lock a release, delete images and their copies in it, and return their names. Raises OSError or UniemoxError.

    Args:
        names: Of all images that were taken down, without their endings.
    """
    if not _is_there(folder / MARK):
        raise DataError(f"it has no {MARK}")
    if not folder.is_absolute() or not read_limited(folder / MARK).startswith(mark_of(project).encode()):
        raise DataError("it is not a release of this project")
    locks.callback(FileLock(folder / MARK).release)
    check_folder(folder)
    named = [path for path in _files_in(folder) if _named(path, names)]
    if failures := list(_unlink([*named, *folder.glob(f"*{PARTIAL}")])):
        raise DataError("; ".join(failures))
    return {name for path in named for name in _named(path, names)}


def _named(path: str | Path, names: Set[str]) -> set[str]:
    """Return those of the names that the last part of a path contains."""
    return {digits[:NAME_DIGITS] for digits in re.findall(f"[0-9a-f]{{{NAME_DIGITS},}}", Path(path).name)} & names


def _is_there(path: Path) -> bool:
    """Return True if a path exists.

    Raises:
        OSError: If that can't be known.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in all folders below one.

    Raises:
        OSError: For a folder that can't be read.
    """

    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, _, names in os.walk(folder, onerror=stop):
        yield from (Path(place, name) for name in names)


class _Texts(NamedTuple):
    """Content of a release's files without some images."""

    named: set[str]
    """Those images that labels.csv had."""
    scheme: dict[str, str]
    """Splits by path."""
    tables: dict[Path, bytes]
    tasks: list[Any]
    """Of Label Studio."""
    made: tuple[str, str]
    """Name of the data set and of the way of splitting, for splits.json."""
    figures: dict[str, Any]
    sums: dict[str, str]
    """Known sha256 of images, by path."""


def _read_without(folder: Path, names: Set[str]) -> _Texts:
    """Read the files of a release without images. Raises one of many errors for files that were changed by hand."""
    table = folder / "labels.csv"
    if not table.exists() and not any(_files_in(folder / IMAGES)):  # after its last image was taken down
        return _Texts(set(), {}, {}, [], ("", ""), {}, {})
    listed = {row["path"]: row["split"] for _, row in read_rows(table, columns=("path", "split"))}
    paths = (folder / name for name in LISTS)
    splits = read_json(folder / FILE)
    figures = read_json(folder / "statistics.json")
    if (folder / SUMS).exists():
        sums = read_text(folder / SUMS)
    else:
        sums = ""
    if (folder / TASKS).exists():
        tasks = read_json(folder / TASKS)
    else:
        tasks = []
    lines = re.findall(rf"(?m)^([0-9a-f]{{64}}) [ *](?:\./)?{IMAGES}/(.+)$", sums)
    tables = {path: _table_without(path, names) for path in paths if path.suffix == ".csv" and path.exists()}
    tables[folder / SUMS] = "".join(line for line in sums.splitlines(True) if not _named(line, names)).encode()
    return _Texts(
        named={name for path in listed for name in _named(path, names)},
        scheme={path: split for path, split in listed.items() if not _named(path, names)},
        tables=tables,
        tasks=[one for one in tasks if not _named(one["data"]["image"], names)],
        made=(splits["data"], splits["how"]),
        figures=figures,
        sums={path: digest for digest, path in lines},
    )


def _table_without(path: Path, names: Set[str]) -> bytes:
    """Return a table without images, in its own encoding.

    Raises:
        ValueError: If it has no column path, csv.Error.
    """
    lines = list(io.StringIO(read_bytes(path).decode("latin-1"), newline=""))  # which keeps every byte
    bare = [line.removeprefix(BOM) for line in lines]
    delimiter = next((one for one in ",;\t" if "path" in next(csv.reader(bare, delimiter=one), ())), ",")  # of Excel
    rows = csv.reader(bare, delimiter=delimiter, strict=True)
    at = next(rows, []).index("path")
    end = rows.line_num
    kept = lines[:end]
    for row in rows:
        first = end
        end = rows.line_num
        if not row or not _named(row[at], names):
            kept += lines[first:end]
    return "".join(kept).encode("latin-1")


def _write_again(project: Project, row: Any, texts: _Texts) -> None:
    """Write the files of a release that has lost images.  row: of tables.releases."""
    folder = Path(row.folder)
    if texts.scheme:
        for path, content in texts.tables.items():
            write_file(path, content)
        if (folder / TASKS).exists():
            write_file(folder / TASKS, as_json(texts.tasks))
        write_splits(folder / FILE, texts.scheme, source=texts.made[0], how=texts.made[1])
        files = {path: inside(folder / IMAGES, path, "labels.csv") for path in texts.scheme}
        if texts.figures["metadata"]["still there"]:
            data = (read_limited(file, MAX_BYTES) for file in files.values())
            count = sum(without_metadata(one, orientation_of(one, "")) is None for one in data)
            texts.figures["metadata"]["still there"] = count
        sums = {path: texts.sums.get(path) or digest_of(read_limited(file, MAX_BYTES)) for path, file in files.items()}
        write_texts(project, folder, ReleaseConfig(**json.loads(row.options)), texts.figures, sums)
    else:
        for name in LISTS:
            (folder / name).unlink(missing_ok=True)
    counted = update(t.releases).where(t.releases.c.id == row.id).values(pictures=len(texts.scheme))
    with project.store.write() as connection:
        connection.execute(counted)


def _forget(folder: Path, names: Set[str]) -> Iterator[str]:
    """Remove images from each table of a release that can be read; delete other lists that name them.

    Yields a sentence for each list that is deleted, and for each failure.
    """
    for path in (folder / name for name in LISTS):
        with suppress(DataError, csv.Error, ValueError, LookupError):
            if path.suffix == ".csv":
                write_file(path, _table_without(path, names))
        try:
            is_left = any(map(read_text(path).__contains__, names))
        except DataError:  # it can't be read
            is_left = path.exists()
        if is_left:
            yield from list(_unlink([path])) or [f"{path}: deleted, because it names the images or can't be read"]
