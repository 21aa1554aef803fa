"""Tables of predictions: CSV and Parquet, made from JSON lines, and data frames; columns come from `schema`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, overload

from msgspec import UNSET, Meta, Struct, UnsetType

from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import MAX_NAME, write_rows
from uniemox.io.typed import check_json, read_json_lines
from uniemox.labels import AXES
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.schema import (
    DIGITS,
    FIELDS,
    MAX_UNMAPPED,
    NO_LABEL,
    Field,
    columns_of,
    required_type,
    shares_with_none,
    table_fields,
    words_of,
)

if TYPE_CHECKING:
    import pandas
    import polars

ROWS = 10_000  # table rows in memory at once
FRAMES = ("pandas", "polars")
# Columns of the most probable label.
SCENE_COLUMNS = ("top", "top_value")
REMEDY = "remove the line, or choose another file"


def reserved_names() -> set[str]:
    """Return the column names that no label may have."""
    fields = {field.name for field in table_fields((), of_film=True, with_optional=True)}
    return fields.union(headings((), of_film=True, with_optional=True)) - {"scene", *AXES}


# Numbers above this are no values of a prediction; larger than any time in seconds.
Number = Annotated[float, Meta(ge=-1e18, le=1e18)]


# A struct is read in two thirds of the time of a dataclass, and files may have millions of lines.
class AnswerLine(Struct, frozen=True, kw_only=True):
    """Fields of a line that say what it is: the prediction for an image, and of which kind, or a failure."""

    path: Annotated[str, Meta(max_length=MAX_NAME)] | None = None
    scene: dict[str, Number] | UnsetType = UNSET
    """Only predictions have it, failures do not."""
    error: str | None = None
    model: str = ""
    label_set: str = ""
    valence: Number | None = None
    likely: Any = None
    persons: Any = None
    faces: Any = None
    time_s: Number | UnsetType = UNSET
    """Only predictions for frames of videos have it."""
    asked: str | None = None
    """Fingerprint of models, detectors and coverage."""

    def __post_init__(self) -> None:
        if self.scene is UNSET and self.error is None:
            raise DataError("not a prediction of uniemox predict; choose another file with --out")
        if self.path is None and self.time_s is not UNSET:
            raise DataError("a frame without path; remove the line")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the predictions in a file, without an incomplete last line.

    Raises:
        DataError: If the file can't be read, or for a line that is too long, not JSON or not a prediction.
    """
    for where, value in read_json_lines(path, dict[str, Any], remedy=REMEDY, may_be_cut=True):
        check_json(value, AnswerLine, where, remedy=REMEDY)
        yield value


@contextmanager
def checking_fields(lines: Path) -> Iterator[None]:
    """Convert errors caused by fields of another type, in lines that somebody else has made, to DataError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
        raise DataError(f"{lines}: a field is of another type than in a prediction ({error})") from error


def write_csv(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool, encoding: str) -> None:
    """Write a CSV table with one row per prediction; columns without a value in any row are left out.

    Args:
        lines: File that `uniemox predict` wrote, .jsonl.
        table: CSV file to write.
        labels: Labels of the predictions, in order.
        of_film: True if they are about frames of videos.
        encoding: utf-8 or utf-8-sig.
    """
    names = headings(labels, of_film=of_film, with_optional=True)
    has_value = [name in ("path", "error", *SCENE_COLUMNS, *labels) for name in names]
    for row in as_cells(read_lines(lines), labels, of_film=of_film, with_optional=True):
        has_value = [known or cell not in (None, "") for known, cell in zip(has_value, row, strict=True)]
    rows = chain([names], as_cells(read_lines(lines), labels, of_film=of_film, with_optional=True))
    with table.open("w", encoding=encoding, errors="backslashreplace", newline="") as file:
        write_rows(file, (list(compress(row, has_value)) for row in rows), line_end="\r\n")


def headings(labels: tuple[str, ...], *, of_film: bool, with_optional: bool = False) -> list[str]:
    """Return the names of a table's columns."""
    names: list[str] = []
    for field in table_fields(labels, of_film=of_film, with_optional=with_optional):
        names += (*columns_of(field), *(labels if field.name == "scene" else ()))
    return [*names, "error"]


def as_cells(
    answers: Iterable[dict[str, Any]], labels: tuple[str, ...], *, of_film: bool, with_optional: bool = False
) -> Iterator[list[Any]]:
    """Yield a table's row, under `headings`, for each prediction or failure in JSON form."""
    fields = table_fields(labels, of_film=of_film, with_optional=with_optional)
    for value in answers:
        yield [*(cell for field in fields for cell in _cells(field, value, labels)), value.get("error")]


def _cells(field: Field, answer: dict[str, Any], labels: tuple[str, ...]) -> list[Any]:
    """Return the cells of a field's columns."""
    value = answer.get(field.name)
    if field.name == "scene":
        scene = value or {}
        return [*top_of(answer), *(scene.get(label) for label in labels)]
    if field.parts:
        count_and_words: list[Any] = [None, ""]
        if value is not None:
            count_and_words = [len(value), ";".join(words_of(field, value))]
        return count_and_words[: len(columns_of(field))]
    if get_origin(required_type(field)) in (list, tuple, dict):
        elements = value.items() if isinstance(value, dict) else value or ()
        return [";".join(map(_short, elements))]
    return [value]


def shares_of_answer(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return how the model's whole probability is divided among the labels, and `none` if the labels were requested.

    The probabilities of requested labels are divided by their sum. Here they are not, and labels of the model without a
    counterpart are `none`, so that means over images are those of what the model has answered.

    Args:
        answer: A prediction in JSON form.

    >>> shares_of_answer({"scene": {"joy": 0.75, "fear": 0.25}, "unmapped": 0.5})
    {'joy': 0.375, 'fear': 0.125, 'none': 0.5}
    """
    scene: dict[str, float] = answer["scene"]
    unmapped = answer.get("unmapped")
    if unmapped is None:
        return scene
    return shares_with_none(scene, unmapped)


def top_of(answer: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return the most probable label and its probability; `none` if no requested label fits."""
    unmapped = answer.get("unmapped") or 0.0
    if unmapped > MAX_UNMAPPED:
        return NO_LABEL, unmapped
    return max((answer.get("scene") or {}).items(), key=lambda pair: pair[1], default=(None, None))


def _short(value: Any) -> str:
    """Return an element of a list as text; whole numbers without a fraction, as in JavaScript."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def write_parquet(lines: Path, table: Path, labels: tuple[str, ...], *, of_film: bool) -> None:
    """Write a Parquet table with one row per prediction; people and faces are lists.

    Columns without a value in any row are left out.

    Raises:
        MissingPackageError: Without pyarrow.
    """
    pa = import_pyarrow()
    import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    fields = table_fields(labels, of_film=of_film, with_optional=True)
    known = {"path"}
    for value in read_lines(lines):
        known.update(field.name for field in fields if value.get(field.name) is not None)
        for field in fields:
            if field.parts and value.get(field.name):
                known.update(f"{field.name}.{name}" for element in value[field.name] for name in element)
    columns: dict[str, Any] = {}
    for field in fields:
        if field.name == "scene":
            columns |= dict(zip(SCENE_COLUMNS, (pa.string(), pa.float32()), strict=True))
            columns |= dict.fromkeys(labels, pa.float32())
        elif field.name in known:
            parts = tuple(part for part in field.parts if not part.is_optional or f"{field.name}.{part.name}" in known)
            columns[field.name] = _arrow(replace(field, parts=parts), pa)
    schema = pa.schema(columns | {"error": pa.string()})
    rows = (_as_row(value) for value in read_lines(lines))
    with pyarrow.parquet.ParquetWriter(table, schema) as writer:
        while block := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def _arrow(field: Field, pa: Any) -> Any:
    """Return the Arrow type of a field."""
    number = pa.float32() if field.digits <= DIGITS else pa.float64()
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
    row = value | value.get("scene", {}) | dict(zip(SCENE_COLUMNS, top_of(value), strict=True))
    for field in FIELDS:
        if field.parts and value.get(field.name) is not None:
            row[field.name] = [
                {key: list(part.items()) if isinstance(part, dict) else part for key, part in element.items()}
                for element in value[field.name]
            ]
    # A file name may have bytes that are not UTF-8, which Arrow refuses.
    for key in ("path", "error"):
        if value.get(key) is not None:
            row[key] = as_utf8(value[key])
    return row


def as_utf8(text: str) -> str:
    """Return text that UTF-8 can encode: bytes of file names that are no text become escapes such as \\udce9."""
    return text.encode("utf-8", "backslashreplace").decode()


def import_pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("a Parquet table needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pa


@overload
def to_frame(
    answers: Prediction | Failure | Iterable[Prediction | Failure], library: None = None
) -> "pandas.DataFrame": ...
@overload
def to_frame(
    answers: Prediction | Failure | Iterable[Prediction | Failure], library: Literal["pandas"]
) -> "pandas.DataFrame": ...
@overload
def to_frame(
    answers: Prediction | Failure | Iterable[Prediction | Failure], library: Literal["polars"]
) -> "polars.DataFrame": ...
def to_frame(
    answers: Prediction | Failure | Iterable[Prediction | Failure], library: Literal["pandas", "polars"] | None = None
) -> Any:
    """Return a data frame with one row per image; its columns are those of `--out answers.csv`, also empty ones.

    Whole numbers and truth values are nullable, so that `frame[frame.is_unfamiliar]` works although the row of an
    unreadable image has none.

    Args:
        answers: From `Predictor.predict` or `predict_many`; if an image could not be read, its `error` has the reason.
        library: pandas or polars. None: pandas, or polars where pandas is not installed.

    Raises:
        MissingPackageError: If the library is not installed.
    """
    if isinstance(answers, Prediction | Failure):
        answers = [answers]
    values = [answer.to_dict() for answer in answers]
    labels = next((tuple(value["scene"]) for value in values if "scene" in value), ())
    choices = FRAMES if library is None else (library,)
    name = next((choice for choice in choices if find_spec(choice)), None)
    if name is None:
        wanted = library or "pandas"
        raise MissingPackageError(f"a data frame needs {library or 'pandas or polars'}; run: pip install {wanted}")
    of_film = any("time_s" in value for value in values)
    has_optional = any(field.name in value for value in values for field in FIELDS if field.is_optional)
    names = headings(labels, of_film=of_film, with_optional=has_optional)
    rows = list(as_cells(values, labels, of_film=of_film, with_optional=has_optional))
    columns: Iterable[tuple[Any, ...]] = zip(*rows, strict=True) if rows else [()] * len(names)
    module = import_module(name)
    frame = module.DataFrame(dict(zip(names, map(list, columns), strict=True)))
    if name == "polars":
        return frame.cast({column: getattr(module, _POLARS_TYPES[kind]) for column, kind in _nullable_columns(of_film)})
    return frame.astype({column: _PANDAS_TYPES[kind] for column, kind in _nullable_columns(of_film)})


_PANDAS_TYPES = {bool: "boolean", int: "Int64"}
_POLARS_TYPES = {bool: "Boolean", int: "Int64"}


def _nullable_columns(of_film: bool) -> list[tuple[str, type]]:
    """Return the columns of truth values and of whole numbers, with their type."""
    columns: list[tuple[str, type]] = []
    for field in table_fields((), of_film=of_film):
        # The first column of a list of objects is their number.
        if field.parts:
            columns += [(column, int) for column in columns_of(field)[:1]]
        elif required_type(field) in _PANDAS_TYPES:
            columns += [(column, required_type(field)) for column in columns_of(field)]
    return columns
