"""Abstract and ArtPhoto (Machajdik & Hanbury, ACM Multimedia 2010), Mikels' eight."""

from pathlib import Path

from uniemox.data.readers.csv_table import read_rows, shares, top_vote
from uniemox.data.readers.folders import checked_folder, images_below, read_class_folders, walk_files
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError, LabelError
from uniemox.io.images import is_image_name
from uniemox.labels import MIKELS


def read_abstract(root: Path) -> DataSet:
    """`ABSTRACT_groundTruth.csv`, vote counts, and the images anywhere below the folder.

    The label is the emotion with the most votes; images with a tie keep their distribution and have no label. Rows
    without an image and images without a row are counted in the notes.
    """
    tables = [path for path in walk_files(checked_folder(root)) if path.suffix.lower() == ".csv"]
    tables = [path for path in tables if path.name.lower() == "abstract_groundtruth.csv"] or tables
    if len(tables) != 1:
        raise DataError(f"{root}: expected one CSV file, ABSTRACT_groundTruth.csv, found {len(tables)}")
    images: dict[str, tuple[str, Path]] = {}
    for key, path in images_below(root).items():
        if path.name.lower() in images:
            raise DataError(f"{path}: a second image of that name; the table does not say which is meant")
        images[path.name.lower()] = (key, path)
    samples, absent, named = [], [], set()
    for line, row in read_rows(tables[0], quote="'"):
        name_column, *columns = row
        where = f"{tables[0]}:{line}"
        try:
            emotions = {column: MIKELS.labels[MIKELS.index(column)] for column in columns}
        except LabelError as error:
            raise DataError(f"{tables[0]}:1: {error}") from error
        if sorted(emotions.values()) != sorted(MIKELS.labels):
            raise DataError(f"{tables[0]}:1: expected one column for each of {', '.join(MIKELS.labels)}")
        distribution = shares(row, emotions, where)
        name = row[name_column]
        if name.lower() in named:
            raise DataError(f"{where}: a second row of {name}")
        named.add(name.lower())
        if name.lower() not in images:
            absent.append(name)
            continue
        key, path = images.pop(name.lower())
        word = top_vote(distribution)
        samples.append(
            Sample(
                key=key,
                image=ImageFile(path),
                label=None if word is None else MIKELS.index(word),
                distribution={label: distribution[label] for label in MIKELS.labels},
            )
        )
    if not samples:
        raise DataError(f"{tables[0]}: none of its {len(absent)} images is below {root}")
    ties = sum(sample.label is None for sample in samples)
    notes = (
        f"{len(absent)} rows of {tables[0].name} are of images that are not there: {absent[0]}" if absent else "",
        f"{len(images)} images have no row in {tables[0].name} and were left out" if images else "",
        f"{ties} images have a tie of votes: a distribution, but no label" if ties else "",
    )
    return DataSet(str(root), MIKELS, samples, tuple(line for line in notes if line))


def read_artphoto(root: Path) -> DataSet:
    """Class folders (`Amusement`, ..., `Content`, ..., `Sad`), or one folder of `<emotion>_<n>.jpg`, as published."""
    checked_folder(root)
    if any(is_image_name(path) and path.parent == root for path in walk_files(root)):
        return _read_artphoto_names(root)
    return read_class_folders(root, lambda _: MIKELS)


def _read_artphoto_names(root: Path) -> DataSet:
    samples = []
    for key, path in images_below(root).items():
        try:
            label = MIKELS.index(path.stem.strip("'").split("_")[0])
        except LabelError as error:
            raise DataError(f"{path}: its name must begin with an emotion and _: {error}") from error
        samples.append(Sample(key=key, image=ImageFile(path), label=label))
    return DataSet(str(root), MIKELS, samples)
