"""Tables of predictions: CSV and Parquet, made from JSON lines, and data frames; columns come from `schema`."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args, get_origin

from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import MAX_NAME, open_regular, write_rows
from uniemox.labels import AFFECT
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.schema import DIGITS, FIELDS, Field, columns_of, required_type, table_fields, words_of

ROWS = 10_000  # table rows in memory at once
MAX_LINE_BYTES = 2**24
MAX_NUMBER = 1e18  # larger than any time in seconds
FRAMES = ("pandas", "polars")


def reserved_names() -> set[str]:
    """Return the column names that no label may have."""
    fields = {field.name for field in table_fields((), of_film=True)}
    return fields.union(headings((), of_film=True)) - {"scene", *AFFECT}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the predictions in a file, without an incomplete last line.

    Raises:
        DataError: For other faults.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); choose another name") from error
    with file:
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES), b""), start=1):
            if len(line) == MAX_LINE_BYTES:
                raise DataError(f"{path}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB, which no prediction is")
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not JSON ({error}); remove the line") from error
            if not _is_answer(value):
                raise DataError(f"{path}:{number}: not a prediction of uniemox predict; choose another file with --out")
            yield value


@contextmanager
def checking_fields(lines: Path) -> Iterator[None]:
    """Convert errors caused by fields of another type, in lines that somebody else has made, to DataError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
        raise DataError(f"{lines}: a field is of another type than in a prediction ({error})") from error


def _is_answer(value: Any) -> bool:
    """Return True if a line has an image's numbers, or the reason why there are none."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str if "time_s" in value else str | None):
        return False
    if len(value.get("path") or "") > MAX_NAME:
        return False
    scene = value.get("scene", {} if "error" in value else None)
    valence = value.get("valence")
    if not isinstance(scene, dict):
        return False
    try:
        total = sum(map(abs, (*scene.values(), value.get("time_s", 0), 0 if valence is None else valence)))
    except (TypeError, OverflowError):  # no numbers, or too large ones
        return False
    return total < MAX_NUMBER  # False for nan


def write_csv(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool, encoding: str) -> None:
    """Write one row per prediction.  lines: of `uniemox predict`.  encoding: utf-8 or utf-8-sig."""
    with table.open("w", encoding=encoding, errors="backslashreplace", newline="") as file:
        rows = as_cells(read_lines(lines), labels, of_film=of_film)
        write_rows(file, chain([headings(labels, of_film=of_film)], rows), line_end="\r\n")


def headings(labels: tuple[str, ...], *, of_film: bool) -> list[str]:
    """Return the names of a table's columns."""
    names: list[str] = []
    for field in table_fields(labels, of_film=of_film):
        names += (*columns_of(field), *(labels if field.name == "scene" else ()))
    return [*names, "error"]


def as_cells(answers: Iterable[dict[str, Any]], labels: tuple[str, ...], *, of_film: bool) -> Iterator[list[Any]]:
    """Yield a table's row, under `headings`, for each prediction or failure in JSON form."""
    fields = table_fields(labels, of_film=of_film)
    for value in answers:
        yield [*(cell for field in fields for cell in _cells(field, value, labels)), value.get("error")]


def _cells(field: Field, answer: dict[str, Any], labels: tuple[str, ...]) -> list[Any]:
    value = answer.get(field.name)
    if field.name == "scene":
        scene = value or {}
        top = max(scene.items(), key=lambda pair: pair[1], default=(None, None))
        return [*top, *(scene.get(label) for label in labels)]
    if field.parts:
        both = (None, "") if value is None else (len(value), ";".join(words_of(field, value)))
        return [*both[: len(columns_of(field))]]
    if get_origin(required_type(field)) in (list, tuple, dict):
        return [";".join(map(str, value.items() if isinstance(value, dict) else value or ()))]
    return [value]


def write_parquet(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool) -> None:
    """Write one row per prediction; people and faces are lists.

    Raises:
        MissingPackageError: Without pyarrow.
    """
    pa = import_pyarrow()
    import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    columns: dict[str, Any] = {}
    for field in table_fields(labels, of_film=of_film):
        columns |= dict.fromkeys(labels, pa.float32()) if field.name == "scene" else {field.name: _arrow(field, pa)}
    schema = pa.schema(columns | {"error": pa.string()})
    rows = (_as_row(value) for value in read_lines(lines))
    with pyarrow.parquet.ParquetWriter(table, schema) as writer:
        while block := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def _arrow(field: Field, pa: Any) -> Any:
    """Return the Arrow type of a field."""
    if field.digits <= DIGITS:
        number = pa.float32()
    else:
        number = pa.float64()
    scalars = {bool: pa.bool_(), int: pa.int32(), float: number}
    kind = required_type(field)
    if field.parts:
        return pa.list_(pa.struct({part.name: _arrow(part, pa) for part in field.parts}))
    if get_origin(kind) is dict:
        return pa.map_(pa.string(), number)
    if get_origin(kind) is tuple:
        return pa.list_(number, len(get_args(kind)))
    if get_origin(kind) is list:
        return pa.list_(scalars.get(get_args(kind)[0], pa.string()))
    return scalars.get(kind, pa.string())


def _as_row(value: dict[str, Any]) -> dict[str, Any]:
    """Convert a prediction to Arrow's form: text in UTF-8, mappings as pairs."""
    row = value | value.get("scene", {})
    for field in FIELDS:
        if field.parts and value.get(field.name) is not None:
            row[field.name] = [
                {key: list(part.items()) if isinstance(part, dict) else part for key, part in element.items()}
                for element in value[field.name]
            ]
    for key in ("path", "error"):  # a file name may have bytes that are not UTF-8
        if value.get(key) is not None:
            row[key] = value[key].encode("utf-8", "backslashreplace").decode()
    return row


def import_pyarrow() -> Any:
    """Import pyarrow. Raises MissingPackageError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("a Parquet table needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pa


def to_frame(answers: Prediction | Failure | Iterable[Prediction | Failure]) -> Any:
    """Return a DataFrame of pandas, or else of polars: one row per image, columns as in `--out answers.csv`.

    Args:
        answers: From `Predictor.predict`; if an image could not be read, its `error` has the reason.

    Raises:
        MissingPackageError: If neither library is installed.
    """
    values = [one.to_dict() for one in ([answers] if isinstance(answers, Prediction | Failure) else answers)]
    labels = next((tuple(value["scene"]) for value in values if "scene" in value), ())
    library = next((name for name in FRAMES if find_spec(name)), None)
    if library is None:
        raise MissingPackageError("a data frame needs pandas or polars; run: pip install pandas")
    of_film = any("time_s" in value for value in values)
    names = headings(labels, of_film=of_film)
    rows = list(as_cells(values, labels, of_film=of_film))
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return import_module(library).DataFrame(dict(zip(names, map(list, columns), strict=True)))
