"""Tables of images: the way in for IAPSa, Twitter I and II, and everything of one's own."""

import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from uniemox.data.readers.folders import SPLITS, inside
from uniemox.data.readers.tables import number, on_nine_points, read_rows, shares, top_vote
from uniemox.data.sample import DataSet, ImageFile, Sample, StoredImage, tell_apart
from uniemox.errors import DataError, LabelError
from uniemox.io.csv_files import plain_cell
from uniemox.labels import LABEL_SETS, Kind, LabelSet, clean, recognise
from uniemox.persons.box import Box

BOX = ("x1", "y1", "x2", "y2")
ALIASES = {
    **{"image": "path", "file": "path", "filename": "path", "caption": "text", "theme": "group"},
    **{"valence_mean": "valence", "arousal_mean": "arousal"},
}
KNOWN = ("path", "label", "split", "text", "domain", "group", "valence", "arousal", *BOX)
PASSED_OVER = ("category", "valence_sd", "valence_n", "arousal_sd", "arousal_n")  # of tables of ratings


def read_csv(
    table: Path,
    *,
    labels: str | None = None,
    kind: Kind | None = None,
    root: str = ".",
    scale: str = "1-9",
    missing: Literal["fail", "skip"] = "fail",
) -> DataSet:
    """A table with the column path (or image, file, filename) and label, or one column of votes for each class.

    Further columns, all optional: split, text (or caption), domain, group, valence and arousal (or
    valence_mean, arousal_mean), and the target person's box x1, y1, x2, y2 in px. Every other column is a class, and
    its values are votes or shares; those of a table with ratings that are their SD, n or category are passed over. A
    table of texts or ratings needs no labels. Images with a tie have a distribution and no label.
    labels: the name of a published label set; None looks the classes up.
    kind: what the labels say, where it is not what their set says.
    root: the folder of the images, from the table's.  scale: of valence and arousal, LOW-HIGH as 1-7; they become 1 to
    9.
    missing: "skip" leaves out rows whose image is not there.
    Raises DataError with file, line and column.
    """
    rows = [(f"{table}:{line}", _renamed(row)) for line, row in read_rows(table, prose=("text", "caption"))]
    if not rows:
        raise DataError(f"{table}: no rows under the header")
    low, high = _ends(scale, table)
    classes = _classes(table, list(rows[0][1]), labels)
    words = classes or sorted({row["label"] for _, row in rows if row.get("label")})
    label_set = recognise(words, kind, labels)
    folder = table.parent / root
    samples, absent = [], 0
    for where, row in rows:
        path = inside(folder, row["path"], f"{where}, path")
        if not os.path.isfile(path):  # Path.is_file raises OSError for a name that is too long
            if missing == "fail":
                raise DataError(f"{where}, path: {path} is not there; ?missing=skip leaves such rows out")
            absent += 1
            continue
        samples.append(sample_of_row(row, ImageFile(path), where, label_set, classes, scale=(low, high)))
    if not samples:
        raise DataError(f"{table}: none of its {absent} images is there")
    ties = sum(sample.label is None and sample.distribution is not None for sample in samples)
    notes = (
        f"{absent} rows were left out: their image is not there" if absent else "",
        f"{ties} images have a tie of votes: a distribution, but no label" if ties else "",
    )
    return DataSet(str(table), label_set, tell_apart(samples), tuple(note for note in notes if note))


def _renamed(row: Mapping[str, str]) -> dict[str, str]:
    """A row with known columns by their names here, whatever their case; texts as before `safe_cell`."""
    lower = ((name, ALIASES.get(name.lower(), name.lower())) for name in row)
    return {known if known in KNOWN else plain_cell(name): plain_cell(row[name]) for name, known in lower}


def _classes(table: Path, columns: list[str], labels: str | None) -> list[str]:
    """The columns that are classes. Raises DataError for a header that makes no sense."""
    is_rated = {"valence", "arousal"} & set(columns)
    classes = [name for name in columns if name not in KNOWN and not (is_rated and name.lower() in PASSED_OVER)]
    if "path" not in columns:
        raise DataError(f"{table}:1: there is no column path (or {', '.join(ALIASES)}); found {', '.join(columns)}")
    if 0 < len(set(BOX) & set(columns)) < len(BOX):
        raise DataError(f"{table}:1: a box needs all of the columns {', '.join(BOX)}")
    if ("label" in columns and classes) or not ("label" in columns or classes or "text" in columns or is_rated):
        raise DataError(
            f"{table}:1: expected a column label or one column for each class, and not both; beside the known columns "
            f"({', '.join(KNOWN)}) there are: {', '.join(classes) or 'none'}"
        )
    for label_set in LABEL_SETS:
        more = [name for name in classes if clean(name) not in label_set.labels]
        if labels is None and more and len(classes) - len(more) == len(label_set):
            raise DataError(f"{table}:1: {', '.join(more)} are no classes of {label_set.name}; remove these columns")
    return classes


def read_box(row: Mapping[str, str], where: str) -> Box | None:
    """The box of a row, clipped at 0; None where its four fields are empty. Raises DataError for an empty box."""
    if not all(row.get(field) for field in BOX):
        if any(row.get(field) for field in BOX):
            raise DataError(f"{where}: a box needs all of {', '.join(BOX)}")
        return None
    box = Box(*(number(row, field, where) for field in BOX))
    if not (box.x1 < box.x2 and box.y1 < box.y2 and box.x2 > 0 and box.y2 > 0):
        raise DataError(f"{where}: the box must have x1 < x2 and y1 < y2, and not lie left of or above the image")
    return Box(max(box.x1, 0), max(box.y1, 0), box.x2, box.y2)


def _ends(scale: str, table: Path) -> tuple[float, float]:
    try:
        low, high = map(float, scale.split("-"))
    except ValueError:
        low = high = 0.0
    if not low < high < math.inf:
        raise DataError(f"{table}: scale must be LOW-HIGH, such as 1-7, got {scale!r}")
    return low, high


def sample_of_row(
    row: Mapping[str, str],
    image: StoredImage,
    where: str,
    labels: LabelSet,
    classes: list[str],
    *,
    scale: tuple[float, float] = (1.0, 9.0),
) -> Sample:
    """The sample of a row whose columns are of KNOWN.  classes: columns of votes.  scale: of valence and arousal.

    Raises DataError with `where`.
    """
    low, high = scale

    def rating(field: str) -> float | None:
        return on_nine_points(number(row, field, where, low=low, high=high), low, high) if row.get(field) else None

    distribution, label = None, None
    try:
        if classes:
            by_class = {name: labels.labels[labels.index(name)] for name in classes}
            if len(set(by_class.values())) < len(classes):
                raise DataError(f"{where}, header: two of the columns {', '.join(classes)} are one class")
            votes = shares(row, by_class, where)
            distribution = {word: votes.get(word, 0.0) for word in labels.labels}
            top = top_vote(distribution)
            label = None if top is None else labels.index(top)
        elif row.get("label"):
            label = labels.index(row["label"])
    except LabelError as error:
        raise DataError(f"{where}, {'header' if classes else 'label'}: {error}") from error
    split = row.get("split") or None
    if split is not None and split.lower() not in SPLITS:
        raise DataError(f"{where}, split: {split!r} is none of train, val, test")
    return Sample(
        key=PurePosixPath(row["path"].replace("\\", "/")).as_posix(),  # ./a.jpg and a.jpg are one image
        image=image,
        label=label,
        distribution=distribution,
        valence=rating("valence"),
        arousal=rating("arousal"),
        split=None if split is None else SPLITS[split.lower()],
        target_box=read_box(row, where),
        text=row.get("text") or None,
        domain=row.get("domain") or None,
        group=row.get("group") or None,
    )
