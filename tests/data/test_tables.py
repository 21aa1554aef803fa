"""HECO, FER+ and OASIS: images, and a table of people, votes or ratings beside them."""

from pathlib import Path

import pytest

from tests.data.tree import put, says, words, write
from uniemox.data.readers.ferplus import read_ferplus
from uniemox.data.readers.heco import read_heco
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.labels import FERPLUS, HECO
from uniemox.persons.box import Box

# HECO


def test_heco_with_people(tmp_path: Path) -> None:
    put(tmp_path, "Peace/1.jpg", "Peace/2.jpg", "Anger/3.jpg")
    bare = read_heco(tmp_path)
    assert bare.labels is HECO
    assert words(bare) == {"Anger/3.jpg": "anger", "Peace/1.jpg": "peace", "Peace/2.jpg": "peace"}
    assert {(s.target_box, s.group) for s in bare.samples} == {(None, None)}
    write(
        tmp_path / "boxes.csv",
        "path,x1,y1,x2,y2,label\nPeace/1.jpg,1,2,11,12,\n./Peace\\1.jpg,-3,0,5,6.5,Fear\nAnger/3.jpg,,,,,\n",
    )
    data = read_heco(tmp_path)
    assert [(s.key, data.label_of(s), s.target_box, s.group) for s in data.samples] == [
        ("Anger/3.jpg", "anger", None, None),
        ("Peace/1.jpg", "peace", Box(1, 2, 11, 12), "Peace/1.jpg"),
        ("Peace/1.jpg#2", "fear", Box(0, 0, 5, 6.5), "Peace/1.jpg"),
        ("Peace/2.jpg", "peace", None, None),
    ]
    assert data.samples[2].image == data.samples[1].image


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,x1,y1,x2\nPeace/1.jpg,1,2,3\n", "boxes.csv:1: there is no column y2"),
        ("path,x1,y1,x2,y2\nPeace/9.jpg,1,2,3,4\n", "boxes.csv:2, path: 'Peace/9.jpg' is not an image below"),
        ("path,x1,y1,x2,y2\n../Peace/1.jpg,1,2,3,4\n", "boxes.csv:2, path: '../Peace/1.jpg' must be a path inside"),
        ("path,x1,y1,x2,y2\n\nPeace/1.jpg,1,2,x,4\n", "boxes.csv:3: x2 must be a number, got 'x'"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,nan,4\n", "boxes.csv:2: a box needs all of x1, y1, x2, y2"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,1,4\n", "boxes.csv:2: the box must have x1 < x2 and y1 < y2"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,,4\n", "boxes.csv:2: a box needs all of x1, y1, x2, y2"),
        ("path,x1,y1,x2,y2,label\nPeace/1.jpg,1,2,3,4,joy\n", "boxes.csv:2, label: 'joy' is none of the 8 labels"),
    ],
)
def test_wrong_heco_tables_are_reported_with_line_and_column(tmp_path: Path, table: str, message: str) -> None:
    put(tmp_path, "Peace/1.jpg")
    write(tmp_path / "boxes.csv", table)
    with pytest.raises(DataError, match=says(tmp_path) + says("/", message)):
        read_heco(tmp_path)


def test_hecos_table_may_have_another_name(tmp_path: Path) -> None:
    put(tmp_path, "Peace/1.jpg")
    write(tmp_path / "people.csv", "path,x1,y1,x2,y2\nPeace/1.jpg,1,2,3,4\n")
    assert read_heco(tmp_path, boxes="people.csv").samples[0].target_box == Box(1, 2, 3, 4)
    with pytest.raises(DataError, match=says(tmp_path / "gone.csv", "there is no such file")):
        read_heco(tmp_path, boxes="gone.csv")


# FER+

FER_HEADER = "path,split,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
FER_ROWS = (
    "train/a.jpg,train,6,4,0,0,0,0,0,0,0,0",  # neutral
    "train/b.jpg,train,5,5,0,0,0,0,0,0,0,0",  # half is no majority
    "train/c.jpg,train,1,1,1,0,0,0,0,0,7,0",  # unknown
    "val/d.jpg,val,0,0,0,0,0,0,0,0,2,8",  # no face
    "val/e.jpg,val,0,0,0,0,0,0,1,6,3,0",  # contempt
    "train/a.jpg,train,6,4,0,0,0,0,0,0,0,0",  # twice, alike
)


def ferplus(root: Path, *rows: str) -> Path:
    (root / "votes.csv").write_text("\n".join([FER_HEADER, *rows]) + "\n")
    for name in ("train/a", "train/b", "train/c", "val/d", "val/e"):
        put(root, f"images/{name}.jpg")
    return root


def test_ferplus_labels_distributions_and_faces_without_them(tmp_path: Path) -> None:
    data = read_ferplus(ferplus(tmp_path, *FER_ROWS))
    assert (data.labels, data.labels.kind) == (FERPLUS, "expressed")
    assert [data.label_of(sample) for sample in data.samples] == ["neutral", None, None, None, "contempt"]
    assert [sample.domain for sample in data.samples] == ["majority", "no majority", "unknown", "no face", "majority"]
    assert [sample.split for sample in data.samples] == ["train", "train", "train", "val", "val"]
    shares = [sample.distribution for sample in data.samples]
    assert shares[1] is not None
    assert (shares[1]["neutral"], shares[1]["happiness"], sum(shares[1].values())) == (0.5, 0.5, 1)
    assert shares[2] is not None
    assert shares[2]["surprise"] == pytest.approx(1 / 3)
    assert shares[3] is None
    assert "1 row occurs twice in votes.csv, used once" in data.notes
    assert len(data.notes) == 4


def test_ferplus_splits_and_paths_may_be_written_in_other_ways(tmp_path: Path) -> None:
    rows = (FER_ROWS[0].replace("train/a.jpg,train", ".\\train\\a.jpg,Training"), FER_ROWS[4].replace(",val,", ",dev,"))
    data = read_ferplus(ferplus(tmp_path, *rows))
    assert [(sample.key, sample.split) for sample in data.samples] == [("train/a.jpg", "train"), ("val/e.jpg", "val")]
    assert len(data.to_train()) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], ("votes.csv", "no rows")),
        ([FER_ROWS[0], FER_ROWS[0].replace("6,4", "4,6")], ("votes.csv:3", "other votes or another split further up")),
        ([FER_ROWS[0].replace(",6,", ",-1,")], ("votes.csv:2", "neutral must lie between")),
        ([FER_ROWS[0].replace(",6,", ",six,")], ("votes.csv:2", "neutral must be a number")),
        ([FER_ROWS[0].replace(",train,", ",public,")], ("votes.csv:2", "split must be one of", "public")),
        ([FER_ROWS[0].replace("train/a", "../a")], ("votes.csv:2, path", "must be a path inside")),
        ([FER_ROWS[0].replace("train/a", "train/z")], ("votes.csv:2, path", "does not exist")),
    ],
)
def test_wrong_ferplus_tables_are_reported_with_line_and_column(
    tmp_path: Path, rows: list[str], message: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=says(*message)):
        read_ferplus(ferplus(tmp_path, *rows))


@pytest.mark.thorough
def test_counts_of_the_real_ferplus(shared: Path) -> None:
    data = open_data(f"ferplus:{shared / 'data' / 'ferplus'}")
    assert len(data) == 23_186
    of_val = [sample for sample in data.samples if sample.split == "val"]
    assert len(of_val) == 2_834
    majorities = [data.label_of(sample) for sample in data.samples if sample.label is not None]
    assert (majorities.count("disgust"), majorities.count("contempt")) == (59, 86)
    assert sum(sample.domain == "no face" for sample in data.samples) == 1


# OASIS: any scale becomes 1 to 9, images of a theme are a group

OASIS_HEADER = ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N"


def oasis(root: Path, *rows: str) -> Path:
    """With CR line ends and blanks after themes, as the published table has them."""
    (root / "images").mkdir(parents=True)
    put(root / "images", "Acorns 1.jpg", "Acorns 2.jpg", "Zebra 1.jpg")
    (root / "OASIS.csv").write_bytes("\r".join([OASIS_HEADER, *rows]).encode())
    return root


def test_oasis_as_published(tmp_path: Path) -> None:
    rows = ("I1,Acorns 1 ,Object,web,1,1.2,103,7,1.7,98", "I2,Acorns 2,Object,web,4,1.1,103,2.5,1.6,98")
    more = ("I3,Zebra 1  ,Animal,web,7,1.0,100,4,1.5,99", "I4,Gone 1,Animal,web,5,1.0,100,4,1.5,99")
    data = open_data(f"oasis:{oasis(tmp_path / 'o', *rows, *more)}")
    assert [(sample.key, sample.valence, sample.arousal) for sample in data.samples] == [
        ("images/Acorns 1.jpg", 1.0, 9.0),
        ("images/Acorns 2.jpg", 5.0, 3.0),
        ("images/Zebra 1.jpg", 9.0, 5.0),
    ]
    assert [sample.group for sample in data.samples] == ["Acorns", "Acorns", "Zebra"]
    assert data.notes == ("1 row was left out: no image",)
    assert not data.labels.labels


def test_wrong_oasis_ratings_are_reported(tmp_path: Path) -> None:
    root = oasis(tmp_path / "o", "I1,Acorns 1,Object,web,7.5,1,1,4,1,1")
    with pytest.raises(DataError, match=says("OASIS.csv:2: Valence_mean must lie between 1 and 7, got '7.5'")):
        open_data(f"oasis:{root}")
    (root / "OASIS.csv").write_text("Theme,Valence_mean\nAcorns 1,2\n")
    with pytest.raises(DataError, match=says("OASIS.csv:1: there is no column Arousal_mean")):
        open_data(f"oasis:{root}")


def test_dominance_is_a_rating_and_a_single_other_column_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    rows = "path,valence,arousal,dominance,valence_std,participants\na.jpg,1,2,3,0.5,9\nb.jpg,4,5,6,0.5,9\n"
    data = open_data(f"csv:{write(tmp_path / 't.csv', rows)}")
    assert data.labels.labels == ()
    assert [(sample.valence, sample.arousal, sample.dominance) for sample in data.samples] == [(1, 2, 3), (4, 5, 6)]
    assert data.notes == ("columns left out: participants",)
    texts = open_data(f"csv:{write(tmp_path / 'texts.csv', 'path,text,age' + chr(10) + 'a.jpg,a dog,3' + chr(10))}")
    assert (texts.labels.labels, texts.notes) == ((), ("columns left out: age",))
    words = write(tmp_path / "words.csv", "path,text,emotion\na.jpg,a dog,awe\nb.jpg,a cat,fear\n")
    with pytest.raises(DataError, match="the column of the images' labels must be called label"):
        open_data(f"csv:{words}")


def test_a_table_of_ratings_needs_no_labels_and_any_scale_will_do(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    table = tmp_path / "ratings.csv"
    table.write_text(
        "path,theme,category,valence_mean,valence_sd,arousal_mean,arousal_n\na.jpg,A,x,4,1,0,9\nb.jpg,A,x,10,1,5,9\n"
    )
    data = open_data(f"csv:{table}?scale=0-10")
    assert [(sample.valence, sample.arousal, sample.group) for sample in data.samples] == [
        (4.2, 1.0, "A"),
        (9.0, 5.0, "A"),
    ]
    with pytest.raises(DataError, match=says("ratings.csv:2: arousal must lie between 1 and 9, got '0'")):
        open_data(f"csv:{table}")
    with pytest.raises(DataError, match=says("scale must be LOW-HIGH, such as 1-7 or -1-1, got '7'")):
        open_data(f"csv:{table}?scale=7")


def test_ratings_of_the_real_oasis_are_on_nine_points(shared: Path) -> None:
    data = open_data(f"csv:{shared / 'data' / 'oasis' / 'ratings.csv'}?scale=1-7")
    assert len(data.samples) == 416
    assert len({sample.group for sample in data.samples}) == 124
    assert all(1 <= sample.valence <= 9 and 1 <= sample.arousal <= 9 for sample in data.samples)
