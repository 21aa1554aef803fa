"""OASIS as published, and ratings in tables: any scale becomes 1 to 9, images of a theme are a group."""

from pathlib import Path

import pytest

from tests.data.tree import put, says
from uniemox.data.source import open_data
from uniemox.errors import DataError

HEADER = ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N"


def oasis(root: Path, *rows: str) -> Path:
    """With CR line ends and blanks after themes, as the published table has them."""
    (root / "images").mkdir(parents=True)
    put(root / "images", "Acorns 1.jpg", "Acorns 2.jpg", "Zebra 1.jpg")
    (root / "OASIS.csv").write_bytes("\r".join([HEADER, *rows]).encode())
    return root


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    rows = ("I1,Acorns 1 ,Object,web,1,1.2,103,7,1.7,98", "I2,Acorns 2,Object,web,4,1.1,103,2.5,1.6,98")
    more = ("I3,Zebra 1  ,Animal,web,7,1.0,100,4,1.5,99", "I4,Gone 1,Animal,web,5,1.0,100,4,1.5,99")
    data = open_data(f"oasis:{oasis(tmp_path / 'o', *rows, *more)}")
    assert [(one.key, one.valence, one.arousal) for one in data.samples] == [
        ("images/Acorns 1.jpg", 1.0, 9.0),
        ("images/Acorns 2.jpg", 5.0, 3.0),
        ("images/Zebra 1.jpg", 9.0, 5.0),
    ]
    assert [one.group for one in data.samples] == ["Acorns", "Acorns", "Zebra"]
    assert data.notes == ("1 rows were left out: their image is not there",)
    assert not data.labels.labels


def test_wrong_ratings_are_named(tmp_path: Path) -> None:
    root = oasis(tmp_path / "o", "I1,Acorns 1,Object,web,7.5,1,1,4,1,1")
    with pytest.raises(DataError, match=says("OASIS.csv:2: Valence_mean must lie between 1 and 7, got '7.5'")):
        open_data(f"oasis:{root}")
    (root / "OASIS.csv").write_text("Theme,Valence_mean\nAcorns 1,2\n")
    with pytest.raises(DataError, match=says("OASIS.csv:1: there is no column Arousal_mean")):
        open_data(f"oasis:{root}")


def test_a_table_of_ratings_needs_no_labels_and_any_scale_will_do(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    table = tmp_path / "ratings.csv"
    table.write_text(
        "path,theme,category,valence_mean,valence_sd,arousal_mean,arousal_n\na.jpg,A,x,4,1,0,9\nb.jpg,A,x,10,1,5,9\n"
    )
    data = open_data(f"csv:{table}?scale=0-10")
    assert [(one.valence, one.arousal, one.group) for one in data.samples] == [(4.2, 1.0, "A"), (9.0, 5.0, "A")]
    with pytest.raises(DataError, match=says("ratings.csv:2: arousal must lie between 1 and 9, got '0'")):
        open_data(f"csv:{table}")
    with pytest.raises(DataError, match=says("scale must be LOW-HIGH, such as 1-7, got '7'")):
        open_data(f"csv:{table}?scale=7")


def test_the_stored_part_of_oasis_is_read(shared: Path) -> None:
    data = open_data(f"csv:{shared / 'data' / 'oasis' / 'ratings.csv'}?scale=1-7")
    assert len(data.samples) == 416
    assert len({one.group for one in data.samples}) == 124
    assert all(1 <= one.valence <= 9 and 1 <= one.arousal <= 9 for one in data.samples)
