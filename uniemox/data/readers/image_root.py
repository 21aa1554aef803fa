"""Remedy for a table whose images are not where it says: the right ?root=, if the images are near the table."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def missing_image_remedy(table: Path, root: str, name: str, *, has_others: bool) -> str:
    """Return what to do about an image that does not exist.

    Args:
        table: The table.
        root: Folder of the images, relative to the table's.
        name: Path of the image in the table, which does not lead out of the folder.
        has_others: Other images of the table exist.
    """
    for folder in _folders_near(table, root):
        if os.path.isfile(folder / name):
            suggestion = Path(os.path.relpath(folder, table.parent)).as_posix()
            if suggestion == ".":
                return "paths are relative to the table's folder here; leave out ?root"
            return f"it is in {folder}; give this folder relative to the table's: ?root={suggestion}"
    if has_others:
        return "?missing=skip leaves such rows out"
    return "give the folder of the images relative to the table's: ?root=FOLDER"


def _folders_near(table: Path, root: str) -> Iterator[Path]:
    """Yield the table's folder, the root relative to the working folder, folders beside the table, and the parent."""
    yield table.parent
    yield Path(root)
    with suppress(OSError):
        yield from sorted(path for path in table.parent.iterdir() if os.path.isdir(path))
    yield table.parent / ".."
