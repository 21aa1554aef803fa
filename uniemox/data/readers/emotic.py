"""EMOTIC (Kosti et al., TPAMI 2020): people in photographs, with several of 26 categories and three ratings each."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.data.readers.csv_table import on_nine_points
from uniemox.data.readers.folders import checked_folder, path_inside
from uniemox.data.sample import DataSet, ImageFile, Sample, make_keys_unique
from uniemox.errors import DataError, LabelError, MissingPackageError
from uniemox.labels import EMOTIC
from uniemox.persons.box import Box

TABLES = (
    "Annotations.mat",
    "Annotations/Annotations.mat",
    "CVPR17_Annotations.mat",
    "Annotations/CVPR17_Annotations.mat",
)
"""Locations of the annotations below the folder; the first that exists is read."""
IMAGE_FOLDERS = ("emotic", "cvpr_emotic", ".")
"""Locations of the four sources' folders below the folder, such as emotic/mscoco/images."""
SPLITS = ("train", "val", "test")
RATINGS = ("valence", "arousal", "dominance")
# The scale of the annotators.
LOW = 1
HIGH = 10


class _UnusablePersonError(Exception):
    """Raised for a person whose annotations can't be used: nobody can correct a row of the published file.

    Args:
        reason: Ending of a sentence that begins with "people".
        where: Row and field.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.where = where


@dataclass(slots=True)
class _Omissions:
    """Locations of the persons or ratings that are left out, by reason."""

    locations: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.locations.setdefault(reason, []).append(where)

    def notes(self) -> tuple[str, ...]:
        """Return a line for each reason, with the number and the first location."""
        return tuple(
            f"people {reason}: {len(locations)}, such as {locations[0]}" for reason, locations in self.locations.items()
        )


def read_emotic(root: Path) -> DataSet:
    """Read `Annotations.mat` and the images that it names, as published.

    Every annotated person is a sample, with the person's box; the people of an image are one group. `categories` are
    those of the release: in val and test, where several annotators saw a person, every category that one of them chose.
    Ratings of 1 to 10 are converted linearly to 1 to 9; in val and test they are the annotators' mean. The domain is
    the source of the image: mscoco, framesdb, emodb_small or ade20k.

    People without an image, a box or any annotation, or with a category or rating that does not exist, are left out,
    and named in the notes.

    Args:
        root: Folder with the annotations in one of TABLES, and the images in one of IMAGE_FOLDERS.

    Raises:
        DataError: With file, row and field, if the annotations are damaged or lack a field, or if no image exists.
        MissingPackageError: Without scipy.
    """
    checked_folder(root)
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise DataError(f"{root}: there is none of {', '.join(TABLES)}; copy the file of the release there")
    content = _load(table)
    omissions = _Omissions()
    samples: list[Sample] = []
    for row in _rows_of_people(content, table):
        try:
            path = _find_image(root, row.image, row.where)
            if path is None:
                raise _UnusablePersonError("left out because their image is missing", f"{row.where}, {row.image}")
            samples.append(_sample(row, path, omissions))
        except _UnusablePersonError as error:
            omissions.add(error.reason, error.where)
    if not samples:
        reasons = "; ".join(omissions.notes()) or "it lists nobody"
        raise DataError(f"{table}: no annotated person has an image: {reasons}")
    return DataSet(str(root), EMOTIC, make_keys_unique(samples), omissions.notes())


@dataclass(frozen=True, slots=True)
class _PersonRow:
    """Row of one person in the annotations."""

    split: str
    image: str
    """Folder and name of the image."""
    fields: Any
    where: str
    """File, split, and number of image and person."""


def _rows_of_people(content: Mapping[str, Any], table: Path) -> Iterator[_PersonRow]:
    """Yield the people of all images of all splits.

    Raises:
        DataError: If a field of an image is missing or of another type.
    """
    for split in SPLITS:
        for image_where, image in _rows(content[split], f"{table}, {split}"):
            folder = _text(_value(image, "folder", image_where), f"{image_where}, folder")
            name = _text(_value(image, "filename", image_where), f"{image_where}, filename")
            for where, person in _rows(_value(image, "person", image_where), f"{image_where}.person"):
                yield _PersonRow(split, f"{folder}/{name}", person, where)


def _load(table: Path) -> dict[str, Any]:
    """Read the variables of the three splits.

    Raises:
        DataError: If the file can't be read, or lacks a split.
        MissingPackageError: Without scipy.
    """
    try:
        from scipy.io import loadmat  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("the annotations of EMOTIC need scipy; run: pip install 'uniemox[data]'") from None
    try:
        content = loadmat(table, variable_names=SPLITS)
    # scipy raises errors of any class for a damaged file.
    except Exception as error:
        raise DataError(f"{table}: not a MATLAB file up to version 7 ({error}); download it again") from error
    missing = [split for split in SPLITS if split not in content]
    if missing:
        raise DataError(f"{table}: there is no variable {missing[0]}; expected {', '.join(SPLITS)}")
    return content


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


def _sample(row: _PersonRow, path: Path, omissions: _Omissions) -> Sample:
    """Return the sample of a person; missing categories and ratings are recorded.

    Raises:
        _UnusablePersonError: For a person who is left out.
        DataError: If a field is missing or of another type.
    """
    box = _box(_value(row.fields, "body_bbox", row.where), f"{row.where}, body_bbox")
    categories = _categories(row.fields, row.where)
    valence, arousal, dominance = _ratings(row.fields, row.where)
    has_ratings = None not in (valence, arousal, dominance)
    if not categories and not has_ratings:
        raise _UnusablePersonError("left out because they have no category and no complete rating", row.where)
    if not categories:
        omissions.add("without a category", row.where)
    if not has_ratings:
        omissions.add("without a complete rating", row.where)
    return Sample(
        key=row.image,
        image=ImageFile(path),
        categories=categories or None,
        valence=valence if has_ratings else None,
        arousal=arousal if has_ratings else None,
        dominance=dominance if has_ratings else None,
        split=row.split,
        target_box=box,
        domain=row.image.partition("/")[0],
    )


def _box(value: Any, where: str) -> Box:
    """Return a box from MATLAB's x1, y1, x2, y2, which count pixels from 1 and include the last.

    Raises:
        _UnusablePersonError: If there are not four finite numbers, or if the box is empty.
    """
    corners = _numbers(value)
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise _UnusablePersonError("left out because their box is not four numbers", where)
    x1, y1, x2, y2 = corners
    # As in the authors' code.
    box = Box(max(x1, 1) - 1, max(y1, 1) - 1, x2, y2)
    if box.area < 1:
        raise _UnusablePersonError("left out because their box is empty", where)
    return box


def _categories(person: Any, where: str) -> tuple[int, ...]:
    """Return the categories of a person, each once and in order; () without any.

    Raises:
        _UnusablePersonError: For a word that is no category.
        DataError: If a field is missing or of another type.
    """
    location = f"{where}, annotations_categories"
    words: list[str] = []
    if "combined_categories" in _names(person):
        location = f"{where}, combined_categories"
        words = _words(person["combined_categories"], location)
    else:
        for _, annotation in _rows(_value(person, "annotations_categories", where), location):
            words += _words(_value(annotation, "categories", location), location)
    try:
        return tuple(sorted({EMOTIC.index(word) for word in words}))
    except LabelError:
        reason = f"left out because a category is none of the {len(EMOTIC)}"
        raise _UnusablePersonError(reason, f"{location} {', '.join(words)!a}") from None


def _ratings(person: Any, where: str) -> tuple[float | None, ...]:
    """Return valence, arousal and dominance of a person, 1 to 9: the mean of the annotators; None where nobody rated.

    Raises:
        _UnusablePersonError: For a rating that is out of range.
        DataError: If a field is missing or of another type.
    """
    name = "combined_continuous" if "combined_continuous" in _names(person) else "annotations_continuous"
    location = f"{where}, {name}"
    rows = list(_rows(_value(person, name, where), location))
    ratings: list[float | None] = []
    for axis in RATINGS:
        values = [value for row_location, row in rows for value in _numbers(_value(row, axis, row_location))]
        known = [value for value in values if not math.isnan(value)]
        wrong = next((value for value in known if not LOW <= value <= HIGH), None)
        if wrong is not None:
            reason = f"left out because a rating is not from {LOW} to {HIGH}"
            raise _UnusablePersonError(reason, f"{location}.{axis} {wrong:g}")
        ratings.append(on_nine_points(sum(known) / len(known), LOW, HIGH) if known else None)
    return tuple(ratings)


def _rows(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield location and content of each element of a MATLAB structure array, in MATLAB's count.

    Raises:
        DataError: If the value is something else.
    """
    array = np.asarray(value)
    if array.size and array.dtype.names is None:
        raise DataError(f"{where}: expected a structure, got {array.dtype}")
    for number, element in enumerate(array.ravel(), start=1):
        yield f"{where}({number})", element


def _names(structure: Any) -> tuple[str, ...]:
    """Return the names of a structure's fields."""
    return structure.dtype.names or ()


def _value(structure: Any, name: str, where: str) -> Any:
    """Return a field of a structure.

    Raises:
        DataError: If there is no such field.
    """
    if name not in _names(structure):
        raise DataError(f"{where}: there is no field {name}; it has {', '.join(_names(structure)) or 'none'}")
    return structure[name]


def _text(value: Any, where: str) -> str:
    """Return the text of a character array.

    Raises:
        DataError: If the value is something else.
    """
    array = np.asarray(value)
    if array.dtype.kind != "U" or array.size != 1:
        raise DataError(f"{where}: expected a text, got {str(array)[:40]!r}")
    return str(array.item())


def _words(value: Any, where: str) -> list[str]:
    """Return the texts of a cell array.

    Raises:
        DataError: If an element is no text.
    """
    return [_text(element, where) for element in np.asarray(value).ravel()]


def _numbers(value: Any) -> list[float]:
    """Return the numbers of an array; nan for anything else."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        return [math.nan] * array.size
    return [float(element) for element in array.ravel()]
