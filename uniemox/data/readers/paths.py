"""Files of a data set: those below a folder, and those that a table names."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from uniemox.errors import DataError
from uniemox.io.images import is_image_name
from uniemox.io.system_folders import describe_left_out, system_folders_below
from uniemox.io.walking import LeftOut, walk_folder
from uniemox.spelling import spelled


def walk_files(folder: Path, left_out: LeftOut | None = None) -> Iterator[Path]:
    """Yield all files below a folder, see `walk_folder`.

    Args:
        left_out: Receives the folders and links that are left out; None: they are not recorded.

    Raises:
        DataError: For a folder that can't be listed.
    """
    yield from walk_folder(folder, _raise_unlisted, left_out)


def _raise_unlisted(folder: Path, error: OSError) -> Path:
    raise DataError(f"{folder}: can't be listed ({error.strerror})") from error


def note_left_out(root: Path) -> tuple[str, ...]:
    """Return a note about the images below a folder that `walk_files` leaves out; () if there are none."""
    note = describe_left_out(system_folders_below(root), lambda name: is_image_name(Path(name)))
    return (note,) if note else ()


def images_below(root: Path, left_out: LeftOut | None = None) -> dict[str, Path]:
    """Return every image below a folder by key, the relative path with /.

    Args:
        left_out: Receives the folders and links that are left out; None: they are not recorded.
    """
    return {path.relative_to(root).as_posix(): path for path in walk_files(root, left_out) if is_image_name(path)}


def checked_folder(root: Path) -> Path:
    """Return the folder.

    Raises:
        DataError: If it does not exist.
    """
    # Path.is_dir raises OSError for a name that is too long.
    if not os.path.isdir(root):
        fault = "not a folder" if os.path.lexists(root) else "there is no such folder"
        raise DataError(f"{root}: {fault}")
    return root


def path_inside(root: Path, name: str, where: str) -> Path:
    """Return the path of a file that an annotation names, in its spelling on disk (`uniemox.spelling`).

    An absolute path is valid if it is inside of the folder.

    Args:
        where: File and field with the name, for the message.

    Raises:
        DataError: If it is outside of the data set's folder, or several files on disk are spelled like it.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    folder = PurePosixPath(os.path.abspath(root))
    if relative.is_relative_to(folder):
        relative = relative.relative_to(folder)
    parts = relative.parts  # () for "" and "."
    # A colon in the first part is a drive of Windows or an address.
    if not parts or relative.is_absolute() or ".." in parts or "\0" in name or ":" in parts[0]:
        raise DataError(f"{where}: {name!r} must be a path inside {root}, relative to it")
    path = root / relative
    if os.path.lexists(path):
        return path
    return _on_disk(root, relative, where)


def _on_disk(root: Path, relative: PurePosixPath, where: str) -> Path:
    """Return the path of a file whose name on disk may be spelled otherwise; the given path if there is none."""
    path = root
    for part in relative.parts:
        name = part
        if not os.path.lexists(path / part):
            names = _names_by_spelling(path, _changed_ns(path)).get(spelled(part), [])
            if len(names) > 1:
                raise DataError(f"{where}: {part!r} may be any of {names} in {path}, which only blanks or accents tell")
            name = names[0] if names else part
        path = path / name
    return path


def _changed_ns(folder: Path) -> int:
    """Return the time of a folder's last change; 0 if it is unknown."""
    try:
        return os.stat(folder).st_mtime_ns
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=16)
def _names_by_spelling(folder: Path, changed_ns: int) -> dict[str, list[str]]:
    """Return the names in a folder by their spelling; none if it can't be listed.

    Args:
        changed_ns: Time of the folder's last change, part of the cache's key.
    """
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return {}
    by_spelling: dict[str, list[str]] = {}
    for name in names:
        by_spelling.setdefault(spelled(name), []).append(name)
    return by_spelling


def key_of(name: str) -> str:
    """Return the key of an image that a table names: `./a.jpg` is the same image as `a.jpg`.

    >>> key_of("./photos\\\\a.jpg")
    'photos/a.jpg'
    """
    return PurePosixPath(name.replace("\\", "/")).as_posix()
