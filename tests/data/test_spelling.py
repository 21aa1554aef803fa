"""Names that look the same are the same: composed and decomposed accents, blanks, characters without width."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import put, says, words, write
from uniemox.data.source import open_data
from uniemox.data.split_files import write_splits
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.labels import LabelSet, clean, recognise_labels
from uniemox.spelling import match_names, spelled, spelled_alike
from uniemox_curate.plan import plan_of

NAMES = ("fröhlich", "traurig sein", "überrascht")


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@given(st.text())
def test_a_spelling_is_composed_and_the_same_for_all_forms(text: str) -> None:
    spelling = spelled(text)
    assert spelling == spelled(spelling) == spelled(decomposed(spelling)) == spelled(f"\ufeff {spelling}\u00a0\u200b")
    assert unicodedata.is_normalized("NFC", spelling)
    assert "  " not in spelling
    assert spelling == spelling.strip()


@given(st.text())
def test_a_class_name_stays_one_after_cleaning(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == spelled(cleaned)
    assert recognise_labels([text]).index(decomposed(text)) == 0


@pytest.mark.parametrize(
    "form",
    [
        decomposed,
        str.upper,
        lambda name: f"\ufeff{name}\u200b",
        lambda name: name.replace(" ", "\u00a0\t"),
        lambda name: f"\u201c{name}\u201d",
        lambda name: f"\u00ab\u00a0{name}\u00a0\u00bb",
    ],
)
def test_class_folders_of_all_forms_are_one_class(tmp_path: Path, form) -> None:
    for name in NAMES:
        put(tmp_path, f"train/{name}/1.jpg", f"test/{form(name)}/2.jpg")
    data = open_data(f"folder:{tmp_path}")
    assert data.labels.labels == NAMES
    assert sorted(words(data).values()) == sorted(NAMES * 2)


def test_a_table_finds_its_images_under_the_name_on_disk(tmp_path: Path) -> None:
    """A table of macOS, with decomposed names, and images that were copied to Linux; the label has a space more."""
    put(tmp_path, *(f"bilder/{name}.jpg" for name in NAMES), "bilder/plain.jpg")
    rows = [f"{decomposed(f'bilder/{name}.jpg')},{decomposed(name)}\u00a0,{decomposed('Jörg')}" for name in NAMES]
    write(tmp_path / "t.csv", "\n".join(["path,label\u200b,group", *rows, f"bilder/plain.jpg,{NAMES[0]},Jörg"]))
    data = open_data(f"csv:{tmp_path / 't.csv'}")
    assert words(data) == {**{f"bilder/{name}.jpg": name for name in NAMES}, "bilder/plain.jpg": NAMES[0]}
    assert {sample.group for sample in data.samples} == {"Jörg"}
    assert all(sample.image.read() for sample in data.samples)


def test_files_that_only_blanks_tell_apart_are_found_by_their_exact_name_alone(tmp_path: Path) -> None:
    put(tmp_path, "a b.jpg", "a  b.jpg")
    write(tmp_path / "t.csv", "path,label\na b.jpg,x\na  b.jpg,y\n")
    assert words(open_data(f"csv:{tmp_path / 't.csv'}")) == {"a b.jpg": "x", "a  b.jpg": "y"}
    write(tmp_path / "t.csv", "path,label\na\u00a0b.jpg,x\n")
    with pytest.raises(DataError, match=says("t.csv:2, path: 'a\\xa0b.jpg' may be any of")):
        open_data(f"csv:{tmp_path / 't.csv'}")


def test_splits_and_exclusions_of_another_system_are_matched(tmp_path: Path) -> None:
    put(tmp_path / "data", *(f"{name}/{name}.jpg" for name in NAMES))
    source = f"folder:{tmp_path / 'data'}"
    keys = [f"{name}/{name}.jpg" for name in NAMES]
    write_splits(tmp_path / "s.json", {decomposed(key): "test" for key in keys[:2]}, source="x", how="y")
    data = open_data(source, splits=tmp_path / "s.json")
    assert [(sample.key, sample.split) for sample in data.samples] == [(key, "test") for key in keys[:2]]
    write(tmp_path / "e.json", {"exclude": [{"key": decomposed(keys[0])}]})
    assert [sample.key for sample in open_data(source, exclude=tmp_path / "e.json").samples] == keys[1:]


def test_boxes_of_another_system_are_matched(tmp_path: Path) -> None:
    for name in NAMES:
        put(tmp_path, f"{name}/{name}.jpg")
    lines = [{"detector": "x"}, {"key": decomposed(f"{NAMES[0]}/{NAMES[0]}.jpg"), "boxes": [[1, 1, 9, 9, 0.5]]}]
    write(tmp_path / "persons.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    data = open_data(f"folder:{tmp_path}")
    assert [len(sample.persons or ()) for sample in data.samples] == [1, 0, 0]


def test_labels_that_look_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=says("mine: the labels 'fr\\xf6h' and 'fro\\u0308h' differ only in blanks")):
        LabelSet("mine", ("fröh", decomposed("fröh")), "evoked")
    assert LabelSet("mine", (decomposed("fröh"), "b"), "evoked").index("Fröh") == 0
    put(tmp_path, "awe/1.jpg", "fear/1.jpg", "fear\u200b/2.jpg")
    with pytest.raises(DataError, match=says("the folders 'fear' and 'fear\\u200b' differ only in")):
        open_data(f"folder:{tmp_path}")


def test_columns_that_mean_the_same_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg")
    write(tmp_path / "t.csv", "path,label,Label\n1.jpg,a,b\n")
    with pytest.raises(DataError, match=says("t.csv:1: two columns mean label, 'Label' is one")):
        open_data(f"csv:{tmp_path / 't.csv'}")


def test_plans_are_compared_like_folders() -> None:
    plan = plan_of({"keywords": {decomposed("fröhlich"): ["Fest"], "still": ["See"]}}, "p")
    assert plan.labels == ("fröhlich", "still")
    assert plan.label_of(decomposed("Fröhlich\u200b")) == "fröhlich"
    with pytest.raises(ConfigError, match="differ only in blanks, invisible characters"):
        plan_of({"keywords": {"still": ["See"], "still ": ["Meer"]}}, "p")
    with pytest.raises(ConfigError, match="is searched for a and for b"):
        plan_of({"keywords": {"a": ["Müll"], "b": [decomposed("müll")]}}, "p")


def test_names_are_matched_exactly_before_they_are_matched_by_spelling() -> None:
    assert match_names(["a b", "a\u00a0b", "c"], {"a b": 1, "d": 2}) == {"a b": "a b", "a\u00a0b": "a b"}
    assert match_names(["a\u00a0b"], {"a b": 1, "a  b": 2}) == {}
    assert spelled_alike(["a", "b"]) == []
