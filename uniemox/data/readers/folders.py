"""Trees of class folders, optionally in folders of splits, and with folders of search words."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from uniemox.data.readers.paths import checked_folder, images_below, walk_files
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError, LabelError
from uniemox.io.images import is_image_name
from uniemox.io.system_folders import is_system_folder
from uniemox.io.walking import LeftOut
from uniemox.labels import CUSTOM, LABEL_SETS, Kind, LabelSet, clean, recognise_labels, requested_label_set
from uniemox.plurals import counted
from uniemox.spelling import spelled_alike

SPLITS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset", "devset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Split by name of a split folder, lower-case."""
MIN_CLASSES = 2
# Number of names in a note.
MAX_NAMES = 3

PUBLISHED_NAMES = frozenset(
    word for labels in LABEL_SETS for word in (*labels.labels, *labels.aliases) if not word.isdigit()
)
"""Labels and aliases of all published sets, by which a folder without images is recognised as a class."""
NAMES_OF_CONTENT = frozenset(
    ("images", "image", "img", "imgs", "pictures", "photos", "jpg", "jpeg", "png", "data", "files", "all", "unknown")
)
"""Names of folders that say nothing about a class."""
WITHOUT_LABELS = "none"
"""Value of the option labels for a folder whose subfolders are no classes."""


def read_folder(root: Path, *, labels: str | None = None, kind: Kind | None = None) -> DataSet:
    """Read any tree `[<split>/]<class>/**/<image>`; its classes are looked up among the published label sets.

    Images that are not in at least two class folders have no labels; then everything below the folder is read, with the
    splits that folders name.

    Args:
        labels: Name of the published set to use, with all its classes; None: recognise the set by the names; "none":
            the folders are no classes, as in an archive, so no image has a label.
        kind: Kind of your own classes; None: that of the recognised set, else "evoked".
    """
    has_classes = labels != WITHOUT_LABELS
    note = "the images are read without labels"
    if has_classes:
        folders = _class_folders(root)
        with_images = [(split, folder) for split, folder in folders if _has_images(folder)]
        if len({clean(folder.name) for _, folder in with_images}) > 1:
            unlabelled = _parts_in_one_folder(with_images)
            names = {folder.name for _, folder in with_images if folder not in unlabelled}
            # A class of a published set may have no image, but a folder such as "annotations" is no class.
            empty = {folder.name for _, folder in folders if clean(folder.name) in PUBLISHED_NAMES} - names
            if labels is not None:
                label_set = requested_label_set(labels, kind)
            else:
                label_set = recognise_labels(sorted(names | empty), kind)
                if label_set.name == CUSTOM:
                    label_set = recognise_labels(sorted(names), kind)
            data = read_class_folders(root, label_set, unlabelled)
            return replace(data, notes=(*data.notes, *_upper_folder_notes(data)))
        note = "no folders of classes: the images have no labels"
    left_out = LeftOut()
    images = images_below(root, left_out)
    splits = {folder.name: split for split, folder in _split_folders(root)}
    samples = [
        Sample(key=key, image=ImageFile(path), split=splits.get(PurePosixPath(key).parts[0]) or split_of(key))
        for key, path in images.items()
    ]
    if not samples:
        raise DataError(f"{root}: no images; expected <class>/<image>, <split>/<class>/<image>, or images alone")
    notes = [note, *left_out.link_notes(root)]
    outside = sum(sample.split is None for sample in samples)
    if 0 < outside < len(samples):
        notes.append(f"{counted(outside, 'image is', 'images are')} in no folder of a split, unlike the others")
    label_set = recognise_labels((), kind)
    if has_classes and labels is not None:
        label_set = requested_label_set(labels, kind)
    return DataSet(str(root), label_set, samples, tuple(notes))


def _parts_in_one_folder(class_folders: Sequence[tuple[str | None, Path]]) -> frozenset[Path]:
    """Return the only folder of each split whose images have no labels, such as test/images beside train/joy.

    That is so if no split with several folders has one of this name, and it is no emotion. Several parts may have one,
    such as test/images and val/images, if its name says what is in it.

    Args:
        class_folders: Split and folder of every class with images.
    """
    names_of: dict[str | None, set[str]] = {}
    for split, folder in class_folders:
        names_of.setdefault(split, set()).add(clean(folder.name))
    if not any(len(names) >= MIN_CLASSES for names in names_of.values()):
        return frozenset()
    classes = set().union(*(names for names in names_of.values() if len(names) >= MIN_CLASSES))
    singles = Counter(name for names in names_of.values() if len(names) == 1 for name in names)
    placeholders = {
        name
        for name, count in singles.items()
        if name not in classes | PUBLISHED_NAMES and (count == 1 or name in NAMES_OF_CONTENT)
    }
    without_labels = {split for split, names in names_of.items() if len(names) == 1 and names <= placeholders}
    return frozenset(folder for split, folder in class_folders if split in without_labels)


def _upper_folder_notes(data: DataSet) -> Iterator[str]:
    """Yield a note if folders with unknown names were probably taken for classes.

    Classes of your own are doubtful in three cases: all have the same folders (fold1/awe, fold1/fear, fold2/awe,
    fold2/fear); one has several folders of emotions; or each is in one split (2019/train, 2020/test).
    """
    if data.labels.name != CUSTOM:
        return
    folders_of: dict[str, set[str]] = {}
    splits_of: dict[str, set[str | None]] = {}
    for sample in data.samples:
        label = data.label_of(sample)
        if label is not None:
            folders_of.setdefault(label, set()).add(clean((sample.domain or "").split("/")[0]))
            splits_of.setdefault(label, set()).add(sample.split)
    first = next(iter(folders_of.values()), set())
    classes = ", ".join(data.labels.labels[:MAX_NAMES])
    # Classes of emotions may have the same folders of search words, as those directly below splits often have.
    are_emotions = not PUBLISHED_NAMES.isdisjoint(folders_of)
    are_below_splits = all(clean(sample.key.split("/")[0]) in SPLITS for sample in data.samples)
    is_plausible = are_emotions or (are_below_splits and PUBLISHED_NAMES.isdisjoint(first))
    has_same_folders = len(first) >= MIN_CLASSES and all(others == first for others in folders_of.values())
    emotions = max((PUBLISHED_NAMES & folders for folders in folders_of.values()), key=len, default=set[str]())
    if len(emotions) >= MIN_CLASSES and not has_same_folders and not are_emotions:
        yield (
            f"the classes, such as {classes}, have folders named as emotions ({', '.join(sorted(emotions)[:MAX_NAMES])}"
            "); if these are the classes, read the folder that holds them"
        )
    if has_same_folders and not is_plausible:
        remedy = "name the folders above them train, val or test"
        if any(sample.split for sample in data.samples):
            remedy = "move them to the top, or directly below folders named train, val and test"
        yield (
            f"the classes, such as {classes}, all have the same folders ({', '.join(sorted(first)[:MAX_NAMES])}); if "
            f"these are the classes, {remedy}"
        )
    has_several_splits = len(set().union(*splits_of.values())) > 1
    if has_several_splits and all(len(splits) == 1 for splits in splits_of.values()):
        yield (
            f"no class, such as {classes}, is in two splits; if these folders are no classes, move the folders of "
            "classes directly below folders named train, val and test"
        )


def read_class_folders(root: Path, labels: LabelSet, unlabelled: Collection[Path] = ()) -> DataSet:
    """Read every image below class folders. Class names may be in any case, quoted, or an alias of the label set.

    Args:
        root: Folder of the class folders, or of splits with them.
        labels: Label set of the classes.
        unlabelled: Folders whose images have no labels; they are left out, unless their names are labels.

    Raises:
        DataError: If there are no class folders, or one is not a label.
    """
    class_folders = _class_folders(root)
    if not class_folders:
        raise DataError(f"{root}: no class folders with images; expected <class>/<image> or <split>/<class>/...")
    _refuse_similar_names(folder for _, folder in class_folders)
    with_labels, folder_notes = _labelled_folders(root, class_folders, labels, unlabelled)

    samples: list[Sample] = []
    ignored: Counter[str] = Counter()
    left_out = LeftOut()
    for split, folder in with_labels:
        remedy = f"; rename or remove the folder, or read other labels than these with folder:{root}"
        label = class_of(labels, folder.name, str(folder), remedy)
        for path in walk_files(folder, left_out):
            if not is_image_name(path):
                ignored[path.suffix.lower() or path.name] += 1
                continue
            key = path.relative_to(root).as_posix()
            subfolders = path.relative_to(folder).parts[:-1]
            # A folder such as <class>/train/ is a split, unless a split folder above the classes is.
            domain = "/".join(part for part in subfolders if split is not None or clean(part) not in SPLITS)
            samples.append(
                Sample(
                    key=key,
                    image=ImageFile(path),
                    label=label,
                    split=split or split_of(path.relative_to(folder).as_posix()),
                    domain=domain or None,
                )
            )
    if not samples:
        raise DataError(f"{root}: its class folders contain no images")
    ignored_notes = count_notes(
        *(
            (count, "file that is no image was", "files that are no images were", f"left out ({ending})")
            for ending, count in sorted(ignored.items())
        )
    )
    folders_read_twice = _linked_folder_notes(root, [folder for _, folder in with_labels])
    notes = (*_warnings(root), *left_out.link_notes(root), *folders_read_twice, *ignored_notes, *folder_notes)
    return DataSet(str(root), labels, samples, notes)


def _linked_folder_notes(root: Path, folders: Sequence[Path]) -> Iterator[str]:
    """Yield a note for each link to a folder of another class or split, or around it: its images are read twice."""
    targets = {folder: Path(os.path.realpath(folder)) for folder in folders}
    for folder, target in targets.items():
        # The link may be the folder of a split.
        if not folder.is_symlink() and not folder.parent.is_symlink():
            continue
        others = (
            other
            for other in folders
            if other != folder and (targets[other].is_relative_to(target) or target.is_relative_to(targets[other]))
        )
        other = next(others, None)
        if other is not None:
            link_name = folder.relative_to(root).as_posix()
            other_name = other.relative_to(root).as_posix()
            yield f"{link_name} is a link to the images of {other_name}, which are read twice; remove the link"


def _refuse_similar_names(folders: Iterable[Path]) -> None:
    """Refuse folders in one folder whose names differ only in spelling.

    Raises:
        DataError: For the first ones.
    """
    by_parent: dict[Path, list[str]] = {}
    for folder in folders:
        by_parent.setdefault(folder.parent, []).append(folder.name)
    for parent, names in by_parent.items():
        if same := spelled_alike(names):
            raise DataError(
                f"{parent}: the folders {same[0]!a} and {same[1]!a} differ only in blanks, invisible "
                "characters or the form of accents; move their images into one"
            )


def _labelled_folders(
    root: Path, class_folders: Sequence[tuple[str | None, Path]], labels: LabelSet, unlabelled: Collection[Path]
) -> tuple[list[tuple[str | None, Path]], list[str]]:
    """Return the folders whose images have a label, with their splits, and notes about the others.

    Arguments are those of `read_class_folders`, and the split and folder of every class.
    """
    with_labels: list[tuple[str | None, Path]] = []
    empty_classes: list[str] = []
    no_classes: list[str] = []
    notes: list[str] = []
    for split, folder in class_folders:
        name = folder.relative_to(root).as_posix()
        is_class = _is_label(labels, folder.name)
        if not _has_images(folder):
            (empty_classes if is_class else no_classes).append(name)
        elif folder in unlabelled and not is_class:
            notes.append(
                f"all images of {name} were left out: a part with a single folder, unlike the others, has no labels"
            )
        else:
            with_labels.append((split, folder))
    if no_classes:
        notes.append(f"folders without images are no classes: {', '.join(no_classes)}")
    if empty_classes:
        note = f"folders of classes without images: {', '.join(empty_classes)}"
        notes.append(note if labels.name == CUSTOM else f"{note}; the labels are those of {labels.name}")
    return with_labels, notes


def split_of(key: str) -> str | None:
    """Return the split that the first of an image's folders names.

    >>> split_of("photos/Validation/awe/1.jpg")
    'val'
    """
    words = map(clean, PurePosixPath(key).parts[:-1])
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _is_label(labels: LabelSet, word: str) -> bool:
    """Return True if a word names a label of the set."""
    try:
        labels.index(word)
    except LabelError:
        return False
    return True


def class_of(labels: LabelSet, word: str, where: str, remedy: str = "") -> int:
    """Return the index of a label.

    Raises:
        DataError: If it is not in the set.
    """
    try:
        return labels.index(word)
    except LabelError as error:
        raise DataError(f"{where}: {error}{remedy}") from error


REPEATED = ("row repeats", "rows repeat", "an image of another row: it counts more than once")
TIE = ("image has", "images have", "a tie of votes: a distribution, but no label")


def count_notes(*lines: tuple[int, str, str, str]) -> tuple[str, ...]:
    """Return a note for each count above 0: the count, its words in singular or plural, and a text.

    >>> count_notes((1, "image has", "images have", "no row"), (0, "row has", "rows have", "no image"))
    ('1 image has no row',)
    """
    return tuple(f"{counted(count, singular, plural)} {text}" for count, singular, plural, text in lines if count)


def split_in(name: str) -> str | None:
    """Return the split that one word of a compound name says; None if no word does, or words name several.

    >>> split_in("train_images"), split_in("val2017"), split_in("trainer")
    ('train', 'val', None)
    """
    splits = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return the split folders below root; root itself, without a split, if there are none.

    A name like train_images counts only if every folder with images names a split so: among others, it may be a class.
    """
    checked_folder(root)
    folders = _folders(root)
    exact: list[tuple[str | None, Path]] = [
        (split, path) for path in folders if (split := SPLITS.get(clean(path.name)))
    ]
    compound: list[tuple[str | None, Path]] = [(split, path) for path in folders if (split := split_in(path.name))]
    # A single folder, such as test-images, says nothing about a split unless that is its whole name.
    if len(compound) > max(len(exact), 1):
        others = set(folders) - {path for _, path in compound}
        if not any(map(_has_images, others)) or (not exact and _have_the_emotions(compound, others)):
            return compound
    return exact or [(None, root)]


def _have_the_emotions(parts: Sequence[tuple[str | None, Path]], others: Iterable[Path]) -> bool:
    """Return True if several splits have the same folders of emotions, and other folders such as assets have none."""
    if len({split for split, _ in parts}) < 2:
        return False
    if any(clean(folder.name) in PUBLISHED_NAMES or _class_names(folder) for folder in others):
        return False
    shared = set.intersection(*(_class_names(folder) for _, folder in parts))
    return len(shared & PUBLISHED_NAMES) >= MIN_CLASSES


def _class_names(folder: Path) -> set[str]:
    """Return the names of the folders with images in a folder, in the form that is compared."""
    return {clean(path.name) for path in _folders(folder) if _has_images(path)}


def _has_images(folder: Path) -> bool:
    return any(map(is_image_name, walk_files(folder)))


def _warnings(root: Path) -> Iterator[str]:
    """Yield a warning for images outside class folders, and one for folders next to the split folders."""
    splits = _split_folders(root)
    folders = {path for _, path in splits}
    other_folders = list[str]()
    if root not in folders:
        other_folders = sorted({path.name for path in _folders(root)} - {path.name for path in folders})
    loose = sorted(
        path.relative_to(root).as_posix()
        for folder in {root, *folders}
        for path in folder.iterdir()
        if path.is_file() and is_image_name(path)
    )
    if loose:
        images = counted(len(loose), "image outside the class folders was", "images outside the class folders were")
        yield f"{images} left out: {loose[0]}"
        yield from _lost_split_warnings(splits, loose)
    if other_folders:
        yield f"folders next to the split folders were left out: {', '.join(other_folders)}"


def _lost_split_warnings(splits: list[tuple[str | None, Path]], loose: list[str]) -> Iterator[str]:
    """Yield a warning for each split all of whose images are left out, because none is in a class folder.

    Args:
        loose: Images outside of class folders.
    """
    with_classes = {split for split, folder in splits if any(map(_has_images, _folders(folder)))}
    for split, folder in splits:
        if split not in with_classes and any(name.startswith(f"{folder.name}/") for name in loose):
            yield f"all images of {folder.name} were left out: it has no folders of classes, unlike the other splits"


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return split and folder of every class that contains files."""
    return [
        (split, path) for split, parent in _split_folders(root) for path in _folders(parent) if any(walk_files(path))
    ]


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden and system folders.

    Raises:
        DataError: If the folder can't be listed.
    """
    try:
        children = [path for path in folder.iterdir() if path.is_dir()]
        return sorted(path for path in children if path.name[0] != "." and not is_system_folder(path.name))
    except OSError as error:
        raise DataError(f"{folder}: can't be listed ({error.strerror})") from error
