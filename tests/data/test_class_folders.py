"""Readers of class folders on small data sets and on a real one: labels, splits, domains, notes and errors."""

from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageFolder

from tests.data.tree import abstract, put, says, words, write
from tests.drawn import class_folders
from uniemox.data.kinds import READERS
from uniemox.data.readers.folders import read_folder
from uniemox.data.readers.heco import read_heco
from uniemox.data.readers.machajdik import read_abstract, read_artphoto
from uniemox.data.readers.paths import path_inside, walk_files
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.labels import CAER, FERPLUS, MIKELS, UBE, LabelSet

read_fi, read_emo8, read_ube, read_caer_s = (READERS[name].read for name in ("fi", "emo8", "ube", "caer-s"))


def test_fi_with_splits_and_without(tmp_path: Path) -> None:
    put(tmp_path / "a", "train/awe/2.jpg", "train/awe/1.png", "val/fear/3.jpg", "TEST/Content/4.webp")
    data = read_fi(tmp_path / "a")
    assert data.labels is MIKELS
    assert [(s.key, data.label_of(s), s.split) for s in data.samples] == [
        ("TEST/Content/4.webp", "contentment", "test"),
        ("train/awe/1.png", "awe", "train"),
        ("train/awe/2.jpg", "awe", "train"),
        ("val/fear/3.jpg", "fear", "val"),
    ]
    plain = read_fi(put(tmp_path / "b", "awe/1.jpg", "'sad'/2.jpg"))
    assert [(s.key, plain.label_of(s), s.split) for s in plain.samples] == [
        ("'sad'/2.jpg", "sadness", None),
        ("awe/1.jpg", "awe", None),
    ]


@pytest.mark.parametrize(
    ("folder", "split"),
    [("Train", "train"), ("training", "train"), ("valid", "val"), ("validation", "val"), ("dev", "val"),
     ("testing", "test"), ("trainset", "train"), ("ValSet", "val"), ("testset", "test")],
)  # fmt: skip
def test_names_of_split_folders(tmp_path: Path, folder: str, split: str) -> None:
    assert read_fi(put(tmp_path, f"{folder}/awe/1.jpg")).samples[0].split == split


def test_other_files_are_counted_and_hidden_ones_ignored(tmp_path: Path) -> None:
    put(tmp_path, "awe/1.jpg", ".git/awe/2.jpg", "awe/.3.jpg", "__MACOSX/awe/4.jpg", "awe/.hidden/5.jpg")
    for name in ("awe/notes.txt", "awe/more.TXT", "awe/Thumbs.db", "awe/LICENSE"):
        write(tmp_path / name, "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "awe/link.jpg").symlink_to(tmp_path / "awe/1.jpg")
    (tmp_path / "awe/dead.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "awe/round").symlink_to(tmp_path)
    data = read_fi(tmp_path)
    assert [sample.key for sample in data.samples] == ["awe/1.jpg", "awe/dead.jpg", "awe/link.jpg"]
    assert data.notes == (
        "1 link to a folder around it was not followed: awe/round",
        "1 file that is no image was left out (.db)",
        "2 files that are no images were left out (.txt)",
        "1 file that is no image was left out (LICENSE)",
    )


def test_images_outside_the_class_folders_are_reported(tmp_path: Path) -> None:
    split = read_fi(put(tmp_path / "a", "train/awe/1.jpg", "extra/fear/2.jpg", "b.jpg", "train/c.jpg", "more/3.jpg"))
    assert words(split) == {"train/awe/1.jpg": "awe"}
    assert split.notes == (
        "2 images outside the class folders were left out: b.jpg",
        "folders next to the split folders were left out: extra, more",
    )
    plain = read_fi(put(tmp_path / "b", "awe/1.jpg", "fear/2.jpg", ".hidden/3.jpg", "z.jpg"))
    assert plain.notes == ("1 image outside the class folders was left out: z.jpg",)


def test_an_unknown_class_folder_is_named(tmp_path: Path) -> None:
    """With the kind that reads such folders."""
    put(tmp_path, "awe/1.jpg", "boredom/2.jpg")
    remedy = f"folder:{tmp_path}"
    fault = "'boredom' is none of the 8 labels of mikels"
    with pytest.raises(DataError, match=says(tmp_path / "boredom", fault, remedy) + "$"):
        read_fi(tmp_path)
    assert open_data(remedy).labels.labels == ("awe", "boredom")


@pytest.mark.parametrize("reader", [read_fi, read_emo8, read_ube, read_caer_s, read_folder, read_heco, read_artphoto])
def test_missing_and_empty_folders_are_refused(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(DataError, match=says(tmp_path / "gone", "there is no such folder")):
        reader(tmp_path / "gone")
    with pytest.raises(DataError, match="there is no such folder"):
        reader(tmp_path / ("a" * 300))
    file = write(tmp_path / "file", "x")
    with pytest.raises(DataError, match=says(file, "not a folder")):
        reader(file)
    root = tmp_path / "root"
    (root / "awe").mkdir(parents=True)
    if reader is read_folder:
        nothing = "no images"
    else:
        nothing = "no class folders with images; expected <class>/<image>"
    with pytest.raises(DataError, match=says(root, nothing)):
        reader(root)
    root.joinpath("fear").mkdir()
    write(root / "fear/readme.md", "x")
    with pytest.raises(
        DataError, match=says(root, "no images" if reader is read_folder else "its class folders contain")
    ):
        reader(root)


def test_subfolders_of_ube_and_emo8_are_domains(tmp_path: Path) -> None:
    ube = read_ube(put(tmp_path / "u", "love/dog hug/1.jpg", "love/family/2.jpg", "sad/rain/3.jpg", "joy/4.jpg"))
    assert ube.labels is UBE
    assert [(s.key, ube.label_of(s), s.domain) for s in ube.samples] == [
        ("joy/4.jpg", "joy", None),
        ("love/dog hug/1.jpg", "love", "dog hug"),
        ("love/family/2.jpg", "love", "family"),
        ("sad/rain/3.jpg", "sadness", "rain"),
    ]
    emo8 = read_emo8(put(tmp_path / "e", "train/awe/cartoon/1.jpg", "train/awe/oil/old/2.jpg"))
    assert [(s.split, s.domain) for s in emo8.samples] == [("train", "cartoon"), ("train", "oil/old")]


def test_caer_s_has_felt_emotions(tmp_path: Path) -> None:
    data = read_caer_s(put(tmp_path, "train/Anger/1.png", "test/Happy/2.png", "test/Neutral/3.png"))
    assert data.labels is CAER
    assert words(data) == {"test/Happy/2.png": "happy", "test/Neutral/3.png": "neutral", "train/Anger/1.png": "angry"}


def test_folder_recognises_its_classes(tmp_path: Path) -> None:
    published = read_folder(
        put(tmp_path / "a", *(f"{word}/1.jpg" for word in ("Happy", "angry", "FEAR", "sad", "disgust")))
    )
    assert (published.labels.labels, published.labels.kind) == (
        ("anger", "disgust", "fear", "joy", "sadness"),
        "evoked",
    )
    custom = read_folder(put(tmp_path / "b", "train/Cosy/1.jpg", "val/eerie/2.jpg"))
    assert (custom.labels.name, custom.labels.labels, custom.labels.kind) == ("custom", ("cosy", "eerie"), "evoked")
    assert [(s.label, s.split) for s in custom.samples] == [(0, "train"), (1, "val")]
    assert read_folder(tmp_path / "b", kind="felt").labels.kind == "felt"


def test_one_class_in_two_spellings_gives_no_labels(tmp_path: Path) -> None:
    data = read_folder(put(tmp_path, "train/Joy/1.jpg", "val/joy/2.jpg"))
    assert {sample.label for sample in data.samples} == {None}


def test_classes_below_folders_of_unknown_splits_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a", *(f"{fold}/{label}/1.jpg" for fold in ("fold1", "fold2") for label in ("Awe", "fear")))
    data = read_folder(tmp_path / "a")
    assert data.labels.labels == ("fold1", "fold2")
    [note] = data.notes
    assert (
        "fold1, fold2, all have the same folders (awe, fear); if these are the classes, name the folders above" in note
    )
    # Parts of classes that differ, as search words do, and images beside such folders.
    put(tmp_path / "b", "cosy/cat/1.jpg", "cosy/dog/1.jpg", "eerie/cat/1.jpg", "eerie/fog/1.jpg")
    put(tmp_path / "c", "cosy/cat/1.jpg", "cosy/1.jpg", "eerie/cat/1.jpg")
    for name in "bc":
        assert read_folder(tmp_path / name).notes == ()


def test_linked_folders_are_read_once_as_by_torchvision(tmp_path: Path) -> None:
    put(tmp_path / "data", "awe/first/1.jpg", "fear/2.jpg")
    put(tmp_path / "store", "awe/3.jpg", "awe/deep/4.jpg", "fear/5.jpg")
    (tmp_path / "data/awe/a").symlink_to(tmp_path / "store/awe")
    (tmp_path / "data/fear/b").symlink_to("../../store/fear")
    data = read_folder(tmp_path / "data")
    theirs = ImageFolder(str(tmp_path / "data"))
    names = {Path(path).relative_to(tmp_path / "data").as_posix(): theirs.classes[i] for path, i in theirs.samples}
    assert words(data) == names
    assert len(names) == 5
    (tmp_path / "data/awe/again").symlink_to(tmp_path / "store/awe/deep")  # as in a
    (tmp_path / "store/awe/up").symlink_to(tmp_path / "store")
    (tmp_path / "store/self").symlink_to(tmp_path / "store")
    again = read_folder(tmp_path / "data")
    assert sorted(sample.key for sample in again.samples)[:2] == ["awe/a/3.jpg", "awe/a/deep/4.jpg"]
    assert again.notes == (
        "1 link to a folder around it was not followed: awe/a/up",
        "1 link to a folder that was already read was not followed again: awe/again",
    )


@pytest.mark.parametrize("nested", ["{split}/{name}", "photos/{split}/{name}", "{split}/only/{name}"])
def test_images_without_labels_keep_their_splits(tmp_path: Path, nested: str) -> None:
    for split in ("Train", "validation", "test"):
        put(tmp_path, nested.format(split=split, name="1.jpg"))
    data = read_folder(tmp_path)
    assert [(sample.split, sample.label) for sample in data.samples] == [("train", None), ("test", None), ("val", None)]
    assert len(data.to_train()) == 1
    put(tmp_path, "loose.jpg")
    assert read_folder(tmp_path).notes[1:] == ("1 image is in no folder of a split, unlike the others",)


COMPOUND = (
    ("train_images", "test_images"),
    ("training_set", "test_set"),
    ("train2017", "test2017"),
    ("train-b", "test-a"),
    ("train", "Test_Images"),
)


@pytest.mark.parametrize(("train", "test"), COMPOUND)
def test_compound_names_of_all_folders_are_splits(tmp_path: Path, train: str, test: str) -> None:
    put(tmp_path / "a", f"{train}/1.jpg", f"{train}/2.jpg", f"{test}/3.jpg")
    write(tmp_path / "a" / "docs" / "read.txt", "no image")
    unlabelled = read_folder(tmp_path / "a")
    assert unlabelled.labels.labels == ()
    assert {Path(sample.key).name: sample.split for sample in unlabelled.samples} == {
        **{"1.jpg": "train", "2.jpg": "train"},
        "3.jpg": "test",
    }
    put(tmp_path / "b", f"{train}/Awe/1.jpg", f"{train}/fear/2.jpg", f"{test}/awe/3.jpg")
    labelled = read_folder(tmp_path / "b")
    assert labelled.labels.labels == ("awe", "fear")
    assert {Path(sample.key).name: (sample.label, sample.split) for sample in labelled.samples} == {
        **{"1.jpg": (0, "train"), "2.jpg": (1, "train")},
        "3.jpg": (0, "test"),
    }


def test_a_compound_name_beside_classes_is_a_class(tmp_path: Path) -> None:
    data = read_folder(put(tmp_path, "test anxiety/1.jpg", "train journey/2.jpg", "calm/3.jpg"))
    assert data.labels.labels == ("calm", "test anxiety", "train journey")
    assert {sample.split for sample in data.samples} == {None}


def test_a_split_without_class_folders_is_named_when_it_is_left_out(tmp_path: Path) -> None:
    data = read_folder(put(tmp_path, "train/1.jpg", "train/2.jpg", "test/awe/3.jpg", "test/fear/4.jpg", "test/5.jpg"))
    assert data.notes == (
        "3 images outside the class folders were left out: test/5.jpg",
        "all images of train were left out: it has no folders of classes, unlike the other splits",
    )


def test_a_split_below_a_class_folder_is_no_domain(tmp_path: Path) -> None:
    data = read_folder(put(tmp_path, "awe/train/1.jpg", "awe/test/art/2.jpg", "fear/train/3.jpg", "fear/4.jpg"))
    fields = {sample.key: (sample.split, sample.domain) for sample in data.samples}
    assert fields == {
        "awe/train/1.jpg": ("train", None),
        "awe/test/art/2.jpg": ("test", "art"),
        "fear/train/3.jpg": ("train", None),
        "fear/4.jpg": (None, None),
    }


def test_tables_take_the_split_of_a_folder_if_they_have_none(tmp_path: Path) -> None:
    put(tmp_path, "train/a.jpg", "test/b.jpg", "c.jpg")
    write(tmp_path / "t.csv", "path,label,split\ntrain/a.jpg,x,\ntest/b.jpg,y,val\nc.jpg,y,\n")
    data = open_data(f"csv:{tmp_path / 't.csv'}")
    assert [sample.split for sample in data.samples] == ["train", "val", None]
    assert data.notes == (
        "1 row without a split has that of a folder in the path",
        "1 sample is in no split: training leaves them out, and so do the scores of a split",
    )
    write(tmp_path / "metadata.csv", "file_name,label\ntrain/a.jpg,x\ntest/b.jpg,y\n")
    assert [sample.split for sample in open_data(f"hf:{tmp_path}").samples] == ["train", "test"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_abstract_and_artphoto_keep_the_split_of_a_folder(tmp_path: Path, split: str) -> None:
    root = abstract(tmp_path / "a", {"a1.jpg": (0, 0, 0, 6, 1, 0, 0, 1)})
    (root / "images").rename(root / split)
    assert [sample.split for sample in read_abstract(root).samples] == [split]
    put(tmp_path / "b", "awe_0.jpg", f"{split}/awe_1.jpg")
    assert [sample.split for sample in read_artphoto(tmp_path / "b").samples] == [None, split]


def test_walk_files_yields_all_files_sorted(tmp_path: Path) -> None:
    put(tmp_path, "b/2.jpg", "a/1.jpg", "c.jpg", "a/0/9.jpg")
    names = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)]
    assert names == ["a/0/9.jpg", "a/1.jpg", "b/2.jpg", "c.jpg"]
    with pytest.raises(DataError, match=says(tmp_path / "gone", "can't be listed (No such file")):
        list(walk_files(tmp_path / "gone"))


@pytest.mark.parametrize("name", ["a/b.jpg", "./a.jpg", "a/./b.jpg", "..a/b..jpg", "a\\b.jpg", " a.jpg"])
def test_names_inside_of_the_folder_are_accepted(tmp_path: Path, name: str) -> None:
    assert path_inside(tmp_path, name, "x").resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "name", ["", ".", "./", "..", "a/../../b", "/a", "\\a", "\\\\host\\a", "C:/a", "http://a/b", "\0"]
)
def test_names_outside_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=says("table.csv:3, path: ", "must be a path inside", tmp_path)):
        path_inside(tmp_path, name, "table.csv:3, path")


def test_counts_and_classes_of_the_real_fi(shared: Path) -> None:
    data = read_fi(shared / "data/fi")
    splits = {split: [s for s in data.samples if s.split == split] for split in ("train", "val")}
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 3026, "val": 480}
    assert [sum(s.label == i for s in splits["val"]) for i in range(8)] == [60] * 8
    assert data.notes == ()
    assert len(read_folder(shared / "data/fi")) == 3506
    assert read_folder(shared / "data/fi").labels is MIKELS


def test_loop_of_links_fails_only_when_it_is_read(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos")
    (photos / "awe" / "loop.jpg").symlink_to("loop.jpg")
    data = open_data(f"folder:{photos}")
    [loop] = [sample for sample in data.samples if sample.key.endswith("loop.jpg")]
    with pytest.raises(OSError, match="Too many levels"):
        loop.image.read()


@pytest.mark.parametrize(("labels", "without"), [(MIKELS, "sadness"), (FERPLUS, "contempt")])
def test_a_class_of_a_published_set_may_have_no_image(tmp_path: Path, labels: LabelSet, without: str) -> None:
    """The other seven of FER+ are CAER's, which are felt, and not what faces express."""
    root = class_folders(tmp_path / "m", labels.labels, each=1)
    for path in (root / without).iterdir():
        path.unlink()
    (root / without / "README.txt").write_text("later")
    assert open_data(f"folder:{root}").labels == labels


def test_an_empty_class_of_a_published_set_counts_beside_other_folders(tmp_path: Path) -> None:
    """Annotations must not keep the eighth class from being one; the note names the set, whose kind may differ."""
    root = class_folders(tmp_path / "m", [label for label in MIKELS.labels if label != "sadness"], each=1)
    for name in ("sadness", "annotations"):
        (root / name).mkdir()
        (root / name / "README.txt").write_text("later")
    data = open_data(f"folder:{root}")
    assert data.labels is MIKELS
    assert "folders of classes without images: sadness; the labels are those of mikels" in data.notes
    assert "folders without images are no classes: annotations" in data.notes


@pytest.mark.parametrize("folder", ["images", "unknown", "0"])
def test_a_part_in_one_folder_has_no_labels(tmp_path: Path, folder: str) -> None:
    """It would be a class that no training image has."""
    put(tmp_path, *(f"{split}/{label}/1.jpg" for split in ("train", "val") for label in ("cosy", "eerie")))
    data = open_data(f"folder:{put(tmp_path, f'test/{folder}/1.jpg', f'test/{folder}/2.jpg')}")
    assert data.labels.labels == ("cosy", "eerie")
    assert len(data) == 4
    assert [note for note in data.notes if f"test/{folder} were left out: a part with a single folder" in note]


def test_two_parts_in_folders_of_images_have_no_labels(tmp_path: Path) -> None:
    names = [f"train/{label}/1.jpg" for label in CAER.labels] + ["val/images/1.jpg", "test/images/1.jpg"]
    data = open_data(f"folder:{put(tmp_path / 'caer', *names)}")
    assert (data.labels, len(data)) == (CAER, 7)
    # Two parts with one class that says something keep it.
    names = ["train/cosy/1.jpg", "train/eerie/1.jpg", "val/calm/1.jpg", "test/calm/1.jpg"]
    assert open_data(f"folder:{put(tmp_path / 'own', *names)}").labels.labels == ("calm", "cosy", "eerie")


@pytest.mark.parametrize("label", ["cosy", "awe"])
def test_a_part_with_one_class_keeps_its_label(tmp_path: Path, label: str) -> None:
    put(tmp_path, *(f"train/{label}/1.jpg" for label in ("cosy", "eerie")), f"test/{label}/1.jpg")
    data = open_data(f"folder:{tmp_path}")
    assert [data.label_of(sample) for sample in data.samples if sample.split == "test"] == [label]


def test_classes_below_folders_that_contain_splits_are_named(tmp_path: Path) -> None:
    """Sites would be learned instead of emotions."""
    names = [
        f"{site}/{split}/{label}" for site in ("a", "b") for split in ("train", "test") for label in ("joy", "sad")
    ]
    [note] = open_data(f"folder:{put(tmp_path / 'sites', *(f'{name}/1.jpg' for name in names))}").notes
    assert note == (
        "the classes, such as a, b, all have the same folders (joy, sad); if these are the classes, move them to the "
        "top, or directly below folders named train, val and test"
    )
    # Folders of search words, below splits or emotions, are as they should be.
    for layout in ("train/{label}/{word}", "{label}/{word}"):
        for labels in (("cosy", "eerie"), ("awe", "fear")):
            folder = tmp_path / "words" / layout.split("/")[0] / labels[0]
            names = [layout.format(label=label, word=word) for label in labels for word in ("cartoon", "film")]
            notes = open_data(f"folder:{put(folder, *(f'{name}/1.jpg' for name in names))}").notes
            assert (notes == ()) == (layout.startswith("train") or labels[0] == "awe")
    years = put(tmp_path / "years", *(f"{name}/{i}.jpg" for name in ("2019/train", "2020/test") for i in range(2)))
    [note] = open_data(f"folder:{years}").notes
    assert note.startswith("no class, such as 2019, 2020, is in two splits; if these folders are no classes, move")


def test_a_folder_without_images_is_no_class(tmp_path: Path) -> None:
    """Annotations beside the classes would be a ninth label, and the set no published one."""
    root = class_folders(tmp_path / "m", MIKELS.labels, each=1)
    (root / "annotations").mkdir()
    (root / "annotations" / "boxes.json").write_text("{}")
    for kind in ("folder", "fi"):
        data = open_data(f"{kind}:{root}")
        assert data.labels.name == "mikels"
        assert "folders without images are no classes: annotations" in data.notes


@pytest.mark.parametrize(
    "parts", [("train_images", "test_images"), ("Train_set", "Test_set"), ("training_set", "val2")]
)
def test_compound_names_count_beside_a_folder_without_classes(parts: tuple[str, str], tmp_path: Path) -> None:
    keys = [f"{part}/{emotion}/1.jpg" for part in parts for emotion in ("awe", "fear")]
    data = open_data(f"folder:{put(tmp_path, *keys, 'assets/logo.png')}")
    assert {data.label_of(sample) for sample in data.samples} == {"awe", "fear"}
    assert {sample.split for sample in data.samples} == {"train", "val" if "val2" in parts else "test"}
    assert "folders next to the split folders were left out: assets" in data.notes


@pytest.mark.parametrize(
    "keys",
    [
        ("train_station/1.jpg", "test_tube/2.jpg", "beach/3.jpg"),
        ("train_ride/day/1.jpg", "train_ride/night/2.jpg", "test_tube/day/3.jpg", "test_tube/night/4.jpg", "sea/5.jpg"),
        ("train ride/joy/1.jpg", "train ride/awe/2.jpg", "test exam/joy/3.jpg", "test exam/awe/4.jpg", "fear/5.jpg"),
    ],
)  # fmt: skip
def test_classes_with_names_like_splits_stay_classes(keys: tuple[str, ...], tmp_path: Path) -> None:
    assert len(open_data(f"folder:{put(tmp_path, *keys)}").labels.labels) == 3


def test_parts_by_their_whole_names_exclude_others(tmp_path: Path) -> None:
    """Masks are no training images, whatever else is in the folder."""
    keys = [f"{part}/{emotion}/1.png" for part in ("train", "test", "train_masks") for emotion in ("joy", "fear")]
    data = open_data(f"folder:{put(tmp_path, *keys, 'docs/logo.png')}")
    assert {sample.key.split("/")[0] for sample in data.samples} == {"train", "test"}


@pytest.mark.parametrize(
    "keys",
    [
        ("data/awe/1.jpg", "data/fear/2.jpg", "samples/x.jpg"),
        ("ds/train/awe/1.jpg", "ds/test/fear/2.jpg", "assets/logo.png"),
        ("2019/awe/1.jpg", "2019/fear/2.jpg", "2020/awe/3.jpg", "2020/joy/4.jpg"),
        ("fold1/awe/1.jpg", "fold1/fear/2.jpg", "fold1/joy/3.jpg", "fold2/awe/4.jpg", "fold2/fear/5.jpg"),
    ],
)
def test_a_note_names_classes_whose_folders_are_emotions(keys: tuple[str, ...], tmp_path: Path) -> None:
    data = open_data(f"folder:{put(tmp_path, *keys)}")
    assert any("have folders named as emotions (awe, fear" in note for note in data.notes)


def test_no_note_where_emotions_have_folders_of_emotions(tmp_path: Path) -> None:
    data = open_data(f"folder:{put(tmp_path, 'joy/awe/1.jpg', 'joy/fear/2.jpg', 'sadness/3.jpg')}")
    assert not any("named as emotions" in note for note in data.notes)


@pytest.mark.parametrize(
    ("link", "target", "other"),
    [("joy", "awe", "awe"), ("joy", "awe/sub", "awe"), ("latest", ".", "awe"), ("val", "test", None)],
)
def test_a_note_names_links_to_images_of_others(link: str, target: str, other: str | None, tmp_path: Path) -> None:
    keys = ["awe/1.jpg", "awe/sub/3.jpg", "fear/2.jpg"]
    if other is None:
        keys = [f"{part}/{key}" for part in ("train", "test") for key in keys]
    root = put(tmp_path / "data", *keys)
    (root / link).symlink_to(target)
    data = open_data(f"folder:{root}")
    names = [note for note in data.notes if note.endswith("which are read twice; remove the link")]
    expected = f"{link} is a link to the images of {other}" if other else "val/awe is a link to the images of test/awe"
    assert names[0].startswith(expected)


def test_a_link_to_a_folder_elsewhere_has_no_note(tmp_path: Path) -> None:
    root = put(tmp_path / "data", "awe/1.jpg")
    (root / "fear").symlink_to(put(tmp_path / "elsewhere", "2.jpg"))
    assert open_data(f"folder:{root}").notes == ()
