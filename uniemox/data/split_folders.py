"""Splits that are given as folders of images, as in the data sets that the paper's authors link.

The loader of their release (chincharles/u-emo, datasets/build_dataset.py) opens `<data set>/<train|val|test>/<class>/`
with torchvision's ImageFolder. The folders are copies of the images: datasets/data_partition.py keeps each file name,
and writes UnBiasedEmo's `<class>/<word>/<image>` as `<class>/<word>_<image>`. This module finds those copies again in
the data set as published, by their names.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from uniemox.data.readers.folders import SPLITS, split_in
from uniemox.data.readers.paths import images_below
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError
from uniemox.labels import clean
from uniemox.spelling import spelled

# Emotion6's folder above the classes.
IMAGES = "images"
LAYOUT = "<train|val|test>/<class>/<image>"


def scheme_of_folders(root: Path, data: DataSet) -> dict[str, str]:
    """Return the split of each image of the data set that has a copy below `<split>/<class>/`.

    Args:
        root: Folder that holds the folders train, val and test.
        data: The data set as published; its keys are compared with the names of the copies. A name may occur more than
            once, as in the official train and test of CAER-S. A copy is then first compared with the images of its own
            official split, and after that with the images that are left.

    Returns:
        The split by key; images without a copy are not in it.

    Raises:
        DataError: If root has no copies, or a copy fits no image, several images, or the image of another copy.
    """
    copies = sorted(_copies(root))
    if not copies:
        raise DataError(
            f"{root}: no images in folders {LAYOUT}, and no lists train.txt, val.txt, test.txt; give such a folder, or "
            "a file of uniemox data split"
        )
    by_name: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in data.samples:
        for name in _names(sample.image_key):
            # The people of one image share its key.
            by_name[name][sample.image_key].append(sample)

    image_split: dict[str, str] = {}
    unmatched: list[tuple[str, str, str]] = []
    for split, name, copy in copies:
        same_split = [key for key, people in by_name[name].items() if people[0].split == split]
        if same_split:
            image_split[_only(same_split, copy, root, data, image_split)] = split
        else:
            unmatched.append((split, name, copy))
    # The images of an official split that the authors divided again: those that no copy of their own split claims.
    for split, name, copy in unmatched:
        keys = list(by_name[name])
        unclaimed = [key for key in keys if key not in image_split]
        image_split[_only(unclaimed or keys, copy, root, data, image_split)] = split

    return {sample.key: image_split[sample.image_key] for sample in data.samples if sample.image_key in image_split}


def _copies(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield split, name and relative path of each copy.  name: `<class>/<image>`, the class in lower case."""
    keys = list(images_below(root))
    folders = {key.partition("/")[0] for key in keys}
    splits = {folder: SPLITS[clean(folder)] for folder in folders if clean(folder) in SPLITS}
    # A folder such as test_images counts if there is no test.
    missing = {*SPLITS.values()} - {*splits.values()}
    splits |= {folder: split for folder in folders if (split := split_in(folder)) in missing and split is not None}
    for key in keys:
        split_folder, *below = PurePosixPath(key).parts
        if split_folder in splits and len(below) > 1:
            yield splits[split_folder], _name(below[0], below[-1]), key


def _names(key: str) -> set[str]:
    """Return the names that a copy of an image can have: with its own name, or with the search word in front.

    >>> sorted(_names("joy/beach/1.jpg"))
    ['joy/1.jpg', 'joy/beach_1.jpg']
    >>> sorted(_names("test/Anger/1.png"))
    ['anger/1.png']
    """
    *folders, image = PurePosixPath(key).parts
    while folders and (folders[0].lower() in SPLITS or folders[0] == IMAGES):
        del folders[0]
    if not folders:
        return set()
    name, *words = folders
    return {_name(name, image)} | {_name(name, f"{word}_{image}") for word in words[-1:]}


def _name(folder: str, image: str) -> str:
    """Return the form of class and file name that is compared."""
    return f"{spelled(folder).lower()}/{spelled(image)}"


def _only(keys: list[str], copy: str, root: Path, data: DataSet, taken: Mapping[str, str]) -> str:
    """Return the only key that fits a copy.

    Args:
        keys: Keys of the images with the copy's name.
        taken: Splits by key of the images that already have a copy.

    Raises:
        DataError: If no image or several images have this name, or another copy fits the image.
    """
    if not keys:
        raise DataError(
            f"{root / copy}: no image of {data.name} has this name and class; give the folder of this data set, or "
            "open the folder of splits itself as the data"
        )
    if len(keys) > 1:
        raise DataError(f"{root / copy}: fits {len(keys)} images of {data.name}, {keys[0]} and {keys[1]}; rename one")
    if keys[0] in taken:
        raise DataError(f"{root / copy}: a copy of {keys[0]}, which is already in {taken[keys[0]]}; remove one copy")
    return keys[0]
