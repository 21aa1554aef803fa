"""Emotion6 (Peng et al., CVPR 2015): search folders, vote shares, valence and arousal."""

from pathlib import Path
from typing import Any, Literal

from uniemox.data.readers.folders import class_of, count_notes
from uniemox.data.readers.paths import checked_folder, images_below
from uniemox.data.readers.rows import number, read_rows, shares, top_vote
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError
from uniemox.labels import EKMAN

NAME = "[image_filename]"
AFFECT = ("[valence]", "[arousal]")
SHARES = {f"[prob. {emotion}]": emotion for emotion in (*EKMAN.labels, "neutral")}


def read_emotion6(root: Path, *, label: Literal["folder", "vote"] = "folder") -> DataSet:
    """Read `images/<folder>/<n>.jpg` and `ground_truth.txt`.

    The folder is the word that the image was searched with; for half of the images the votes disagree with it. The
    distribution has seven shares, including neutral. Rows without an image are counted in the notes.

    Args:
        label: "folder", or "vote", the emotion with the most votes; "vote" leaves out images with a tie, and neutral
            ones.

    Raises:
        DataError: With file, line and field, for any other fault in the files.
    """
    table = checked_folder(root) / "ground_truth.txt"
    votes = _read_votes(table)
    images = images_below(checked_folder(root / "images"))
    samples = []
    unlabelled = 0
    without_row = 0
    for key, path in images.items():
        row = votes.get(key, {})
        word: str | None
        if label == "folder":
            word = key.split("/")[0]
        else:
            word = top_vote(row["distribution"]) if row else None
            if word in (None, "neutral"):
                unlabelled += 1
                continue
        without_row += not row
        samples.append(
            Sample(key=f"images/{key}", image=ImageFile(path), label=class_of(EKMAN, str(word), str(path)), **row)
        )
    if not samples:
        raise DataError(f"{root / 'images'}: no images in its folders")
    notes = count_notes(
        (len(votes.keys() - images.keys()), "row", "rows", f"of {table.name} without an image"),
        (without_row, "image has", "images have", f"no row in {table.name}: a label, but no votes"),
        (unlabelled, "image was", "images were", "left out: a vote that is a tie, neutral, or missing"),
    )
    return DataSet(str(root), EKMAN, samples, notes)


def _read_votes(table: Path) -> dict[str, dict[str, Any]]:
    """Read the sample fields of each image from ground_truth.txt: distribution, valence and arousal.

    Raises:
        DataError: With line and field, for a wrong number or a second row of an image.
    """
    votes: dict[str, dict[str, Any]] = {}
    for line, row in read_rows(table, columns=(NAME, *AFFECT, *SHARES)):
        where = f"{table}:{line}"
        distribution = shares(row, SHARES, where)
        total = sum(float(row[column]) for column in SHARES)
        # Rounding explains a small difference, not a larger one.
        if abs(total - 1) > 0.01:
            raise DataError(f"{where}: the seven shares add up to {total:g}, not to 1")
        valence, arousal = (number(row, field, where, low=1, high=9) for field in AFFECT)
        if row[NAME] in votes:
            raise DataError(f"{where}: a second row of {row[NAME]}")
        votes[row[NAME]] = {"distribution": distribution, "valence": valence, "arousal": arousal}
    return votes
