"""EMOTIC's annotations as published: one MATLAB file with a structure array for each split."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.data.readers.emotic_person import RATINGS, SPLITS, AnnotatedPerson
from uniemox.data.readers.matlab_nesting import check_nesting
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.limits import limited_memory

TABLES = (
    "Annotations.mat",
    "Annotations/Annotations.mat",
    "CVPR17_Annotations.mat",
    "Annotations/CVPR17_Annotations.mat",
)
"""Locations of the annotations below the folder; the first that exists is read."""

# Memory in bytes for reading them. The 34,320 people of the release need about a third.
MAX_MEMORY = 3 * 2**29


def find_matlab_file(root: Path) -> Path | None:
    """Return the annotations below a folder; None if there are none."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def read_matlab_file(table: Path) -> Iterator[AnnotatedPerson]:
    """Yield the people of all images of all splits.

    Raises:
        DataError: With file, row and field, if the file is damaged, or a field is missing or of another type.
        MissingPackageError: Without scipy.
    """
    content = _load(table)
    for split in SPLITS:
        for image_where, image in _rows(content[split], f"{table}, {split}"):
            folder = _text(_value(image, "folder", image_where), f"{image_where}, folder")
            name = _text(_value(image, "filename", image_where), f"{image_where}, filename")
            for where, person in _rows(_value(image, "person", image_where), f"{image_where}.person"):
                yield _person(person, split, f"{folder}/{name}", where)


def _person(person: Any, split: str, image: str, where: str) -> AnnotatedPerson:
    """Return the values of a person.

    Raises:
        DataError: If a field is missing or of another type.
    """
    categories_field, categories = _categories(person, where)
    ratings_field, ratings = _ratings(person, where)
    return AnnotatedPerson(
        split=split,
        image=image,
        where=where,
        corners=_numbers(_value(person, "body_bbox", where)),
        box_field="body_bbox",
        categories=categories,
        categories_field=categories_field,
        ratings=ratings,
        ratings_field=ratings_field,
    )


def _categories(person: Any, where: str) -> tuple[str, list[str]]:
    """Return the field with the categories of a person, and the categories of all annotators.

    Raises:
        DataError: If a field is missing or of another type.
    """
    field = "combined_categories"
    if field in _names(person):
        return field, _words(person[field], f"{where}, {field}")
    field = "annotations_categories"
    location = f"{where}, {field}"
    words: list[str] = []
    for _, annotation in _rows(_value(person, field, where), location):
        words += _words(_value(annotation, "categories", location), location)
    return field, words


def _ratings(person: Any, where: str) -> tuple[str, dict[str, list[float]]]:
    """Return the field with the ratings of a person, and those of all annotators by axis.

    Raises:
        DataError: If a field is missing or of another type.
    """
    field = "combined_continuous" if "combined_continuous" in _names(person) else "annotations_continuous"
    rows = list(_rows(_value(person, field, where), f"{where}, {field}"))
    ratings = {
        axis: [value for location, row in rows for value in _numbers(_value(row, axis, location))] for axis in RATINGS
    }
    return field, ratings


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
        with limited_memory(MAX_MEMORY):
            check_nesting(table)
            content = loadmat(table, variable_names=SPLITS)
    except MemoryError as error:
        raise DataError(
            f"{table}: needs more than {MAX_MEMORY / 2**30:.1f} GiB of memory, three times as much as the published "
            "file; download it again"
        ) from error
    except DataError:
        raise
    # scipy raises errors of any class for a damaged file.
    except Exception as error:
        raise DataError(f"{table}: not a MATLAB file up to version 7 ({error}); download it again") from error
    missing = [split for split in SPLITS if split not in content]
    if missing:
        raise DataError(f"{table}: there is no variable {missing[0]}; expected {', '.join(SPLITS)}")
    return content


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
