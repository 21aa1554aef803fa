"""Texts of annotations: the stored sentences, every level, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.data.prompts import describe
from uniemox.errors import AnnotationError


def test_describe_equals_the_stored_sentences(shared: Path) -> None:
    """golden/sentences.json: ten annotations, each with and without its emotion."""
    stored = json.loads((shared / "golden" / "sentences.json").read_text("utf-8"))
    assert len(stored) == 10
    for entry in stored:
        for with_emotion, field in ((True, "with_emotion"), (False, "without_emotion")):
            assert describe(entry["annotation"], with_emotion=with_emotion) == entry[field]


def test_every_word_of_emosets_vocabulary_gives_a_clean_sentence(shared: Path) -> None:
    info = json.loads((shared / "data" / "emoset" / "info.json").read_text("utf-8"))
    for scene in info["scene"]["label2idx"]:
        text = describe({"scene": scene}, with_emotion=True)
        assert text == text.strip()
        assert not set("_/") & set(text)
        assert text.startswith("A photo of an " if scene[0] in "aeiou" else "A photo of a ")
    for name in info["object"]["label2idx"]:
        assert describe({"object": [name]}, with_emotion=False).startswith("It shows ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "very dark"), (0.1, "very dark"), (0.2, "dark"), (0.3, "dark"), (0.4, "moderately bright"),
     (0.6, "bright"), (0.7, "bright"), (0.8, "very bright"), (1, "very bright")],
)  # fmt: skip
def test_brightness_has_five_levels_at_its_limits(value: float, expected: str) -> None:
    assert describe({"brightness": value}, with_emotion=False) == f"A {expected} photo."


def test_colorfulness_has_five_levels_at_its_limits() -> None:
    words = [describe({"colorfulness": i / 5}, with_emotion=False) for i in range(5)]
    assert words == [f"A {w} photo." for w in ("nearly colorless", "muted", "moderately colorful", "colorful", "vivid")]


def test_missing_none_and_empty_fields_are_left_out() -> None:
    empty = {"brightness": None, "scene": "", "object": [], "facial_expression": " ", "emotion": None, "other": 3}
    assert describe({}, with_emotion=True) == describe(empty, with_emotion=True) == "A photo."
    assert describe({"emotion": "awe"}, with_emotion=False) == "A photo."
    assert describe({"object": ["A", "", "B"]}, with_emotion=False) == "It shows a and b."


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"brightness": "0.5"}, "brightness must be a number from 0 to 1, got '0.5'"),
        ({"brightness": True}, "brightness"),
        ({"colorfulness": 1.1}, "colorfulness"),
        ({"colorfulness": float("nan")}, "colorfulness"),
        ({"scene": 3}, "scene must be a word"),
        ({"object": "Dog"}, "object must be a list"),
        ({"object": ["Dog", 3]}, "object must be a word, got 3"),
        ({"emotion": ["awe"]}, "emotion must be a word"),
    ],
)
def test_wrong_types_are_refused_with_the_field(annotation: dict[str, object], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        describe(annotation, with_emotion=True)


@given(st.dictionaries(st.sampled_from(["brightness", "scene", "object", "emotion"]),
                       st.one_of(st.none(), st.floats(), st.text(), st.lists(st.text()))), st.booleans())  # fmt: skip
def test_any_annotation_gives_a_sentence_or_our_error(annotation: dict[str, object], with_emotion: bool) -> None:
    try:
        text = describe(annotation, with_emotion=with_emotion)
    except AnnotationError as error:
        assert any(field in str(error) for field in annotation)
    else:
        assert text.endswith(".")
        assert text == text.strip()
