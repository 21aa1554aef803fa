"""Names of images as they are typed: files, folders, patterns, lists."""

import glob
import os.path
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from uniemox.io.images import is_image_name
from uniemox.predict.images import walk


def list_images(names: Sequence[str], listed: Iterable[str] = ()) -> Iterator[str]:
    """The images that the names mean, one after the other, as they are needed.

    names: files; folders, for what is in them and in the folders inside, in order; patterns such as photos/*.jpg, where
    no file has that name, for the images and folders of that form (** for all folders' images); "-" for `listed`, a
    path a line. A name that means nothing is passed on, to fail in its turn.
    """
    for name in names:  # by os.path: Path.is_dir and exists raise OSError for a name that is too long
        if name == "-":
            yield from (line.rstrip("\r\n") for line in listed if line.strip())
        elif os.path.isdir(name):
            yield from map(str, walk(Path(name)))
        elif not os.path.exists(name) and glob.has_magic(name):
            found = sorted(glob.iglob(name, recursive=True))
            yield from _matched(found, has_folders="**" not in name) if found else [name]
        else:
            yield name


def _matched(found: Sequence[str], *, has_folders: bool) -> Iterator[str]:
    """The images among what a pattern matched, and in the folders among it unless it matched what is in those too."""
    for name in found:
        if not os.path.isdir(name):
            yield from [name] if is_image_name(Path(name)) else []
        elif has_folders:
            yield from map(str, walk(Path(name)))
