"""EMOTIC's annotations as the tables train.csv, val.csv and test.csv, which mat2py.py of Tandon-A/emotic writes.

Cells with several values have the form of Python's lists, such as ['Peace', 'Happiness'] and [5.0, 3.0, 6.0].
"""

import re
from collections.abc import Iterator
from pathlib import Path

from uniemox.data.readers.emotic_person import RATINGS, SPLITS, AnnotatedPerson
from uniemox.data.readers.rows import read_rows
from uniemox.errors import DataError

FOLDERS = ("emotic_pre", "Annotations", ".")
"""Locations of the tables below the folder; the first with one of them is read. mat2py.py writes into emotic_pre."""
BOX = "BBox"
CATEGORIES = "Categorical_Labels"
CONTINUOUS = "Continuous_Labels"
COLUMNS = ("Folder", "Filename", BOX, CATEGORIES, CONTINUOUS)
TEXT = r"'[^']*'|\"[^\"]*\""
LIST_OF_TEXTS = re.compile(rf"\[\s*(?:(?:{TEXT})\s*(?:,\s*(?:{TEXT})\s*)*)?\]")


def find_tables(root: Path) -> dict[str, Path]:
    """Return the tables below a folder by split; none if there are none."""
    for folder in FOLDERS:
        paths = {split: root / folder / f"{split}.csv" for split in SPLITS}
        tables = {split: path for split, path in paths.items() if path.is_file()}
        if tables:
            return tables
    return {}


def read_tables(tables: dict[str, Path]) -> Iterator[AnnotatedPerson]:
    """Yield the people of all tables.

    Args:
        tables: Tables by split.

    Raises:
        DataError: With file, line and column, if a table lacks a column, or a cell has another form.
    """
    for split, table in tables.items():
        for line, row in read_rows(table, columns=COLUMNS):
            where = f"{table}:{line}"
            yield AnnotatedPerson(
                split=split,
                image=f"{row['Folder']}/{row['Filename']}",
                where=where,
                corners=_numbers(row[BOX], f"{where}, {BOX}"),
                box_field=BOX,
                categories=_texts(row[CATEGORIES], f"{where}, {CATEGORIES}"),
                categories_field=CATEGORIES,
                ratings=_ratings(row[CONTINUOUS], f"{where}, {CONTINUOUS}"),
                ratings_field=CONTINUOUS,
            )


def _ratings(cell: str, where: str) -> dict[str, list[float]]:
    """Return the ratings of a cell by axis; no ratings for an empty list.

    Raises:
        DataError: If there is another number of ratings than axes.
    """
    values = _numbers(cell, where)
    if not values:
        return {axis: [] for axis in RATINGS}
    if len(values) != len(RATINGS):
        raise DataError(f"{where}: expected {', '.join(RATINGS)}, got {cell[:100]!r}; write the table again")
    return {axis: [value] for axis, value in zip(RATINGS, values, strict=True)}


def _numbers(cell: str, where: str) -> list[float]:
    """Return the numbers of a list.

    Raises:
        DataError: If the cell is something else.
    """
    try:
        if not (cell.startswith("[") and cell.endswith("]")):
            raise ValueError("no list")
        return [float(word) for word in cell[1:-1].replace(",", " ").split()]
    except ValueError:
        expected = "expected a list of numbers, such as [5.0, 3.0, 6.0]"
        raise DataError(f"{where}: {expected}, got {cell[:100]!r}; write the table again") from None


def _texts(cell: str, where: str) -> list[str]:
    """Return the texts of a list.

    Raises:
        DataError: If the cell is something else.
    """
    if not LIST_OF_TEXTS.fullmatch(cell):
        expected = "expected a list of texts, such as ['Peace', 'Happiness']"
        raise DataError(f"{where}: {expected}, got {cell[:100]!r}; write the table again")
    return [text[1:-1] for text in re.findall(TEXT, cell)]
