"""Groups of images, by folder, date or a column of a table, and the means of each."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.data.readers.tables import read_rows
from uniemox.errors import ConfigError

FOLDER, DATE = "folder", "date"
NOWHERE, UNDATED = "not in the table", "no date"
MAX_MONTHS = 24  # then years
Z = 1.96  # of a 95 % interval
Grouping = Callable[[Mapping[str, Any]], str]
"""From an answer, as a line has it, to its group."""


@dataclass(slots=True)
class Tally:
    """Means of a group of images."""

    columns: int
    images: int = 0
    unfamiliar: int = 0
    sums: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.sums, self.squares = np.zeros(self.columns), np.zeros(self.columns)

    def add(self, values: NDArray[np.float64], *, is_unfamiliar: bool) -> None:
        """Count an image.  values: (columns,)."""
        self.images += 1
        self.unfamiliar += is_unfamiliar
        self.sums += values
        self.squares += values**2

    def merge(self, other: "Tally") -> None:
        """Count another group's images too."""
        self.images += other.images
        self.unfamiliar += other.unfamiliar
        self.sums += other.sums
        self.squares += other.squares

    @property
    def means(self) -> NDArray[np.float64]:
        """(columns,)."""
        return self.sums / max(self.images, 1)

    @property
    def margins(self) -> NDArray[np.float64]:
        """(columns,), half of each mean's 95 % interval; nan for fewer than two images."""
        if self.images < 2:
            return np.full(self.columns, np.nan)
        variance = np.maximum(self.squares - self.images * self.means**2, 0) / (self.images - 1)
        return np.asarray(Z * np.sqrt(variance / self.images))


def groupings_of(names: Sequence[str], table: Path | None) -> dict[str, Grouping]:
    """What `--by` names.  table: a CSV file with the column path, for names that are neither folder nor date.

    Raises ConfigError for a name that is no column, DataError for a table that can't be read.
    """
    known: dict[str, Grouping] = {FOLDER: _folder_of, DATE: _month_of}
    columns = [name for name in names if name not in known]
    if columns and table is None:
        raise ConfigError(f"--by {columns[0]}: neither folder nor date; for a column give a CSV file, --table")
    if table is not None:
        known |= _columns_of(table, columns)
    return {name: known[name] for name in names}


def _columns_of(table: Path, columns: Sequence[str]) -> dict[str, Grouping]:
    rows: dict[str, tuple[str, ...]] = {}
    for line, row in read_rows(table):
        absent = next((name for name in ("path", *columns) if name not in row), None)
        if absent is not None:
            raise ConfigError(f"{table}:{line}: there is no column {absent!r}; it has {', '.join(row)}")
        values = tuple(row[name] for name in columns)
        rows[os.path.abspath(table.parent / row["path"])] = rows[os.path.abspath(row["path"])] = values

    def grouping(place: int) -> Grouping:
        return lambda value: rows[path][place] if (path := os.path.abspath(value["path"])) in rows else NOWHERE

    return {name: grouping(place) for place, name in enumerate(columns)}


def _folder_of(value: Mapping[str, Any]) -> str:
    return os.path.dirname(value["path"]) or "."


def _month_of(value: Mapping[str, Any]) -> str:
    return value["taken"][:7] if value.get("taken") else UNDATED


def shorten(groups: dict[str, dict[str, Tally]]) -> None:
    """Folders from the one that holds them all; years where there are many months."""
    for name, tallies in groups.items():
        rename: Callable[[str], str] = str
        if name == FOLDER and len(tallies) > 1:
            rename = _below(tallies)
        elif name == DATE and len(tallies) > MAX_MONTHS:
            rename = lambda month: month[:4] if month != UNDATED else month  # noqa: E731
        shorter: dict[str, Tally] = {}
        for key, tally in sorted(tallies.items()):
            shorter.setdefault(rename(key), Tally(tally.columns)).merge(tally)
        groups[name] = shorter


def _below(folders: Iterable[str]) -> Callable[[str], str]:
    absolute = [os.path.abspath(folder) for folder in folders]
    try:
        common = os.path.commonpath(absolute)
    except ValueError:  # on several drives
        return str
    return lambda folder: os.path.relpath(os.path.abspath(folder), common)
