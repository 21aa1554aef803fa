"""Takedown: images leave the project, and its releases are written again without them."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sqlalchemy import false, or_, select, update

from uniemox.data import read_text
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io import PARTIAL, FileLock, copy_file, read_limited
from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.collect.folders import path_of
from uniemox_curate.decisions import Change, append, taken_down
from uniemox_curate.project import Project
from uniemox_curate.release.config import IMAGES
from uniemox_curate.release.hub_card import METADATA
from uniemox_curate.release.record import NAME_DIGITS, forget_images, load_record, save_written
from uniemox_curate.release.writing import (
    FIGURES,
    FILES,
    LISTS,
    MARK,
    NEW_README,
    SUMS,
    beside,
    check_folder,
    digest_of_file,
    mark_of,
    restore_interrupted,
    write_readme,
    write_release,
)

MIN_HASH = 12  # digits of a sha256 that name an image


class TakenDown(NamedTuple):
    """Result of a takedown."""

    sha256: tuple[str, ...]
    """Hashes of the deleted images."""
    releases: tuple[str, ...]
    """Folders of releases that were written again without them."""
    missing: tuple[str, ...]
    """Folders of releases that are no longer there; copies may exist elsewhere."""
    problems: tuple[str, ...]
    """A sentence for each file that could not be deleted, and for whatever the owner must look at in a release."""
    near_duplicates: int
    """Number of the deleted images that were not named, but are nearly the same as one that was."""


def take_down(project: Project, which: str, *, because: str, actor: str = "owner") -> TakenDown:
    """Remove images from the project and its releases, so that they are not collected again.

    Near duplicates go too. Files, previews and thumbnails are deleted; hash and addresses stay in the database. The
    decision can be undone: the next collect then fetches the image again, but it returns to no old release.
    Each release is written again from its record, next to its folder, and replaces the old one when it is complete.

    Args:
        which: Address of an image or its page; path of a local image, also below its folder as in provenance.csv; path
            of an image in a release; or at least 12 digits of the sha256.

    Raises:
        DataError: If there is no such image.
        ConfigError: For a hash that is too short.
    """
    rows = _find_images(project, which)
    numbers = [row.id for row in rows]
    paths = _released_paths(project, numbers)
    with project.store.write() as connection:
        changes = [Change(row.id, "taken", "yes", because) for row in rows]
        append(connection, actor=actor, step="takedown", note=f"{which}: {because}", changes=changes)
        connection.execute(t.looks.delete().where(t.looks.c.picture_id.in_(numbers)))
        candidates = update(t.candidates).where(t.candidates.c.picture_id.in_(numbers))
        connection.execute(candidates.values(state="failed", reason="taken down"))
        forget_images(connection, taken_down())
    # A link in place of a folder can concern several images.
    problems = list(dict.fromkeys(problem for row in rows for problem in _delete_files(project, row)))

    taken = project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))
    names = {row.sha256[:NAME_DIGITS] for row in taken}
    written = []
    missing = []
    releases = project.rows(select(t.releases).order_by(t.releases.c.id))
    # Links may lead to the same folder; the newest record describes what is in it.
    for folder, row in {Path(os.path.realpath(row.folder)): row for row in releases}.items():
        try:
            if not _is_there(folder):
                missing.append(row.folder)
                continue
            notes = _write_again(project, row, folder, names, paths.get(row.id, ()))
        except (OSError, UniemoxError) as error:
            remedy = "repeat the takedown, run curate release on it, or remove the images by hand"
            problems.append(f"{folder}: it can't be written again without the images ({error}); {remedy}")
        else:
            written.append(str(folder))
            problems += [f"{folder}: {note}" for note in notes]
    return TakenDown(
        sha256=tuple(row.sha256 for row in rows),
        releases=tuple(written),
        missing=tuple(missing),
        problems=tuple(problems),
        near_duplicates=sum(not row.is_named for row in rows),
    )


def count_undeleted(project: Project) -> int:
    """Return how many images are taken down, but still have files, as after the undo of an undo."""
    rows = project.rows(select(t.images.c.sha256, t.images.c.format).where(t.images.c.id.in_(taken_down())))
    return sum(project.image_path(*row).exists() for row in rows)


def _find_images(project: Project, which: str) -> list[Any]:
    """Return the rows of the images that `which` means, with their near duplicates and those of earlier takedowns."""
    if not which.strip():  # many images have no page
        raise ConfigError("expected an address or a hash, got an empty text; which image is to be taken down?")
    images = t.images.c
    looks = t.looks.c
    candidates = t.candidates.c
    events = t.events.c
    digits = _digits_in(which)
    has_hash = images.sha256.like(f"{digits}%") if digits else false()
    in_folder = candidates.address.in_(_addresses_in_folders(project, which))
    is_named = or_(candidates.address == which, candidates.page == which, in_folder)
    is_meant = or_(images.id.in_(select(candidates.picture_id).where(is_named)), has_hash)

    meant = select(images.id).where(is_meant)
    groups = select(looks.near_group).where(looks.picture_id.in_(meant))
    copies = select(looks.picture_id).where(looks.near_group.in_(groups))
    # A takedown forgets near duplicates; the batch of an earlier one has them, unless its undo let screen find them.
    batches = select(events.batch_id).where(events.field == "taken", events.picture_id.in_(meant))
    earlier = select(events.picture_id).where(events.batch_id.in_(batches))
    earlier = earlier.where(events.picture_id.not_in(select(looks.picture_id)))
    images_to_remove = select(t.images, is_meant.label("is_named"))
    rows = project.rows(images_to_remove.where(or_(is_meant, images.id.in_(copies), images.id.in_(earlier))))
    if not rows and not digits and not which.startswith(("http://", "https://", "file://")):
        raise ConfigError(
            f"expected an address, the path of an image in a release or in a collected folder, or at least {MIN_HASH} "
            f"digits of a sha256, got {which!r}"
        )
    if not rows:
        raise DataError(f"no image of {project.folder} has the address, page or hash {which}")
    return rows


def _addresses_in_folders(project: Project, which: str) -> Sequence[str]:
    """Return the addresses of images of collected folders that a path means: as such, or below their folder.

    A path of a file means this file alone, even if other folders have images of the same path below them.

    Raises:
        ConfigError: If images of several folders have the path below them, or if it is one of another file, too.
    """
    if not PurePath(which).name or "://" in which:
        return []
    # Paths, also of collected files, may contain links and "..".
    file = os.path.realpath(which)
    names = {PurePath(which).name, PurePath(file).name} - {""}
    endings = [Path("/", name).as_uri().removeprefix("file://") for name in sorted(names)]
    candidates = t.candidates.c
    columns = (candidates.address, candidates.title, candidates.picture_id)
    # A title has no double blanks, and may be cut off.
    has_name = [candidates.address.endswith(ending, autoescape=True) for ending in endings]
    is_named = or_(*has_name, candidates.title == which) & (candidates.source == t.FOLDER)
    rows = project.rows(select(*columns).where(is_named))
    if of_file := [row.address for row in rows if os.path.realpath(path_of(row.address)) == file]:
        return of_file
    below = [row for row in rows if row.title == which]
    paths = ", ".join(str(path_of(row.address)) for row in below)
    if below and os.path.isfile(file):
        raise ConfigError(
            f"{which} is a file that was not collected; a collected folder has another image of this path: give the "
            f"path of that one ({paths})"
        )
    if len({row.picture_id for row in below}) > 1:
        raise ConfigError(f"{len(below)} collected folders have an image {which}: give one of these paths ({paths})")
    return [row.address for row in below]


def _digits_in(which: str) -> str:
    """Return the digits of a sha256 that a text is, or that name an image in a release; empty if there are none."""
    digits = PurePath(which).stem.lower()
    is_hash = MIN_HASH <= len(digits) <= 64 and not set(digits) - set("0123456789abcdef")
    return digits if is_hash and "://" not in which else ""


def _released_paths(project: Project, images: Sequence[int]) -> Mapping[int, Sequence[str]]:
    """Return the paths of images in releases, by the number of the release."""
    table = t.released_images
    paths: dict[int, list[str]] = {}
    for row in project.rows(select(table).where(table.c.picture_id.in_(images))):
        paths.setdefault(row.release_id, []).append(json.loads(row.content)["path"])
    return paths


def _delete_files(project: Project, row: Any) -> Iterator[str]:
    """Delete an image and its preview, and parts of them that a killed writer left. Yield a sentence per failure."""
    for find_path, is_optional in (
        (lambda: project.image_path(row.sha256, row.format), False),
        (lambda: project.preview_path(row.sha256), True),
    ):
        try:
            path = find_path()
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


def _is_there(folder: Path) -> bool:
    """Return True if a release is in its folder, or was next to it when a takedown was killed.

    Raises:
        OSError: If that can't be known, as on a drive that can't be read.
    """
    restore_interrupted(folder)
    return _exists(folder / MARK) or _exists(folder / IMAGES)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _write_again(project: Project, release: Any, folder: Path, names: Set[str], paths: Sequence[str]) -> list[str]:
    """Replace a release by a new one without the images that were taken down.

    Args:
        release: Row of tables.releases.
        folder: The release's folder, without links.
        names: Names of all images that were taken down, without endings.
        paths: Paths that images of this takedown have in the release.

    Returns:
        Sentences about what the owner must look at.

    Raises:
        UniemoxError: If it is no release of this project, or a file can't be written; the old release stays then.
        OSError: If a folder can't be read, copied or renamed; the old release stays then.
    """
    if not _exists(folder / MARK):
        raise DataError(f"it has no {MARK}")
    if not Path(release.folder).is_absolute() or not read_limited(folder / MARK).startswith(mark_of(project).encode()):
        raise DataError("it is not a release of this project")
    new = beside(folder, "new")
    lock = FileLock(folder / MARK)
    try:
        for remains in (new, beside(folder, "old")):  # of a takedown that was killed
            if remains.exists():
                shutil.rmtree(remains)
        check_folder(folder)
        record, written = load_record(project, release)
        notes = []
        if absent := sum(not (folder / IMAGES / path).exists() for path in paths):
            notes.append(f"{counted(absent, 'image was', 'images were')} not there; repeat the takedown if they return")
        before = _states(folder)
        _clone(folder, new, names)
        if record.images:
            written = write_release(project, new, record, written=written)
        else:
            _empty(project, new, record.config.name)
        notes += [
            f"{name} was edited; it is written without your changes" for name in sorted(_edited_files(folder, new))
        ]
        if (new / NEW_README).exists():
            notes.append(f"README.md was edited, so it stays; {NEW_README} has the new numbers")
        changed = {path for path, _ in before.items() ^ _states(folder).items()}
        if changed:
            raise DataError(f"{min(changed)} was changed while the release was written again")
        save_written(project, release.id, record, written)
        notes += _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        lock.release()
    return notes


def _clone(folder: Path, target: Path, names: Set[str]) -> None:
    """Copy a release by hard links, without files that are named like images and without remains of killed writers.

    Writers replace files and don't change them, so that those of the old release stay as they are.
    """

    images = folder / IMAGES

    def ignored(directory: str, files: Sequence[str]) -> set[str]:
        parent = Path(directory)
        # Deeper folders of the owner may hold files with such endings that are no remains of ours.
        is_ours = parent in (folder, images) or images in parent.parents
        endings = (PARTIAL, f"{MARK}.lock") if is_ours else ()
        return {name for name in files if name.endswith(endings) or _is_named(name, names)}

    shutil.copytree(folder, target, ignore=ignored, copy_function=_link)


def _states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of change of every file in a folder, by its path; without our lock."""
    states = {}
    for path in folder.rglob("*"):
        if not path.is_dir() and not path.name.endswith(f"{MARK}.lock"):
            state = path.lstat()
            states[str(path)] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return states


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        copy_file(Path(source), Path(target))


def _is_named(file: str, names: Set[str]) -> bool:
    """Return True if a file's name contains that of an image, as copies do."""
    hashes = re.findall(f"[0-9a-f]{{{NAME_DIGITS},}}", file)
    return any(digits[:NAME_DIGITS] in names for digits in hashes)


def _empty(project: Project, folder: Path, name: str) -> None:
    """Remove images, lists and figures of a release that has lost its last image, and say so in its README.md."""
    shutil.rmtree(folder / IMAGES, ignore_errors=True)
    for file in (*LISTS, *FIGURES):
        (folder / file).unlink(missing_ok=True)
    write_readme(project, folder, f"# {name}\n\nAll images of this release were taken down.\n")


def _edited_files(folder: Path, new: Path) -> set[str]:
    """Return the files of an old release that are not as they were written, and that the new one replaces.

    Without checksums, none are known.
    """
    if not (folder / SUMS).is_file():
        return set()
    digests = {name: digest for digest, name in re.findall(r"(?m)^(\w{64}) [ *](\S+)$", read_text(folder / SUMS))}
    ours = {name for name in digests if name in FILES or name.endswith(f"/{METADATA}")}
    edited = {name for name in ours if _differs(folder / name, digests[name])}
    return {name for name in edited if not (new / name).exists() or _differs(folder / name, digest_of_file(new / name))}


def _differs(path: Path, digest: str) -> bool:
    return path.is_file() and digest_of_file(path) != digest


def _replace(folder: Path, new: Path) -> list[str]:
    """Put a new release in the place of the old one, and delete the old one.

    Between the two renamings there is no release in the folder, but both are complete beside it; `_is_there` puts the
    old one back.

    Returns:
        A sentence if the old one can't be deleted.
    """
    old = beside(folder, "old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    try:
        shutil.rmtree(old)
    except OSError as error:
        return [f"the old release can't be deleted ({error}); delete {old}"]
    return []
