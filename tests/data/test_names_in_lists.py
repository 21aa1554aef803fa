"""Published lists without a header: which cell of a row is the name of the image."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.test_published_splits import splits_of
from tests.data.tree import put, says, write
from uniemox.data.source import open_data
from uniemox.errors import DataError

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
