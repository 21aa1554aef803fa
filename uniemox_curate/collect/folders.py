"""Images of collected folders: where they are, their licences, and what has changed since."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.request import url2pathname

from sqlalchemy import func, select

from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.licences import UNKNOWN_LICENCE
from uniemox_curate.project import Project


def path_of(address: str) -> Path:
    """Return the path of a file: address."""
    return Path(url2pathname(address.removeprefix("file://")))


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Return True if a path is in one of these folders, also through links."""
    try:
        return any(path.resolve().is_relative_to(root) for root in roots)
    # The errors of a name that is too long, of a zero byte, and of a loop of links.
    except (OSError, ValueError, RuntimeError):
        return False


def waits_for_folder(project: Project) -> bool:
    """Return True if images of a folder wait to be read."""
    is_waiting = (t.candidates.c.source == t.FOLDER) & (t.candidates.c.state == "waiting")
    return project.count(select(t.candidates.c.id).where(is_waiting)) > 0


def folder_licences(project: Project) -> dict[str, int]:
    """Return the number of images that were collected from folders, by their licence."""
    candidates = t.candidates.c
    count = func.count(candidates.picture_id.distinct()).label("n")
    query = select(candidates.licence, count).where(candidates.source == t.FOLDER, candidates.picture_id.is_not(None))
    rows = project.rows(query.group_by(candidates.licence).order_by(count.desc()))
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.licence or UNKNOWN_LICENCE] += row.n
    return dict(counts)


def folder_changes(project: Project, folders: Sequence[Path]) -> list[str]:
    """Return a line about files that have changed since they were collected, and one about files that are gone.

    A file has changed if its size or its date is another one, and its content is.

    Args:
        folders: Folders that were collected again.
    """
    candidates = t.candidates.c
    query = select(candidates.address, candidates.fetched_at, t.images.c.sha256, t.images.c.bytes).join(t.images)
    rows = project.rows(query.where(candidates.source == t.FOLDER, candidates.state == "fetched"))
    # A file may be collected several times, with other options.
    rows = list({row.address: row for row in rows}.values())
    roots = [folder.resolve() for folder in folders]
    paths = [(row, path_of(row.address)) for row in rows]
    states = {path: _state_of(row, path) for row, path in paths if is_below(path, roots)}
    changed = [path for path, state in states.items() if state == "changed"]
    gone = [path for path, state in states.items() if state == "gone"]
    lines = []
    if changed:
        lines.append(
            f"{counted(len(changed), 'file has', 'files have')} changed since the first collection, such as "
            f"{changed[0]}: the project keeps the first content; give the new one another name to collect it"
        )
    if gone:
        lines.append(
            f"{counted(len(gone), 'collected file is', 'collected files are')} gone, such as {gone[0]}: images and "
            "labels stay in the project. A file that was moved has the labels of both folders; drop the image on the "
            "page /screen, or decide about it on /judge"
        )
    return lines


def _state_of(row: Any, path: Path) -> Literal["same", "changed", "gone"]:
    """Return what has become of a collected file; "same" also if it can't be read now.

    Args:
        row: Row with bytes, fetched_at and sha256.
        path: The file.
    """
    try:
        details = path.stat()
        if details.st_size == row.bytes and details.st_mtime <= row.fetched_at:
            return "same"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError:
        return "same"
    return "same" if digest == row.sha256 else "changed"
