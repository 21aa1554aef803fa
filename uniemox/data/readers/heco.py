"""HECO (Yang et al., ECCV 2022): class folders, and optionally a table of target persons."""

from dataclasses import replace
from pathlib import Path

from uniemox.data.readers.folders import class_of, read_class_folders
from uniemox.data.readers.missing import is_missing
from uniemox.data.readers.paths import path_inside
from uniemox.data.readers.rows import BOX_COLUMNS, read_box, read_rows
from uniemox.data.sample import DataSet, Sample, make_keys_unique
from uniemox.errors import DataError
from uniemox.labels import HECO


def read_heco(root: Path, *, boxes: str = "boxes.csv") -> DataSet:
    """Read `[<split>/]<class>/<image>`, and `boxes.csv` with the target persons, if it exists.

    The table has the columns path, x1, y1, x2, y2 in px, and optionally label.
    An image with several rows becomes several samples of one group; a row's label overrides its folder's. Images
    without a row have no target person.

    Args:
        boxes: Name of the table inside the folder.

    Raises:
        DataError: With file, line and column, if the table is invalid or names an image that does not exist.
    """
    data = read_class_folders(root, HECO)
    table = root / boxes
    if not table.is_file():
        if boxes != "boxes.csv":
            raise DataError(f"{table}: there is no such file")
        return data
    by_key = {sample.key: sample for sample in data.samples}
    people: dict[str, list[Sample]] = {}
    for line, row in read_rows(table, columns=("path", *BOX_COLUMNS)):
        where = f"{table}:{line}"
        key = path_inside(root, row["path"], f"{where}, path").relative_to(root).as_posix()
        if key not in by_key:
            raise DataError(f"{where}, path: {row['path']!r} is not an image below {root}")
        label = by_key[key].label
        word = row.get("label", "")
        if word and not is_missing(word):
            label = class_of(HECO, word, f"{where}, label")
        people.setdefault(key, []).append(replace(by_key[key], target_box=read_box(row, where), label=label))
    samples = [person for sample in data.samples for person in people.get(sample.key, [sample])]
    return replace(data, samples=make_keys_unique(samples))
