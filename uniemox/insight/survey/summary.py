"""Numbers of a survey, from its lines in one pass; memory does not grow with the number of images."""

import os
import unicodedata
from bisect import insort
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.data.readers.csv_table import read_rows
from uniemox.data.readers.missing import is_missing
from uniemox.errors import ConfigError, DataError
from uniemox.insight.features import unpack
from uniemox.insight.survey.gallery import GallerySample
from uniemox.insight.survey.moods import Moods
from uniemox.io.borders import shorten
from uniemox.io.html import percent
from uniemox.io.typed import check_json
from uniemox.labels import AFFECT, AXES
from uniemox.plurals import counted
from uniemox.predict.schema import top_word
from uniemox.predict.tables import REMEDY, AnswerLine, checking_fields, read_lines
from uniemox.predict.writing import AnswerHeader
from uniemox.spelling import spelled

# Number of images on the page with the highest, and with the lowest, value of each label.
IMAGES_PER_LABEL = 6
# Number of labels that a summary names when it is printed.
NAMED_LABELS = 3
# Number of unfamiliar images on the page.
MAX_UNFAMILIAR = 12
# Share of images without colour above which the page warns that the means may be shifted.
MAX_COLOURLESS = 0.1
FOLDER = "folder"
DATE = "date"
NOWHERE = "not in the table"
UNDATED = "no date"
# Group of an empty cell, or of a word for a missing value, such as NA.
NO_VALUE = "no value"
# Number of months above which images are grouped by year.
MAX_MONTHS = 24
# Instead of a number of unfamiliar images, for a model that can't tell.
NOT_CHECKED = "not checked"
# Names that people try for `DATE`.
_PARTS_OF_DATE = ("month", "year", "day", "time", "exif")
# Cosine of features above which two images are nearly the same. Of 250 OASIS photographs no two reach it; mirrored,
# cropped and turned copies do.
ALIKE = 0.94
# Half the width of a 95 % interval, in standard errors.
Z = 1.96
Answer = Mapping[str, Any]
Grouping = Callable[[Answer], str]
"""Function from a prediction in JSON form to the name of its group."""


@dataclass(frozen=True, slots=True, eq=False)
class SurveyImage:
    """Image shown on the page."""

    path: str
    top: str
    value: float
    """Value that it is shown for."""
    features: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """(D,), see `pack`; empty if unknown."""

    def is_like(self, other: "SurveyImage") -> bool:
        """Return True if two images are nearly the same, such as neighbouring frames or copies."""
        if len(self.features) != len(other.features):
            return False
        lengths = np.linalg.norm(self.features) * np.linalg.norm(other.features)
        return bool(self.features @ other.features > ALIKE * lengths)


class Tally:
    """Means over a group of images.

    Args:
        columns: Number of columns.

    Attributes:
        images: Number of images.
        unfamiliar: Number of those whose predictions are guesses.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.images = self.unfamiliar = 0
        self.sums = np.zeros(columns)
        self.squares = np.zeros(columns)

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
        """Means, (columns,)."""
        return self.sums / max(self.images, 1)

    @property
    def margins(self) -> NDArray[np.float64]:
        """Half of each mean's 95 % interval, (columns,); nan for fewer than two images."""
        if self.images < 2:
            return np.full(self.columns, np.nan)
        variance = np.maximum(self.squares - self.images * self.means**2, 0) / (self.images - 1)
        return np.asarray(Z * np.sqrt(variance / self.images))


def _keep_lowest(images: list[SurveyImage], image: SurveyImage, size: int, key: Callable[[SurveyImage], float]) -> None:
    """Insert an image into those with the lowest keys, which are in order.

    Of equal keys the first image stays, of nearly identical images the one with the lower key.

    Args:
        images: Images with the lowest keys so far, changed in place.
        image: Further image.
        size: Maximum number of images.
        key: Function from an image to the value by which it is sorted.
    """
    if len(images) == size and key(image) >= key(images[-1]):
        return
    alike = next((other for other in images if other.is_like(image)), None)
    if alike is not None:
        if key(image) >= key(alike):
            return
        images.remove(alike)
    insort(images, image, key=key)
    del images[size:]


class Summary:
    """Numbers of a survey. `add` counts predictions; `shorten` finally shortens the groups' names.

    Args:
        first: A prediction in JSON form, from which the labels are read.
        groupings: Groupings by name, see `groupings_of`.
        unflagged_note: Sentence about the model of `uniemox.predict.confidence.unflagged_note`.

    Attributes:
        columns: Labels, and valence and arousal if the model also predicts them.
        whole: Number of images, and means of the columns over all of them.
        groups: The same by grouping (folder, date or a column), then by group.
        people: Number of images by number of people.
        failures: Number of unreadable images.
    """

    def __init__(self, first: Answer, groupings: Mapping[str, Grouping], unflagged_note: str | None = None) -> None:
        self.answered = AnswerHeader.of(check_json(first, AnswerLine, "the first line", remedy=REMEDY))
        self.kind: str = first["kind"]
        labels = self.answered.labels
        self.columns = (*labels, *(name for name in AFFECT if name not in labels and first.get(name)))
        self.whole = Tally(len(self.columns))
        self.groups: dict[str, dict[str, Tally]] = {name: {} for name in groupings}
        self.people: Counter[int] = Counter()
        self.shown: Counter[str] = Counter()
        """Number of faces by most probable word; "" for faces that are too small to tell."""
        self.gallery = GallerySample(labels)
        self.moods = Moods()
        self.colourless = 0
        """Number of images without colour."""
        self.failures = 0
        self.unflagged_note = unflagged_note
        """Sentence about a model that flags no unfamiliar images, or only blank ones; None for other models."""
        self._groupings = groupings
        # Number of features, the same for every image; 0 before the first one.
        self._width = 0
        self.most: dict[str, list[SurveyImage]] = {label: [] for label in labels}
        """Images with the highest value of each label, highest first."""
        self.least: dict[str, list[SurveyImage]] = {label: [] for label in labels}
        """Images with the lowest value of each label, lowest first."""
        self.unfamiliar: list[SurveyImage] = []
        """Images that the model flags as unfamiliar, least familiar first."""

    def __repr__(self) -> str:
        means = list(zip(self.columns, self.whole.means.tolist(), strict=True))
        highest_first = sorted(means, key=lambda pair: -pair[1])
        shares = [f"{label} {mean:.0%}" for label, mean in highest_first if label not in AXES][:NAMED_LABELS]
        axes = [f"{axis} {mean:.1f}" for axis, mean in means if axis in AXES]
        unfamiliar = f"{self.whole.unfamiliar:,} unfamiliar"
        if self.unflagged_note is not None:
            unfamiliar = f"unfamiliar {self.unfamiliar_text(self.whole)}"
        images = f"{counted(self.whole.images, 'image')}, {self.failures:,} unreadable"
        return f"<Summary of {images}: {', '.join([*shares, *axes, unfamiliar])}>"

    def add(self, value: Answer) -> None:
        """Count an answer in JSON form."""
        path = value["path"]
        top = top_word(value["scene"])
        is_unfamiliar = bool(value.get("is_unfamiliar"))
        numbers = np.array([value["scene"].get(name, value.get(name)) for name in self.columns], np.float64)
        groups = [self.groups[name].setdefault(of(value), Tally(len(numbers))) for name, of in self._groupings.items()]
        for tally in (self.whole, *groups):
            tally.add(numbers, is_unfamiliar=is_unfamiliar)
        self.colourless += bool(value.get("is_colourless"))
        if value.get("persons") is not None:
            self.people[len(value["persons"])] += 1
        for face in value.get("faces") or ():
            self.shown[top_word(face["expressions"]) if face["expressions"] else ""] += 1
        features = np.empty(0, np.float32)
        if value.get("features"):
            features = unpack(value["features"]).astype(np.float32)
            self._width = self._width or len(features)
            if len(features) != self._width:
                raise ValueError(f"expected {self._width} features")
        for label, share in value["scene"].items():
            image = SurveyImage(path, top, share, features)
            _keep_lowest(self.most[label], image, IMAGES_PER_LABEL, lambda image: -image.value)
            _keep_lowest(self.least[label], image, IMAGES_PER_LABEL, lambda image: image.value)
        if is_unfamiliar:
            image = SurveyImage(path, top, float(value["familiarity"]), features)
            _keep_lowest(self.unfamiliar, image, MAX_UNFAMILIAR, lambda image: image.value)
        mood = [float(numbers[self.columns.index(name)]) for name in AFFECT if name in self.columns]
        if len(mood) == len(AFFECT) and np.isfinite(mood).all():
            self.moods.add(mood[0], mood[1], path, top)
        self.gallery.add(value)

    def unfamiliar_text(self, tally: Tally) -> str:
        """Return the share of unfamiliar images in a group; of a model that can't tell, the number of blank ones."""
        if self.unflagged_note is None:
            return percent(tally.unfamiliar / tally.images)
        if tally.unfamiliar == 0:
            return NOT_CHECKED
        return f"{NOT_CHECKED} ({tally.unfamiliar:,} blank)"

    @property
    def colourless_share(self) -> float:
        """Share of the images without colour, 0 to 1."""
        return self.colourless / self.whole.images

    @property
    def notes_on_groups(self) -> list[str]:
        """Clauses about groupings that have one group, so that nothing can be compared."""
        # Nobody expects one image to be compared.
        if self.whole.images == 1:
            return []
        return [
            f"not compared by {name}: {_why_alone(name, next(iter(tallies)))}"
            for name, tallies in self.groups.items()
            if len(tallies) == 1
        ]

    @property
    def is_often_colourless(self) -> bool:
        """True if the number of images without colour may shift the means noticeably."""
        return self.colourless_share > MAX_COLOURLESS

    def shorten(self) -> None:
        """Shorten folder names to the part below their common folder, see `_below`; group many months by year."""
        for name, tallies in self.groups.items():
            names = {key: key for key in sorted(tallies)}
            if name == FOLDER:
                names = _below(names)
            elif name == DATE and len(tallies) > MAX_MONTHS:
                names = {month: month if month == UNDATED else month[:4] for month in names}
            self.groups[name] = {}
            for key, shorter in names.items():
                self.groups[name].setdefault(shorter, Tally(len(self.columns))).merge(tallies[key])


def summarise(
    lines: Path, groupings: Mapping[str, Grouping], requested: Container[str], unflagged_note: str | None = None
) -> Summary:
    """Return the numbers of a survey.

    Args:
        lines: The survey's file of predictions.
        groupings: Groupings by name, see `groupings_of`.
        requested: Paths of the images; lines about other images are passed over.
        unflagged_note: See `Summary`.

    Raises:
        DataError: If no image could be read, or for a line that is no prediction.
    """
    summary: Summary | None = None
    failures = 0
    for value in read_lines(lines):
        if value.get("path") not in requested:
            continue
        if "scene" not in value:
            failures += 1
            # The table's row of an unreadable image has matched an image, too.
            for grouping in groupings.values():
                grouping(value)
            continue
        with checking_fields(lines):
            summary = summary or Summary(value, groupings, unflagged_note)
            summary.add(value)
    if summary is None:
        raise DataError(f"no image could be read ({failures:,} tried); {lines} has the reasons")
    summary.failures = failures
    summary.shorten()
    return summary


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
    """Rows of a table about images, found by path.

    Paths match in any Unicode form (macOS writes NFD), and with the backslashes of Windows.

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
        self._row_indices: dict[str, int] = {}
        self._matched: set[int] = set()
        for line, row in read_rows(table):
            absent = next((name for name in ("path", *columns) if name not in row), None)
            if absent is not None:
                raise ConfigError(f"{table}:{line}: there is no column {absent!r}; it has {', '.join(row)}")
            # Paths are relative to the table's folder or to the current one.
            for path in (row["path"], row["path"].replace("\\", "/")):
                for folder in (Path(), table.parent):
                    self._row_indices[_same_path(folder / path)] = len(self._rows)
            self._rows.append(row)

    def find(self, path: str) -> dict[str, str] | None:
        """Return the row of an image; None without one."""
        index = self._row_indices.get(_same_path(path))
        if index is None:
            return None
        self._matched.add(index)
        return self._rows[index]

    def unmatched(self) -> str:
        """Describe the rows that no image has matched; "" if there are none."""
        paths = [row["path"] for index, row in enumerate(self._rows) if index not in self._matched]
        if not paths:
            return ""
        return (
            f"{self.table}: {len(paths):,} of {len(self._rows):,} rows match no image, the first is "
            f"{shorten(paths[0])}; paths are relative to the table's folder or the current one"
        )


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


def _why_alone(grouping: str, group: str) -> str:
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


def _below(folders: Iterable[str]) -> dict[str, str]:
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
