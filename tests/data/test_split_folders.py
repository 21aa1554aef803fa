"""Splits as the authors' loader reads them: folders of copies, compared with the data sets as published."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from uniemox.data.source import open_data
from uniemox.errors import DataError


def draw(root: Path, names: Sequence[str]) -> Path:
    """Write an image under each name."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)
    return root


def splits_of(source: str, splits: Path) -> dict[str, str | None]:
    return {sample.key: sample.split for sample in open_data(source, splits=splits).samples}


def test_copies_of_ube_have_the_search_word_in_front(tmp_path: Path) -> None:
    """Two images of one class have the same name, and one word is also the name of a class."""
    published = ["joy/beach/1.jpg", "joy/love/1.jpg", "joy/love/2.jpg", "love/cat/love_1.jpg", "anger/car/1.jpg"]
    ube = draw(tmp_path / "UBE", published)
    copies = ["train/joy/beach_1.jpg", "val/joy/love_1.jpg", "test/love/cat_love_1.jpg", "train/anger/car_1.jpg"]
    authors = draw(tmp_path / "authors", copies)
    data = open_data(f"ube:{ube}", splits=authors)
    assert {sample.key: sample.split for sample in data.samples} == {
        "joy/beach/1.jpg": "train",
        "joy/love/1.jpg": "val",
        "love/cat/love_1.jpg": "test",
        "anger/car/1.jpg": "train",
    }
    assert data.notes[-1] == "1 image is not in it"
    assert splits_of(f"ube:{ube}?splits={authors}", authors) == splits_of(f"ube:{ube}", authors)


def test_the_official_test_of_caer_is_divided_into_val_and_test(tmp_path: Path) -> None:
    """Train and test of CAER-S have images of the same names."""
    caer = draw(tmp_path / "CAER-S", [f"{split}/Anger/{n}.png" for split in ("train", "test") for n in range(3)])
    copies = [*(f"train/Anger/{n}.png" for n in range(3)), "test/Anger/0.png", "test/Anger/2.png", "val/Anger/1.png"]
    assert splits_of(f"caer-s:{caer}", draw(tmp_path / "authors", copies)) == {
        **{f"train/Anger/{n}.png": "train" for n in range(3)},
        **{"test/Anger/0.png": "test", "test/Anger/1.png": "val", "test/Anger/2.png": "test"},
    }


def test_copies_match_in_any_unicode_form(tmp_path: Path) -> None:
    """macOS writes NFD; the class, the search word and the image are compared in NFC."""
    name = "joy/cafe\u0301/na\u00efve.jpg"
    ube = draw(tmp_path / "UBE", [name, "anger/car/1.jpg"])
    copies = ["train/joy/caf\u00e9_nai\u0308ve.jpg", "val/anger/car_1.jpg"]
    assert splits_of(f"ube:{ube}", draw(tmp_path / "authors", copies)) == {name: "train", "anger/car/1.jpg": "val"}


def test_emotion6_and_heco(tmp_path: Path) -> None:
    """Emotion6 has a folder above its classes; the people of one image of HECO share its split."""
    emotion6 = draw(tmp_path / "Emotion6", ["images/joy/1.jpg", "images/fear/1.jpg"])
    emotions = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
    columns = ["image_filename", "valence", "arousal", *(f"prob. {word}" for word in (*emotions, "neutral"))]
    header = "\t".join(f"[{column}]" for column in columns)
    (emotion6 / "ground_truth.txt").write_text(header + "\njoy/1.jpg\t7\t5" + "\t0" * 3 + "\t1" + "\t0" * 3 + "\n")
    authors = draw(tmp_path / "authors6", ["Train/joy/1.jpg", "Test/fear/1.jpg"])
    assert splits_of(f"emotion6:{emotion6}", authors) == {"images/joy/1.jpg": "train", "images/fear/1.jpg": "test"}
    heco = draw(tmp_path / "HECO", ["Peace/a.jpg", "Fear/a.jpg"])
    (heco / "boxes.csv").write_text("path,x1,y1,x2,y2\nPeace/a.jpg,0,0,4,4\nPeace/a.jpg,4,4,8,8\n")
    splits = splits_of(f"heco:{heco}", draw(tmp_path / "authors8", ["val/Peace/a.jpg", "train/Fear/a.jpg"]))
    assert sorted(str(split) for split in splits.values()) == ["train", "val", "val"]
    assert splits["Fear/a.jpg"] == "train"


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        (["train/joy/9_9.jpg"], "train/joy/9_9.jpg: no image of ube:.* has this name and class"),
        (["train/love/beach_1.jpg"], "no image of ube:"),
        (["train/joy/beach_1.jpg", "test/joy/beach_1.jpg"], "a copy of joy/beach/1.jpg, which is already in test"),
        (["train/joy/1.jpg"], "fits 2 images of ube:.*, joy/beach/1.jpg and joy/love/1.jpg"),
        (["joy/beach_1.jpg"], "no images in folders <train|val|test>/<class>/<image>"),
    ],
)
def test_a_copy_that_fits_not_exactly_one_image_is_an_error(copies: list[str], message: str, tmp_path: Path) -> None:
    ube = draw(tmp_path / "UBE", ["joy/beach/1.jpg", "joy/love/1.jpg", "love/cat/1.jpg"])
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        open_data(f"ube:{ube}", splits=draw(tmp_path / "authors", copies))


@pytest.mark.parametrize("parts", [("train", "test_images"), ("Train ", "test"), ("train_images", "test_images")])
def test_folders_of_copies_may_have_compound_names(parts: tuple[str, str], tmp_path: Path) -> None:
    root = draw(tmp_path / "data", ["awe/1.jpg", "awe/2.jpg", "fear/3.jpg", "fear/4.jpg"])
    copies = draw(tmp_path / "copies", [f"{parts[0]}/awe/1.jpg", f"{parts[0]}/fear/3.jpg", f"{parts[1]}/awe/2.jpg",
                                        f"{parts[1]}/fear/4.jpg"])  # fmt: skip
    assert splits_of(f"folder:{root}", copies) == {
        "awe/1.jpg": "train", "fear/3.jpg": "train", "awe/2.jpg": "test", "fear/4.jpg": "test",
    }  # fmt: skip


def test_a_folder_beside_the_split_that_it_names_is_no_copy(tmp_path: Path) -> None:
    root = draw(tmp_path / "data", ["joy/1.jpg", "joy/2.jpg", "fear/1.jpg"])
    names = ["train/joy/1.jpg", "val/fear/1.jpg", "test/joy/2.jpg", "test-original/joy/2.jpg", "train_small/joy/1.jpg"]
    copies = draw(tmp_path / "copies", names)
    assert splits_of(f"folder:{root}", copies) == {"joy/1.jpg": "train", "fear/1.jpg": "val", "joy/2.jpg": "test"}
