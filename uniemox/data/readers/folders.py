"""Trees of class folders, optionally in folders of splits, and with folders of search words."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError, LabelError
from uniemox.io.images import is_image_name
from uniemox.io.system_folders import describe_left_out, is_system_folder, system_folders_below
from uniemox.labels import Kind, LabelSet, clean, recognise

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split by name of a split folder, lower-case."""


def read_folder(root: Path, *, labels: str | None = None, kind: Kind | None = None) -> DataSet:
    """Read any tree `[<split>/]<class>/**/<picture>`; its classes are looked up among the published label sets.

    Images that are not in at least two class folders have no labels; then everything below the folder is read.
    labels: name of the published set to use, with all its classes; None: recognise the set by the names.
    kind: kind of your own classes; None: that of the recognised set, else "evoked".
    """
    places = [folder for _, folder in _class_folders(root)]
    if len({clean(folder.name) for folder in places if any(map(is_image_name, walk_files(folder)))}) > 1:
        return read_class_folders(root, recognise(sorted({folder.name for folder in places}), kind, labels))
    samples = [Sample(key=key, image=ImageFile(path)) for key, path in images_below(root).items()]
    if not samples:
        raise DataError(f"{root}: no images; expected <class>/<picture>, <split>/<class>/<picture>, or images alone")
    note = "no folders of classes: the images have no labels"
    return DataSet(str(root), recognise((), kind, labels), samples, (note,))


def read_class_folders(root: Path, labels: LabelSet) -> DataSet:
    """Read every image below class folders. Class names may be in any case, quoted, or an alias of the label set.

    Raises DataError if there are no class folders, or one is not a label.
    """
    places = _class_folders(root)
    if not places:
        raise DataError(f"{root}: no class folders with images; expected <class>/<picture> or <split>/<class>/...")
    samples: list[Sample] = []
    ignored: Counter[str] = Counter()
    for split, folder in places:
        label = class_of(labels, folder.name, str(folder), "; rename or remove the folder")
        for path in walk_files(folder):
            if not is_image_name(path):
                ignored[path.suffix.lower() or path.name] += 1
                continue
            between = path.relative_to(folder).parts[:-1]
            samples.append(
                Sample(
                    key=path.relative_to(root).as_posix(),
                    image=ImageFile(path),
                    label=label,
                    split=split,
                    domain="/".join(between) or None,
                )
            )
    if not samples:
        raise DataError(f"{root}: its class folders contain no images")
    kinds = ((count, f"files that are no images were left out ({ending})") for ending, count in sorted(ignored.items()))
    return DataSet(str(root), labels, samples, (*_beside_lines(root), *counted(*kinds)))


def class_of(labels: LabelSet, word: str, where: str, remedy: str = "") -> int:
    """Return the index of a label. Raises DataError if it is not in the set."""
    try:
        return labels.index(word)
    except LabelError as error:
        raise DataError(f"{where}: {error}{remedy}") from error


def counted(*lines: tuple[int, str]) -> tuple[str, ...]:
    """Return the notes that begin with a count above 0."""
    return tuple(f"{count} {what}" for count, what in lines if count)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, without hidden ones and without following links to folders.

    Folders of thumbnails and deleted files are left out, too; `note_left_out` counts their images.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: can't be listed ({error.strerror})") from error
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name[0] == "." or (is_folder and is_system_folder(entry.name)):
            continue
        if is_folder:
            yield from walk_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) or (entry.is_symlink() and not os.path.isdir(entry.path)):
            yield Path(entry.path)  # a dead link, or one into a forbidden folder, fails when it is read


def note_left_out(root: Path) -> tuple[str, ...]:
    """Return a note about the images below a folder that `walk_files` leaves out; () if there are none."""
    note = describe_left_out(system_folders_below(root), lambda name: is_image_name(Path(name)))
    return (note,) if note else ()


def images_below(root: Path) -> dict[str, Path]:
    """Return every image below a folder by key, the relative path with /."""
    return {path.relative_to(root).as_posix(): path for path in walk_files(root) if is_image_name(path)}


def checked_folder(root: Path) -> Path:
    """Return the folder. Raises DataError if it does not exist."""
    if not os.path.isdir(root):  # Path.is_dir raises OSError for a name that is too long
        raise DataError(f"{root}: {'not a folder' if os.path.lexists(root) else 'there is no such folder'}")
    return root


def inside(root: Path, name: str, where: str) -> Path:
    """Return the path of a file that an annotation names. Raises DataError if it is outside of the data set's folder.

    where: file and field with the name, for the message.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    parts = relative.parts  # () for "" and "."
    if not parts or relative.is_absolute() or ".." in parts or "\0" in name or ":" in parts[0]:
        raise DataError(f"{where}: {name!r} must be a path inside {root}, relative to it")
    return root / relative


def key_of(name: str) -> str:
    """Return the key of an image that a table names: `./a.jpg` is the same image as `a.jpg`.

    >>> key_of("./photos\\\\a.jpg")
    'photos/a.jpg'
    """
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return the split folders below root; root itself, without a split, if there are none."""
    checked_folder(root)
    names = ((SPLITS.get(path.name.lower()), path) for path in _folders(root))
    return [(split, path) for split, path in names if split] or [(None, root)]


def _beside_lines(root: Path) -> Iterator[str]:
    """Yield a warning for images outside class folders, and one for folders next to the split folders."""
    splits = _split_folders(root)
    folders, beside = {path for _, path in splits}, list[str]()
    if root not in folders:
        beside = sorted({path.name for path in _folders(root)} - {path.name for path in folders})
    loose = [p for folder in {root, *folders} for p in folder.iterdir() if p.is_file() and is_image_name(p)]
    if loose:
        yield f"{len(loose)} images outside the class folders were left out: {min(p.name for p in loose)}"
    if beside:
        yield f"folders next to the split folders were left out: {', '.join(beside)}"


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return split and folder of every class that contains files."""
    return [
        (split, path) for split, parent in _split_folders(root) for path in _folders(parent) if any(walk_files(path))
    ]


def _folders(folder: Path) -> list[Path]:
    try:
        children = [path for path in folder.iterdir() if path.is_dir()]
        return sorted(path for path in children if path.name[0] != "." and not is_system_folder(path.name))
    except OSError as error:
        raise DataError(f"{folder}: can't be listed ({error.strerror})") from error
