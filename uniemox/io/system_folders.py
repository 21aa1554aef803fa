"""Folders in which file systems, network drives and galleries keep thumbnails and deleted files, beside photographs."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from uniemox.errors import DataError
from uniemox.io.borders import shorten

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
# Libraries of Apple's Photos, iPhoto, Aperture and iMovie, of Lightroom, Capture One and Final Cut: folders that look
# like one file. They hold several copies of each photograph, and their programs take files of others for damage.
LIBRARIES = (
    *(".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary", ".migratedaplibrary"),
    *(".lrdata", ".lrlibrary", ".cocatalog", ".fcpbundle", ".imovielibrary"),
)
# Names of such libraries from before they had an ending, lower-case.
_OLD_LIBRARIES = ("iphoto library", "aperture library")
# Deleted files of a drive, by the number of the user; previews of Nextcloud and ownCloud, with a random ending.
_BEGINNINGS = (".trash-", "appdata_oc")
MAX_NAMED = 5


def is_system_folder(name: str) -> bool:
    """Return True if a folder of this name holds thumbnails or deleted files, or is a photo library.

    >>> is_system_folder("@eaDir"), is_system_folder(".Trash-1000"), is_system_folder("summer")
    (True, True, False)
    """
    return name.lower() in SYSTEM_FOLDERS or name.lower().startswith(_BEGINNINGS) or is_library(name)


def is_library(name: str) -> bool:
    """Return True if a folder of this name is the library of a photo program.

    >>> is_library("Photos Library.photoslibrary"), is_library("summer")
    (True, False)
    """
    return name.lower().endswith(LIBRARIES) or name.lower() in _OLD_LIBRARIES


def refuse_library(path: Path) -> None:
    """Raise DataError for a path in the library of a photo program, where nothing may be written."""
    for part in path.absolute().parts:
        if is_library(part):
            raise DataError(
                f"{path} is inside of {part}, the library of a photo program, which takes files of others for damage: "
                "write elsewhere, or export the photographs from that program first"
            )


def system_folders_below(root: str | os.PathLike[str]) -> list[str]:
    """Return the folders of a system below a folder; those inside them are not listed."""
    paths = []
    remaining = [os.fspath(root)]
    while remaining:
        for name, path in _folders_in(remaining.pop()):
            if is_system_folder(name):
                paths.append(path)
            elif name[0] != ".":
                remaining.append(path)
    return sorted(paths)


def _folders_in(folder: str) -> list[tuple[str, str]]:
    """Return names and paths of the folders in a folder; none if it can't be listed.

    `os.walk` of Python 3.11 calls itself for each folder, and ends with RecursionError in a thousand nested ones.
    """
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _count_images(folder: str, is_image: Callable[[str], bool]) -> int:
    """Return the number of images in a folder and those in it, without hidden ones."""
    count = 0
    remaining = [folder]
    while remaining:
        path = remaining.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remaining.append(entry.path)
                elif entry.name[0] != "." and is_image(entry.name):
                    count += 1
    return count


def describe_left_out(folders: Iterable[str], is_image: Callable[[str], bool]) -> str:
    """Describe the images in folders that were left out in one line; "" if there are none.

    Args:
        folders: Paths of system folders.
        is_image: Function that returns True for the name of an image.
    """
    image_count = 0
    folder_count = 0
    # A dictionary keeps each name once, in their order.
    names: dict[str, None] = {}
    for folder in dict.fromkeys(folders):
        images_inside = _count_images(folder, is_image)
        if images_inside:
            image_count += images_inside
            folder_count += 1
            names[os.path.basename(folder)] = None
    if not image_count:
        return ""
    listed_names = ", ".join(map(shorten, list(names)[:MAX_NAMED]))
    if len(names) > MAX_NAMED:
        listed_names += ", ..."
    return (
        f"left out: {image_count:,} image{'s' * (image_count != 1)} in {folder_count:,} "
        f"folder{'s' * (folder_count != 1)} of thumbnails, deleted files or photo libraries ({listed_names}); "
        "to read such a folder, name it"
    )
