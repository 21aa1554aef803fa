"""Folders in which file systems, network drives and galleries keep thumbnails and deleted files, beside photographs."""

import os
from collections.abc import Callable, Iterable

from uniemox.io.image_border import shorten

SYSTEM_FOLDERS = frozenset(
    {
        # Synology: thumbnails, deleted files, snapshots
        *("@eadir", "#recycle", "#snapshot", "@tmp"),
        # QNAP
        *(".@__thumb", "@__thumb", "@recycle", "@recently-snapshot"),
        # Windows
        *("$recycle.bin", "recycler", "system volume information"),
        # Linux and Android
        *(".thumbnails", ".thumbs", ".trash", "lost+found"),
        # macOS
        *(".trashes", "__macosx"),
    }
)
"""Names, lower-case."""
MAX_NAMED = 5


def is_system_folder(name: str) -> bool:
    """Return True if a folder of this name holds thumbnails or deleted files.

    >>> is_system_folder("@eaDir"), is_system_folder(".Trash-1000"), is_system_folder("summer")
    (True, True, False)
    """
    return name.lower() in SYSTEM_FOLDERS or name.lower().startswith(".trash-")


def system_folders_below(root: str | os.PathLike[str]) -> list[str]:
    """Return the folders of a system below a folder; those inside them are not listed."""
    found = []
    for place, folders, _ in os.walk(root):
        found += [os.path.join(place, name) for name in folders if is_system_folder(name)]
        folders[:] = [name for name in folders if name[0] != "." and not is_system_folder(name)]
    return found


def describe_left_out(folders: Iterable[str], is_image: Callable[[str], bool]) -> str:
    """Describe the images in folders that were left out in one line; "" if there are none.

    Args:
        folders: Paths of system folders.
        is_image: Called with a file's name.
    """
    count = places = 0
    names: dict[str, None] = {}
    for folder in dict.fromkeys(folders):
        inside = sum(name[0] != "." and is_image(name) for _, _, files in os.walk(folder) for name in files)
        if inside:
            count += inside
            places += 1
            names[os.path.basename(folder)] = None
    if not count:
        return ""
    shown = ", ".join(map(shorten, list(names)[:MAX_NAMED])) + (", ..." if len(names) > MAX_NAMED else "")
    return (
        f"left out: {count:,} image{'s' * (count != 1)} in {places:,} folder{'s' * (places != 1)} of thumbnails or "
        f"deleted files ({shown}); to read such a folder, name it"
    )
