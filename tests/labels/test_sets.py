"""Label sets, their orders and aliases, and how a folder's names are recognised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.errors import LabelError
from uniemox.labels import (
    CAER,
    EKMAN,
    EMOTIC,
    FERPLUS,
    HECO,
    LABEL_SETS,
    MIKELS,
    POLARITY,
    UBE,
    Kind,
    LabelSet,
    clean,
    find_label_set,
    polarities,
    recognise_labels,
    requested_label_set,
)


@pytest.mark.parametrize(
    ("label_set", "kind", "labels"),
    [
        (MIKELS, "evoked", "amusement anger awe contentment disgust excitement fear sadness"),
        (EKMAN, "evoked", "anger disgust fear joy sadness surprise"),
        (UBE, "evoked", "anger fear joy love sadness surprise"),
        (CAER, "felt", "angry disgust fear happy neutral sad surprise"),
        (HECO, "felt", "surprise excitement happiness peace disgust anger fear sadness"),
        (FERPLUS, "expressed", "neutral happiness surprise sadness anger disgust fear contempt"),
        (POLARITY, "evoked", "negative positive"),
    ],
)
def test_order_and_kind_of_every_set(label_set: LabelSet, kind: Kind, labels: str) -> None:
    assert label_set.labels == tuple(labels.split())
    assert label_set.kind == kind
    assert len(label_set) == len(labels.split())
    assert [label_set.index(label) for label in label_set.labels] == list(range(len(label_set)))
    assert find_label_set(label_set.name.upper()) is label_set


ALIASES = [
    (MIKELS, {"Content": "contentment", "'Sad'": "sadness", " AMUSED ": "amusement", "excited": "excitement"}),
    (MIKELS, {"angry": "anger"}),
    (EKMAN, {"happiness": "joy", "Happy": "joy"}),
    (UBE, {'"sad"': "sadness"}),
    (CAER, {"Anger": "angry", "joy": "happy", "Sadness": "sad"}),
    (POLARITY, {"0": "negative", "1": "positive", "Pos": "positive", "NEG": "negative"}),
    (EMOTIC, {"Doubt/Confusion": "doubt/confusion", "Disquietment": "disquietment"}),
]


@pytest.mark.parametrize(("label_set", "words"), ALIASES)
def test_aliases_of_published_sets_lead_to_their_labels(label_set: LabelSet, words: dict[str, str]) -> None:
    assert {word: label_set.labels[label_set.index(word)] for word in words} == words


def test_every_alias_leads_to_a_label_and_hides_none() -> None:
    for label_set in LABEL_SETS:
        assert set(label_set.aliases.values()) <= set(label_set.labels)
        assert not set(label_set.aliases) & set(label_set.labels)


def test_every_category_of_emotic_has_its_own_definition_of_one_line() -> None:
    assert len(EMOTIC) == 26
    assert tuple(EMOTIC.definitions) == EMOTIC.labels
    assert len(set(EMOTIC.definitions.values())) == 26
    assert all(0 < len(text) < 80 and "\n" not in text for text in EMOTIC.definitions.values())


def test_an_unknown_word_is_refused_with_all_labels() -> None:
    with pytest.raises(LabelError, match=r"'bored' is none of the 6 labels of ube: anger, fear, joy, love, sadness"):
        UBE.index("bored")
    with pytest.raises(LabelError, match='none of the 2 labels of custom: "cosy, warm", grim'):
        LabelSet("custom", ("cosy, warm", "grim"), "evoked").index("bored")
    with pytest.raises(LabelError, match="there is no label set 'plutchik'; there are mikels, ekman, ube, caer, heco"):
        find_label_set("plutchik")


def test_a_set_of_too_many_classes_is_refused() -> None:
    with pytest.raises(LabelError, match="mine: 1,001 classes; expected at most 1,000"):
        LabelSet("mine", tuple(map(str, range(1001))), "evoked")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (MIKELS.labels, MIKELS),
        (("Amusement", "Anger", "Awe", "'Content'", "Disgust", "Excitement", "Fear", "Sad"), MIKELS),
        (EKMAN.labels, EKMAN),
        (CAER.labels, CAER),
        (HECO.labels, HECO),
        (("Neg", "Pos"), POLARITY),
    ],
)
def test_recognises_published_sets(words: tuple[str, ...], expected: LabelSet) -> None:
    assert recognise_labels(words) is expected


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        ((), ()),
        (("awe", "fear"), ("awe", "fear")),  # two of eight
        (("amusement", "awe", "fear", "sadness"), ("amusement", "awe", "fear", "sadness")),  # half is not more than it
        (("Happy", "joy", "fear", "anger", "disgust"), ("anger", "disgust", "fear", "happy", "joy")),  # one label twice
        (("b", "'A'", "a "), ("a", "b")),
    ],
)
def test_unknown_names_become_a_custom_set(words: tuple[str, ...], labels: tuple[str, ...]) -> None:
    label_set = recognise_labels(words)
    assert (label_set.name, label_set.labels, label_set.kind) == ("custom", labels, "evoked")


def test_most_of_a_published_set_keeps_its_words_and_kind_but_gets_no_more_classes() -> None:
    label_set = recognise_labels(("Awe", "fear", "'Content'", "disgust", "Sad", "anger"))
    assert (label_set.name, label_set.kind) == ("custom", "evoked")
    assert label_set.labels == ("anger", "awe", "contentment", "disgust", "fear", "sadness")
    assert label_set.index("Sad") == 5
    assert recognise_labels(("angry", "happy", "sad", "neutral")).kind == "felt"  # four of CAER's seven
    assert requested_label_set("mikels") is MIKELS
    with pytest.raises(LabelError, match="there is no label set 'wheel'"):
        requested_label_set("wheel")


def test_given_kind_overrides_the_kind_of_the_set() -> None:
    assert recognise_labels(("x", "y"), "felt").kind == "felt"
    felt = recognise_labels(MIKELS.labels, "felt")
    assert (felt.name, felt.labels, felt.kind) == ("mikels", MIKELS.labels, "felt")
    assert felt.index("content") == 3
    assert recognise_labels(CAER.labels, "felt") is CAER


@given(st.lists(st.text(), max_size=12))
def test_every_recognised_name_has_an_index(words: list[str]) -> None:
    label_set = recognise_labels(words)
    indices = [label_set.index(word) for word in words]
    assert all(label_set.labels[index] == clean(word) or clean(word) in label_set.aliases
               for index, word in zip(indices, words, strict=True))  # fmt: skip
    assert len(set(label_set.labels)) == len(label_set.labels)


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_every_label_has_one_polarity(label_set: LabelSet) -> None:
    rows = polarities(label_set.labels)
    assert [sum(column) for column in zip(*rows, strict=True)] == [1.0] * len(label_set)
    assert len(rows) == (2 if label_set in (MIKELS, POLARITY) else 3)
    assert polarities(("one", "two")) == ((1.0, 1.0),)


def test_a_label_that_is_no_text_is_refused() -> None:
    with pytest.raises(LabelError, match=r"custom: expected the names of classes, got 3; write them as text"):
        LabelSet("custom", ("joy", 3), "evoked")  # type: ignore[arg-type]


def test_a_label_occurs_once() -> None:
    with pytest.raises(LabelError, match="'joy' occurs twice"):
        LabelSet("custom", ("joy", "fear", "joy"), "evoked")
    with pytest.raises(LabelError, match="'joy' occurs twice"):
        requested_label_set("joy,Joy")
    with pytest.raises(LabelError, match="names no class"):
        requested_label_set(",")
    assert requested_label_set('"joy, love",a=b, x + y').labels == ("joy, love", "a=b", "x + y")
