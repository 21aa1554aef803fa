"""Abstract and ArtPhoto (Machajdik & Hanbury, ACM Multimedia 2010), Mikels' eight."""

from pathlib import Path

from uniemox.data.readers.folders import TIE, class_of, count_notes, read_class_folders, split_of
from uniemox.data.readers.paths import checked_folder, images_below, walk_files
from uniemox.data.readers.rows import read_rows, shares, top_vote
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError
from uniemox.io.images import is_image_name
from uniemox.labels import MIKELS
from uniemox.spelling import spelled


def read_abstract(root: Path) -> DataSet:
    """Read `ABSTRACT_groundTruth.csv`, with vote counts, and the images anywhere below the folder.

    The label is the emotion with the most votes; images with a tie have a distribution and no label. Rows without an
    image and images without a row are counted in the notes.
    """
    tables = [path for path in walk_files(checked_folder(root)) if path.suffix.lower() == ".csv"]
    tables = [path for path in tables if path.name.lower() == "abstract_groundtruth.csv"] or tables
    if len(tables) != 1:
        raise DataError(f"{root}: expected one CSV file, ABSTRACT_groundTruth.csv, found {len(tables)}")
    [table] = tables
    images: dict[str, tuple[str, Path]] = {}
    # The table names images without their folders.
    for key, path in images_below(root).items():
        name = spelled(path.name.lower())
        if name in images:
            raise DataError(f"{path}: a second image of that name; the table does not tell them apart")
        images[name] = (key, path)

    samples = []
    absent = []
    table_names = set()
    for line, row in read_rows(table, quote="'"):
        name_column, *columns = row
        emotions = {column: MIKELS.labels[class_of(MIKELS, column, f"{table}:1")] for column in columns}
        if sorted(emotions.values()) != sorted(MIKELS.labels):
            raise DataError(f"{table}:1: expected one column for each of {', '.join(MIKELS.labels)}")
        votes = shares(row, emotions, f"{table}:{line}")
        name = spelled(row[name_column].lower())
        if name in table_names:
            raise DataError(f"{table}:{line}: a second row of {row[name_column]}")
        table_names.add(name)
        if name not in images:
            absent.append(row[name_column])
            continue
        key, path = images.pop(name)
        word = top_vote(votes)
        label = None if word is None else MIKELS.index(word)
        distribution = {label: votes[label] for label in MIKELS.labels}
        samples.append(
            Sample(key=key, image=ImageFile(path), label=label, distribution=distribution, split=split_of(key))
        )
    if not samples:
        raise DataError(f"{table}: none of its {len(absent)} images is below {root}")
    notes = count_notes(
        (len(absent), "row", "rows", f"of {table.name} without an image: {''.join(absent[:1])}"),
        (len(images), "image was", "images were", f"left out: no row in {table.name}"),
        (sum(sample.label is None for sample in samples), *TIE),
    )
    return DataSet(str(root), MIKELS, samples, notes)


def read_artphoto(root: Path) -> DataSet:
    """Read class folders (`Amusement`, ..., `Content`, ..., `Sad`), or a folder of `<emotion>_<n>.jpg` as published.

    Raises:
        DataError: If a folder or file is named after no emotion.
    """
    if not any(is_image_name(path) and path.parent == root for path in walk_files(checked_folder(root))):
        return read_class_folders(root, MIKELS)
    samples = []
    for key, path in images_below(root).items():
        word = path.stem.strip("'").split("_")[0]
        where = f"{path}: its name must begin with an emotion and _"
        label = class_of(MIKELS, word, where)
        samples.append(Sample(key=key, image=ImageFile(path), label=label, split=split_of(key)))
    return DataSet(str(root), MIKELS, samples)
