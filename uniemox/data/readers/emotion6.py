"""Emotion6 (Peng et al., CVPR 2015): search folders, vote shares, valence and arousal."""

from pathlib import Path
from typing import Literal

from uniemox.data.readers.csv_table import number, read_rows, shares, top_vote
from uniemox.data.readers.folders import checked_folder, images_below
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError, LabelError
from uniemox.labels import EKMAN

Votes = dict[str, tuple[dict[str, float], float, float]]


def read_emotion6(root: Path, *, label: Literal["folder", "vote"] = "folder") -> DataSet:
    """`images/<folder>/<n>.jpg` and `ground_truth.txt`.

    The folder is the word that the image was searched with; the votes disagree with it for half of the images.
    label: "folder", or "vote" for the emotion with the most votes, without ties and without neutral images.
    The distribution holds seven shares, neutral among them. Rows without an image are counted in the notes.
    Raises DataError, with file, line and field, for anything else.
    """
    table = checked_folder(root) / "ground_truth.txt"
    votes = _read_votes(table)
    images = images_below(checked_folder(root / "images"))
    samples, unlabelled, without_row = [], 0, 0
    for key, path in images.items():
        row = votes.get(key)
        distribution, valence, arousal = row or (None, None, None)
        if label == "vote":
            word = None if distribution is None else top_vote(distribution)
            if word is None or word == "neutral":
                unlabelled += 1
                continue
        else:
            word = key.split("/")[0]
        without_row += row is None
        try:
            index = EKMAN.index(word)
        except LabelError as error:
            raise DataError(f"{path}: {error}") from error
        samples.append(
            Sample(
                key=f"images/{key}",
                image=ImageFile(path),
                label=index,
                distribution=distribution,
                valence=valence,
                arousal=arousal,
            )
        )
    if not samples:
        raise DataError(f"{root / 'images'}: no images in its folders")
    absent = len(votes.keys() - images.keys())
    notes = (
        f"{absent} rows of {table.name} are of images that are not there" if absent else "",
        f"{without_row} images have no row in {table.name}: they have a label, but no votes" if without_row else "",
        f"{unlabelled} images were left out: their vote is a tie, neutral, or missing" if unlabelled else "",
    )
    return DataSet(str(root), EKMAN, samples, tuple(line for line in notes if line))


def _read_votes(table: Path) -> Votes:
    """Shares, valence and arousal of each image."""
    votes: Votes = {}
    columns = {f"[prob. {emotion}]": emotion for emotion in (*EKMAN.labels, "neutral")}
    for line, row in read_rows(table):
        where = f"{table}:{line}"
        missing = {"[image_filename]", "[valence]", "[arousal]", *columns} - row.keys()
        if missing:
            raise DataError(f"{table}:1: there is no column {sorted(missing)[0]}")
        distribution = shares(row, columns, where)
        total = sum(float(row[column]) for column in columns)
        if abs(total - 1) > 0.01:
            raise DataError(f"{where}: the seven shares add up to {total:g}, not to 1")
        affect = (number(row, field, where, low=1, high=9) for field in ("[valence]", "[arousal]"))
        if row["[image_filename]"] in votes:
            raise DataError(f"{where}: a second row of {row['[image_filename]']}")
        votes[row["[image_filename]"]] = (distribution, *affect)  # type: ignore[assignment]
    return votes
