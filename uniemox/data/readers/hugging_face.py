"""Local data sets in Hugging Face's layouts: `datasets` folders, Parquet files, images with a metadata file."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from uniemox.data.readers.csv_table import KNOWN_COLUMNS, LATIN_1, is_utf8, read_rows, read_text, sample_of_row
from uniemox.data.readers.folders import SPLITS, checked_folder, path_inside, walk_files
from uniemox.data.readers.missing import remove_missing, unify_numbers
from uniemox.data.sample import DataSet, ImageFile, StoredImage, make_keys_unique
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import plain_cell
from uniemox.io.images import MAX_BYTES
from uniemox.io.limits import limited_memory
from uniemox.io.typed import check_json, parse_json
from uniemox.labels import Kind, recognise
from uniemox.spelling import spelled, spelled_alike

Element = TypeVar("Element")
REMEDY = "save the data set again"
# Memory in bytes for opening a data set, and for the images of a row group. Compressed files of a few KB could
# otherwise fill the machine.
MAX_MEMORY = 2**30
MAX_GROUP_MEMORY = 2**28
# Bytes in addition for each byte of the files.
MEMORY_A_BYTE = 4
MAX_TEXT = 2**20  # letters per cell
METADATA = ("metadata.csv", "metadata.jsonl")
# Files of Dataset.save_to_disk.
SPLITS_FILE = "dataset_dict.json"
STATE_FILE = "state.json"
# The rows that select, filter or shuffle keep, in their order.
INDICES_FILE = "indices.arrow"
# Fields of STATE_FILE that list INDICES_FILE: in `datasets` since 1.3, and before.
INDICES_FIELDS = ("_indices_data_files", "_indices_files")
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
            size = _import_pyarrow().compute.binary_length(images.slice(self.row, 1))[0].as_py()
        except (ValueError, LookupError, TypeError, NotImplementedError, MemoryError) as error:
            raise OSError(f"the row has no image, or the file was changed: {error}") from error
        if size is None or size > MAX_BYTES:
            raise OSError("the row has a path without bytes; save the data set again, with its images embedded")
        return images[self.row].as_py()

    def __str__(self) -> str:
        return f"{self.path}, group {self.group}, row {self.row}"


def read_hugging_face(root: Path, *, kind: Kind | None = None) -> DataSet:
    """Read a folder written by `Dataset.save_to_disk`, Parquet files, or images with metadata.csv or metadata.jsonl.

    Arrow and Parquet files contain the images; file or folder names give the split. A metadata file names each image as
    file_name, relative to its folder. The label is in column label (or labels, emotion), or in the only one of type
    ClassLabel; -1 means no label. split, text (or caption), domain, group, valence, arousal and the box x1, y1, x2, y2
    are read as in csv tables. Names of columns may be in any case; numbers of a ClassLabel are read as its names.

    Args:
        kind: Kind of the labels, if it differs from their set's.

    Raises:
        DataError: With file and row, if the files are damaged or have another form; on Linux also if small files would
            fill the memory.
        MissingPackageError: If pyarrow is missing, and the data set has Arrow or Parquet files.
    """
    files = list(walk_files(checked_folder(root)))
    limit = MAX_MEMORY + MEMORY_A_BYTE * sum(path.stat().st_size for path in files)
    try:
        with limited_memory(limit):
            return _read_folder(root, files, kind)
    except MemoryError as error:
        raise DataError(f"{root}: small files that need more than {limit / 2**30:.1f} GiB of memory") from error


def _read_folder(root: Path, files: Sequence[Path], kind: Kind | None) -> DataSet:
    """Read a data set in the first of the three layouts that fits its files."""
    metadata = [path for path in files if path.name in METADATA]
    words: set[str] = set()
    unread: set[str] = set()
    notes = list[str]()
    if (root / SPLITS_FILE).is_file() or (root / STATE_FILE).is_file():
        rows = _number_rows(_saved_rows(root, words, unread, notes))
    elif metadata:
        rows = [row for path in metadata for row in _metadata_rows(root, path, unread)]
    else:
        tables = ((_split_of(path.relative_to(root)), path) for path in files if path.suffix == ".parquet")
        rows = _number_rows(_table_rows(tables, words, unread, set()))
    if not rows:
        raise DataError(
            f"{root}: no rows; expected a folder of Dataset.save_to_disk, *.parquet, or {' or '.join(METADATA)} beside "
            "images (images in folders of classes are folder:PATH)"
        )

    cells = [row.cells for row in rows]
    class_labels = recognise(sorted(words), kind)
    notes += [*remove_missing(cells, class_labels), *unify_numbers(cells, class_labels)]
    for row in rows:
        row.cells["split"] = row.cells["split"] or row.split or ""
    if unread:
        notes.append(f"columns not read: {', '.join(name or '(without a name)' for name in sorted(unread))}")
    notes += [f"{path.relative_to(root).as_posix()} {LATIN_1}" for path in metadata if not is_utf8(path)]
    labels = recognise(sorted(words | {row["label"] for row in cells} - {""}), kind)
    samples = make_keys_unique([sample_of_row(row.cells, row.image, row.where, labels, []) for row in rows])
    return DataSet(str(root), labels, samples, tuple(notes))


def _saved_rows(root: Path, words: set[str], unread: set[str], notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a folder of `save_to_disk`, in the order of its JSON files and of the indices, if it has some.

    Args:
        words: Filled with the class names.
        unread: Filled with the names of ignored columns.
        notes: Filled with a note for each file of indices.
    """
    # A Dataset has its files in the folder itself; a DatasetDict has a folder for each split.
    names = _read_list(root / SPLITS_FILE, "splits", str) if (root / SPLITS_FILE).is_file() else [""]
    read_before = set[Path]()
    for name in names:
        folder = path_inside(root, name, str(root / SPLITS_FILE)) if name else root
        split = _split_of(Path(name))
        files = _listed_files(folder, "_data_files")
        rows = list(_table_rows(((split, path) for path in files), words, unread, read_before))
        indices = _read_indices(folder, len(rows))
        if indices is None:
            yield from rows
            continue
        notes.append(f"{name or root.name}: {len(indices)} of {len(rows)} rows, by {INDICES_FILE}")
        for i in indices:
            yield rows[i]


@dataclass(frozen=True, slots=True)
class SavedFile:
    """File that STATE_FILE lists; with `skip` or `take`, a part of the file."""

    filename: str
    skip: int | None = None
    take: int | None = None


def _listed_files(folder: Path, field: str) -> list[Path]:
    """Return the files that a field of STATE_FILE lists.

    Raises:
        DataError: If the field is missing, or takes only a part of a file.
    """
    state = folder / STATE_FILE
    paths = []
    for file in _read_list(state, field, SavedFile):
        if file.skip is not None or file.take is not None:
            raise DataError(f"{state}, {field}: a part of a file, as `datasets` 1.0 saved it; {REMEDY}")
        paths.append(path_inside(folder, file.filename, str(state)))
    return paths


def _read_indices(folder: Path, count: int) -> list[int] | None:
    """Return the indices of the rows that the data set has, in its order; None if it has all.

    Args:
        count: Number of rows in its files.

    Raises:
        DataError: If the indices can't be read, or one is not below count.
    """
    state = folder / STATE_FILE
    content = parse_json(read_text(state), dict[str, Any], str(state), remedy=REMEDY)
    field = next((field for field in INDICES_FIELDS if field in content), None)
    files: list[Path] = []
    if field is not None and content[field]:
        files = _listed_files(folder, field)
    elif field is None and (folder / INDICES_FILE).is_file():
        files = [folder / INDICES_FILE]
    if not files:
        return None
    pa = _import_pyarrow()
    indices = list[int]()
    for path in files:
        try:
            indices += _map_table(path).column("indices").to_pylist()
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise DataError(
                f"{path}: can't be read as indices ({str(error)[:200]}); save the data set again"
            ) from error
    wrong = next((i for i in indices if not isinstance(i, int) or not 0 <= i < count), None)
    if wrong is not None or None in indices:
        raise DataError(f"{folder}: the indices name row {wrong} of {count} rows; save the data set again")
    return indices


def _read_list(path: Path, field: str, kind: type[Element]) -> list[Element]:
    """Read a list in a JSON file.

    Args:
        path: The file.
        field: Field of the list.
        kind: Type of the elements.

    Raises:
        DataError: If the field is missing or not such a list.
    """
    content = parse_json(read_text(path), dict[str, Any], str(path), remedy=REMEDY)
    return check_json(content.get(field), list[kind], f"{path}, {field}", remedy=REMEDY)  # type: ignore[valid-type]


def _split_of(path: Path) -> str | None:
    """Return the split named by a word in the file's name, or else in its folders."""
    words = (word for part in reversed(path.parts) for word in re.split(r"[^a-z]+", part.lower()))
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _metadata_rows(root: Path, path: Path, unread: set[str]) -> Iterator[Row]:
    """Yield the rows of one metadata file; its folder may give the split."""
    split = _split_of(path.parent.relative_to(root))
    is_csv = path.suffix == ".csv"
    numbered_rows = read_rows(path, prose=("text", "caption")) if is_csv else _json_rows(path)
    for number, row in numbered_rows:
        if is_csv:
            row = {name: plain_cell(value) for name, value in row.items()}  # noqa: PLW2901
        where = f"{path}:{number}"
        columns = _columns_by_field(tuple(row))
        cells = {field: _text(row[name], f"{where}, {name}") for field, name in columns.items()}
        image = path_inside(path.parent, cells.get("path", ""), f"{where}, file_name")
        if not os.path.isfile(image):
            raise DataError(f"{where}, file_name: {image} does not exist")
        unread |= row.keys() - set(columns.values())
        cells["path"] = image.relative_to(root).as_posix()
        yield Row(where, EMPTY | cells, ImageFile(image), split)


@lru_cache(maxsize=64)
def _columns_by_field(columns: tuple[str, ...]) -> dict[str, str]:
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


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a JSON Lines file with their line numbers.

    Raises:
        DataError: For a line that is not an object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, parse_json(line, dict[str, Any], f"{path}:{number}", remedy="write an object with file_name")


def _number_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of tables with split and number as paths: their images have no names of their own."""
    numbers: Counter[str | None] = Counter()
    numbered = []
    for row in rows:
        number = numbers[row.split]
        key = f"{row.split}/{number}" if row.split else str(number)
        numbers[row.split] += 1
        numbered.append(row._replace(cells={**row.cells, "path": key}))
    return numbered


def _table_rows(
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
    pa = _import_pyarrow()
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
        table = _map_table(path)
        _check_rows(table.num_rows, path)
        return table.schema, [table.num_rows], table
    pa = _import_pyarrow()
    file = pa.parquet.ParquetFile(path)
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    _check_rows(file.metadata.num_rows, path)
    return file.schema_arrow, [group.num_rows for group in groups], file


def _check_rows(count: int, path: Path) -> None:
    """Raise DataError for more rows than bytes: equal rows need no space in the file, but fill the memory."""
    if count > path.stat().st_size:
        raise DataError(f"{path}: {count:,} rows in {path.stat().st_size:,} bytes can't hold images")


def _is_text(kind: Any) -> bool:
    pa = _import_pyarrow()
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain(kind: Any) -> bool:
    """Return True for texts, numbers and missing values; other types, such as views, could repeat a large value."""
    types = _import_pyarrow().types
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
    columns = {field: name for field, name in _columns_by_field(tuple(schema.names)).items() if field != "path"}
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
    return _text(value, where)


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


def _text(value: Any, where: str) -> str:
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
def _images(path: Path, column: str, group: int) -> Any:
    """Read the bytes of the images of a Parquet row group, or of an Arrow file."""
    pa = _import_pyarrow()
    with limited_memory(MAX_GROUP_MEMORY + MEMORY_A_BYTE * path.stat().st_size):
        if path.suffix == ".parquet":
            images = pa.parquet.ParquetFile(path).read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
        else:
            images = _map_table(path)
    return pa.compute.struct_field(images.column(column), "bytes").cast(pa.large_binary())


def _map_table(path: Path) -> Any:
    """Map a table whose images stay in the file.

    Raises:
        ArrowException: If an offset is outside of the file.
    """
    pa = _import_pyarrow()
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return table


def _import_pyarrow() -> Any:
    try:
        import pyarrow.compute  # type: ignore[import-untyped] # noqa: PLC0415 - an extra
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("hf: with Arrow or Parquet needs pyarrow; run: pip install 'uniemox[data]'") from None
    return pyarrow
