"""HECO: images in class folders, and the people of a table beside them."""

from pathlib import Path

import pytest

from tests.data.tree import put, says, words, write
from uniemox.data.readers.heco import read_heco
from uniemox.errors import DataError
from uniemox.labels import HECO
from uniemox.persons.box import Box


def test_heco_with_people(tmp_path: Path) -> None:
    put(tmp_path, "Peace/1.jpg", "Peace/2.jpg", "Anger/3.jpg")
    bare = read_heco(tmp_path)
    assert bare.labels is HECO
    assert words(bare) == {"Anger/3.jpg": "anger", "Peace/1.jpg": "peace", "Peace/2.jpg": "peace"}
    assert {(s.target_box, s.group) for s in bare.samples} == {(None, None)}
    write(
        tmp_path / "boxes.csv",
        "path,x1,y1,x2,y2,label\nPeace/1.jpg,1,2,11,12,\nPeace\\1.jpg,-3,0,5,6.5,Fear\nAnger/3.jpg,,,,,\n",
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
    ("table", "said"),
    [
        ("path,x1,y1,x2\nPeace/1.jpg,1,2,3\n", "boxes.csv:1: there is no column y2"),
        ("path,x1,y1,x2,y2\nPeace/9.jpg,1,2,3,4\n", "boxes.csv:2, path: 'Peace/9.jpg' is no image below"),
        ("path,x1,y1,x2,y2\n../Peace/1.jpg,1,2,3,4\n", "boxes.csv:2, path: '../Peace/1.jpg' is no image below"),
        ("path,x1,y1,x2,y2\n\nPeace/1.jpg,1,2,x,4\n", "boxes.csv:3: x2 must be a number, got 'x'"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,nan,4\n", "boxes.csv:2: x2 must be a number, got 'nan'"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,1,4\n", "boxes.csv:2: the box must have x1 < x2 and y1 < y2"),
        ("path,x1,y1,x2,y2\nPeace/1.jpg,1,2,,4\n", "boxes.csv:2: a box needs all of x1, y1, x2, y2"),
        ("path,x1,y1,x2,y2,label\nPeace/1.jpg,1,2,3,4,joy\n", "boxes.csv:2, label: 'joy' is none of the 8 labels"),
    ],
)
def test_hecos_wrong_tables_are_named_with_line_and_column(tmp_path: Path, table: str, said: str) -> None:
    put(tmp_path, "Peace/1.jpg")
    write(tmp_path / "boxes.csv", table)
    with pytest.raises(DataError, match=says(tmp_path) + says("/", said)):
        read_heco(tmp_path)


def test_hecos_table_may_have_another_name(tmp_path: Path) -> None:
    put(tmp_path, "Peace/1.jpg")
    write(tmp_path / "people.csv", "path,x1,y1,x2,y2\nPeace/1.jpg,1,2,3,4\n")
    assert read_heco(tmp_path, boxes="people.csv").samples[0].target_box == Box(1, 2, 3, 4)
    with pytest.raises(DataError, match=says(tmp_path / "gone.csv", "there is no such file")):
        read_heco(tmp_path, boxes="gone.csv")
