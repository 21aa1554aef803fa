"""Reading text tables as they are found: any line ends, quotes, byte-order marks, delimiters."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from uniemox.errors import DataError
from uniemox.io.files import read_limited

csv.field_size_limit(2**20)


def read_bytes(path: Path) -> bytes:
    """The bytes of a text file. Raises DataError if it is missing, too large, or binary."""
    try:
        data = read_limited(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    if b"\0" in data:
        raise DataError(f"{path}: not a text file; save it as UTF-8")
    return data


def read_text(path: Path) -> str:
    """A text file as UTF-8, else as Latin-1. Raises DataError if it is missing, too large, or binary."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_rows(path: Path, quote: str = '"', prose: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, each with its line number, by column; commas, semicolons or tabs.

    Header and values come without outer blanks.
    prose: names of columns that may hold the delimiter without quotes if they are the last.
    Raises DataError, with file and line, for rows of another length.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    header_line = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(",;\t", key=header_line.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, quotechar=quote, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(row for row in rows if any(value.strip() for value in row))]
    except StopIteration:
        raise DataError(f"{path}: the table is empty; expected a header and rows") from None
    except csv.Error as error:
        raise DataError(f"{path}:1: not a table ({error})") from error
    doubled = {name for name in header if header.count(name) > 1}
    if doubled:
        raise DataError(f"{path}:1: column {sorted(doubled)[0]!r} appears twice")
    try:
        for row in rows:
            if not any(value.strip() for value in row):
                continue
            if len(row) > len(header) and header[-1].lower() in prose:
                row[len(header) - 1 :] = [f"{delimiter} ".join(value.strip() for value in row[len(header) - 1 :])]
            if len(row) != len(header):
                raise DataError(f"{path}:{rows.line_num}: {len(row)} values under {len(header)} columns")
            yield rows.line_num, {name: value.strip() for name, value in zip(header, row, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not a table ({error})") from error


def number(row: Mapping[str, str], field: str, where: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """A field as a finite number. Raises DataError, with file, line and field, if it is none or out of range."""
    try:
        value = float(row[field])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {field} must be a number, got {row[field]!r}")
    if not low <= value <= high:
        raise DataError(f"{where}: {field} must lie between {low:g} and {high:g}, got {row[field]!r}")
    return value


def shares(row: Mapping[str, str], fields: Mapping[str, str], where: str) -> dict[str, float]:
    """Votes as shares with sum 1.  fields: column to emotion. Raises DataError for negative or missing votes."""
    votes = {emotion: number(row, field, where, low=0) for field, emotion in fields.items()}
    total = sum(votes.values())
    if not total > 0:
        raise DataError(f"{where}: no votes at all for {', '.join(fields)}")
    return {emotion: vote / total for emotion, vote in votes.items()}


def top_vote(votes: Mapping[str, float]) -> str | None:
    """The emotion with the most votes; None in a tie."""
    limit = max(votes.values())
    best = [emotion for emotion, vote in votes.items() if math.isclose(vote, limit, rel_tol=1e-5)]
    return best[0] if len(best) == 1 else None


def on_nine_points(value: float, low: float, high: float) -> float:
    """A rating on a scale from low to high, linearly on one of 1 to 9.

    >>> on_nine_points(4.0, 1, 7)
    5.0
    """
    return 1 + 8 * (value - low) / (high - low)
