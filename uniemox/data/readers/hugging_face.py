"""Local data sets in Hugging Face's layouts: `datasets` folders, Parquet files, images with a metadata file."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from uniemox.data.readers.arrow_tables import (
    EMPTY,
    MEMORY_A_BYTE,
    Row,
    columns_by_field,
    import_pyarrow,
    map_table,
    split_of,
    table_rows,
    text_of,
)
from uniemox.data.readers.csv_table import sample_of_row
from uniemox.data.readers.folders import REPEATED, count_notes
from uniemox.data.readers.missing import remove_missing, unify_numbers
from uniemox.data.readers.paths import checked_folder, path_inside, walk_files
from uniemox.data.readers.rows import read_rows
from uniemox.data.sample import DataSet, ImageFile, make_keys_unique
from uniemox.data.text_files import LATIN_1, is_utf8, read_text
from uniemox.errors import DataError
from uniemox.io.files import plain_cell
from uniemox.io.images import is_image_name
from uniemox.io.limits import limited_memory
from uniemox.io.typed import check_json, parse_json
from uniemox.labels import Kind, recognise_labels
from uniemox.plurals import counted

Element = TypeVar("Element")
REMEDY = "save the data set again"
# Memory in bytes for opening a data set. Compressed files of a few KB could otherwise fill the machine.
MAX_MEMORY = 2**30
METADATA = ("metadata.csv", "metadata.jsonl")
# Files of Dataset.save_to_disk.
SPLITS_FILE = "dataset_dict.json"
STATE_FILE = "state.json"
# The rows that select, filter or shuffle keep, in their order.
INDICES_FILE = "indices.arrow"
# Fields of STATE_FILE that list INDICES_FILE: in `datasets` since 1.3, and before.
INDICES_FIELDS = ("_indices_data_files", "_indices_files")


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
        listed = {row.cells["path"] for row in rows}
        unlisted = sum(is_image_name(path) and path.relative_to(root).as_posix() not in listed for path in files)
        if unlisted:
            notes.append(f"{counted(unlisted, 'image')} without a row in {' or '.join(METADATA)} left out")
    else:
        tables = ((split_of(path.relative_to(root)), path) for path in files if path.suffix == ".parquet")
        rows = _number_rows(table_rows(tables, words, unread, set()))
    if not rows:
        raise DataError(
            f"{root}: no rows; expected a folder of Dataset.save_to_disk, *.parquet, or {' or '.join(METADATA)} beside "
            "images (images in folders of classes are folder:PATH)"
        )

    cells = [row.cells for row in rows]
    class_labels = recognise_labels(sorted(words), kind)
    notes += [*remove_missing(cells, class_labels), *unify_numbers(cells, class_labels)]
    for row in rows:
        row.cells["split"] = row.cells["split"] or row.split or ""
    if unread:
        notes.append(f"columns not read: {', '.join(name or '(without a name)' for name in sorted(unread))}")
    notes += [f"{path.relative_to(root).as_posix()} {LATIN_1}" for path in metadata if not is_utf8(path)]
    labels = recognise_labels(sorted(words | {row["label"] for row in cells} - {""}), kind)
    samples = [sample_of_row(row.cells, row.image, row.where, labels, []) for row in rows]
    # An image with several boxes shows several people.
    repeated = len(samples) - len({(sample.key, sample.target_box) for sample in samples})
    notes += count_notes((repeated, *REPEATED))
    return DataSet(str(root), labels, make_keys_unique(samples), tuple(notes))


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
        split = split_of(Path(name))
        files = _listed_files(folder, "_data_files")
        rows = list(table_rows(((split, path) for path in files), words, unread, read_before))
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
    pa = import_pyarrow()
    indices = list[int]()
    for path in files:
        try:
            indices += map_table(path).column("indices").to_pylist()
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


def _metadata_rows(root: Path, path: Path, unread: set[str]) -> Iterator[Row]:
    """Yield the rows of one metadata file; its folder may give the split."""
    split = split_of(path.parent.relative_to(root))
    is_csv = path.suffix == ".csv"
    numbered_rows = read_rows(path, prose=("text", "caption")) if is_csv else _json_rows(path)
    for number, row in numbered_rows:
        if is_csv:
            row = {name: plain_cell(value) for name, value in row.items()}  # noqa: PLW2901
        where = f"{path}:{number}"
        columns = columns_by_field(tuple(row))
        cells = {field: text_of(row[name], f"{where}, {name}") for field, name in columns.items()}
        image = path_inside(path.parent, cells.get("path", ""), f"{where}, file_name")
        if not os.path.isfile(image):
            raise DataError(f"{where}, file_name: {image} does not exist")
        unread |= row.keys() - set(columns.values())
        cells["path"] = image.relative_to(root).as_posix()
        yield Row(where, EMPTY | cells, ImageFile(image), split)


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
