"""Readers of Emotion6, Abstract and ArtPhoto on small data sets and on the real ones: samples, notes and errors."""

from pathlib import Path

import pytest

from tests.data.tree import abstract, emotion6, put, says, words, write
from uniemox.data.readers.emotion6 import read_emotion6
from uniemox.data.readers.machajdik import read_abstract, read_artphoto
from uniemox.errors import DataError
from uniemox.labels import EKMAN, MIKELS

# Emotion6

ROWS = {
    "anger/1.jpg": (0.5, 0.5, 0, 0, 0, 0, 0),  # a tie
    "anger/2.jpg": (0.2, 0, 0, 0, 0.6, 0.2, 0),  # sadness
    "joy/1.jpg": (0, 0, 0, 0.3, 0, 0, 0.7),  # neutral
    "joy/2.jpg": (0, 0, 0, 0.999999, 0, 0, 0),
    "fear/9.jpg": (0, 0, 1, 0, 0, 0, 0),  # not there
}


def test_emotion6_by_folder(tmp_path: Path) -> None:
    root = put(emotion6(tmp_path, ROWS, absent=["fear/9.jpg"]), "images/surprise/7.jpg")
    data = read_emotion6(root)
    assert data.labels is EKMAN
    assert words(data) == {
        "images/anger/1.jpg": "anger",
        "images/anger/2.jpg": "anger",
        "images/joy/1.jpg": "joy",
        "images/joy/2.jpg": "joy",
        "images/surprise/7.jpg": "surprise",
    }
    by_key = {sample.key: sample for sample in data.samples}
    shares = by_key["images/anger/2.jpg"].distribution
    assert shares == {
        **dict.fromkeys(("disgust", "fear", "joy", "neutral"), 0.0),
        **{"anger": pytest.approx(0.2), "sadness": pytest.approx(0.6), "surprise": pytest.approx(0.2)},
    }
    assert by_key["images/joy/2.jpg"].distribution["joy"] == 1
    assert (by_key["images/joy/1.jpg"].valence, by_key["images/joy/1.jpg"].arousal) == (2.5, 3.75)
    assert (by_key["images/surprise/7.jpg"].valence, by_key["images/surprise/7.jpg"].distribution) == (None, None)
    assert data.notes == (
        "1 row of ground_truth.txt without an image",
        "1 image has no row in ground_truth.txt: a label, but no votes",
    )


def test_emotion6_by_vote(tmp_path: Path) -> None:
    root = put(emotion6(tmp_path, ROWS, absent=["fear/9.jpg"]), "images/surprise/7.jpg")
    data = read_emotion6(root, label="vote")
    assert words(data) == {"images/anger/2.jpg": "sadness", "images/joy/2.jpg": "joy"}
    assert data.notes[-1] == "3 images were left out: a vote that is a tie, neutral, or missing"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[prob. joy]", "[joy]", "ground_truth.txt:1: there is no column [prob. joy]"),
        ("2.5", "x", "ground_truth.txt:2: [valence] must be a number, got 'x'"),
        ("3.75", "9.5", "ground_truth.txt:2: [arousal] must lie between 1 and 9, got '9.5'"),
        ("3.75", "nan", "ground_truth.txt:2: [arousal] must be a number, got 'nan'"),
        ("0.2", "0.9", "ground_truth.txt:3: the seven shares add up to 1.7, not to 1"),
        ("0.2", "-0.2", "ground_truth.txt:3: [prob. anger] must lie between 0 and inf, got '-0.2'"),
        ("0.2\t0", "0.2\t0\t0", "ground_truth.txt:3: 11 values under 10 columns"),
        ("[arousal]", "[valence]", "ground_truth.txt:1: column '[valence]' appears twice"),
        ("0.2", "inf", "ground_truth.txt:3: [prob. anger]"),
    ],
)
def test_wrong_emotion6_rows_are_reported_with_their_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = emotion6(tmp_path, ROWS) / "ground_truth.txt"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=says(message)):
        read_emotion6(tmp_path)


def test_emotion6_without_its_files(tmp_path: Path) -> None:
    write(tmp_path / "ground_truth.txt", "")
    with pytest.raises(DataError, match=r"ground_truth\.txt: the table is empty"):
        read_emotion6(tmp_path)
    emotion6(tmp_path, {})
    with pytest.raises(DataError, match="images: no images in its folders"):
        read_emotion6(tmp_path)
    put(tmp_path, "images/boredom/1.jpg")
    with pytest.raises(DataError, match=r"images/boredom/1\.jpg: 'boredom' is none of the 6 labels of ekman"):
        read_emotion6(tmp_path)


# Abstract and ArtPhoto


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_votes_of_abstract_become_shares_and_absent_images_are_noted(tmp_path: Path, end: str) -> None:
    rows = {
        "a1.jpg": (0, 0, 0, 6, 1, 0, 0, 1),
        "a2.jpg": (2, 2, 0, 0, 0, 0, 0, 0),
        "a3.jpg": (0, 0, 0, 0, 0, 0, 1, 9),
        "gone.jpg": (1, 0, 0, 0, 0, 0, 0, 0),
    }
    root = put(abstract(tmp_path, rows, end=end), "images/extra.jpg")
    (root / "images/gone.jpg").unlink()
    (root / "images/a3.jpg").rename(root / "images/A3.JPG")
    data = read_abstract(root)
    assert data.labels is MIKELS
    assert words(data) == {"images/a1.jpg": "contentment", "images/a2.jpg": None, "images/A3.JPG": "sadness"}
    assert data.samples[0].distribution == {
        **dict.fromkeys(MIKELS.labels, 0.0),
        **{"contentment": 0.75, "disgust": 0.125, "sadness": 0.125},
    }
    assert data.notes == (
        "1 row of ABSTRACT_groundTruth.csv without an image: gone.jpg",
        "1 image was left out: no row in ABSTRACT_groundTruth.csv",
        "1 image has a tie of votes: a distribution, but no label",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'Sad'", "'Bored'", "csv:1: 'Bored' is none of the 8 labels of mikels"),
        ("'Sad'", "'Anger'", "csv:1: column 'Anger' appears twice"),
        ("'Sad'", "'Angry'", "csv:1: expected one column for each of amusement, anger"),
        ("'Fear','Sad'", "'Fear'", "csv:2: 9 values under 8 columns"),
        (",6,", ",six,", "csv:2: Content must be a number, got 'six'"),
        (",6,", ",-1,", "csv:2: Content must lie between 0 and inf"),
        (",0,0,0,6,1,0,0,1", ",0,0,0,0,0,0,0,0", "csv:2: no votes at all for"),
        ("'a1.jpg'", "'a1.jpg", "csv:"),
        ("a1.jpg", "a1.gif", "none of its 1 images is below"),
    ],
)
def test_wrong_abstract_tables_are_reported_with_line_and_column(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    root = abstract(tmp_path, {"a1.jpg": (0, 0, 0, 6, 1, 0, 0, 1)})
    table = root / "ABSTRACT_groundTruth.csv"
    table.write_bytes(table.read_bytes().replace(old.encode(), new.encode(), 1))
    with pytest.raises(DataError, match=says(message)):
        read_abstract(root)


def test_abstract_needs_one_column_per_class(tmp_path: Path) -> None:
    root = abstract(tmp_path, {"a1.jpg": (0, 0, 0, 6, 1, 0, 0, 1)})
    table = root / "ABSTRACT_groundTruth.csv"
    table.write_bytes(table.read_bytes().replace(b",'Sad'", b",'Sad','Sadness'") + b",5")
    with pytest.raises(DataError, match=r"csv:1: expected one column for each of amusement, anger"):
        read_abstract(root)


def test_abstract_needs_one_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one CSV file, ABSTRACT_groundTruth\.csv, found 0"):
        read_abstract(tmp_path)
    for name in ("a.csv", "sub/b.CSV"):
        write(tmp_path / name, "x")
    with pytest.raises(DataError, match="found 2"):
        read_abstract(tmp_path)


def test_artphoto_in_folders_and_by_name(tmp_path: Path) -> None:
    folders = put(tmp_path / "a", "Content/1.jpg", "Sad/2.jpg", "AMUSEMENT/3.jpg")
    assert words(read_artphoto(folders)) == {
        "AMUSEMENT/3.jpg": "amusement",
        "Content/1.jpg": "contentment",
        "Sad/2.jpg": "sadness",
    }
    names = put(tmp_path / "b", "content_0001.jpg", "sad_0002.jpg", "Excitement_3.JPG")
    write(names / "readme.txt", "not an image")
    assert words(read_artphoto(names)) == {
        "Excitement_3.JPG": "excitement",
        "content_0001.jpg": "contentment",
        "sad_0002.jpg": "sadness",
    }
    put(names, "IMG_1.jpg")
    with pytest.raises(DataError, match=r"IMG_1\.jpg: its name must begin with an emotion and _: 'IMG' is none of"):
        read_artphoto(names)


# The real data


def test_counts_of_the_real_emotion6(shared: Path) -> None:
    data = read_emotion6(shared / "data/emotion6")
    assert len(data) == 180
    assert [sum(s.label == i for s in data.samples) for i in range(6)] == [30] * 6
    assert all(sum(s.distribution.values()) == pytest.approx(1) for s in data.samples)
    assert all(len(s.distribution) == 7 for s in data.samples)
    assert data.notes == ("1,800 rows of ground_truth.txt without an image",)
    voted = read_emotion6(shared / "data/emotion6", label="vote")
    assert len(voted) == 135
    assert voted.notes[1] == "45 images were left out: a vote that is a tie, neutral, or missing"
    searched = {s.key: s.label for s in data.samples}
    assert sum(searched[s.key] == s.label for s in voted.samples) == 89  # the folder is the search word


def test_counts_of_the_real_abstract(shared: Path) -> None:
    data = read_abstract(shared / "data/abstract")
    assert len(data) == 279
    assert sum(s.label is None for s in data.samples) == 51
    assert data.notes == (
        "1 row of ABSTRACT_groundTruth.csv without an image: abstract_0225.jpg",
        "51 images have a tie of votes: a distribution, but no label",
    )
    first = data.samples[0]  # 'abstract_0001.jpg',5,0,0,7,1,1,1,1
    assert (first.key, data.label_of(first)) == ("images/abstract_0001.jpg", "contentment")
    assert list(first.distribution.values()) == [5 / 16, 0, 0, 7 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 16]
