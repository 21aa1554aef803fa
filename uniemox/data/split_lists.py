"""Lists of splits as authors publish them: plain text, a table or JSON.

Either a list names the split of each image, or the name of its file does, such as train.txt. What of a line is the name
of an image may be known only with the data set, so a line may have several readings.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniemox.data.readers.folders import SPLITS, split_in
from uniemox.data.readers.paths import key_of
from uniemox.data.readers.rows import read_rows
from uniemox.data.text_files import read_text
from uniemox.errors import DataError
from uniemox.io.images import ENDINGS
from uniemox.io.typed import parse_json
from uniemox.labels import clean

LIST_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".lst")
# Endings and names of files in a folder of lists that are not read, but may be lists.
POSSIBLE_ENDINGS = (*LIST_ENDINGS, ".list", "")
MAY_BE_LIST = re.compile(r"(?<![a-z])(train|val|test|eval|dev)", re.IGNORECASE)
NAME_COLUMNS = (
    *("path", "image", "file", "filename", "file_name", "image_path", "image_name", "img", "name", "key"),
    *("filepath", "file_path", "image_file", "image_id", "img_path", "img_name", "img_id", "id"),
)
SPLIT_COLUMNS = ("split", "part", "set", "subset", "partition", "phase", "usage")
# Column of the folder of an image, beside a column of its name (EMOTIC).
FOLDER_COLUMN = "folder"
FORMS = "uniemox data split writes files of splits, and uniemox docs data has the forms of published lists"
# Name up to the last ending, without delimiters but blanks, and a label or the like.
NAME_AND_LABEL = re.compile(rf"(?P<name>[^\t;,]+(?:{'|'.join(map(re.escape, ENDINGS))}))[\s,;]+(?P<label>.*)", re.I)
# Name up to its ending, which may contain blanks, and the cells after it.
LINE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, ENDINGS))}))(?:\s+(.*))?", re.IGNORECASE)
DIVIDERS = re.compile(r"[\s,;]")
FIRST_WORD = re.compile(r"(\S+)\s*")
# Maximum number of words in a line that blanks divide, beyond which it has a caption: name, split, label.
MAX_WORDS = 3
SPLIT_AT_END = re.compile(r"(?P<name>.*[^\s,;])[\s,;]+(?P<split>[^\s,;]+)")
SPLIT_AT_START = re.compile(r"(?P<split>[^\s,;]+)[\s,;]+(?P<name>.+)")
DECLARED_DELIMITER = re.compile(r"\s*sep=.\s*", re.IGNORECASE)
JSON_TEXT = re.compile(r"\s*[\[{]\s*[\"\[{]")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as a list names it."""

    name: str
    split: str
    where: str
    """File, and line or record."""
    min_folders: int = 0
    """Number of folders that the image's key must have, so that it contains all parts that could be several cells."""
    words: tuple[str, ...] = ()
    """The other cells, one of which may be a label."""


@dataclass(frozen=True, slots=True)
class ListedLine:
    """A line or record of a list."""

    readings: tuple[ListedImage, ...]
    """Possible images; the first that the data set has counts. Readings come first in which blanks, commas and the like
    belong to the name, such as `12 men.jpg` or `Rome, 2019/1.jpg train`."""
    cells: tuple[ListedImage, ...] = ()
    """All cells, if none has the ending of an image, so that the data set must tell which column has the names. Cells
    that are no names are empty."""
    problem: str = ""
    """Error if the data set has none of all these; empty: the image is then absent."""
    is_remark: bool = False
    """True if the line may be a comment, which names no image."""


def is_folder_of_lists(folder: Path) -> bool:
    """Return True if a folder has lists such as train.txt, and no folders of splits."""
    has_split_folders = any(clean(path.name) in SPLITS for path in _children(folder) if path.is_dir())
    return bool(_lists_in(folder)) and not has_split_folders


def read_lists(path: Path) -> list[ListedLine]:
    """Read a list, or all lists in a folder.

    Raises:
        DataError: With file and line, for a list of another form, or an image without a split.
    """
    lists = {path: split_in(path.stem)}
    if os.path.isdir(path):
        lists = _lists_in(path)
    return [entry for file, split in lists.items() for entry in _read_list(file, split)]


def unread_lists(folder: Path) -> list[str]:
    """Return the names of files in a folder of lists that may be lists, too, but are not read, such as trainval.txt."""
    lists = _lists_in(folder)
    files = [path for path in _children(folder) if path not in lists and path.is_file()]
    return [path.name for path in files if path.suffix.lower() in POSSIBLE_ENDINGS and MAY_BE_LIST.search(path.stem)]


def _lists_in(folder: Path) -> dict[Path, str | None]:
    """Return the lists in a folder whose names tell a split, with this split."""
    files = [path for path in _children(folder) if path.suffix.lower() in LIST_ENDINGS and path.is_file()]
    return {path: split for path in files if (split := split_in(path.stem))}


def _children(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted.

    Raises:
        DataError: If it can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: can't be listed ({error.strerror})") from error


def _read_list(path: Path, split: str | None) -> Iterator[ListedLine]:
    """Yield the images of a list.

    Args:
        path: The list.
        split: Split of images for which the list has none.
    """
    text = read_text(path)
    if path.suffix.lower() == ".json" or JSON_TEXT.match(text):
        yield from _read_json(text, path, split)
        return
    lines = [(f"{path}:{number}", line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if lines and DECLARED_DELIMITER.fullmatch(lines[0][1]):
        del lines[0]
    first_delimiter = _delimiter_in(lines[0][1]) if lines else None
    # Blanks divide no header: `image 1.jpg` is a name.
    header = {clean(cell) for _, line in lines[:1] for cell in line.split(first_delimiter or ",")}
    if not header.intersection(SPLIT_COLUMNS):
        # Alone, it may be the name of an image.
        header -= {"id"}
    if header.intersection(NAME_COLUMNS):
        for number, row in read_rows(path):
            yield _of_fields(row, split, f"{path}:{number}")
        return
    for where, line in lines:
        if not line.lstrip().startswith("#"):
            yield _of_line(line, split, where, first_delimiter)
            continue
        with suppress(DataError):
            yield replace(_of_line(line, split, where, first_delimiter), is_remark=True)


def _delimiter_in(line: str) -> str | None:
    """Return the delimiter of a line of a table; None if it has none, and so blanks divide it."""
    delimiter = max("\t;,", key=line.strip().count)
    return delimiter if delimiter in line.strip() else None


def _of_line(line: str, split: str | None, where: str, first_delimiter: str | None) -> ListedLine:
    """Return all ways to read a line without a header.

    Args:
        line: The line.
        split: Split that the name of the list tells; None: it tells none.
        where: File and line.
        first_delimiter: Delimiter of the list's first line; None: blanks.

    Raises:
        DataError: For a line without a name or a split, or with two splits.
    """
    line = line.strip()
    whole_names = tuple(_whole_names(line, split, where))
    try:
        divided = _divided(line, split, where, first_delimiter)
    except DataError:
        if not whole_names:
            raise
        return ListedLine(whole_names)
    if divided.problem and not whole_names:
        raise DataError(divided.problem)
    if not whole_names:
        return divided
    return replace(divided, readings=(*whole_names, *divided.readings))


def _divided(line: str, split: str | None, where: str, first_delimiter: str | None) -> ListedLine:
    """Return a line divided by the first delimiter that leaves the name of a file, or else by the first possible one.

    Takes and raises the same as `_of_line`.
    """
    others = [delimiter for delimiter in ("\t", ";", ",", None) if delimiter != first_delimiter]
    first_reading: ListedLine | None = None
    first_error: DataError | None = None
    for delimiter in (first_delimiter, *others):
        if delimiter is not None and delimiter not in line:
            continue
        try:
            cells = _words(line, split) if delimiter is None else _cells(line, delimiter, where)
            divided = _of_cells(cells, split, where)
            if delimiter is None and len(cells) > MAX_WORDS:
                # A word of a caption is no label.
                divided = replace(divided, readings=tuple(replace(image, words=()) for image in divided.readings))
        except DataError as error:
            first_error = first_error or error
            continue
        if any(map(is_named_as_image, cells)):
            return divided
        first_reading = first_reading or divided
    if first_reading is None:
        # Blanks divide every line, so there is an error.
        assert first_error is not None
        raise first_error
    return first_reading


def _whole_names(line: str, split: str | None, where: str) -> Iterator[ListedImage]:
    """Yield the readings of a line in which all of it is the image's name, but for a split at its end or start.

    Args:
        line: The line, without blanks around it.
        split: Split that the name of the list tells; None: it tells none.
        where: File and line.
    """
    candidates = [(line, split)]
    for pattern in (SPLIT_AT_END, SPLIT_AT_START):
        match = pattern.fullmatch(line)
        if match and clean(match["split"]) in SPLITS:
            candidates.append((match["name"], SPLITS[clean(match["split"])]))
    if match := NAME_AND_LABEL.fullmatch(line):
        # The label may also be a split and further words, but no caption that contains one.
        first_word = clean(match["label"].split(maxsplit=1)[0]) if match["label"] else ""
        candidates.append((match["name"], split or SPLITS.get(first_word)))
    for name, name_split in candidates:
        if name_split is None or DIVIDERS.search(name) is None:
            continue
        parts = key_of(name).split("/")
        divided = [number for number, part in enumerate(parts) if DIVIDERS.search(part)]
        # Names are compared from their end on: without the last of these parts, an image fits by chance.
        words = (match["label"],) if match else ()
        yield ListedImage(name, name_split, where, min_folders=len(parts) - 1 - divided[-1], words=words)


def _cells(line: str, delimiter: str, where: str) -> list[str]:
    """Return the cells of a line of a table.

    Raises:
        DataError: If it is not a line of a table.
    """
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise DataError(f"{where}: not a table ({error}); {FORMS}") from error


def _words(line: str, split: str | None) -> list[str]:
    """Return the words of a line; blanks in the name of an image don't divide it.

    Args:
        line: The line.
        split: Split that the name of the list tells. Another one at the start of a line is part of a folder's name,
            such as `train images/awe/1.jpg` in val.txt.
    """
    remainder = line.strip()
    words = []
    while match := FIRST_WORD.match(remainder):
        word_split = SPLITS.get(clean(match[1]))
        is_split = word_split is not None and split in (None, word_split)
        if not is_split and not match[1].isdigit():
            break
        words.append(match[1])
        remainder = remainder[match.end() :]
    if match := LINE.fullmatch(remainder):
        return [*words, match[1], *(match[2] or "").split()]
    return [*words, *remainder.split()]


def _of_cells(cells: Sequence[str], split: str | None, where: str) -> ListedLine:
    """Return the image of a row without a header: the cell with the ending of an image.

    Without such a cell, each that is no split may be the name.

    Raises:
        DataError: For a row without a name or a split.
    """
    names = [cell for cell in cells if cell and clean(cell) not in SPLITS]
    name = next((cell for cell in names if is_named_as_image(cell)), names[0] if names else "")
    words = [cell for cell in cells if clean(cell) in SPLITS]
    splits = sorted({SPLITS[clean(word)] for word in words})
    if len(splits) > 1:
        # One of these words may belong to the name.
        return ListedLine((), problem=f"{where}: {name} has two splits, {' and '.join(splits)}; remove one")
    others = tuple(cell for cell in names if cell != name)
    line = _entry(name, words[0] if words else None, split, where, others)
    if len(names) < 2 or is_named_as_image(name):
        return line
    [reading] = line.readings
    return ListedLine((), tuple(replace(reading, name=cell if cell in names else "") for cell in cells))


def _of_fields(fields: Mapping[str, Any], split: str | None, where: str) -> ListedLine:
    """Return the image of a row with a header, or of a JSON object.

    Raises:
        DataError: For fields without a name or a split.
    """
    by_name = {name.lower(): value for name, value in fields.items()}
    names = [by_name[column] for column in NAME_COLUMNS if column in by_name]
    # Beside the names of files, a column such as image may have numbers.
    texts = [value for value in names if isinstance(value, str) and not value.strip().isdigit()]
    name = next(iter((*texts, *names)), None)
    if FOLDER_COLUMN in by_name and isinstance(name, str):
        name = f"{by_name[FOLDER_COLUMN]}/{name}"
    word = next((by_name[column] for column in SPLIT_COLUMNS if column in by_name), None)
    others = (*NAME_COLUMNS, *SPLIT_COLUMNS, FOLDER_COLUMN)
    words = tuple(value for column, value in by_name.items() if column not in others and isinstance(value, str))
    return _entry(name, word, split, where, words)


def _entry(name: Any, word: Any, split: str | None, where: str, words: tuple[str, ...] = ()) -> ListedLine:
    """Return an image of a list.

    Args:
        name: Name of the image.
        word: Its split as the list has it; None: the list has none.
        split: Split that the name of the list tells; None: it tells none.
        where: File and line.
        words: Other cells.

    Raises:
        DataError: Without a name or a split, or for an unknown split.
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: expected the name of an image, got {str(name)[:100]!r}; {FORMS}")
    if word is not None:
        if not isinstance(word, str) or clean(word) not in SPLITS:
            raise DataError(f"{where}: the split {str(word)[:100]!r} is none of train, val, test; remove or rename it")
        split = SPLITS[clean(word)]
    if split is None:
        raise DataError(
            f"{where}: {name} has no split; give the table a header with path and split, or give a folder of lists "
            f"train.txt, val.txt and test.txt; {FORMS}"
        )
    return ListedLine((ListedImage(name, split, where, words=words),))


def _read_json(text: str, path: Path, split: str | None) -> Iterator[ListedLine]:
    """Yield the images of a JSON list: records, lists of records by split, or splits by name.

    Raises:
        DataError: If it has another form.
    """
    if not text.lstrip().startswith("{"):
        records = parse_json(text, list[Any], str(path), remedy=FORMS)
        yield from _of_records(records, split, str(path))
        return
    _refuse_repeated_fields(text, path)
    for name, value in parse_json(text, dict[str, Any], str(path), remedy=FORMS).items():
        where = f"{path}: field {name}"
        named_split = split_in(name)
        if isinstance(value, list) and named_split:
            yield from _of_records(value, named_split, where)
        elif isinstance(value, str):
            yield _entry(name, value, None, where)
        else:
            raise DataError(f"{where}: expected a list of images for train, val or test, or a split; {FORMS}")


def _refuse_repeated_fields(text: str, path: Path) -> None:
    """Raise DataError for a JSON object that has a field twice, of which readers would drop the first."""

    def refuse(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(name for name, _ in pairs)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise DataError(f"{path}: the field {repeated[0]!r} stands twice in one object; join the two")

    # Other faults are reported when the text is read.
    with suppress(ValueError, RecursionError):
        json.loads(text, object_pairs_hook=refuse)


def _of_records(records: Iterable[Any], split: str | None, where: str) -> Iterator[ListedLine]:
    """Yield the images of names, objects, or lists such as EmoSet's [emotion, id, image, annotation]."""
    for number, record in enumerate(records):
        location = f"{where}: record {number}"
        if isinstance(record, Mapping):
            yield _of_fields(record, split, location)
        elif isinstance(record, list):
            texts = [value for value in record if isinstance(value, str)]
            yield _of_cells(texts, split, location)
        else:
            yield _entry(record, None, split, location)


def is_named_as_image(name: str) -> bool:
    """Return True if a name has the ending of an image; faster than with a path, for lists of many images."""
    return os.path.splitext(name)[1].lower() in ENDINGS
