"""Notes on classes that look alike, and on words for a missing label."""

import pytest

from uniemox.data.doubtful_labels import notes_on_labels, notes_on_rare_labels
from uniemox.labels import LABEL_SETS, LabelSet


def notes_of(*labels: str) -> list[str]:
    return notes_on_labels(LabelSet("custom", labels, "evoked"))


@pytest.mark.parametrize(
    "labels",
    [
        ("spaß", "spass"),
        ("\uff4a\uff4f\uff59", "joy"),
        ("\ufb01re", "fire"),
        ("\u0131yi\u0307", "\u0131yi"),
        ("very_happy", "very happy", "very-happy"),
        ("doubt &amp; fear", "doubt & fear"),
        ("01", "1"),
        ("awe", "awe.", "awe!"),
        ("j\u043ey", "joy"),
        ("caf\u00e9", "cafe"),
    ],
)
def test_labels_that_look_alike_are_named(labels: tuple[str, ...]) -> None:
    [note] = notes_of(*labels, "sad")
    assert note == f"the classes {' and '.join(labels)} look like one; if they are, give them one name"


@pytest.mark.parametrize(
    "labels",
    [
        ("-1", "0", "1"),
        ("1.0", "10"),
        ("0.5", "0.05"),
        ("v1.1", "v1.01"),
        ("+", "-"),
        ("\u0915\u093f", "\u0915\u0941"),
        ("like", "dislike"),
    ],
)
def test_different_labels_are_not_named(labels: tuple[str, ...]) -> None:
    assert notes_of(*labels) == []


@pytest.mark.parametrize("labels", LABEL_SETS, ids=lambda labels: labels.name)
def test_published_sets_have_no_notes(labels: LabelSet) -> None:
    assert notes_on_labels(labels) == []


def test_words_for_a_missing_label_are_named() -> None:
    [note] = notes_of("cosy", "eerie", "unknown")
    assert note.startswith("unknown counts as a class; if it means that the label is missing, leave its images out")


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ({"scary": 30, "scarry": 1, "calm": 9}, "the class scarry has 1 image and resembles scary (30)"),
        ({"contentment": 10, "contentmnt": 2}, "the class contentmnt has 2 images and resembles contentment (10)"),
        ({"sadness": 100, "sadnes": 1}, "the class sadnes has 1 image and resembles sadness (100)"),
        ({"happy": 30, "unhappy": 1}, ""),
        ({"2019-01": 30, "2019-02": 1}, ""),
        ({"scary": 4, "scarry": 1}, ""),
        ({"happy": 100, "sappy": 3}, ""),
        ({"calm": 100, "fun": 1}, ""),
        ({"disgust": 100, "disgusted": 0}, ""),
    ],
)
def test_rare_classes_with_the_name_of_a_large_one_are_named(counts: dict[str, int], note: str) -> None:
    notes = notes_on_rare_labels(LabelSet("custom", tuple(counts), "evoked"), counts)
    assert [text.partition(";")[0] for text in notes] == ([note] if note else [])
