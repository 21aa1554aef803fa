"""Groups of a survey: by folder, by date, or by a column of a table."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniemox.data.readers.missing import is_missing
from uniemox.data.readers.rows import read_rows
from uniemox.errors import ConfigError
from uniemox.io.borders import shorten
from uniemox.io.files import plain_cell
from uniemox.plurals import counted
from uniemox.spelling import spelled

FOLDER = "folder"
DATE = "date"
NOWHERE = "not in the table"
UNDATED = "no date"
# Group of an empty cell, or of a word for a missing value, such as NA.
NO_VALUE = "no value"
# Number of months above which images are grouped by year.
MAX_MONTHS = 24
# Names that people try for `DATE`.
_PARTS_OF_DATE = ("month", "year", "day", "time", "exif")
Answer = Mapping[str, Any]
Grouping = Callable[[Answer], str]
"""Function from a prediction in JSON form to the name of its group."""


def groupings_of(names: Sequence[str], table: Path | None) -> dict[str, Grouping]:
    """Return the groupings that `--by` names.

    Args:
        names: folder, date, or columns of the table.
        table: CSV file with the column path and further columns; None: no column is named.

    Raises:
        ConfigError: For a name that is neither folder, date nor a column.
        DataError: For an unreadable table.
    """
    groupings: dict[str, Grouping] = {
        FOLDER: lambda answer: os.path.dirname(answer["path"]) or ".",
        DATE: lambda answer: answer["taken"][:7] if answer.get("taken") else UNDATED,
    }
    columns = [name for name in names if name not in groupings]
    if bool(columns) != (table is not None):
        problem = "no column of --table is used"
        if columns:
            problem = f"--by {columns[0]}: neither {FOLDER} nor {DATE}"
            if columns[0].rstrip("s") in _PARTS_OF_DATE:
                problem += f" ({DATE} groups by month, or by year if there are more than {MAX_MONTHS} months)"
        raise ConfigError(f"{problem}; for a column give a CSV file, --table, and its name, --by")
    if table is not None:
        rows = TableRows(table, columns)
        groupings |= {name: TableColumn(rows, name) for name in columns}
    return {name: groupings[name] for name in names}


def group_of_cell(text: str) -> str:
    """Return the group that a cell of a table names, in one spelling; `NO_VALUE` for a missing value.

    >>> [group_of_cell(text) for text in ("Rio  de Janeiro", "NA", "")]
    ['Rio de Janeiro', 'no value', 'no value']
    """
    name = spelled(text)
    return NO_VALUE if not name or is_missing(name) else name


class TableRows:
    """Rows of a table about images, found by path; of several rows for an image, one counts.

    A path is relative to the table's folder, or to the current one if there is no such file. Rows of files beside the
    table come before others, and then earlier rows before later ones. Paths match in any Unicode form (macOS writes
    NFD), and with the backslashes of Windows.

    Args:
        table: CSV file with the column path.
        columns: Further columns that it must have.

    Raises:
        ConfigError: For a missing column.
        DataError: For an unreadable table.
    """

    def __init__(self, table: Path, columns: Sequence[str]) -> None:
        self.table = table
        self._rows: list[dict[str, str]] = []
        # Indices of rows by path, read as relative to the table's folder, and to the current one.
        self._beside_table: dict[str, int] = {}
        self._beside_program: dict[str, int] = {}
        self._matched: set[int] = set()
        # Rows for an image that has another row, which counts.
        self._repeated: set[int] = set()
        for line, row in read_rows(table):
            absent = next((name for name in ("path", *columns) if name not in row), None)
            if absent is not None:
                raise ConfigError(f"{table}:{line}: there is no column {absent!r}; it has {', '.join(row)}")
            index = len(self._rows)
            self._rows.append(row)
            # A file's name may contain a backslash, or a mark that our own tables add for spreadsheets.
            plain = plain_cell(row["path"])
            paths = {row["path"], row["path"].replace("\\", "/"), plain, plain.replace("\\", "/")}
            taken = [self._beside_table.setdefault(_same_path(table.parent / path), index) for path in paths]
            if set(taken) != {index}:
                self._repeated.add(index)
            # A file in another Unicode form than its row is not found here, and found by `find`.
            if not any(os.path.exists(table.parent / path) for path in paths):
                for path in paths:
                    self._beside_program.setdefault(_same_path(path), index)

    def find(self, path: str) -> dict[str, str] | None:
        """Return the row of an image; None without one."""
        image = _same_path(path)
        indices = [rows[image] for rows in (self._beside_table, self._beside_program) if image in rows]
        if not indices:
            return None
        counted_row, *others = indices
        self._matched.add(counted_row)
        self._repeated.update(index for index in others if index != counted_row)
        return self._rows[counted_row]

    def unmatched(self) -> str:
        """Describe the rows that no image has matched, or that repeat one; "" if there are none."""
        absent = sorted(set(range(len(self._rows))) - self._matched - self._repeated)
        sentences = []
        if absent:
            first = shorten(self._rows[absent[0]]["path"])
            sentences.append(
                f"{len(absent):,} of {len(self._rows):,} rows match no image, the first is {first}; paths are relative "
                "to the table's folder or the current one"
            )
        if self._repeated:
            rows = counted(len(self._repeated), "row repeats an image", "rows repeat an image")
            first = shorten(self._rows[min(self._repeated)]["path"])
            sentences.append(f"{rows}, the first is {first}: one row of each image counts")
        return f"{self.table}: {'; '.join(sentences)}" if sentences else ""


def _same_path(path: str | Path) -> str:
    """Return one form of a path, by which its spellings are compared."""
    return unicodedata.normalize("NFC", os.path.abspath(path))


@dataclass(frozen=True, slots=True)
class TableColumn:
    """Grouping by a column of a table."""

    rows: TableRows
    name: str

    def __call__(self, answer: Answer) -> str:
        """Return the group of an image."""
        row = self.rows.find(answer["path"])
        if row is None:
            return NOWHERE
        return group_of_cell(row[self.name])


def unmatched_rows(groupings: Mapping[str, Grouping]) -> str:
    """Describe the rows of the groupings' table that match no image, after `summarise`; "" if there are none."""
    column = next((grouping for grouping in groupings.values() if isinstance(grouping, TableColumn)), None)
    return "" if column is None else column.rows.unmatched()


def why_alone(grouping: str, group: str) -> str:
    """Return the reason why a grouping has one group.

    Args:
        grouping: Name of the grouping.
        group: Its only group.
    """
    if grouping == DATE and group == UNDATED:
        return "no image has a date in its EXIF"
    # A folder may have any name.
    if grouping != FOLDER and group == NOWHERE:
        return "no image is in the table"
    if grouping != FOLDER and group == NO_VALUE:
        return "no image has a value in the table"
    return "all images have the same"


def below_common(folders: Iterable[str]) -> dict[str, str]:
    """Return the folders' paths below their common folder, which has its own name if it is one of them.

    If a folder directly in the common one has the same name, all paths begin with the name of the common one.
    """
    absolute = {folder: os.path.abspath(folder) for folder in folders}
    try:
        common = os.path.commonpath(absolute.values())
    # The folders are on several drives of Windows.
    except ValueError:
        return dict(zip(absolute, absolute, strict=True))
    names = {folder: os.path.relpath(path, common) for folder, path in absolute.items()}
    if os.curdir not in names.values():
        return names
    # The root of a disk has no name of its own.
    own_name = os.path.basename(common) or common
    is_ambiguous = any(name.split(os.sep)[0] == own_name for name in names.values())
    prefix = own_name if is_ambiguous else ""
    return {folder: own_name if name == os.curdir else os.path.join(prefix, name) for folder, name in names.items()}
