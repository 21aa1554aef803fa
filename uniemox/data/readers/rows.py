"""Rows of tables with a header, and the numbers, votes and boxes in them."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from uniemox.data.readers.missing import is_missing
from uniemox.data.text_files import read_text
from uniemox.errors import DataError
from uniemox.labels.rating_scale import rating_of
from uniemox.persons.box import Box
from uniemox.spelling import spelled

# Python's default of 128 KiB is little for a cell with a long text.
MAX_CELL_BYTES = 2**20
BOX_COLUMNS = ("x1", "y1", "x2", "y2")

DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[,.' ]\d{3})+(?:[.,]\d+)?")


# Words of R and of spreadsheets in other languages, in lower case.
_TRUE = frozenset(("true", "t", "yes", "wahr", "vrai", "verdadero", "verdadeiro", "vero", "waar"))
_FALSE = frozenset(("false", "f", "no", "falsch", "faux", "falso", "onwaar"))


class Cells(dict[str, str]):
    """Cells of a table's row by column.

    Args:
        cells: The cells.
        has_decimal_commas: A comma divides the decimals of numbers, because a semicolon divides the columns.
    """

    def __init__(self, cells: Mapping[str, str], *, has_decimal_commas: bool = False) -> None:
        super().__init__(cells)
        self.has_decimal_commas = has_decimal_commas

    def with_cells(self, cells: Mapping[str, str]) -> "Cells":
        """Return a row of the same table with other cells."""
        return Cells(cells, has_decimal_commas=self.has_decimal_commas)


def read_rows(
    path: Path, quote: str = '"', *, columns: tuple[str, ...] = (), prose: tuple[str, ...] = ()
) -> Iterator[tuple[int, Cells]]:
    """Yield the rows of a table with a header by column, each with its line number; commas, semicolons or tabs.

    Outer blanks of header and values are removed. A first line such as sep=; names the delimiter, as Excel reads it.

    Args:
        quote: Character around values that contain the delimiter.
        columns: Required columns.
        prose: Names of columns that may contain the delimiter without quotes if they are the last.

    Raises:
        DataError: With file and line, if the table has no header, a column twice, not all required columns, or a row of
            another length.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_BYTES))
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    header_line = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(",;\t", key=header_line.count)
    if declared := re.fullmatch("sep=(.)", header_line):
        delimiter = declared[1]
        # An empty line, which is skipped, keeps the numbers of the other lines.
        text = text.replace(header_line, "", 1)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, quotechar=quote, skipinitialspace=True, strict=True)
    try:
        header = [spelled(name) for name in next(row for row in rows if any(value.strip() for value in row))]
    except StopIteration:
        raise DataError(f"{path}: the table is empty; expected a header and rows") from None
    except csv.Error as error:
        raise DataError(f"{path}:1: not a table ({error})") from error
    # pandas names further columns without a name so, too; callers leave them out.
    first_empty = header.index("") if "" in header else len(header)
    header = [f"Unnamed: {i}" if name == "" and i > first_empty else name for i, name in enumerate(header)]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{path}:1: column {min(repeated)!r} appears twice")
    if missing := [name for name in columns if name not in header]:
        raise DataError(f"{path}:1: there is no column {', '.join(missing)}; expected {', '.join(columns)}")
    try:
        for row in rows:
            if not any(value.strip() for value in row):
                continue
            if len(row) > len(header) and header[-1].lower() in prose:
                row[len(header) - 1 :] = [f"{delimiter} ".join(value.strip() for value in row[len(header) - 1 :])]
            if len(row) != len(header):
                raise DataError(f"{path}:{rows.line_num}: {len(row)} values under {len(header)} columns")
            cells = [value.strip() for value in row]
            yield rows.line_num, Cells(dict(zip(header, cells, strict=True)), has_decimal_commas=delimiter == ";")
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not a table ({error})") from error


def number(
    row: Mapping[str, str], field: str, where: str, *, low: float = -math.inf, high: float = math.inf, remedy: str = ""
) -> float:
    """Parse a field as a finite number.

    Args:
        remedy: End of the message about a value that is no number.

    Raises:
        DataError: With file, line and field, if it is not a finite number from low to high.
    """
    cell = number_in(row, field)
    try:
        # Python would read 1_0 as 10.
        value = math.nan if "_" in cell else float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {field} must be a number, got {row[field]!r}{_remedy_of(row[field]) or remedy}")
    if not low <= value <= high:
        raise DataError(f"{where}: {field} must lie between {low:g} and {high:g}, got {row[field]!r}")
    return value


def number_in(row: Mapping[str, str], field: str) -> str:
    """Return a cell with a point before its decimals.

    >>> number_in(Cells({"joy": "0,25"}, has_decimal_commas=True), "joy"), number_in({"joy": "0,25"}, "joy")
    ('0.25', '0,25')
    """
    cell = row[field]
    if isinstance(row, Cells) and row.has_decimal_commas and DECIMAL_COMMA.fullmatch(cell.removesuffix("%").rstrip()):
        return cell.replace(",", ".")
    return cell


def _remedy_of(cell: str) -> str:
    """Return the end of the message about a cell that spreadsheets write for a number; empty for other cells."""
    if not cell:
        return ", an empty cell; write the number, or leave the row out"
    if cell.startswith("#"):
        return ", a spreadsheet's error; mend its formula, or empty the cell"
    if _NUMBER.fullmatch(cell):
        return ", which is too large"
    if DECIMAL_COMMA.fullmatch(cell):
        return (
            "; write a point before the decimals and no separator of thousands, or divide the columns with semicolons"
        )
    if cell.endswith("%") or THOUSANDS.fullmatch(cell):
        return "; write it without a percent sign or a separator of thousands"
    return ""


def votes_in(row: Mapping[str, str], field: str) -> str:
    """Return a cell of votes as a number, as pandas, R and spreadsheets write it: True, an empty cell, NA, 50%.

    >>> [votes_in({"joy": cell}, "joy") for cell in ("True", "FALSCH", "", "NA", "50%", "2")]
    ['1', '0', '0', '0', '50', '2']
    """
    cell = number_in(row, field)
    word = cell.lower()
    if word in _TRUE:
        return "1"
    if word in _FALSE or not cell or (is_missing(cell) and not cell.startswith("#")):
        return "0"
    return cell.removesuffix("%").rstrip() or cell


def shares(row: Mapping[str, str], fields: Mapping[str, str], where: str, *, remedy: str = "") -> dict[str, float]:
    """Return votes as shares with sum 1, by emotion. They may be numbers, percentages, True and False, or empty for 0.

    Args:
        fields: Emotion of each column.
        remedy: See `number`.

    Raises:
        DataError: For negative votes, values that are no numbers, or rows without votes.
    """
    cells = {field: votes_in(row, field) for field in fields}
    votes = {emotion: number(cells, field, where, low=0, remedy=remedy) for field, emotion in fields.items()}
    total = sum(votes.values())
    if total == math.inf:
        raise DataError(f"{where}: the votes for {', '.join(fields)} have an infinite sum; write smaller numbers")
    if not total > 0:
        raise DataError(f"{where}: no votes at all for {', '.join(fields)}")
    return {emotion: vote / total for emotion, vote in votes.items()}


def top_vote(votes: Mapping[str, float]) -> str | None:
    """Return the emotion with the most votes; None in a tie."""
    highest = max(votes.values())
    # Shares that are written with few digits differ slightly in a tie.
    winners = [emotion for emotion, vote in votes.items() if math.isclose(vote, highest, rel_tol=1e-5)]
    return winners[0] if len(winners) == 1 else None


def on_nine_points(value: float, low: float, high: float) -> float:
    """Convert a rating from a scale of low to high linearly to 1 to 9.

    >>> on_nine_points(4.0, 1, 7)
    5.0
    """
    return rating_of((value - low) / (high - low))


def read_box(row: Mapping[str, str], where: str) -> Box | None:
    """Return the box of a row, clipped at 0; None if its four fields are empty.

    Raises:
        DataError: If only some of the fields are set, or the box is empty or left of or above the image, or inside its
            first two pixels, because its fields are shares of the width and height.
    """
    fields = {field: "" if is_missing(row.get(field, "")) else row.get(field, "") for field in BOX_COLUMNS}
    row = row.with_cells(fields) if isinstance(row, Cells) else fields
    if not all(row.get(field) for field in BOX_COLUMNS):
        if any(row.get(field) for field in BOX_COLUMNS):
            raise DataError(f"{where}: a box needs all of {', '.join(BOX_COLUMNS)}")
        return None
    box = Box(*(number(row, field, where) for field in BOX_COLUMNS))
    if not (box.x1 < box.x2 and box.y1 < box.y2 and box.x2 > 0 and box.y2 > 0):
        raise DataError(f"{where}: the box must have x1 < x2 and y1 < y2, and not lie left of or above the image")
    if box.x2 < 2 and box.y2 < 2:
        raise DataError(
            f"{where}: the box {box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g} lies in the first two pixels; give "
            f"{', '.join(BOX_COLUMNS)} in pixels of the image, not as shares of its width and height"
        )
    return Box(max(box.x1, 0), max(box.y1, 0), box.x2, box.y2)
