"""Tables of answers: CSV and Parquet, made from lines of JSON."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from uniemox.errors import DataError, MissingPackageError
from uniemox.io.csv_files import write_rows
from uniemox.labels import AFFECT

JUDGED = ("familiarity", "is_unfamiliar")
ABOUT = ("kind", "label_set", "model", "width_px", "height_px")
ROWS = 10_000  # of a table that are in memory at once
FOUND = ("people", "people_feel", "faces", "faces_show")  # numbers, and their most probable words
TOP = ("top", "top_value")
TIME = ("time_s", "shot")  # of films alone
COLUMNS = ("path", *TIME, "likely", "persons", "faces", *FOUND, *TOP, *JUDGED, *ABOUT, "error")  # beside the labels


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of answers; a last line that was cut off is left out. Raises DataError for other faults."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); choose another name") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON ({error}); remove the line") from error
            if not isinstance(value, dict) or not {"scene", "error"} & value.keys():
                raise DataError(f"{path}:{number}: not an answer of uniemox predict; choose another file with --out")
            yield value


def write_csv(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool, encoding: str) -> None:
    """A row an image, under `headings`.  lines: of `uniemox predict`.  encoding: utf-8 or utf-8-sig."""
    with table.open("w", encoding=encoding, errors="backslashreplace", newline="") as file:
        rows = (as_cells(value, labels, of_film=of_film) for value in read_lines(lines))
        write_rows(file, chain([headings(labels, of_film=of_film)], rows), line_end="\r\n")


def headings(labels: tuple[str, ...], *, of_film: bool) -> list[str]:
    """Of a table's columns."""
    return ["path", *(TIME if of_film else ()), *TOP, *_numbers(labels), *JUDGED, "likely", *FOUND, *ABOUT, "error"]


def _numbers(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of numbers: the labels, and valence and arousal where they are not the labels themselves."""
    return (*labels, *(name for name in AFFECT if name not in labels))


def as_cells(value: dict[str, Any], labels: tuple[str, ...], *, of_film: bool) -> list[Any]:
    """A row of a table, under `headings`.  value: an answer or a failure as JSON has it."""
    scene = value.get("scene", {})
    return [
        value["path"],
        *(value.get(name) for name in (TIME if of_film else ())),
        *max(scene.items(), key=lambda pair: pair[1], default=(None, None)),
        *(scene.get(label) for label in labels),
        *(value.get(name) for name in _numbers(labels)[len(labels) :]),
        *(value.get(name) for name in JUDGED),
        ";".join(value.get("likely") or ()),
        *_found(value.get("persons"), "emotions"),
        *_found(value.get("faces"), "expressions"),
        *(value.get(name) for name in ABOUT),
        value.get("error"),
    ]


def _found(several: list[dict[str, Any]] | None, what: str) -> tuple[int | None, str]:
    """How many people or faces there are, and the most probable word of each; none: no detector was run."""
    if several is None:
        return None, ""
    return len(several), ";".join(max(one[what], key=one[what].get) if one[what] else "?" for one in several)


def write_parquet(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool) -> None:
    """People and faces as lists with their boxes. Raises MissingPackageError without pyarrow."""
    pa = import_pyarrow()
    import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    shares, place = pa.map_(pa.string(), pa.float32()), {"box": pa.list_(pa.float32(), 4), "confidence": pa.float32()}
    person = pa.struct(place | {"emotions": shares})
    face = pa.struct(place | {"expressions": shares, "person": pa.int32()})
    times = {"time_s": pa.float64(), "shot": pa.int32()} if of_film else {}
    columns = {"path": pa.string(), **times, **dict.fromkeys((*_numbers(labels), "familiarity"), pa.float32())}
    columns |= {"is_unfamiliar": pa.bool_(), "likely": pa.list_(pa.string())}
    columns |= {
        "persons": pa.list_(person),
        "faces": pa.list_(face),
        **dict.fromkeys(ABOUT, pa.string()),
        "error": pa.string(),
    }
    schema = pa.schema(columns | dict.fromkeys(("width_px", "height_px"), pa.int32()))
    rows = (_as_row(value) for value in read_lines(lines))
    with pyarrow.parquet.ParquetWriter(table, schema) as writer:
        while block := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def _as_row(value: dict[str, Any]) -> dict[str, Any]:
    """An answer as Arrow takes it: text that is UTF-8, maps as pairs."""
    found = {"persons": _pairs(value.get("persons"), "emotions"), "faces": _pairs(value.get("faces"), "expressions")}
    texts = {name: _utf8(value[name]) for name in ("path", "error") if value.get(name) is not None}
    return value | value.get("scene", {}) | found | texts


def _pairs(several: list[dict[str, Any]] | None, what: str) -> list[dict[str, Any]] | None:
    if several is None:
        return None
    return [one | {what: None if one[what] is None else list(one[what].items())} for one in several]


def _utf8(text: str) -> str:
    """File names that are no UTF-8 with their odd bytes escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def import_pyarrow() -> Any:
    """The module pyarrow. Raises MissingPackageError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("a Parquet table needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pa
