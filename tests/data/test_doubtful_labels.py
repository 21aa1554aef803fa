"""Notes on classes that look alike, and on words for a missing label."""

import pytest

from uniemox.data.doubtful_labels import notes_on_labels
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
