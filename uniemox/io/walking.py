"""Files below a folder, in the order of their names, also behind links to folders."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from uniemox.io.system_folders import describe_left_out, is_system_folder

# Beginnings of the names of files that archives and systems put beside a user's own.
HIDDEN = (".", "__MACOSX")
Identity = tuple[int, int] | str
"""Device and inode of a folder; a path, if they are not known."""


@dataclass(slots=True)
class LeftOut:
    """Folders that a walk has left out: links to folders, and folders of the system."""

    circles: list[Path] = field(default_factory=list)
    """Links to a folder around them, which would have no end."""
    repeated: list[Path] = field(default_factory=list)
    """Links to a folder that was already read, and such folders behind a link."""
    system: list[str] = field(default_factory=list)
    """Folders of thumbnails and deleted files, see `is_system_folder`."""
    files: list[Path] = field(default_factory=list)
    """Icons, drawings and other images that are no photographs."""

    def notes(self, is_image: Callable[[str], bool]) -> list[str]:
        """Return notes for people about everything left out.

        Args:
            is_image: Function that returns True for the name of an image.
        """
        note = describe_left_out(self.system, is_image)
        return ([note] if note else []) + self._file_notes() + list(self.link_notes(Path()))

    def _file_notes(self) -> list[str]:
        """Return a note on images that are no photographs; an empty list without any."""
        if not self.files:
            return []
        endings = Counter(path.suffix.lower() for path in self.files)
        counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        return [f"left out, because such files are no photographs: {counts} (the first is {min(self.files)})"]

    def link_notes(self, root: Path) -> tuple[str, ...]:
        """Return notes for people about links: the number of each kind, and its first path below `root`."""
        notes = []
        if self.circles:
            links = "1 link to a folder around it was"
            if len(self.circles) > 1:
                links = f"{len(self.circles)} links to a folder around them were"
            notes.append(f"{links} not followed: {min(_below(root, path) for path in self.circles)}")
        if self.repeated:
            links = "1 link to a folder that was already read was"
            if len(self.repeated) > 1:
                links = f"{len(self.repeated)} links to a folder that was already read were"
            notes.append(f"{links} not followed again: {min(_below(root, path) for path in self.repeated)}")
        return tuple(notes)


def walk_folder(
    folder: Path, unlisted: Callable[[Path, OSError], Path], skipped: LeftOut | None = None
) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, without hidden ones; then those of linked folders.

    Each folder is read once, even if several links lead to it. Folders are read lazily, so millions of files need no
    memory. Dead links and special files are yielded too, so that reading them fails.

    Args:
        folder: The folder.
        unlisted: Function that raises an error for a folder that can't be listed, or returns a path to yield instead.
        skipped: Filled with the folders that were left out; None: they are not recorded.
    """
    visited = set[Identity]()
    links = list[Path]()
    skipped = LeftOut() if skipped is None else skipped
    yield from _walk_unlinked(folder, unlisted, visited, links, skipped)
    while links:
        link = links.pop(0)
        if Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
            skipped.circles.append(link)
        elif _identity(link) in visited:
            skipped.repeated.append(link)
        else:
            yield from _walk_unlinked(link, unlisted, visited, links, skipped)


def _walk_unlinked(
    folder: Path, unlisted: Callable[[Path, OSError], Path], visited: set[Identity], links: list[Path], skipped: LeftOut
) -> Iterator[Path]:
    """Yield files below a folder in sorted order, without those behind links.

    Args:
        folder: The folder.
        unlisted: See `walk_folder`.
        visited: Extended by the folders that are read.
        links: Extended by links to folders.
        skipped: Extended by the folders that are left out.
    """
    # The entries of each open folder that are not read yet, the deepest folder last: folders may be nested deeper than
    # Python's calls.
    open_folders: list[Iterator[os.DirEntry[str]]] = []

    def open_folder(path: Path) -> Path | None:
        """Open a folder; return what to yield instead if it can't be listed."""
        visited.add(_identity(path))
        try:
            with os.scandir(path) as scan:
                open_folders.append(iter(sorted(scan, key=lambda entry: entry.name)))
        except OSError as error:
            return unlisted(path, error)
        return None

    if (failed := open_folder(folder)) is not None:
        yield failed
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
            continue
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and is_system_folder(entry.name):
            skipped.system.append(entry.path)
            continue
        if entry.name.startswith(HIDDEN):
            continue
        if is_folder:
            # The target of a link may contain a folder that was already read.
            if _identity(path) in visited:
                skipped.repeated.append(path)
            elif (failed := open_folder(path)) is not None:
                yield failed
        elif entry.is_symlink() and os.path.isdir(path):
            links.append(path)
        else:
            yield path


def _identity(folder: Path) -> Identity:
    """Return device and inode of a folder, or of the folder that a link leads to; its path if there is no such folder.

    To resolve the path of every folder would take time that grows with the square of the depth.
    """
    try:
        state = os.stat(folder)
    except OSError:
        return str(folder)
    return state.st_dev, state.st_ino


def _below(root: Path, path: Path) -> str:
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)
