"""Tables of pictures: the way in for IAPSa, Twitter I and II, and everything of one's own."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from uniemox.data.readers.folders import SPLITS, inside
from uniemox.data.readers.tables import number, read_rows, shares, top_vote
from uniemox.data.sample import DataSet, PictureFile, Sample
from uniemox.errors import BoxError, DataError, LabelError
from uniemox.labels import Kind, LabelSet, find_label_set, recognise
from uniemox.persons.box import Box, clip_box

BOX = ("x1", "y1", "x2", "y2")
KNOWN = ("path", "label", "split", "text", "domain", "group", "valence", "arousal", *BOX)


def read_csv(
    table: Path, *, labels: str | None = None, kind: Kind | None = None, missing: Literal["fail", "skip"] = "fail"
) -> DataSet:
    """A table with the column path (from the table's folder) and label, or one column of votes for each class.

    Further columns, all optional: split, text, domain, group, valence and arousal (1 to 9), and the target person's box
    x1, y1, x2, y2 in px. Every other column is a class, and its values are votes or shares.
    labels: the name of a published label set; None looks the classes up.  kind: for classes of one's own.
    missing: "skip" leaves out rows whose picture is not there.
    Raises DataError with file, line and column.
    """
    rows = [(f"{table}:{line}", row) for line, row in read_rows(table)]
    if not rows:
        raise DataError(f"{table}: no rows under the header")
    columns = list(rows[0][1])
    classes = [name for name in columns if name not in KNOWN]
    if "path" not in columns:
        raise DataError(f"{table}:1: there is no column path; found {', '.join(columns)}")
    if 0 < len(set(BOX) & set(columns)) < len(BOX):
        raise DataError(f"{table}:1: a box needs all of the columns {', '.join(BOX)}")
    if ("label" in columns) == bool(classes):
        raise DataError(
            f"{table}:1: expected a column label or one column for each class, and not both; beside the known columns "
            f"({', '.join(KNOWN)}) there are: {', '.join(classes) or 'none'}"
        )
    words = classes or sorted({row["label"] for _, row in rows if row["label"]})
    label_set = find_label_set(labels) if labels else recognise(words, kind)
    samples, absent = [], 0
    for where, row in rows:
        path = inside(table.parent, row["path"], f"{where}, path")
        if not os.path.isfile(path):  # Path.is_file raises OSError for a name that is too long
            if missing == "fail":
                raise DataError(f"{where}, path: {path} is not there; ?missing=skip leaves such rows out")
            absent += 1
            continue
        samples.append(_sample(row, path, where, label_set, classes))
    if not samples:
        raise DataError(f"{table}: none of its {absent} pictures is there")
    notes = (f"{absent} rows were left out: their picture is not there",) if absent else ()
    return DataSet(str(table), label_set, with_groups(samples), notes)


def with_groups(samples: list[Sample]) -> list[Sample]:
    """Several people of one picture get keys of their own (`a.jpg#2`) and one group, the picture."""
    times = Counter(sample.key for sample in samples)
    seen: Counter[str] = Counter()
    result = []
    for sample in samples:
        if times[sample.key] > 1:
            seen[sample.key] += 1
            number_of = "" if seen[sample.key] == 1 else f"#{seen[sample.key]}"
            sample = replace(sample, key=sample.key + number_of, group=sample.group or sample.key)  # noqa: PLW2901
        result.append(sample)
    return result


def read_box(row: Mapping[str, str], where: str) -> Box | None:
    """The box of a row, clipped at 0; None where its four fields are empty. Raises DataError for an empty box."""
    if not all(row.get(field) for field in BOX):
        if any(row.get(field) for field in BOX):
            raise DataError(f"{where}: a box needs all of {', '.join(BOX)}")
        return None
    box = Box(*(number(row, field, where) for field in BOX))
    try:
        return clip_box(box, 10**6, 10**6)
    except BoxError as error:
        raise DataError(f"{where}, x1 to y2: {error}") from error


def _sample(row: Mapping[str, str], path: Path, where: str, labels: LabelSet, classes: list[str]) -> Sample:
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
        elif row["label"]:
            label = labels.index(row["label"])
    except LabelError as error:
        raise DataError(f"{where}, {'header' if classes else 'label'}: {error}") from error
    split = row.get("split") or None
    if split is not None and split.lower() not in SPLITS:
        raise DataError(f"{where}, split: {split!r} is none of train, val, test")
    return Sample(
        key=PurePosixPath(row["path"].replace("\\", "/")).as_posix(),  # ./a.jpg and a.jpg are one picture
        picture=PictureFile(path),
        label=label,
        distribution=distribution,
        valence=number(row, "valence", where, low=1, high=9) if row.get("valence") else None,
        arousal=number(row, "arousal", where, low=1, high=9) if row.get("arousal") else None,
        split=None if split is None else SPLITS[split.lower()],
        target_box=read_box(row, where),
        text=row.get("text") or None,
        domain=row.get("domain") or None,
        group=row.get("group") or None,
    )
