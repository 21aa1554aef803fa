"""EMOTIC (Kosti et al., TPAMI 2020): people in photographs, with several of 26 categories and three ratings each."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.data.readers.csv_table import on_nine_points
from uniemox.data.readers.folders import checked_folder, class_of, path_inside
from uniemox.data.sample import DataSet, ImageFile, Sample, make_keys_unique
from uniemox.errors import DataError, MissingPackageError
from uniemox.labels import EMOTIC
from uniemox.persons.box import Box

TABLES = (
    "Annotations.mat",
    "Annotations/Annotations.mat",
    "CVPR17_Annotations.mat",
    "Annotations/CVPR17_Annotations.mat",
)
"""Places of the annotations below the folder; the first that exists is read."""
IMAGE_FOLDERS = ("emotic", "cvpr_emotic", ".")
"""Places of the four sources' folders below the folder, such as emotic/mscoco/images."""
SPLITS = ("train", "val", "test")
RATINGS = ("valence", "arousal", "dominance")
# The scale of the annotators.
LOW = 1
HIGH = 10


@dataclass(slots=True)
class _Omissions:
    """Places of the persons or ratings that are left out, by reason."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.places.setdefault(reason, []).append(where)

    def notes(self) -> tuple[str, ...]:
        """Return a line for each reason, with the number and the first place."""
        return tuple(f"people {reason}: {len(places)}, such as {places[0]}" for reason, places in self.places.items())


def read_emotic(root: Path) -> DataSet:
    """Read `Annotations.mat` and the images that it names, as published.

    Every annotated person is a sample, with the person's box; the people of an image are one group. `categories` are
    those of the release: in val and test, where several annotators saw a person, every category that one of them chose.
    Ratings of 1 to 10 are converted linearly to 1 to 9; in val and test they are the annotators' mean. The domain is
    the source of the image: mscoco, framesdb, emodb_small or ade20k.

    People without an image, an area or any annotation are left out, and named in the notes.

    Args:
        root: Folder with the annotations in one of TABLES, and the images in one of IMAGE_FOLDERS.

    Raises:
        DataError: With file, row and field, if the annotations are damaged or have another form, or if no image exists.
        MissingPackageError: Without scipy.
    """
    checked_folder(root)
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise DataError(f"{root}: there is none of {', '.join(TABLES)}; copy the file of the release there")
    content = _load(table)
    omissions = _Omissions()
    samples: list[Sample] = []
    paths: dict[str, Path | None] = {}
    for split in SPLITS:
        for image_place, image in _rows(content[split], f"{table}, {split}"):
            folder = _text(_value(image, "folder", image_place), f"{image_place}, folder")
            name = f"{folder}/{_text(_value(image, 'filename', image_place), f'{image_place}, filename')}"
            if name not in paths:
                paths[name] = _find_image(root, name, image_place)
            for place, person in _rows(_value(image, "person", image_place), f"{image_place}.person"):
                path = paths[name]
                if path is None:
                    omissions.add("left out because their image is missing", f"{place}, {name}")
                    continue
                sample = _sample(person, place, omissions)
                if sample is not None:
                    source = folder.partition("/")[0]
                    samples.append(_placed(sample, name, path, split, source))
    if not samples:
        reasons = "; ".join(omissions.notes()) or "it lists nobody"
        raise DataError(f"{table}: no annotated person has an image: {reasons}")
    return DataSet(str(root), EMOTIC, make_keys_unique(samples), omissions.notes())


@dataclass(frozen=True, slots=True)
class _Person:
    """Annotations of one person."""

    box: Box
    categories: tuple[int, ...] | None
    ratings: tuple[float | None, ...]
    """Valence, arousal and dominance, 1 to 9."""


def _placed(person: _Person, name: str, path: Path, split: str, source: str) -> Sample:
    """Return the sample of a person in an image."""
    valence, arousal, dominance = person.ratings
    return Sample(
        key=name,
        image=ImageFile(path),
        categories=person.categories,
        valence=valence,
        arousal=arousal,
        dominance=dominance,
        split=split,
        target_box=person.box,
        domain=source,
    )


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


def _sample(person: Any, where: str, omissions: _Omissions) -> _Person | None:
    """Return the annotations of a person; None for one that is left out.

    Raises:
        DataError: If a field has another form, or a value is out of range.
    """
    box = _box(_value(person, "body_bbox", where), f"{where}, body_bbox")
    if box is None:
        omissions.add("left out because their box is empty", f"{where}, body_bbox")
        return None
    categories = _categories(person, where)
    ratings = _ratings(person, where)
    has_ratings = None not in ratings
    if not categories and not has_ratings:
        omissions.add("left out because they have no category and no complete rating", where)
        return None
    if not categories:
        omissions.add("without a category", where)
    if not has_ratings:
        omissions.add("without a complete rating", where)
        ratings = (None, None, None)
    return _Person(box, categories or None, ratings)


def _box(value: Any, where: str) -> Box | None:
    """Return a box from MATLAB's x1, y1, x2, y2, which count pixels from 1 and include the last; None if it is empty.

    Raises:
        DataError: If there are not four finite numbers.
    """
    corners = _numbers(value)
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise DataError(f"{where}: expected four numbers, got {corners}")
    x1, y1, x2, y2 = corners
    # As in the authors' code.
    box = Box(max(x1, 1) - 1, max(y1, 1) - 1, x2, y2)
    if box.area < 1:
        return None
    return box


def _categories(person: Any, where: str) -> tuple[int, ...]:
    """Return the categories of a person, each once and in order; () without any.

    Raises:
        DataError: For a word that is no category.
    """
    place = f"{where}, annotations_categories"
    words: list[str] = []
    if "combined_categories" in _names(person):
        place = f"{where}, combined_categories"
        words = _words(person["combined_categories"], place)
    else:
        for _, annotation in _rows(_value(person, "annotations_categories", where), place):
            words += _words(_value(annotation, "categories", place), place)
    return tuple(sorted({class_of(EMOTIC, word, place) for word in words}))


def _ratings(person: Any, where: str) -> tuple[float | None, ...]:
    """Return valence, arousal and dominance of a person, 1 to 9: the mean of the annotators; None where nobody rated.

    Raises:
        DataError: For a rating that is out of range.
    """
    name = "combined_continuous" if "combined_continuous" in _names(person) else "annotations_continuous"
    place = f"{where}, {name}"
    rows = list(_rows(_value(person, name, where), place))
    ratings: list[float | None] = []
    for axis in RATINGS:
        values = [value for row_place, row in rows for value in _numbers(_value(row, axis, row_place))]
        known = [value for value in values if not math.isnan(value)]
        wrong = next((value for value in known if not LOW <= value <= HIGH), None)
        if wrong is not None:
            raise DataError(f"{place}.{axis}: expected {LOW} to {HIGH}, got {wrong:g}")
        ratings.append(on_nine_points(sum(known) / len(known), LOW, HIGH) if known else None)
    return tuple(ratings)


def _rows(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each element of a MATLAB structure array, in MATLAB's count.

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
