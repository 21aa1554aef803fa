"""Published lists without a header: which cell of a row is the name of the image."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.test_published_splits import splits_of
from tests.data.tree import put, says, write
from uniemox.data.published_splits import scheme_of_lists
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.labels import recognise_labels

NUMBERED = {
    **{"awe/0.jpg": "train", "awe/1.jpg": "train", "awe/2.jpg": "test", "awe/3.jpg": "train"},
    **{"fear/4.jpg": "train", "fear/5.jpg": "train", "fear/6.jpg": "train", "fear/7.jpg": "test"},
}
"""Splits of images whose names are numbers; a list has them in another order, beside numbers of lines and classes."""
STEMS = [(name.removesuffix(".jpg"), NUMBERED[name]) for name in reversed(NUMBERED)]
IDS = [(stem.partition("/")[2], split) for stem, split in STEMS]
ROWS_WITH_NUMBERS = [[str(i), stem] for i, (stem, _) in enumerate(STEMS)]
SPLIT_NAMES = ("train", "test")
RECORDS = [{"key": str(i), "filepath": f"{stem}.jpg", "split": split} for i, (stem, split) in enumerate(STEMS)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "".join(f"{i},{stem},{split}\n" for i, (stem, split) in enumerate(STEMS))),
        ("a.txt", "".join(f"{i} {stem} {split}\n" for i, (stem, split) in enumerate(STEMS))),
        ("a.csv", ",image_id,split\n" + "".join(f"{i},{number},{split}\n" for i, (number, split) in enumerate(IDS))),
        ("a.csv", "label,id,split\n" + "".join(f"{i % 2},{number},{split}\n" for i, (number, split) in enumerate(IDS))),
        ("a.csv", "name,filepath,split\n" + "".join(f"{i},{s}.jpg,{split}\n" for i, (s, split) in enumerate(STEMS))),
        ("a.json", RECORDS),
        ("a.json", {
            split: [row for row in ROWS_WITH_NUMBERS if NUMBERED[f"{row[1]}.jpg"] == split] for split in SPLIT_NAMES
        }),
    ],
)  # fmt: skip
def test_numbers_of_lines_and_classes_are_no_names(name: str, content: Any, tmp_path: Path) -> None:
    root = put(tmp_path / "data", *NUMBERED)
    assert splits_of(open_data(f"folder:{root}", splits=write(tmp_path / name, content))) == NUMBERED


@pytest.mark.parametrize("line", ["0,6,train", "0 6 train", "train;0;6"])
def test_two_numbers_that_are_both_images_are_refused(line: str, tmp_path: Path) -> None:
    root = put(tmp_path / "data", *NUMBERED)
    listed = write(tmp_path / "a.csv", f"{line}\n")
    with pytest.raises(DataError, match=says(f"{listed}:1: 0 and 6 are both images of ", "give the table a header")):
        open_data(f"folder:{root}", splits=listed)


def test_lines_may_have_other_numbers_of_cells(tmp_path: Path) -> None:
    root = put(tmp_path / "data", *NUMBERED)
    listed = write(tmp_path / "train.txt", "7\n6 8\n5 8 9\n4 8 9 9\n")
    assert set(splits_of(open_data(f"folder:{root}", splits=listed))) == {f"fear/{i}.jpg" for i in range(4, 8)}


def test_a_remark_with_a_slash_is_no_name(tmp_path: Path) -> None:
    root = put(tmp_path / "data", "awe/000012.jpg", "fear/000021.jpg")
    listed = write(tmp_path / "a.csv", "000012,n/a,train\n000021,n/a,test\n")
    assert splits_of(open_data(f"folder:{root}", splits=listed)) == {
        "awe/000012.jpg": "train",
        "fear/000021.jpg": "test",
    }


def test_a_number_beside_the_only_image_is_a_class(tmp_path: Path) -> None:
    """As in the lists of PASCAL VOC."""
    root = put(tmp_path / "data", "awe/000012.jpg", "fear/000021.jpg")
    lists = {"train.txt": "000012 1\n", "test.txt": "000021 -1\n"}
    for name, content in lists.items():
        write(tmp_path / "lists" / name, content)
    data = open_data(f"folder:{root}", splits=tmp_path / "lists")
    assert splits_of(data) == {"awe/000012.jpg": "train", "fear/000021.jpg": "test"}


@pytest.mark.parametrize("ending", [" 0", " train", " train 3", ",0"])
def test_a_name_that_begins_with_a_number_may_be_followed_by_a_class(ending: str, tmp_path: Path) -> None:
    """Windows names copies `1 (1).jpg`."""
    names = ["awe/1 (1).jpg", "awe/(1).jpg", "awe/12 men.jpg", "fear/men.jpg", "fear/cat.jpg", "fear/cat.jpg (1).jpg"]
    root = put(tmp_path / "data", *names)
    listed = ["1 (1).jpg", "12 men.jpg", "cat.jpg (1).jpg"]
    data = open_data(f"folder:{root}", splits=write(tmp_path / "train.txt", "".join(f"{n}{ending}\n" for n in listed)))
    assert [sample.key.partition("/")[2] for sample in data.samples] == listed


def numbered(count: int) -> list[str]:
    return [f"{number}.jpg" for number in range(count)]


NAMES_BESIDE_OTHER_CELLS: dict[str, tuple[list[str], str, str, dict[str, str]]] = {
    "a caption with a split": (
        ["joy/my photo.jpg", "joy/b.jpg"], "val.tsv", "joy/my photo.jpg\ta train stops\njoy/b.jpg\ta train stops\n",
        {"joy/my photo.jpg": "val", "joy/b.jpg": "val"}),
    "a label with a split": (["joy/a 1.jpg"], "train.csv", "joy/a 1.jpg,test tube\n", {"joy/a 1.jpg": "train"}),
    "a date": (numbered(25), "train.csv", "3,4/7/19\n4,4/7/18\n", {"3.jpg": "train", "4.jpg": "train"}),
    "no value": (["a.jpg", "b.jpg"], "train.csv", "b,n/a\n", {"b.jpg": "train"}),
    "an address": (numbered(9), "train.csv", "3,http://flickr.com/photos/5\n", {"3.jpg": "train"}),
    "scores": (
        numbered(9), "train.csv", "1,4/5,train\n2,3/6,test\n3,,val\n",
        {"1.jpg": "train", "2.jpg": "test", "3.jpg": "val"}),
    "a class that is an image": (["joy.jpg", "img1.jpg"], "train.txt", "img1 joy\n", {"img1.jpg": "train"}),
    "a class that is several images": (
        ["a/joy.jpg", "b/joy.jpg", "a/i5.jpg"], "train.txt", "i5 joy\n", {"a/i5.jpg": "train"}),
    "a number that is several images": (
        ["joy/0.jpg", "sad/0.jpg", "joy/i5.jpg"], "train.txt", "i5 0\n", {"joy/i5.jpg": "train"}),
    "numbers of classes": (
        numbered(30), "train.txt", "".join(f"{i} {i % 2}\n" for i in range(5, 20)),
        {f"{i}.jpg": "train" for i in range(5, 20)}),
    "another image": (["a 1.jpg", "a 2.jpg"], "train.csv", "img/a 1.jpg,ref/a 2.jpg,0\n", {"a 1.jpg": "train"}),
    "an address in a later column": (
        ["joy/1.jpg"], "train.csv", "path,img\njoy/1,http://x.org/ab12.jpg\n", {"joy/1.jpg": "train"}),
    "a title": (["a.jpg", "b.jpg"], "train.csv", "image,name\na,b.jpg\n", {"a.jpg": "train"}),
    "a folder and an id": (
        ["joy/a1.jpg"], "train.csv", "folder,image_id,file\njoy,x/7,a1\n", {"joy/a1.jpg": "train"}),
    "an image called id": (["a/id.jpg", "a/b.jpg"], "train.txt", "id\nb\n", {"a/id.jpg": "train", "a/b.jpg": "train"}),
    "folders in another case": (["A/1.jpg", "x/a/1.jpg"], "train.txt", "a/1.jpg\n", {"A/1.jpg": "train"}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "name", "content", "expected"), NAMES_BESIDE_OTHER_CELLS.values(), ids=NAMES_BESIDE_OTHER_CELLS
)
def test_other_cells_are_no_names(
    keys: list[str], name: str, content: str, expected: dict[str, str], tmp_path: Path
) -> None:
    samples = [Sample(key=key, image=ImageFile(tmp_path / key)) for key in keys]
    listed = write(tmp_path / name, content)
    assert scheme_of_lists(listed, DataSet("photos", recognise_labels(()), samples))[0] == expected
