"""FER+ (Barsoum et al., ICMI 2016): faces with ten votes each for their expression."""

from pathlib import Path

from uniemox.data.readers.folders import SPLITS, count_notes
from uniemox.data.readers.paths import checked_folder, path_inside
from uniemox.data.readers.rows import number, read_rows
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError
from uniemox.labels import FERPLUS, clean

UNKNOWN = "unknown"
NO_FACE = "NF"
COLUMNS = (*FERPLUS.labels, UNKNOWN, NO_FACE)


def read_ferplus(root: Path) -> DataSet:
    """Read `votes.csv` (path, split, one column of votes per expression (eight), unknown and NF) and `images/`.

    A face has a label if more than half of all votes are for one expression. Its distribution covers the eight
    expressions; votes for unknown and for no face are left out, and a face with only such votes has no distribution.
    `domain` is majority, no majority, unknown (more than half of the votes), or no face.

    Raises:
        DataError: With file, line and field, if the table has another form or an image is missing.
    """
    table = checked_folder(root) / "votes.csv"
    samples: dict[str, Sample] = {}
    repeated = 0
    for line, row in read_rows(table, columns=("path", "split", *COLUMNS)):
        sample = _sample(row, root / "images", f"{table}:{line}")
        if samples.setdefault(sample.key, sample) is not sample:
            repeated += 1
            if samples[sample.key] != sample:
                raise DataError(f"{table}:{line}, path: {sample.key} has other votes or another split further up")
    if not samples:
        raise DataError(f"{table}: no rows under the header")
    kinds = [sample.domain for sample in samples.values()]
    notes = count_notes(
        (
            kinds.count("no majority"),
            "face has",
            "faces have",
            "no majority of votes for one expression: a distribution, but no label",
        ),
        (kinds.count("unknown"), "face has", "faces have", "a majority for unknown: no label"),
        (kinds.count("no face"), "face has", "faces have", "a majority for no face: no label"),
        (repeated, "row occurs", "rows occur", f"twice in {table.name}, used once"),
    )
    return DataSet(str(root), FERPLUS, list(samples.values()), notes)


def _sample(row: dict[str, str], images: Path, where: str) -> Sample:
    """Return the sample of a row of votes.csv.

    Raises:
        DataError: If a value is invalid or the image is missing.
    """
    split = SPLITS.get(clean(row["split"]))
    if split is None:
        raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, got {row['split']!r}")
    votes = {name: number(row, name, where, low=0) for name in COLUMNS}
    path = path_inside(images, row["path"], f"{where}, path")
    if not path.is_file():
        raise DataError(f"{where}, path: {path} does not exist")
    total = sum(votes.values())
    expression_votes = sum(votes[name] for name in FERPLUS.labels)
    top = max(votes, key=votes.__getitem__)
    kind = "no majority"
    if total > 0 and 2 * votes[top] > total:
        kind = {UNKNOWN: "unknown", NO_FACE: "no face"}.get(top, "majority")
    distribution = None
    if expression_votes > 0:
        distribution = {name: votes[name] / expression_votes for name in FERPLUS.labels}
    return Sample(
        key=path.relative_to(images).as_posix(),
        image=ImageFile(path),
        label=FERPLUS.index(top) if kind == "majority" else None,
        distribution=distribution,
        split=split,
        domain=kind,
    )
