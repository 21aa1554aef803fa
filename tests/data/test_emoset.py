"""EmoSet's reader: both releases, every attribute optional, and every wrong thing named with its file and field."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import EMOTIONS, JPEG, emoset, info, put, says, words, write
from uniemox.data.prompts import BRIGHTNESS, COLORFULNESS, describe
from uniemox.data.readers.emoset import read_emoset
from uniemox.errors import AnnotationError, DataError
from uniemox.labels import MIKELS

# EmoSet

FULL = {
    "image_id": "a1",
    "emotion": "awe",
    "brightness": 0.7,
    "colorfulness": 0.1,
    "scene": "amusement_park",
    "object": ["Dog", "Ferris wheel"],
}


@pytest.mark.parametrize("ids", [True, False])
def test_emoset_reads_both_releases(tmp_path: Path, ids: bool) -> None:
    root = emoset(tmp_path, {"awe/a1": FULL, "sadness/s1": {"emotion": "sadness"}}, ids=ids)
    data = read_emoset(root)
    assert data.labels.labels == EMOTIONS  # the order of info.json, not ours
    assert [(s.key, s.label, s.split) for s in data.samples] == [
        ("image/awe/a1.jpg", 3, "train"),
        ("image/sadness/s1.jpg", 0, "train"),
    ]
    assert data.samples[0].annotation == FULL
    assert data.samples[0].text == (
        "A bright, nearly colorless photo of an amusement park. It shows dog and ferris wheel. "
        "The overall emotion is awe."
    )
    assert data.samples[1].text == "The overall emotion is sadness."
    assert data.samples[0].image.read() == JPEG
    assert data.notes == ()


def test_emoset_reads_only_existing_splits(tmp_path: Path) -> None:
    emoset(tmp_path, {"awe/1": {}}, split="val")
    data = read_emoset(emoset(tmp_path, {"fear/2": {}, "anger/3": {}}, split="test"))
    assert [(s.key, s.split) for s in data.samples] == [
        ("image/awe/1.jpg", "val"),
        ("image/fear/2.jpg", "test"),
        ("image/anger/3.jpg", "test"),
    ]
    assert data.samples[0].annotation == {"emotion": "awe"}


def test_emoset_skips_missing_files_on_request(tmp_path: Path) -> None:
    root = emoset(tmp_path, {"awe/1": {}, "fear/2": {}, "anger/3": {}})
    (root / "image/awe/1.jpg").unlink()
    (root / "annotation/fear/2.json").unlink()
    with pytest.raises(DataError, match=says(root / "train.json", "record 0", "image/awe/1.jpg does not exist")):
        read_emoset(root)
    data = read_emoset(root, missing="skip")
    assert words(data) == {"image/anger/3.jpg": "anger"}
    assert data.notes == ("2 records were left out: image or annotation is missing",)
    put(root, "image/awe/1.jpg")
    with pytest.raises(DataError, match=says("record 1", "annotation/fear/2.json does not exist", "?missing=skip")):
        read_emoset(root)
    for name in ("awe/1", "anger/3"):
        (root / f"image/{name}.jpg").unlink()
    with pytest.raises(DataError, match="3 records, and no image of any of them is there"):
        read_emoset(root, missing="skip")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("brightness", "0.5", "brightness must be a number from 0 to 1, got '0.5'"),
        ("brightness", 1.5, "brightness must be a number from 0 to 1"),
        ("colorfulness", [0.5], "colorfulness must be a number"),
        ("colorfulness", float("nan"), "colorfulness must be a number"),
        ("colorfulness", 10**400, "colorfulness must be a number"),
        ("scene", 3, "scene must be a word, got 3"),
        ("scene", "Mars", "scene: 'Mars' is not in the vocabulary of info.json"),
        ("object", "Dog", "object must be a list of words"),
        ("object", {"Dog": 1}, "object must be a list of words"),
        ("object", ["Dog", 7], "object must be a word, got 7"),
        ("facial_expression", ["joy"], "facial_expression must be a word"),
        ("human_action", True, "human_action must be a word"),
        ("emotion", "fear", "emotion: 'fear', but the record says 'awe'"),
        ("emotion", 3, "emotion: 3, but the record says 'awe'"),
    ],
)
def test_wrong_emoset_annotations_are_reported_with_file_and_field(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    root = emoset(tmp_path, {"awe/1": {"emotion": "awe", field: value}})
    with pytest.raises(AnnotationError, match=says(root / "annotation/awe/1.json", message)):
        read_emoset(root)


@pytest.mark.parametrize(
    "annotation",
    [
        {"scene": None, "object": None, "brightness": None},
        {"object": []},
        {"object": ["dog", None, ""], "scene": "AMUSEMENT_PARK"},
        {"human_action": "waving"},  # info.json here has no words for actions
        {"brightness": 1, "colorfulness": 0},
        {"object": ["Unicorn"]},  # the published vocabulary lacks many objects
    ],
)
def test_emosets_attributes_are_optional(tmp_path: Path, annotation: dict[str, Any]) -> None:
    assert read_emoset(emoset(tmp_path, {"awe/1": annotation})).samples[0].annotation == {
        **annotation,
        "emotion": "awe",
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("awe", "expected [emotion, (image id,) image, annotation], got awe"),
        (["awe", "image/1.jpg"], "expected [emotion"),
        (["awe", 1, "image/1.jpg"], "expected [emotion"),
        (["awe", "1", None, "annotation/1.json"], "expected [emotion"),
        (["awe", "1", "../1.jpg", "annotation/1.json"], "image: '../1.jpg' must be a path inside"),
        (["awe", "1", "image/../../1.jpg", "a.json"], "image: 'image/../../1.jpg' must be a path inside"),
        (["awe", "1", "/etc/passwd", "a.json"], "image: '/etc/passwd' must be a path inside"),
        (["awe", "1", "C:\\1.jpg", "a.json"], "image: 'C:\\\\1.jpg' must be a path inside"),
        (["awe", "1", "image\\..\\..\\1.jpg", "a.json"], "must be a path inside"),
        (["awe", "1", "", "a.json"], "image: '' must be a path inside"),
        (["awe", "1", ".", "a.json"], "image: '.' must be a path inside"),
        (["awe", "1", "a\0b", "a.json"], "must be a path inside"),
        (["awe", "1", "a" * 300, "a.json"], "does not exist"),
        (["awe", "1", "image/awe/1.jpg", "../a.json"], "annotation: '../a.json' must be a path inside"),
        (["bored", "1", "image/awe/1.jpg", "annotation/awe/1.json"], "emotion: 'bored' is none of the 8 labels"),
        (["awe", "1", "image/awe/1.jpg", "annotation/awe/1.json"], "is the annotation of an earlier record"),
    ],
)
def test_wrong_emoset_records_are_reported_with_their_number(tmp_path: Path, record: object, message: str) -> None:
    root = emoset(tmp_path, {"awe/1": {}})
    good = ["awe", "1", "image/awe/1.jpg", "annotation/awe/1.json"]
    write(root / "train.json", [good, record])
    with pytest.raises(DataError, match=says(root / "train.json", "record 1", message)):
        read_emoset(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.json", "[[1,", "not JSON"),
        ("train.json", "[" * 100_000, "not JSON"),
        ("train.json", "[" + "1" * 5000 + "]", "not JSON"),
        ("train.json", {"awe": []}, "expected a list, got an object"),
        ("train.json", b"[\0]", "not a text file"),
        ("train.json", "[]", "0 records"),
        ("annotation/awe/1.json", "{", "not JSON"),
        ("annotation/awe/1.json", '{"object":' + "[" * 50_000, "not JSON"),
        ("annotation/awe/1.json", '{"brightness": ' + "9" * 4400 + "}", "not JSON"),
        ("annotation/awe/1.json", [], "expected an object, got a list"),
        ("annotation/awe/1.json", b"\0", "not a text file"),
        ("info.json", "", "not JSON"),
        ("info.json", [1], "expected an object, got a list"),
        ("info.json", {}, "emotion: expected amusement, anger, awe"),
        ("info.json", {"emotion": EMOTIONS}, ", emotion: expected an object, got a list"),
        ("info.json", {"emotion": {}}, ", emotion: field label2idx is missing"),
        (
            "info.json",
            {"emotion": {"label2idx": {"awe": 1, "fear": 2}}},
            "emotion: field label2idx: expected words with",
        ),
        (
            "info.json",
            {"emotion": {"label2idx": {"awe": "0"}}},
            "emotion: field label2idx[...]: expected a whole number",
        ),
        ("info.json", info(emotion=EMOTIONS[:7]), "emotion: expected amusement, anger, awe"),
        ("info.json", info(emotion=(*EMOTIONS[:7], "joy")), "emotion: expected amusement, anger, awe"),
        ("info.json", {**info(), "scene": None}, "scene: expected an object, got null"),
        ("info.json", {**info(), "scene": {"label2idx": ["beach"]}}, "scene: field label2idx: expected an object"),
        ("info.json", {**info(), "scene": {"label2idx": {"beach": [0]}}}, "label2idx[...]: expected a whole number"),
    ],
)
def test_wrong_emoset_files_are_reported_by_name(tmp_path: Path, name: str, content: object, message: str) -> None:
    root = emoset(tmp_path, {"awe/1": {}})
    write(root / name, content)
    where = root if message == "0 records" else root / name
    with pytest.raises((DataError, AnnotationError), match=says(where, message)):
        read_emoset(root)


def test_emoset_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says(tmp_path / "gone", "there is no such folder")):
        read_emoset(tmp_path / "gone")
    with pytest.raises(DataError, match=says(tmp_path / "info.json", "can't be read", "No such file")):
        read_emoset(tmp_path)
    write(tmp_path / "info.json", info())
    with pytest.raises(DataError, match=r"there is no train\.json, val\.json or test\.json"):
        read_emoset(tmp_path)


WORD = st.from_regex(r"[b-df-hj-np-tv-z]{1,6}(_[b-z]{1,6})?", fullmatch=True)  # no first vowel, no "and"
LEVEL = st.none() | st.floats(0, 1)


@given(LEVEL, LEVEL, st.none() | WORD, st.lists(WORD, max_size=8), st.none() | WORD, st.sampled_from(EMOTIONS))
def test_text_contains_every_field_of_the_annotation(
    bright: float | None,
    colorful: float | None,
    scene: str | None,
    objects: list[str],
    action: str | None,
    emotion: str,
) -> None:
    annotation = {"brightness": bright, "colorfulness": colorful, "scene": scene, "object": objects,
                  "human_action": action, "emotion": emotion}  # fmt: skip
    text = describe(annotation, with_emotion=True)
    match = re.fullmatch(
        r"(A (?P<levels>[a-z, ]*?)\s?photo( of a (?P<scene>.+?))?\. ?)?(It shows (?P<objects>.+?)\. ?)?"
        r"(The action is (?P<action>.+?)\. ?)?The overall emotion is (?P<emotion>.+)\.",
        text,
    )
    assert match is not None, text
    levels = (match["levels"] or "").split(", ")
    expected = [names[min(4, sum(value >= step for step in (0.2, 0.4, 0.6, 0.8)))]
                for value, names in ((bright, BRIGHTNESS), (colorful, COLORFULNESS)) if value is not None]  # fmt: skip
    assert levels == (expected or [""])
    assert match["scene"] == (scene and scene.replace("_", " "))
    assert re.split(", | and ", match["objects"] or "") == ([o.replace("_", " ") for o in objects] or [""])
    assert (match["action"], match["emotion"]) == (action and action.replace("_", " "), emotion)


def test_emosets_real_vocabulary_is_read_in_its_order(shared: Path, tmp_path: Path) -> None:
    root = emoset(tmp_path, {"awe/1": {"scene": "Airfield", "object": ["Person"]}})
    write(root / "info.json", (shared / "data/emoset/info.json").read_bytes())
    data = read_emoset(root)
    assert sorted(data.labels.labels) == list(MIKELS.labels)
    assert data.labels.labels != MIKELS.labels
    assert data.label_of(data.samples[0]) == "awe"
