"""EMOTIC (Kosti et al., TPAMI 2020): people in photographs, with several of 26 categories and three ratings each."""

import os
from collections.abc import Iterable
from pathlib import Path

from uniemox.data.readers.emotic_matlab import TABLES, find_matlab_file, read_matlab_file
from uniemox.data.readers.emotic_person import SPLITS, AnnotatedPerson, Omissions, UnusablePersonError, sample_of_person
from uniemox.data.readers.emotic_tables import find_tables, read_tables
from uniemox.data.readers.paths import checked_folder, path_inside
from uniemox.data.sample import DataSet, Sample, make_keys_unique
from uniemox.errors import DataError
from uniemox.labels import EMOTIC

IMAGE_FOLDERS = ("emotic", "cvpr_emotic", ".")
"""Locations of the four sources' folders below the folder, such as emotic/mscoco/images."""


def read_emotic(root: Path) -> DataSet:
    """Read the annotations of EMOTIC, and the images that they name.

    Every annotated person is a sample, with the person's box; the people of an image are one group. `categories` are
    those of the release: in val and test, where several annotators saw a person, every category that one of them chose.
    Ratings of 1 to 10 are converted linearly to 1 to 9; in val and test they are the annotators' mean. The domain is
    the source of the image: mscoco, framesdb, emodb_small or ade20k.

    The annotations are `Annotations.mat` as published. Without it, they are the tables train.csv, val.csv and test.csv,
    to which mat2py.py of Tandon-A/emotic converts it. It leaves out people without a category or a complete rating, and
    rounds and clips their boxes to the image.

    People without an image, a box or any annotation, or with a category or rating that does not exist, are left out,
    and named in the notes.

    Args:
        root: Folder with the annotations (`emotic_matlab.TABLES`, `emotic_tables.FOLDERS`), and the images in one of
            IMAGE_FOLDERS.

    Raises:
        DataError: With file, row and field, if the annotations are damaged or lack a field, or if no image exists.
        MissingPackageError: Without scipy, which reads `Annotations.mat`.
    """
    checked_folder(root)
    matlab_file = find_matlab_file(root)
    if matlab_file is not None:
        return _data_set(root, read_matlab_file(matlab_file), matlab_file)
    tables = find_tables(root)
    if not tables:
        raise DataError(
            f"{root}: there is none of {', '.join(TABLES)}, and no train.csv, val.csv or test.csv; copy the file of "
            "the release there"
        )
    absent = [f"there is no {split}.csv" for split in SPLITS if split not in tables]
    return _data_set(root, read_tables(tables), next(iter(tables.values())).parent, absent)


def _data_set(root: Path, people: Iterable[AnnotatedPerson], location: Path, notes: Iterable[str] = ()) -> DataSet:
    """Return the samples of people whose image exists.

    Args:
        root: Folder of the data set.
        people: People in the annotations.
        location: File or folder of the annotations.
        notes: Notes about the annotations.

    Raises:
        DataError: If a person's image leads out of the folder, or no person can be used.
    """
    omissions = Omissions()
    samples: list[Sample] = []
    for person in people:
        try:
            path = _find_image(root, person.image, person.where)
            if path is None:
                raise UnusablePersonError("left out because their image is missing", f"{person.where}, {person.image}")
            samples.append(sample_of_person(person, path, omissions))
        except UnusablePersonError as error:
            omissions.add(error.reason, error.where)
    if not samples:
        reasons = "; ".join(omissions.notes()) or "it lists nobody"
        raise DataError(f"{location}: no annotated person has an image: {reasons}")
    return DataSet(str(root), EMOTIC, make_keys_unique(samples), (*notes, *omissions.notes()))


def _find_image(root: Path, name: str, where: str) -> Path | None:
    """Return the path of an image; None if it is missing.

    Raises:
        DataError: If the name leads out of the folder.
    """
    for folder in IMAGE_FOLDERS:
        path = path_inside(root / folder, name, f"{where}, folder and filename")
        if os.path.isfile(path):
            return path
    return None
