"""OASIS (Kurdi, Lozano & Banaji, Behavior Research Methods 2017): photographs, each rated by about 100 people."""

import re
from pathlib import Path

from uniemox.data.readers.folders import count_notes
from uniemox.data.readers.paths import checked_folder, path_inside
from uniemox.data.readers.rows import number, on_nine_points, read_rows
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError
from uniemox.labels import recognise_labels

RATINGS = ("Valence_mean", "Arousal_mean")


def read_oasis(root: Path) -> DataSet:
    """Read `OASIS.csv` and `images/<Theme>.jpg`, as published, without labels.

    Ratings of 1 to 7 are converted linearly to 1 to 9. Images of a theme ("Acorns 1" and "Acorns 2") are one group.
    Rows without an image are counted in the notes.

    Raises:
        DataError: With file, line and field, if a rating is invalid, or if no image exists.
    """
    table = checked_folder(root) / "OASIS.csv"
    samples = list[Sample]()
    absent = 0
    for line, row in read_rows(table, columns=("Theme", *RATINGS)):
        where = f"{table}:{line}"
        name = f"images/{row['Theme']}.jpg"
        path = path_inside(root, name, f"{where}, Theme")
        if not path.is_file():
            absent += 1
            continue
        valence, arousal = (on_nine_points(number(row, field, where, low=1, high=7), 1, 7) for field in RATINGS)
        group = re.sub(r"\s*\d+$", "", row["Theme"])
        samples.append(Sample(key=name, image=ImageFile(path), valence=valence, arousal=arousal, group=group))
    if not samples:
        raise DataError(f"{table}: none of its {absent} images exists; expected images/<Theme>.jpg")
    notes = count_notes((absent, "row was", "rows were", "left out: no image"))
    return DataSet(str(root), recognise_labels((), None), samples, notes)
