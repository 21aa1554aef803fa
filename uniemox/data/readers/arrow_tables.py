"""Rows of Arrow and Parquet files whose images are embedded, and what all tables of such data sets share."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from uniemox.data.readers.csv_table import KNOWN_COLUMNS
from uniemox.data.readers.folders import SPLITS
from uniemox.data.sample import StoredImage
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import open_regular
from uniemox.io.images import MAX_BYTES
from uniemox.io.limits import limited_memory
from uniemox.spelling import spelled, spelled_alike

# Memory in bytes for the images of a row group.
MAX_GROUP_MEMORY = 2**28
# Bytes in addition for each byte of the files.
MEMORY_A_BYTE = 4
# Of the footer of a Parquet file. Reading 10 MiB of names ends the process where memory is limited.
MAX_METADATA_BYTES = 6 * 2**20
# Letters per cell.
MAX_TEXT = 2**20
COLUMNS = {
    "file_name": "path",
    **dict.fromkeys(("label", "labels", "emotion"), "label"),
    **{name: name for name in KNOWN_COLUMNS if name not in ("path", "label")},
    "caption": "text",
}
"""Field by name of a column, in lower case; of several columns for one field, the first name counts."""
# Fields that every row has.
EMPTY = {"split": "", "path": "", "label": ""}


class Row(NamedTuple):
    """A row of a data set and its image."""

    where: str
    cells: dict[str, str]
    """Values by the columns of `sample_of_row`."""
    image: StoredImage
    split: str | None
    """Split that the file or folder names; the row's own comes first."""


@dataclass(frozen=True, slots=True)
class TableImage:
    """An image in a row of an Arrow or Parquet file."""

    path: Path
    column: str
    group: int
    """Row group of a Parquet file; 0 in Arrow files, which are mapped into memory."""
    row: int
    """Row in the group."""

    def read(self) -> bytes:
        """Return the bytes of the image.

        Raises:
            OSError: If the row has no image, or the file was changed.
        """
        # pyarrow raises all of these for damaged files.
        try:
            images = _images(self.path, self.column, self.group)
            size = import_pyarrow().compute.binary_length(images.slice(self.row, 1))[0].as_py()
        except (ValueError, LookupError, TypeError, NotImplementedError, MemoryError) as error:
            raise OSError(f"the row has no image, or the file was changed: {error}") from error
        if size is None or size > MAX_BYTES:
            raise OSError("the row has a path without bytes; save the data set again, with its images embedded")
        return images[self.row].as_py()

    def __str__(self) -> str:
        return f"{self.path}, group {self.group}, row {self.row}"


def split_of(path: Path) -> str | None:
    """Return the split named by a word in the file's name, or else in its folders."""
    words = (word for part in reversed(path.parts) for word in re.split(r"[^a-z]+", part.lower()))
    return next((SPLITS[word] for word in words if word in SPLITS), None)


@lru_cache(maxsize=64)
def columns_by_field(columns: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each field that has one: names are compared as `spelled`, without case.

    A column of exactly the expected name comes before one that is only spelled like it.
    """
    by_name = {spelled(column).lower(): column for column in reversed(columns)}
    by_name |= {column: column for column in columns if column in COLUMNS}
    fields: dict[str, str] = {}
    for name, field in COLUMNS.items():
        if name in by_name:
            fields.setdefault(field, by_name[name])
    return fields


def table_rows(
    tables: Iterable[tuple[str | None, Path]], words: set[str], unread: set[str], read_before: set[Path]
) -> Iterator[Row]:
    """Yield the rows of Arrow and Parquet files, still without names.

    Args:
        tables: Split and path of each file.
        words: Filled with the class names.
        unread: Filled with the names of ignored columns.
        read_before: Filled with the files.

    Raises:
        DataError: With file and row, if a file is missing, damaged, or occurs twice, or a value is invalid.
    """
    pa = import_pyarrow()
    for split, path in tables:
        if not os.path.isfile(path):
            raise DataError(f"{path} does not exist; copy the data set again")
        if path.resolve() in read_before:
            raise DataError(f"{path}: the same name occurs twice in the data set; save it again")
        read_before.add(path.resolve())
        try:
            schema, sizes, table = _open_table(path)
            image, columns, names = _find_columns(schema, path)
            wanted = set(columns.values())
            selected = [field.name for field in schema if field.name in wanted and _is_plain(field.type)]
            if path.suffix == ".parquet":
                rows = table.read(columns=selected, use_threads=False)
            else:
                rows = table.select(selected)
            records = rows.to_pylist() if selected else [{}] * sum(sizes)
        except (OSError, ValueError, LookupError, TypeError, OverflowError, pa.ArrowException) as error:
            raise DataError(f"{path}: can't be read as a table ({str(error)[:200]}); copy it again") from error
        words |= set(names.get(columns.get("label", ""), ()))
        unread |= set(schema.names) - set(selected) - {image}
        positions = ((group, row) for group, size in enumerate(sizes) for row in range(size))
        for (group, row), values in zip(positions, records, strict=True):
            where = f"{path}, group {group}, row {row}"
            long = [name for name, value in values.items() if isinstance(value, str) and len(value) > MAX_TEXT]
            if long:
                raise DataError(f"{where}: the text in column {long[0]} has more than {MAX_TEXT:,} letters")
            cells = {
                field: _cell(field, values.get(name), names.get(name, ()), f"{where}, {name}")
                for field, name in columns.items()
            }
            yield Row(where, EMPTY | cells, TableImage(path, image, group, row), split)


def _open_table(path: Path) -> tuple[Any, list[int], Any]:
    """Open a table; return its schema, the number of rows of each group, and the open file.

    Raises:
        DataError: For more rows than bytes.
    """
    if path.suffix != ".parquet":
        table = map_table(path)
        _check_rows(table.num_rows, path)
        return table.schema, [table.num_rows], table
    pa = import_pyarrow()
    file = pa.parquet.ParquetFile(path, metadata=_metadata(path, path.stat().st_mtime_ns))
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    _check_rows(file.metadata.num_rows, path)
    return file.schema_arrow, [group.num_rows for group in groups], file


def _check_rows(count: int, path: Path) -> None:
    """Raise DataError for more rows than bytes: equal rows need no space in the file, but fill the memory."""
    if count > path.stat().st_size:
        raise DataError(f"{path}: {count:,} rows in {path.stat().st_size:,} bytes can't hold images")


def _is_text(kind: Any) -> bool:
    pa = import_pyarrow()
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain(kind: Any) -> bool:
    """Return True for texts, numbers and missing values; other types, such as views, could repeat a large value."""
    types = import_pyarrow().types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return _is_text(kind) or any(
        check(kind) for check in (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    )


def _find_columns(schema: Any, path: Path) -> tuple[str, dict[str, str], dict[str, list[str]]]:
    """Return the image column, the column of each field, and the class names of columns that have some.

    The names come from the types that `datasets` describes in the file.

    Raises:
        DataError: Without exactly one image column, or for classes that look the same.
    """
    try:
        features = dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (ValueError, LookupError, TypeError, RecursionError):
        features = {}
    feature_types = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    arrow_types = {name: schema.field(name).type for name in schema.names}
    images = [
        name
        for name, arrow_type in arrow_types.items()
        if any(arrow_type.field(i).name == "bytes" for i in range(arrow_type.num_fields))
    ]
    if "image" in images:
        images = ["image"]
    if len(images) != 1:
        raise DataError(
            f"{path}: expected one column of embedded images (`datasets` type Image), or one that is named image; "
            f"found {', '.join(images) or 'none'} among {', '.join(schema.names)}"
        )
    classes = {
        name: [str(word) for word in feature_types[name].get("names") or ()]
        for name in schema.names
        if feature_types.get(name, {}).get("_type") == "ClassLabel"
    }
    columns = {field: name for field, name in columns_by_field(tuple(schema.names)).items() if field != "path"}
    others = [name for name in classes if name not in columns.values()]
    if "label" not in columns and len(others) == 1:
        columns["label"] = others[0]
    for name in columns.values():
        if same := spelled_alike(classes.get(name, ())):
            raise DataError(f"{path}: the classes {same[0]!a} and {same[1]!a} differ only in blanks or accents")
    return images[0], columns, classes


def _cell(field: str, value: Any, names: Sequence[str], where: str) -> str:
    """Return the text of a table's value.

    Args:
        names: Names of the classes, if the value may be the number of one.
    """
    if names or field == "label":
        return _label(value, names, where)
    return text_of(value, where)


def _label(value: Any, names: Sequence[str], where: str) -> str:
    """Return the name of a class; an empty text for none.

    Raises:
        DataError: For anything but a name or the number of a class.
    """
    if isinstance(value, str) or value is None:
        return value or ""
    # A column of numbers with missing values is one of floats in pandas.
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        value = int(value) if value.is_integer() else value
    if not isinstance(value, int) or not -1 <= value < len(names):
        expected = "a name: its column has no names of classes (ClassLabel)"
        if names:
            expected = f"a number below {len(names)}"
        raise DataError(f"{where}: expected {expected}, got {value!r}")
    return "" if value == -1 else names[value]


def text_of(value: Any, where: str) -> str:
    """Return a text or number as a text, empty for a missing value.

    Raises:
        DataError: For lists and objects.
    """
    if isinstance(value, list | dict):
        raise DataError(f"{where}: expected one text or number, got {str(value)[:60]}; write a single value")
    if isinstance(value, str | int | float):
        return str(value)
    return ""


@lru_cache(maxsize=4)
def _metadata(path: Path, written_ns: int) -> Any:
    """Read the metadata of a Parquet file once: they describe all row groups.

    Args:
        path: The file.
        written_ns: Time at which it was written; later metadata are others.

    Raises:
        DataError: If they are too large: reading them would end the process where memory is short.
    """
    with open_regular(path) as file:
        # The last bytes: the length of the metadata, and PAR1.
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        is_whole = file.read() == b"PAR1"
    if is_whole and size > MAX_METADATA_BYTES:
        raise DataError(
            f"{path}: {size / 2**20:,.0f} MiB of metadata, more than the {MAX_METADATA_BYTES / 2**20:g} MiB that are "
            "read; write it again with larger row groups, and fewer columns and names"
        )
    return import_pyarrow().parquet.read_metadata(path)


@lru_cache(maxsize=4)
def _images(path: Path, column: str, group: int) -> Any:
    """Read the bytes of the images of a Parquet row group, or of an Arrow file."""
    pa = import_pyarrow()
    with limited_memory(MAX_GROUP_MEMORY + MEMORY_A_BYTE * path.stat().st_size):
        if path.suffix == ".parquet":
            file = pa.parquet.ParquetFile(path, metadata=_metadata(path, path.stat().st_mtime_ns))
            images = file.read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
        else:
            images = map_table(path)
    return pa.compute.struct_field(images.column(column), "bytes").cast(pa.large_binary())


def map_table(path: Path) -> Any:
    """Map a table whose images stay in the file.

    Raises:
        ArrowException: If an offset is outside of the file.
    """
    pa = import_pyarrow()
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return table


def import_pyarrow() -> Any:
    """Import pyarrow with the modules that are used, and return it.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        import pyarrow.compute  # type: ignore[import-untyped] # noqa: PLC0415 - an extra
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("hf: with Arrow or Parquet needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pyarrow
