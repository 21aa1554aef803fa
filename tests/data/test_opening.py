"""Opening a data set by KIND:PATH with the files beside it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import HEADER, abstract, emoset, emotion6, put, sidecar, write
from uniemox.data.kinds import READERS
from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.sidecar import read_sidecar
from uniemox.data.source import folder_of, open_data, parse_source
from uniemox.data.split_files import write_splits
from uniemox.errors import AnnotationError, ConfigError, DataError, UniemoxError
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images in two classes."""
    return put(tmp_path / "data", "awe/1.jpg", "fear/2.jpg")


# KIND:PATH


def test_a_path_without_its_kind_is_suggested_with_one(root: Path) -> None:
    suggested = f"write folder:{root}, and for images without labels 'folder:{root}?labels=none'"
    with pytest.raises(ConfigError, match=re.escape(suggested)):
        open_data(str(root))
    without = open_data(f"folder:{root}?labels=none")
    assert ([sample.key for sample in without.samples], without.has_labels) == (["awe/1.jpg", "fear/2.jpg"], False)
    (root / "t.csv").write_text("path\n")
    with pytest.raises(ConfigError, match=re.escape(f"; for this table, write csv:{root / 't.csv'}")):
        open_data(str(root / "t.csv"))
    with pytest.raises(ConfigError, match="has the option kind twice; give it once"):
        open_data(f"folder:{root}?kind=felt&kind=evoked")


def test_files_may_be_given_as_texts(root: Path) -> None:
    write_splits(root / "s.json", {"awe/1.jpg": "train", "fear/2.jpg": "test"}, source="x", how="by hand")
    data = open_data(f"folder:{root}", splits=str(root / "s.json"))
    assert [sample.split for sample in data.samples] == ["train", "test"]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("fi:photos", ("fi", "photos", {})),
        ("emotion6:a/b?label=vote", ("emotion6", "a/b", {"label": "vote"})),
        ("csv:t.csv?labels=mikels&missing=skip", ("csv", "t.csv", {"labels": "mikels", "missing": "skip"})),
        ("folder:C:/what?", ("folder", "C:/what?", {})),
        ("folder:is this it?/really", ("folder", "is this it?/really", {})),
        ("shards:s3://bucket/a", ("shards", "s3://bucket/a", {})),
    ],
)
def test_sources_have_three_parts(source: str, parts: tuple[str, str, dict[str, str]]) -> None:
    assert parse_source(source) == parts


@pytest.mark.parametrize("source", ["", "photos", "fi:", "imagenet:photos", "FI:photos", ":photos"])
def test_unknown_kinds_are_refused_with_all_kinds(source: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"{source!r} is not a data set; write KIND:PATH, with one of emoset")
    ):
        open_data(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fi:x?label=vote", "fi has no option 'label'; it has none"),
        ("emotion6:x?vote=label", "emotion6 has no option 'vote'; it has label"),
        ("emotion6:x?label=mean", "emotion6?label must be one of folder, vote, got 'mean'"),
        ("csv:x?missing=drop", "csv?missing must be one of fail, skip, got 'drop'"),
        ("csv:x?kind=guessed", "csv?kind must be one of evoked, felt, expressed, got 'guessed'"),
        ("folder:x?kind=", "folder?kind must be one of evoked, felt, expressed, got ''"),
        ("synthetic:many", "expected a whole number, as in synthetic:1000, got 'many'"),
        ("synthetic:9?seed=x", "seed must be a whole number"),
    ],
)
def test_wrong_options_are_refused(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_data(source)


def test_every_kind_has_a_reader_that_names_what_is_missing(tmp_path: Path) -> None:
    for kind in READERS:
        if kind != "synthetic":
            with pytest.raises(DataError, match="gone"):
                open_data(f"{kind}:{tmp_path / 'gone'}")


def test_options_reach_their_reader(tmp_path: Path, root: Path) -> None:
    emotion6(tmp_path / "e6", {"joy/1.jpg": (0, 0, 1, 0, 0, 0, 0), "joy/2.jpg": (0, 0, 0, 0, 0, 0, 1)})
    data = open_data(f"emotion6:{tmp_path / 'e6'}?label=vote")
    assert [data.label_of(sample) for sample in data.samples] == ["fear"]
    assert data.name == f"emotion6:{tmp_path / 'e6'}?label=vote"
    assert open_data(f"folder:{root}?kind=felt").labels.kind == "felt"
    assert open_data("synthetic:5?seed=3").samples != open_data("synthetic:5?seed=4").samples


def test_six_class_folders_are_six_classes_unless_the_set_is_asked_for(tmp_path: Path) -> None:
    for word in ("amusement", "anger", "awe", "contentment", "disgust", "Excited"):
        put(tmp_path / "six" / word, "1.jpg")
    source = f"folder:{tmp_path / 'six'}"
    assert open_data(source).labels.labels == ("amusement", "anger", "awe", "contentment", "disgust", "excitement")
    assert open_data(f"{source}?labels=mikels").labels is MIKELS
    assert len(open_data(f"fi:{tmp_path / 'six'}").labels) == 8


def test_two_names_of_one_published_label_are_named(tmp_path: Path) -> None:
    for word in ("amused", "anger", "awe", "content", "contentment", "sad"):
        put(tmp_path / "six" / word, "1.jpg")
    source = f"folder:{tmp_path / 'six'}"
    data = open_data(source)
    assert len(data.labels) == 6
    [note] = data.notes
    assert note == (
        "the classes content and contentment are one label of mikels, and two here; to make them one, give them one "
        "name, or read a folder or a table with labels=mikels"
    )
    as_one = open_data(f"{source}?labels=mikels")
    assert as_one.labels is MIKELS
    assert as_one.notes == ()
    assert [as_one.label_of(sample) for sample in as_one.samples].count("contentment") == 2


def test_folder_of_sidecars() -> None:
    assert folder_of("fi:a/b") == Path("a/b")
    assert folder_of("csv:a/b/t.csv?missing=skip") == Path("a/b")
    for source in ("synthetic:9", "shards:x"):
        with pytest.raises(ConfigError, match=f"{source}: no file can be stored next to"):
            folder_of(source)


def test_several_samples_of_one_image_have_names_of_their_own(tmp_path: Path) -> None:
    put(tmp_path / "t", "a.jpg")
    write(tmp_path / "t/data.csv", "path,label\na.jpg,awe\na.jpg,fear\n")
    samples = open_data(f"csv:{tmp_path / 't/data.csv'}").samples
    assert [(sample.key, sample.image_key, sample.group) for sample in samples] == [
        ("a.jpg", "a.jpg", "a.jpg"),
        ("a.jpg#2", "a.jpg", "a.jpg"),
    ]


def test_people_come_from_the_default_or_the_given_file(root: Path, tmp_path: Path) -> None:
    source = f"fi:{root}"
    assert [sample.persons for sample in open_data(source).samples] == [None, None]
    sidecar(root / PERSONS, {"awe/1.jpg": {"boxes": [[1, 2, 11.5, 12, 0.75]]}, "gone.jpg": {"boxes": []}})
    data = open_data(source)
    assert data.samples[0].persons == (Detection(Box(1, 2, 11.5, 12), 0.75),)
    assert data.samples[1].persons is None  # nobody looked
    assert data.notes == (f"people of 1 image from {root / PERSONS} (drawn by hand)",)
    other = sidecar(tmp_path / "o.jsonl", {"fear/2.jpg": {"boxes": []}, "awe/1.jpg": {"boxes": None}})
    assert [sample.persons for sample in open_data(source, persons=other).samples] == [None, ()]
    empty = write(tmp_path / "empty.jsonl", "")
    data = open_data(source, persons=empty)
    assert [sample.persons for sample in data.samples] == [None, None]
    assert data.notes == (f"people of 0 images from {empty} (unknown detector)",)


@pytest.mark.parametrize(
    "boxes",
    [*([row] for row in ([1, 2, 3, 4], [1, 2, 3, "x", 0.5], [3, 2, 1, 4, 0.5], [1, 2, 3, 4, 1.5], [1, 2, 3, 4, -0.5])),
     [[1, 2, float("nan"), 4, 0.5]], [None], 5, "x", {"a": 1}],
)  # fmt: skip
def test_wrong_boxes_are_named(root: Path, boxes: object) -> None:
    sidecar(root / PERSONS, {"awe/1.jpg": {"boxes": boxes}})
    message = rf"{re.escape(str(root / PERSONS))}, awe/1\.jpg: field boxes.*; find the people again"
    with pytest.raises(DataError, match=message):
        open_data(f"fi:{root}")


def test_texts_come_from_the_default_or_the_given_file(root: Path, tmp_path: Path) -> None:
    sidecar(root / TEXTS, {"fear/2.jpg": {"text": "A photo of a café.", "annotation": {"scene": "cafe"}}})
    data = open_data(f"fi:{root}")
    assert [(s.text, s.annotation) for s in data.samples] == [
        (None, None),
        ("A photo of a café.", {"scene": "cafe", "emotion": "fear"}),
    ]
    assert data.notes == (f"texts of 1 image from {root / TEXTS}",)
    wrong = sidecar(tmp_path / "w.jsonl", {"awe/1.jpg": {"text": 3}})
    with pytest.raises(DataError, match=r"w\.jsonl, awe/1\.jpg: field text: expected a text, got 3"):
        open_data(f"fi:{root}", texts=wrong)


def test_a_text_names_the_emotion_of_its_own_sample(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    table = write(tmp_path / "t.csv", "path,label\na.jpg,awe\na.jpg,fear\n")
    generated = {
        "text": "A photo of a cafe. The overall emotion is awe.",
        "annotation": {"scene": "cafe", "emotion": "awe"},
    }
    sidecar(tmp_path / TEXTS, {"a.jpg": generated})
    texts = [sample.text for sample in open_data(f"csv:{table}").samples]
    assert texts == [generated["text"], "A photo of a cafe. The overall emotion is fear."]
    sidecar(tmp_path / TEXTS, {"a.jpg": generated | {"text": "By hand."}})
    assert [sample.text for sample in open_data(f"csv:{table}").samples] == ["By hand."] * 2


def test_annotations_of_emoset_stay_under_given_texts(tmp_path: Path) -> None:
    root = emoset(tmp_path, {"awe/1": {"scene": "beach"}})
    sidecar(root / TEXTS, {"image/awe/1.jpg": {"text": "Another.", "annotation": {"scene": "cafe"}}})
    sample = open_data(f"emoset:{root}").samples[0]
    assert (sample.text, sample.annotation) == ("Another.", {"scene": "beach", "emotion": "awe"})
    sidecar(root / "w.jsonl", {"image/awe/1.jpg": {"text": "One.", "annotation": {}}}, HEADER | {"with_emotion": False})
    sample = open_data(f"emoset:{root}", texts=root / "w.jsonl").samples[0]
    assert (sample.text, sample.annotation) == ("One.", {"scene": "beach", "emotion": None})


def test_people_of_one_image_share_its_line(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    table = write(tmp_path / "t.csv", "path,label\na.jpg,awe\na.jpg,fear\n")
    sidecar(tmp_path / PERSONS, {"a.jpg": {"boxes": [[0, 0, 5, 5, 1]]}})
    data = open_data(f"csv:{table}")
    assert [sample.persons for sample in data.samples] == [(Detection(Box(0, 0, 5, 5), 1.0),)] * 2


# Exclusion


def test_listed_images_are_left_out(root: Path, tmp_path: Path) -> None:
    listed = write(tmp_path / "check.json", {"exclude": [{"key": "awe/1.jpg", "why": "x"}, {"key": "gone.jpg"}]})
    data = open_data(f"fi:{root}", exclude=listed)
    assert [sample.key for sample in data.samples] == ["fear/2.jpg"]
    assert data.notes == (
        f"1 of the 2 images listed in {listed} were left out; 1 not among these images: not in the data, or left out "
        "by the splits before",
    )
    write(listed, {"exclude": [{"key": "awe/1.jpg"}, {"key": "fear/2.jpg"}]})
    with pytest.raises(DataError, match=r"check\.json excludes all samples of fi:"):
        open_data(f"fi:{root}", exclude=listed)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"exclude": 3}', '{"exclude": ["a"]}', '{"exclude": [{"key": []}]}', '{"exclude": [{"key": 5}]}'],
)
def test_wrong_lists_are_named(root: Path, tmp_path: Path, content: str) -> None:
    message = rf"{re.escape(str(tmp_path))}/c\.json: .*; uniemox data check --json writes such files"
    with pytest.raises(DataError, match=message):
        open_data(f"fi:{root}", exclude=write(tmp_path / "c.json", content))


LINES = b'{"detector": "x"}\n{"key": "awe/1.jpg", "boxes": [[1, 2, 3, 4, 0.5]], "text": "A photo."}\n'
FILES = {
    "persons": LINES,
    "train.json": json.dumps([["awe", "1", "image/awe/1.jpg", "annotation/awe/1.json"]]).encode(),
    "annotation/awe/1.json": json.dumps({"scene": "beach", "object": ["Dog"], "brightness": 0.5}).encode(),
}


@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_annotations_are_read_or_raise_our_error_with_their_path(
    tmp_path_factory: pytest.TempPathFactory, name: str, draws: st.DataObject
) -> None:
    """Pieces cut out and put in: nothing but an error of ours, with the file's name."""
    root = emoset(tmp_path_factory.mktemp("emoset"), {"awe/1": {}})
    data = bytearray(FILES[name])
    for _ in range(draws.draw(st.integers(1, 3))):
        at = draws.draw(st.integers(0, len(data)))
        pieces = [*b'[ ] { } " , : null NaN -1 \\ud800 \xff \0 1e999'.split(b" "), b"\n"]
        put_in = draws.draw(st.one_of(st.sampled_from(pieces), st.binary(max_size=3)))
        data[at : at + draws.draw(st.integers(0, 10))] = put_in
    path = root / name
    path.write_bytes(bytes(data))
    try:
        if name == "persons":
            lines = read_sidecar(path)[1]
            assert all(line["key"] == key for key, line in lines.items())
        else:
            data = open_data(f"emoset:{root}")
            assert [sample.label for sample in data.samples] == [3]
    except UniemoxError as error:
        assert isinstance(error, DataError | AnnotationError)
        assert str(root) in str(error)


def test_one_data_set_of_every_layout_by_its_name(tmp_path: Path) -> None:
    put(tmp_path / "folders", "awe/x/1.jpg", "fear/2.jpg")
    put(tmp_path / "ube", "joy/x/1.jpg")
    put(tmp_path / "caer", "train/happy/1.jpg")
    put(tmp_path / "heco", "peace/1.jpg")
    put(tmp_path / "artphoto", "sad_1.jpg")
    emoset(tmp_path / "emoset", {"awe/1": {}})
    emotion6(tmp_path / "emotion6", {"joy/1.jpg": (0, 0, 1, 0, 0, 0, 0)})
    abstract(tmp_path / "abstract", {"a.jpg": (1, 0, 0, 0, 2, 0, 0, 0)})
    expected = {
        "fi:folders": [("awe/x/1.jpg", "awe"), ("fear/2.jpg", "fear")],
        "emo8:folders": [("awe/x/1.jpg", "awe"), ("fear/2.jpg", "fear")],
        "folder:folders": [("awe/x/1.jpg", "awe"), ("fear/2.jpg", "fear")],
        "ube:ube": [("joy/x/1.jpg", "joy")],
        "caer-s:caer": [("train/happy/1.jpg", "happy")],
        "heco:heco": [("peace/1.jpg", "peace")],
        "artphoto:artphoto": [("sad_1.jpg", "sadness")],
        "emoset:emoset": [("image/awe/1.jpg", "awe")],
        "emotion6:emotion6": [("images/joy/1.jpg", "joy")],
        "abstract:abstract": [("images/a.jpg", "disgust")],
    }
    for source, samples in expected.items():
        kind, _, folder = source.partition(":")
        data = open_data(f"{kind}:{tmp_path / folder}")
        assert [(sample.key, data.label_of(sample)) for sample in data.samples] == samples, source


@pytest.fixture
def own_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reader of a package outside ours, with a typed option."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "__init__.py").write_text("")
    (tmp_path / "outside" / "readers.py").write_text(
        "from pathlib import Path\n"
        "from uniemox.data.synthetic_scenes import synthetic\n"
        "def open_mine(root: Path, *, count: int = 4):\n"
        "    return synthetic(count)\n"
        "def wrong(root: Path):\n"
        "    return []\n"
        "def lazy(root: 'Elsewhere', *, count: int = 4):\n"
        "    return synthetic(count)\n"
        "from functools import partial\n"
        "half = partial(open_mine, count=2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"outside.readers:open_mine:{tmp_path}"


def test_a_reader_of_another_package_is_named_by_its_import_path(own_reader: str) -> None:
    assert len(open_data(own_reader)) == 4
    both = open_data(f"{own_reader}?count=3,synthetic:2")
    assert [part.name for part in both.parts] == ["open_mine", "synthetic"]
    assert len(both) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("open_mine", "none"), "there is no reader outside.readers:none"),
        (("outside.readers", "outside.nothing"), "is its package installed or on PYTHONPATH"),
        (("open_mine", "wrong"), "must return a uniemox.DataSet, got list"),
    ],
)
def test_missing_reader_is_reported_by_name(own_reader: str, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_data(own_reader.replace(*change))


def test_options_are_converted_to_the_types_of_the_reader(own_reader: str) -> None:
    with pytest.raises(ConfigError, match="count must be a whole number, got 'x'"):
        open_data(f"{own_reader}?count=x")
    with pytest.raises(ConfigError, match="has no option 'seeds'; it has count"):
        open_data(f"{own_reader}?seeds=1")


def test_readers_with_unreadable_types_are_called(own_reader: str) -> None:
    """As types that are imported for a type checker alone, and functions with some arguments."""
    lazy = own_reader.replace("open_mine", "lazy")
    assert len(open_data(lazy)) == 4
    assert len(open_data(f"{lazy}?count=3")) == 3
    half = own_reader.replace("open_mine", "half")
    assert len(open_data(half)) == 2
    assert len(open_data(f"{half}?count=3")) == 3


def test_a_data_set_named_in_a_file_imports_no_package_and_connects_nowhere(own_reader: str) -> None:
    sources = ["shards:http://127.0.0.1:9/x", "folder:a,shards:s3://x", "shards:zip::x", r"csv:a.csv?root=\\host\a"]
    for source in (own_reader, *sources):
        with pytest.raises(ConfigError, match="opened only if you type it"):
            open_data(source, from_file=True)
