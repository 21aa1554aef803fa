"""Tables of images with labels, votes, ratings or texts."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from uniemox.data.readers.folders import REPEATED, SPLITS, TIE, count_notes, split_of
from uniemox.data.readers.image_root import missing_image_remedy
from uniemox.data.readers.missing import is_missing, remove_missing, unify_numbers
from uniemox.data.readers.paths import key_of, path_inside
from uniemox.data.readers.rows import (
    BOX_COLUMNS,
    Cells,
    number,
    number_in,
    on_nine_points,
    read_box,
    read_rows,
    shares,
    top_vote,
    votes_in,
)
from uniemox.data.readers.votes import list_notes, refuse_other_columns
from uniemox.data.sample import DataSet, ImageFile, Sample, StoredImage, make_keys_unique
from uniemox.data.text_files import LATIN_1, is_utf8
from uniemox.errors import DataError, LabelError
from uniemox.io.borders import shorten
from uniemox.io.files import plain_cell
from uniemox.labels import (
    AXES,
    CUSTOM,
    LABEL_SETS,
    MAX_LABELS,
    Kind,
    LabelSet,
    clean,
    recognise_labels,
    requested_label_set,
)
from uniemox.spelling import spelled

# Names of known columns in the tables of others.
ALIASES = {
    **{"image": "path", "file": "path", "filename": "path", "caption": "text", "theme": "group"},
    **{"valence_mean": "valence", "arousal_mean": "arousal", "dominance_mean": "dominance"},
}
PATH_ALIASES = tuple(alias for alias, column in ALIASES.items() if column == "path")
_NUMBER = r"-?\d+(?:\.\d+)?"
KNOWN_COLUMNS = ("path", "label", "split", "text", "domain", "group", *AXES, *BOX_COLUMNS)
# Index columns, as R (no name) and pandas write them.
UNNAMED_COLUMN = r"|unnamed: \d+"
# Further columns of tables of ratings, which are ignored: OASIS's in the first line, those of a release of
# `uniemox curate` in the second.
RATING_COLUMNS = (
    *("category", *(f"{axis}_{statistic}" for axis in AXES for statistic in ("sd", "std", "n"))),
    *("answers", "intensity"),
)

# Columns that a note names.
MAX_NAMED = 20


def read_csv(
    table: Path,
    *,
    labels: str | None = None,
    kind: Kind | None = None,
    root: str = ".",
    scale: str = "1-9",
    missing: Literal["fail", "skip"] = "fail",
) -> DataSet:
    """Read a table with the columns path (or image, file, filename) and label, or with one column of votes per class.

    Optional columns: split, text (or caption), domain, group, valence, arousal and dominance (or valence_mean and so
    on), and the target person's box x1, y1, x2, y2 in px. Every other column is a class with votes or shares; in a
    table with ratings their SD, n and category are ignored, and so is a column without a name. A table of texts or
    ratings needs no labels, and a single other column in it is no class. Images with a tie have a distribution and no
    label. Without a split in the table, a folder in the path may name it. NA and similar words are missing values.

    Args:
        labels: Name of a published label set, or classes separated by commas, and then other columns are left out;
            None: recognise the set by its classes.
        kind: Kind of the labels, if it differs from their set's.
        root: Folder of the images, relative to the table's.
        scale: Scale of the ratings, LOW-HIGH as 1-7 or -1-1; ratings are converted to 1 to 9.
        missing: "skip" leaves out rows whose image does not exist.

    Raises:
        DataError: With file, line and column, if the table or a value is invalid, or an image is missing.
    """
    rows = [
        (f"{table}:{line}", _rename_columns(row, table)) for line, row in read_rows(table, prose=("text", "caption"))
    ]
    if not rows:
        raise DataError(f"{table}: no rows under the header")
    low, high = _parse_scale(scale, table)
    requested = None if labels is None else requested_label_set(labels, kind)
    classes, left_out = _class_columns(table, [row for _, row in rows], requested)
    if requested is None:
        refuse_other_columns(rows, classes, table)

    cells = [row for _, row in rows]
    notes = [*remove_missing(cells, requested, votes=classes), *unify_numbers(cells, requested)]
    if left_out:
        notes.append(f"columns left out: {_some(left_out)}")
    if not is_utf8(table):
        notes.append(f"{table.name} {LATIN_1}")
    words = classes or sorted({row["label"] for row in cells if row.get("label")})
    if requested is None and not classes:
        notes += list_notes(words)
    label_set = recognise_labels(words, kind) if requested is None else requested
    if classes and requested is None and label_set.name == CUSTOM:
        # Any other column of the table would be a class, too: the user should see at once what was taken for one.
        notes.append(
            f"classes: {', '.join(label_set.labels)}; to leave some columns out, name the classes: ?labels=a,b"
        )

    images = _find_images(rows, table, root, is_complete=missing == "fail")
    samples = [sample_of_row(row, image, where, label_set, classes, scale=(low, high)) for where, row, image in images]
    absent = len(rows) - len(samples)
    by_folder = sum(not row.get("split") and split_of(row["path"]) is not None for _, row, _ in images)
    # An image with several boxes shows several people.
    repeated = len(samples) - len({(sample.key, sample.target_box) for sample in samples})
    are_marks = all(float(votes_in(row, name)) in (0, 1) for _, row, _ in images for name in classes)
    if are_marks:
        samples = [_with_categories(sample, label_set) for sample in samples]
    several = sum(sample.categories is not None for sample in samples)
    ties = sum(sample.label is None and sample.distribution is not None for sample in samples) - several
    notes += count_notes(
        (absent, "row was", "rows were", "left out: no image"),
        (by_folder, "row without a split has", "rows without a split have", "that of a folder in the path"),
        (
            several,
            "row has",
            "rows have",
            "1 under several classes: several labels for task multilabel, and no single one for task label",
        ),
        (ties, *TIE),
        (repeated, *REPEATED),
    )
    return DataSet(str(table), label_set, make_keys_unique(samples), tuple(notes))


def _some(columns: Sequence[str]) -> str:
    """Return the names of the first columns, and the number of the others."""
    named = ", ".join(shorten(name) or "(without a name)" for name in columns[:MAX_NAMED])
    more = f" and {len(columns) - MAX_NAMED:,} more" if len(columns) > MAX_NAMED else ""
    return f"{named}{more}"


def _with_categories(sample: Sample, labels: LabelSet) -> Sample:
    """Return a sample of a table that marks labels by 1; one with several marks has categories, and no label."""
    marked = [word for word, share in (sample.distribution or {}).items() if share > 0]
    if len(marked) < 2:
        return sample
    return replace(sample, categories=tuple(sorted(map(labels.index, marked))))


def _find_images(
    rows: Sequence[tuple[str, Cells]], table: Path, root: str, *, is_complete: bool
) -> list[tuple[str, Cells, ImageFile]]:
    """Return the rows whose image exists, with the image; their path becomes the one that is spelled as on disk.

    Args:
        rows: Place and cells of each row.
        root: Folder of the images, relative to the table's.
        is_complete: Refuse a row whose image does not exist; False: leave it out.

    Raises:
        DataError: For such a row, if no image exists, or for a path outside of the folder.
    """
    folder = table.parent / root
    images = []
    absent = []
    for where, row in rows:
        try:
            path = path_inside(folder, row["path"], f"{where}, path")
        except DataError as error:
            if os.path.isabs(row["path"]):
                raise DataError(f"{error}; for images elsewhere, give ?root=/") from error
            raise
        # Path.is_file raises OSError for a long name.
        if os.path.isfile(path):
            named = row.with_cells({**row, "path": path.relative_to(folder).as_posix()})
            images.append((where, named, ImageFile(path)))
        else:
            absent.append((where, path))
    if absent and (is_complete or not images):
        where, path = absent[0]
        hint = "" if is_utf8(table) else f" ({table.name} {LATIN_1})"
        count = "" if images else f"none of its {len(absent)} images exists; "
        name = path.relative_to(folder).as_posix()
        remedy = missing_image_remedy(table, root, name, has_others=bool(images))
        raise DataError(f"{where}, path: {count}{path} does not exist{hint}; {remedy}")
    return images


def _rename_columns(row: Cells, table: Path) -> Cells:
    """Rename a row's known columns to their names here, ignoring case; undo `safe_cell` in texts.

    Raises:
        DataError: If two columns have the same meaning.
    """
    renamed = row.with_cells({})
    for name, value in row.items():
        column = ALIASES.get(name.lower(), name.lower())
        if column not in KNOWN_COLUMNS:
            column = plain_cell(name)
        if column in renamed:
            raise DataError(f"{table}:1: two columns mean {column}, {name!r} is one; remove the other one")
        renamed[column] = plain_cell(value)
    return renamed


def _are_numbers(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> bool:
    """Return True if the cells of these columns are numbers, or missing."""
    cells = [
        number_in(row, column) for row in rows for column in columns if row.get(column) and not is_missing(row[column])
    ]
    return all(re.fullmatch(_NUMBER, cell) for cell in cells)


def _class_columns(
    table: Path, rows: Sequence[Mapping[str, str]], requested: LabelSet | None
) -> tuple[list[str], list[str]]:
    """Return the columns that are classes, and those that are left out.

    Args:
        rows: Cells by column, renamed; at least one row.
        requested: Set whose labels alone can be classes; None: every other column is a class.

    Raises:
        DataError: If a required column is missing, or columns exclude each other.
    """
    columns = list(rows[0])
    is_rated = set(AXES) & set(columns)
    others = [
        name for name in columns if name not in KNOWN_COLUMNS and not (is_rated and name.lower() in RATING_COLUMNS)
    ]
    classes = [name for name in others if not re.fullmatch(UNNAMED_COLUMN, name.lower())]
    if requested is not None:
        named = [name for name in classes if requested.aliases.get(clean(name), clean(name)) in requested.labels]
        if named or "label" in columns:
            classes = named
    elif (
        (is_rated or "text" in columns) and "label" not in columns and len(classes) == 1 and _are_numbers(rows, classes)
    ):
        # Votes are for several classes. A column of words is refused later, because it may be that of the labels.
        classes = []
    if "path" not in columns:
        raise DataError(f"{table}:1: there is no column path (or {', '.join(PATH_ALIASES)}); found {_some(columns)}")
    if 0 < len(set(BOX_COLUMNS) & set(columns)) < len(BOX_COLUMNS):
        raise DataError(f"{table}:1: a box needs all of the columns {', '.join(BOX_COLUMNS)}")
    if ("label" in columns and classes) or not ("label" in columns or classes or "text" in columns or is_rated):
        raise DataError(
            f"{table}:1: expected a column label or one column for each class, and not both; beside the known columns "
            f"({', '.join(KNOWN_COLUMNS)}) there are: {_some(classes) or 'none'}"
        )
    # All classes of a published set and some more: the others are probably no classes.
    for label_set in LABEL_SETS:
        others_than_set = [name for name in classes if clean(name) not in label_set.labels]
        if requested is None and others_than_set and len(classes) - len(others_than_set) == len(label_set):
            raise DataError(
                f"{table}:1: {_some(others_than_set)} are not classes of {label_set.name}; remove these columns"
            )
    if len(classes) > MAX_LABELS:
        raise DataError(
            f"{table}:1: {len(classes):,} columns would be classes, at most {MAX_LABELS:,} can be: "
            f"{_some(classes)}; name the classes, as in ?labels=a,b"
        )
    taken = set(classes)
    return classes, [name for name in others if name not in taken]


def _parse_scale(scale: str, table: Path) -> tuple[float, float]:
    """Parse both ends of LOW-HIGH.

    Raises:
        DataError: For anything else.
    """
    ends = re.fullmatch(rf"({_NUMBER})-({_NUMBER})", scale)
    if ends is None or not float(ends[1]) < float(ends[2]):
        raise DataError(f"{table}: scale must be LOW-HIGH, such as 1-7 or -1-1, got {scale!r}")
    return float(ends[1]), float(ends[2])


def sample_of_row(
    row: Mapping[str, str],
    image: StoredImage,
    where: str,
    labels: LabelSet,
    classes: list[str],
    *,
    scale: tuple[float, float] = (1.0, 9.0),
) -> Sample:
    """Return the sample of a row.

    Args:
        row: Cells by column, named as in KNOWN_COLUMNS or as a class.
        where: File and line, for messages.
        classes: Columns of votes; without any, the label is in column label.
        scale: Both ends of the scale of the ratings.

    Raises:
        DataError: If a cell is invalid.
    """
    low, high = scale

    def rating(field: str) -> float | None:
        if not row.get(field):
            return None
        value = number(row, field, where)
        if not low <= value <= high:
            raise DataError(
                f"{where}: {field} must lie between {low:g} and {high:g}, got {row[field]!r}; give another scale with "
                "?scale=LOW-HIGH, such as 1-7 or -1-1"
            )
        return on_nine_points(value, low, high)

    label = distribution = None
    try:
        if classes:
            by_class = {name: labels.labels[labels.index(name)] for name in classes}
            if len(set(by_class.values())) < len(classes):
                raise DataError(f"{where}, header: two of the columns {', '.join(classes)} are one class")
            votes = shares(row, by_class, where, remedy="; the column of the images' labels must be called label")
            distribution = {word: votes.get(word, 0.0) for word in labels.labels}
            top = top_vote(distribution)
            label = None if top is None else labels.index(top)
        elif row.get("label"):
            label = labels.index(row["label"])
    except LabelError as error:
        raise DataError(f"{where}, {'header' if classes else 'label'}: {error}") from error
    split = row.get("split") or None
    if split is not None and clean(split) not in SPLITS:
        raise DataError(f"{where}, split: {split!r} is none of train, val, test")
    return Sample(
        key=key_of(row["path"]),
        image=image,
        label=label,
        distribution=distribution,
        valence=rating("valence"),
        arousal=rating("arousal"),
        dominance=rating("dominance"),
        split=split_of(row["path"]) if split is None else SPLITS[clean(split)],
        target_box=read_box(row, where),
        text=row.get("text") or None,
        domain=spelled(row.get("domain") or "") or None,
        group=spelled(row.get("group") or "") or None,
    )
