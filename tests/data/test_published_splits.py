"""Published lists of train, val and test: their forms, images that are missing or unlisted, and faults."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.data.tree import put, says, write
from tests.drawn import draw_image, jpeg_of
from tests.emotic import write_release
from tests.runs import uniemox_here
from uniemox.cli.console import say_notes
from uniemox.data import published_splits
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.data.split_files import read_splits
from uniemox.data.split_lists import _of_line
from uniemox.errors import DataError
from uniemox.labels import recognise_labels

SPLITS = {
    "amusement/amusement_1.jpg": "train",
    "amusement/my photo.jpg": "val",
    "fear/fear_1.jpg": "test",
    "fear/fear_2.jpg": "train",
}
NAMES = list(SPLITS)
ROWS = [(name, split, i) for i, (name, split) in enumerate(SPLITS.items())]


def by_split(names: Mapping[str, str] = SPLITS) -> dict[str, list[str]]:
    return {split: [name for name in names if names[name] == split] for split in ("train", "val", "test")}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return f"fi:{put(tmp_path / 'FI', *NAMES)}"


def splits_of(data: DataSet) -> dict[str, str | None]:
    return {sample.key: sample.split for sample in data.samples}


def test_files_of_a_folder_of_lists_that_are_not_read_are_named(photos: str, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    for split, names in by_split().items():
        write(lists / f"{split}.txt", "\n".join(names))
    for name in ("trainval.txt", "eval.csv", "test.list", "classes.txt", "interval.txt", "README.md"):
        write(lists / name, "x")
    data = open_data(photos, splits=lists)
    assert splits_of(data) == SPLITS
    [note] = [note for note in data.notes if "not read" in note]
    assert note.startswith(f"{lists} also has eval.csv, test.list, trainval.txt: not read")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "".join(f"{name} {split}\n" for name, split, _ in ROWS)),
        ("a.txt", "".join(f"{split} {name} {label}\r\n" for name, split, label in ROWS)),
        ("a.lst", "".join(f"{label} emotion_dataset/{name} {split}\n" for name, split, label in ROWS)),
        ("a.csv", "Filename,label,Set\n" + "".join(f'"{name}",{label},{split}\n' for name, split, label in ROWS)),
        ("a.csv", "".join(f"{label};{split};{name}\n" for name, split, label in ROWS)),
        ("a.tsv", "\ufeffimage\tsplit\n" + "".join(f"{name}\t{split.title()}\n" for name, split, _ in ROWS)),
        ("a.csv", "path,split\n" + "".join(f"C:\\data\\FI\\{name},{split}\n" for name, split, _ in ROWS)),
        ("a.json", by_split()),
        ("a.json", {"training": by_split()["train"], "dev": by_split()["val"], "testing": by_split()["test"]}),
        ("a.json", SPLITS),
        (
            "a.json",
            [{"image_path": f"/x/{name}", "split": split, "label": name.partition("/")[0]} for name, split, _ in ROWS],
        ),
        ("a.json", {part: [{"img": name} for name in names] for part, names in by_split().items()}),
        # Without endings, and without folders.
        ("a.txt", "".join(f"{name.removesuffix('.jpg').replace('my photo', 'MY PHOTO')},{s}\n" for name, s, _ in ROWS)),
        ("a.txt", "".join(f"{name.partition('/')[2]} {split}\n" for name, split, _ in ROWS)),
    ],
)
def test_a_list_with_the_split_of_each_image_is_read(name: str, content: Any, photos: str, tmp_path: Path) -> None:
    data = open_data(photos, splits=write(tmp_path / "lists" / name, content))
    assert splits_of(data) == SPLITS
    assert len(data.notes) == 1
    assert splits_of(open_data(f"{photos}?splits={tmp_path / 'lists' / name}")) == SPLITS


@pytest.mark.parametrize(
    ("ending", "form"),
    [
        ("train.txt", lambda names: "".join(f"{name} 3\n" for name in names)),
        ("fi_train.txt", "\n".join),
        ("train.csv", lambda names: "image,label\n" + "".join(f"{name},awe\n" for name in names)),
        # The records of both releases of EmoSet.
        ("train.json", lambda names: [["amusement", i, f"image/{name}", "a.json"] for i, name in enumerate(names)]),
        ("train.json", lambda names: [["amusement", f"image/{name}", "annotation/a.json"] for name in names]),
    ],
)
def test_a_folder_with_a_list_of_each_split_is_read(ending: str, form: Any, photos: str, tmp_path: Path) -> None:
    for split, names in by_split().items():
        write(tmp_path / "lists" / ending.replace("train", split), form(names))
    write(tmp_path / "lists" / "README.txt", "Lists of FI.")
    assert splits_of(open_data(photos, splits=tmp_path / "lists")) == SPLITS


def test_missing_and_unlisted_images_are_counted_and_named(photos: str, tmp_path: Path) -> None:
    lists = write(tmp_path / "lists.txt", "awe/none.jpg train\nfear/fear_1.jpg test\nawe/fear_2.jpg test\n")
    data = open_data(photos, splits=lists)
    assert splits_of(data) == {"fear/fear_1.jpg": "test"}
    assert data.notes[1:] == (
        f"2 listed images are not in the data (train 1, test 1), such as awe/none.jpg ({lists}:1)",
        "3 images are in no list and were left out, such as amusement/amusement_1.jpg",
    )
    with pytest.raises(DataError, match=says(f"none of its 1 image is in {photos}, such as a/b.jpg ({lists}:1)")):
        open_data(photos, splits=write(lists, "a/b.jpg train\n"))


def test_commands_that_train_or_score_print_what_lists_lack(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = write(tmp_path / "lists.txt", "awe/none.jpg train\nfear/fear_1.jpg test\n")
    data = open_data(photos, splits=lists)
    say_notes(data)
    printed = " ".join(capsys.readouterr().err.split())
    assert printed == " ".join(" ".join(data.notes).split())
    assert "1 listed image is not in the data (train 1)" in printed
    assert "3 images are in no list and were left out" in printed
    union = f"{photos}?splits={lists},emo8:{put(tmp_path / 'Emo8', *NAMES)}?splits={lists}"
    say_notes(open_data(union))
    printed = " ".join(capsys.readouterr().err.split())
    for text in ("fi: 3 images are in no list and were left out", "emo8: 3 images are in no list and were left out"):
        assert printed.count(text) == 1
    assert printed.count("1 sample of fi:") == 1
    say_notes(open_data(photos))
    assert capsys.readouterr().err == ""


def test_images_that_are_listed_twice_are_an_error_that_names_them(photos: str, tmp_path: Path) -> None:
    write(tmp_path / "lists" / "train.txt", "fear/fear_1.jpg\nfear/fear_2.jpg\nfear_2.jpg\n")
    write(tmp_path / "lists" / "test.txt", "fear/fear_1.jpg\n")
    with pytest.raises(DataError, match="2 images are listed twice: ") as caught:
        open_data(photos, splits=tmp_path / "lists")
    for place in ("fear/fear_1.jpg (test: ", "test.txt:1, train: ", "fear/fear_2.jpg (train: ", "train.txt:3); keep"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "lists no image; uniemox data split writes files of splits"),
        ("a.txt", "fear/fear_1.jpg\n", "a.txt:1: fear/fear_1.jpg has no split; give the table a header with path"),
        ("a.csv", "photo,split\nfear/fear_1.jpg,test\n", "a.csv:1: photo has no split; give the table a header with"),
        ("a.txt", "0 1 " * 2000, "a.txt:1: 0 has no split"),
        ("a.csv", "path,split\nfear/fear_1.jpg,left\n", "a.csv:2: the split 'left' is none of train, val, test"),
        ("a.csv", "path,split\n,train\n", "a.csv:2: expected the name of an image, got ''"),
        ("a.txt", "train\n", "a.txt:1: expected the name of an image"),
        ("a.json", '{"train": ["fear/fear_1.jpg"', "a.json: not JSON"),
        ("a.json", '{"train": ["awe/1.jpg"], "train": ["fear/1.jpg"]}', "a.json: the field 'train' stands twice"),
        ("a.json", {"train": [3]}, "a.json: field train: record 0: expected the name of an image, got '3'"),
        ("a.json", {"train": [], "labels": ["awe"]}, "a.json: field labels: expected a list of images for train, val"),
        ("a.txt", "1.jpg train\n", "a.txt:1: 1.jpg fits 2 images of fi:"),
    ],
)
def test_other_forms_are_an_error_with_file_and_line(name: str, content: Any, message: str, tmp_path: Path) -> None:
    source = f"fi:{put(tmp_path / 'FI', 'awe/1.jpg', 'fear/1.jpg', 'fear/fear_1.jpg')}"
    with pytest.raises(DataError, match=says(message)):
        open_data(source, splits=write(tmp_path / name, content))
    with pytest.raises(DataError, match=r"no images in folders .*, and no lists train\.txt, val\.txt, test\.txt"):
        open_data(source, splits=put(tmp_path / "empty", "a/b.jpg"))


def test_a_list_divides_images_of_folders_of_splits_again(tmp_path: Path) -> None:
    """Train and test of CAER-S have images of the same names; a name with a split means the image of that split."""
    source = f"caer-s:{put(tmp_path / 'CAER-S', 'train/Anger/1.png', 'test/Anger/1.png', 'test/Anger/2.png')}"
    lists = write(
        tmp_path / "a.csv", "path,split\nCAER-S/test/Anger/1.png,val\nAnger/2.png,test\ntest/Fear/1.png,val\n"
    )
    assert splits_of(open_data(source, splits=lists)) == {"test/Anger/1.png": "val", "test/Anger/2.png": "test"}
    lists.write_text("path,split\ntrain/Anger/2.png,train\ntest/Anger/1.png,val\n")
    data = open_data(source, splits=lists)
    assert splits_of(data) == {"test/Anger/1.png": "val"}
    assert "1 listed image is not in the data (train 1), such as train/Anger/2.png" in data.notes[1]


def test_emotions_of_emotion6_are_below_a_folder(tmp_path: Path) -> None:
    root = put(tmp_path / "Emotion6", "images/joy/1.jpg", "images/fear/1.jpg")
    emotions = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
    columns = ("image_filename", "valence", "arousal", *(f"prob. {word}" for word in emotions))
    rows = [[f"[{column}]" for column in columns], ["joy/1.jpg", "5", "5", *"0001000"]]
    write(root / "ground_truth.txt", "".join("\t".join(row) + "\n" for row in rows))
    lists = write(tmp_path / "a.txt", "Emotion6/joy/1.jpg train\nfear/1.jpg test\n")
    data = open_data(f"emotion6:{root}", splits=lists)
    assert splits_of(data) == {"images/joy/1.jpg": "train", "images/fear/1.jpg": "test"}


def test_people_of_an_image_may_have_a_row_each_and_share_its_split(tmp_path: Path) -> None:
    """A table with a row for each person, in EMOTIC's columns."""
    source = f"heco:{put(tmp_path / 'HECO', 'Peace/a.jpg', 'Fear/a.jpg')}"
    write(tmp_path / "HECO" / "boxes.csv", "path,x1,y1,x2,y2\nPeace/a.jpg,0,0,4,4\nPeace/a.jpg,4,4,8,8\n")
    table = "Index,Folder,Filename\n0,Peace,a.jpg\n1,Peace,a.jpg\n"
    write(tmp_path / "lists" / "test.csv", table)
    data = open_data(source, splits=tmp_path / "lists")
    assert list(splits_of(data).values()) == ["test", "test"]
    write(tmp_path / "lists" / "train.csv", table)
    with pytest.raises(DataError, match=r"1 image is listed twice: Peace/a\.jpg"):
        open_data(source, splits=tmp_path / "lists")


def test_parts_of_a_union_have_lists_of_their_own(photos: str, tmp_path: Path) -> None:
    """Both data sets have images of the same names."""
    lists = write(tmp_path / "a.json", {"train": NAMES[:2], "test": NAMES[2:]})
    other = write(tmp_path / "b.json", by_split())
    data = open_data(f"{photos}?splits={lists},emo8:{put(tmp_path / 'Emo8', *NAMES)}?splits={other}")
    expected = {f"fi/{name}": "train" if i < 2 else "test" for i, name in enumerate(NAMES)}
    assert splits_of(data) == expected | {f"emo8/{name}": split for name, split in SPLITS.items()}


def test_emotics_splits_equal_those_of_its_annotations(tmp_path: Path) -> None:
    data = open_data(f"emotic:{write_release(tmp_path / 'EMOTIC', train=4, val=3, test=2)}")
    expected = splits_of(data)
    lists = write(tmp_path / "a.json", {key: split for key, split in expected.items() if split != "val"})
    assert splits_of(read_splits(lists, data)) == json.loads(lists.read_text())


def test_the_example_of_the_documentation_runs(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    block = text.partition("**Published lists.**")[2].partition("```console\n")[2].partition("```")[0]
    for split, names in by_split().items():
        write(tmp_path / "lists" / f"{split}.txt", "".join(f"{name} 1\n" for name in names))
    monkeypatch.chdir(tmp_path)
    [line] = block.splitlines()
    done = uniemox_here(*shlex.split(line.removeprefix("$ uniemox ")))
    assert done.returncode == 0, done.stderr
    assert {row["path"]: row["split"] for row in map(json.loads, done.stdout.splitlines())} == {
        str(Path("FI") / name): split for name, split in SPLITS.items()
    }


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("awe/Rome, 2019/1.jpg", "2019/1.jpg"),
        ("joy, love/1.jpg", "love/1.jpg"),
        ("0 awe/1.jpg", "awe/1.jpg"),
        ("2019 trip/1.jpg", "trip/1.jpg"),
        ("test photos/1.jpg", "photos/1.jpg"),
        ("awe/x.jpg files/1.jpg", "awe/x.jpg"),
        (r"C:\my data\joy, love\1.jpg", "love/1.jpg"),
        ("awe/Rome, 2019", "awe/2019.jpg"),
    ],
)
def test_a_folder_of_a_line_is_not_divided(tmp_path: Path, line: str, other: str) -> None:
    """The image whose name a part of the line has is in another split."""
    listed = line.removeprefix(r"C:\my data").replace("\\", "/").lstrip("/")
    listed = listed if listed.endswith(".jpg") else f"{listed}.jpg"
    for name in (listed, other, "fear/9.jpg"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(f"{line}\n")
    (tmp_path / "lists" / "val.txt").write_text(f"{other}\nfear/9.jpg\n")
    data = open_data(f"folder:{tmp_path / 'd'}?labels=none", splits=tmp_path / "lists")
    assert {sample.key: sample.split for sample in data.samples} == {listed: "train", other: "val", "fear/9.jpg": "val"}


@pytest.mark.parametrize(
    ("names", "line", "expected"),
    [
        (("12 men.jpg", "x/12 men.jpg", "men.jpg"), "12 men.jpg", "12 men.jpg"),
        (("x/Rome, 2019.jpg", "2019.jpg", "q.jpg"), "images/x/Rome, 2019.jpg", "x/Rome, 2019.jpg"),
        (("a/12 men.jpg", "b/12 men.jpg", "men.jpg"), "12 men.jpg", "fits 2 images"),
    ],
)
def test_a_whole_line_is_looked_up_as_other_names_are(
    tmp_path: Path, names: tuple[str, ...], line: str, expected: str
) -> None:
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(f"{line}\n")
    source = f"folder:{tmp_path / 'd'}?labels=none"
    if expected.startswith("fits"):
        with pytest.raises(DataError, match=expected):
            open_data(source, splits=tmp_path / "lists")
    else:
        data = open_data(source, splits=tmp_path / "lists")
        assert [(sample.key, sample.split) for sample in data.samples] == [(expected, "train")]


LISTS_OF_AUTHORS = {
    "a folder that begins with another split": {
        "train.txt": "train images/a/x.jpg\ntrain images/b/y.jpg\n",
        "val.txt": "train images/a/x2.jpg\ntrain images/b/y2.jpg\n",
    },
    "a column of numbers beside the names": {
        "all.csv": "image,file_name,split\n4,a/x.jpg,train\n3,b/y.jpg,train\n2,a/x2.jpg,val\n1,b/y2.jpg,val\n"
    },
    "blanks in names before a split": {"all.txt": "12 x.jpg train\ntest y.jpg train\na/x2.jpg val\nval b/y2.jpg\n"},
    "columns of another number": {"all.txt": "a/x.jpg 3 train\nb/y.jpg 4,5 train\na/x2.jpg 3 val\t\nb/y2.jpg;val;1\n"},
    "commas in names of a table with semicolons": {
        "all.csv": 'b/y.jpg;train;3\n"Rome, 2019/x.jpg";train;3\na/x2.jpg;val;3\nb/y2.jpg;val;"a, b, c, d"\n'
    },
    "a comma in a name before a blank and a split": {
        "all.txt": "Rome, 2019/x.jpg train\nb/y.jpg train\na/x2.jpg val\nb/y2.jpg val\n"
    },
    "a name that begins like a header": {"all.txt": "image y.jpg train\na/x.jpg train\na/x2.jpg val\nb/y2.jpg val\n"},
    "comments": {"all.txt": "# of 2019\n#a/gone.jpg train\na/x.jpg train\nb/y.jpg train\na/x2.jpg val\nb/y2.jpg val\n"},
    "a path without an ending beside a name": {
        "all.csv": "path,name,split\na/x,y.jpg,train\nb/y,x.jpg,train\na/x2,y2.jpg,val\nb/y2,x2.jpg,val\n"
    },
    "tabs after commas": {"all.txt": "Rome, 2019/x.jpg\ttrain\nb/y.jpg\ttrain\na/x2.jpg\tval\nb/y2.jpg\tval\n"},
    "a quoted name in a later line": {
        "train.txt": 'b/y.jpg\n"Rome, 2019/x.jpg"\n',
        "val.txt": "a/x2.jpg\nb/y2.jpg,1\n",
    },
    "remarks": {"all.csv": "sep=;\n# by hand\na/x.jpg;train\nb/y.jpg;train\na/x2.jpg;val\nb/y2.jpg;val\n"},
    "marked names": {"all.csv": "path,split\n'-x.jpg,train\nb/y.jpg,train\na/x2.jpg,val\nb/y2.jpg,val\n"},
}


@pytest.mark.parametrize("lists", LISTS_OF_AUTHORS.values(), ids=LISTS_OF_AUTHORS.keys())
def test_lists_name_images_as_authors_write_them(tmp_path: Path, lists: dict[str, str]) -> None:
    """The first name with an x is in train, as is the first with a y."""
    text = "".join(lists.values())
    x = next((name for name in ("12 x.jpg", "Rome, 2019/x.jpg", "-x.jpg") if name in text), "a/x.jpg")
    y = next((name for name in ("test y.jpg", "image y.jpg") if name in text), "b/y.jpg")
    for name in (x, y, "a/x2.jpg", "b/y2.jpg"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "lists").mkdir()
    for name, content in lists.items():
        (tmp_path / "lists" / name).write_text(content)
    splits = tmp_path / "lists" if len(lists) > 1 else tmp_path / "lists" / next(iter(lists))
    data = open_data(f"folder:{tmp_path / 'd'}?labels=none", splits=splits)
    expected = {x: "train", y: "train", "a/x2.jpg": "val", "b/y2.jpg": "val"}
    assert {sample.key: sample.split for sample in data.samples} == expected
    assert not [note for note in data.notes if "not in the data" in note]


@pytest.mark.parametrize("line", ["x.jpg,val,train,3", "x.jpg,train,val", "x.jpg train val"])
def test_a_line_with_two_splits_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.jpg").write_bytes(jpeg_of(draw_image(1)))
    (tmp_path / "all.csv").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"all\.csv:1: x\.jpg has two splits, train and val; remove one"):
        open_data(f"folder:{tmp_path / 'd'}?labels=none", splits=tmp_path / "all.csv")


def test_names_that_begin_like_comments_are_read(tmp_path: Path) -> None:
    for name in ("#happy/1.jpg", "#happy/2.jpg", "sad/1.jpg"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "all.txt").write_text("#happy/1 train\nsad/1 test\n#happy/2 test\n")
    data = open_data(f"folder:{tmp_path / 'd'}?labels=none", splits=tmp_path / "all.txt")
    assert [(sample.key, sample.split) for sample in data.samples] == [
        ("#happy/1.jpg", "train"),
        ("#happy/2.jpg", "test"),
        ("sad/1.jpg", "test"),
    ]


def test_blanks_in_a_long_line_take_no_time() -> None:
    """Runs of blanks once took a time with the third power of their length."""
    line = "a/1.jpg" + " " * 2_000 + "5" + " " * 2_000 + "train"
    assert _of_line(line, None, "list", None).readings[-1].split == "train"


@pytest.mark.parametrize("line", ["0 awe/1.jpg", "3,awe/1.jpg", "awe/1.jpg,fear/1_face.jpg"])
def test_the_beginning_of_a_line_is_no_folder(tmp_path: Path, line: str) -> None:
    """Although an image at the top of the data has the name of the line's end."""
    for name in ("1.jpg", "1_face.jpg", "awe/1.jpg", "fear/2.jpg", "images/1.jpg", "train/1.jpg"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(f"{line}\n")
    data = open_data(f"folder:{tmp_path / 'd'}?labels=none", splits=tmp_path / "lists")
    assert [(sample.key, sample.split) for sample in data.samples] == [("awe/1.jpg", "train")]


@pytest.mark.parametrize(
    "names",
    [("12 men.jpg", "men.jpg"), ("train 1.jpg", "1.jpg"), ("Paris, 2019.jpg", "2019.jpg"), ("a; b.jpg", "b.jpg")],
)
def test_a_line_that_is_the_name_of_an_image_is_not_divided(tmp_path: Path, names: tuple[str, str]) -> None:
    """The other image, whose name is the end of the line, is in another split."""
    listed, other = names
    for label, name in (("awe", listed), ("awe", other), ("fear", "x.jpg"), ("fear", "y.jpg")):
        (tmp_path / "d" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / label / name).write_bytes(jpeg_of(draw_image(len(name))))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(f"{other}\nx.jpg\n")
    (tmp_path / "lists" / "test.txt").write_text(f"{listed}\ny.jpg\n")
    data = open_data(f"folder:{tmp_path / 'd'}", splits=tmp_path / "lists")
    splits = {sample.key: sample.split for sample in data.samples}
    assert splits == {f"awe/{listed}": "test", f"awe/{other}": "train", "fear/x.jpg": "train", "fear/y.jpg": "test"}


@pytest.mark.parametrize("prefix", ["", "/mnt/ada/", "C:\\x\\"])
def test_the_case_of_a_name_decides_between_images_that_differ_in_it(prefix: str, tmp_path: Path) -> None:
    root = put(tmp_path / "data", "awe/A.jpg", "awe/a.jpg", "fear/b.jpg")
    data = open_data(f"folder:{root}", splits=write(tmp_path / "train.txt", f"{prefix}awe/A.jpg\n"))
    assert [sample.key for sample in data.samples] == ["awe/A.jpg"]


def test_images_of_one_name_are_found_by_their_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is compared with the images in its folder: 4,000 such lines took 25 s."""
    keys = [f"clip{i}/image.jpg" for i in range(300)]
    samples = [Sample(key=key, image=ImageFile(tmp_path / key)) for key in keys]
    data = DataSet("clips", recognise_labels(()), samples)
    listed = write(tmp_path / "train.txt", "".join(f"/x/{key}\n" for key in keys))
    comparisons = 0

    def count(*arguments: Any) -> bool:
        nonlocal comparisons
        comparisons += 1
        return same_end(*arguments)

    same_end = published_splits._same_end
    monkeypatch.setattr(published_splits, "_same_end", count)
    assert len(read_splits(listed, data)) == len(keys)
    assert comparisons <= 2 * len(keys)


def test_records_with_hashes_are_a_list(photos: str, tmp_path: Path) -> None:
    """Only files of `write_splits` have splits and a hash of them."""
    content = {split: [{"path": name, "sha256": "ab"} for name in names] for split, names in by_split().items()}
    assert splits_of(open_data(photos, splits=write(tmp_path / "a.json", content))) == SPLITS


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("a.csv", "path,emotion,split\n", "{name},{label},{split}"),
        ("a.txt", "", "{name} {split} {label}"),
        ("a.csv", "", '"{name}";{split};"{label}"'),
    ],
)
def test_labels_of_a_list_that_differ_from_those_of_the_data_are_counted(
    name: str, header: str, line: str, photos: str, tmp_path: Path
) -> None:
    def notes_with(label_of: Mapping[str, str]) -> list[str]:
        rows = [line.format(name=key, split=split, label=label_of[key]) for key, split in SPLITS.items()]
        data = open_data(photos, splits=write(tmp_path / name, header + "\n".join(rows)))
        assert splits_of(data) == SPLITS
        return [note for note in data.notes if "another label" in note]

    right = {key: key.partition("/")[0].title() for key in SPLITS}
    assert notes_with(right) == []
    [note] = notes_with(right | {"fear/fear_1.jpg": "amusement"})
    assert note.startswith("1 image has another label in the lists than in the data, such as fear/fear_1.jpg (")
    assert "amusement; data: fear)" in note


def test_words_of_a_caption_are_no_labels(photos: str, tmp_path: Path) -> None:
    lines = "".join(f"{name} {split} a man in awe\n" for name, split in SPLITS.items() if " " not in name)
    data = open_data(photos, splits=write(tmp_path / "a.txt", lines))
    assert len(splits_of(data)) == 3
    assert not [note for note in data.notes if "another label" in note]
