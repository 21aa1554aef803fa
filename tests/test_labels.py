"""Label sets, their orders and aliases, the maps between them, and how a folder's names are recognised."""

import itertools

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
    join_labels,
    label_map,
    polarities,
    recognise,
    scored_labels,
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
def test_aliases(label_set: LabelSet, words: dict[str, str]) -> None:
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


LOSSES = """
mikels -> ekman: amusement + contentment + excitement become joy; dropped: awe; never reached: surprise
mikels -> ube: amusement + contentment + excitement become joy; dropped: awe, disgust; never reached: love, surprise
mikels -> polarity: anger + disgust + fear + sadness become negative; \
amusement + awe + contentment + excitement become positive
ekman -> mikels: dropped: joy, surprise; never reached: amusement, awe, contentment, excitement
ekman -> ube: dropped: disgust; never reached: love
ekman -> polarity: anger + disgust + fear + sadness become negative; dropped: surprise
ube -> mikels: dropped: joy, love, surprise; never reached: amusement, awe, contentment, disgust, excitement
ube -> ekman: dropped: love; never reached: disgust
ube -> polarity: anger + fear + sadness become negative; joy + love become positive; dropped: surprise
heco -> caer: excitement + happiness become happy; dropped: peace; never reached: neutral
caer -> heco: dropped: neutral; never reached: excitement, peace
ferplus -> ekman: dropped: neutral, contempt
ferplus -> polarity: sadness + anger + disgust + fear + contempt become negative; dropped: neutral, surprise
caer -> polarity: angry + disgust + fear + sad become negative; dropped: neutral, surprise
heco -> polarity: disgust + anger + fear + sadness become negative; \
excitement + happiness + peace become positive; dropped: surprise
"""


@pytest.mark.parametrize("line", LOSSES.strip().splitlines())
def test_map_lists_merged_dropped_and_unreached_labels(line: str) -> None:
    source, target = line.split(":", maxsplit=1)[0].split(" -> ")
    assert str(label_map(find_label_set(source), find_label_set(target))) == line


def test_maps_that_are_not_listed_above_are_refused_or_lose_nothing() -> None:
    listed = {tuple(line.split(":")[0].split(" -> ")) for line in LOSSES.strip().splitlines()}
    for source, target in itertools.product(LABEL_SETS, repeat=2):
        if source is target:
            assert str(label_map(source, target)).endswith(": nothing is lost")
            assert [label_map(source, target)(i) for i in range(len(source))] == list(range(len(source)))
        elif (source.name, target.name) in listed:
            assert label_map(source, target).source is source
        else:
            with pytest.raises(LabelError):
                label_map(source, target)


def test_maps_by_index() -> None:
    to_ekman = label_map(MIKELS, EKMAN)
    assert [to_ekman(i) for i in range(8)] == [3, 0, None, 3, 1, 3, 2, 4]
    to_caer = label_map(HECO, CAER)
    assert [to_caer(i) for i in range(8)] == [6, 3, 3, None, 1, 0, 2, 5]
    to_sign = label_map(CAER, POLARITY)
    assert [to_sign(i) for i in range(7)] == [0, 0, 0, 1, None, 0, None]
    assert to_sign.target.kind == "felt"
    assert label_map(MIKELS, POLARITY).target.kind == "evoked"


def test_another_order_of_the_same_labels_is_mapped_by_word() -> None:
    shuffled = LabelSet("mikels", MIKELS.labels[::-1], "evoked", MIKELS.aliases)
    assert [label_map(shuffled, MIKELS)(i) for i in range(8)] == list(range(8))[::-1]
    assert label_map(shuffled, MIKELS).dropped == ()
    turned = (LabelSet("mine", ("a", "b", "c"), "evoked"), LabelSet("mine", ("b", "c", "a"), "evoked"))
    assert [label_map(*turned)(i) for i in range(3)] == [2, 0, 1]


def test_custom_set_of_all_labels_by_aliases_is_mapped() -> None:
    words = ("amused", "angry", "awe", "content", "disgust", "excited", "fear", "sad")
    mine = LabelSet("custom", words, "evoked")
    assert [label_map(MIKELS, mine)(i) for i in range(8)] == list(range(8))


def test_probabilities_are_added_and_divided_by_the_rest() -> None:
    """Amusement, contentment and excitement become joy; awe is dropped; surprise is not reached."""
    named = label_map(MIKELS, EKMAN).named([0.05, 0.1, 0.2, 0.15, 0.1, 0.2, 0.1, 0.1])
    expected = {"anger": 0.1, "disgust": 0.1, "fear": 0.1, "joy": 0.4, "sadness": 0.1}
    assert named == {label: pytest.approx(p / 0.8) for label, p in expected.items()}
    assert list(named) == list(expected)
    valence = LabelSet("affect", ("valence", "arousal"), "evoked")
    assert label_map(valence, valence).named([7.0, 3.0]) == {"valence": 7.0, "arousal": 3.0}


@pytest.mark.parametrize(
    ("source", "target"), [(MIKELS, CAER), (CAER, EKMAN), (HECO, MIKELS), (UBE, HECO), (FERPLUS, CAER)]
)
def test_kinds_are_never_mapped_to_each_other(source: LabelSet, target: LabelSet) -> None:
    message = f"{source.name} describes {source.kind} emotions, {target.name} {target.kind} ones"
    with pytest.raises(LabelError, match=message):
        label_map(source, target)


def test_joined_labels_contain_each_word_once_and_map_to_each_set() -> None:
    joined = join_labels([UBE, MIKELS, EKMAN])
    assert (joined.name, joined.kind) == ("joined", "evoked")
    assert set(joined.labels) == {*UBE.labels, *MIKELS.labels, *EKMAN.labels}
    assert len(joined) == 11
    for label_set in (UBE, MIKELS, EKMAN):
        mapping = label_map(joined, label_set)
        assert (mapping.reached, mapping.unreached, mapping.merged) == (label_set.labels, (), {})
    assert label_map(joined, MIKELS).dropped == ("joy", "love", "surprise")
    assert join_labels([MIKELS, MIKELS]) is MIKELS
    with pytest.raises(LabelError, match="these are never joined; give data sets of one kind"):
        join_labels([MIKELS, CAER])


def test_sets_without_a_known_map_are_refused() -> None:
    with pytest.raises(LabelError, match="no map from custom to mikels is known"):
        label_map(recognise(["cosy", "eerie"]), MIKELS)
    with pytest.raises(LabelError, match="no map from polarity to mikels is known"):
        label_map(POLARITY, MIKELS)
    four = LabelSet("custom", ("disgust", "fear", "joy", "sadness"), "evoked")
    with pytest.raises(LabelError, match=r"are labels of ekman, .*: read the data with .*PATH\?labels=ekman"):
        label_map(MIKELS, four)


@pytest.mark.parametrize(("count", "listed"), [(8, "a, b, c, d, e, f, g, h"), (9, "a, b, c, d, e, f, g, h, …")])
def test_a_refusal_lists_up_to_eight_labels(count: int, listed: str) -> None:
    with pytest.raises(LabelError, match=f"{listed} can't become"):
        label_map(recognise("abcdefghi"[:count]), EKMAN)


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
    assert recognise(words) is expected


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
    label_set = recognise(words)
    assert (label_set.name, label_set.labels, label_set.kind) == ("custom", labels, "evoked")


def test_most_of_a_published_set_keeps_its_words_and_kind_but_gets_no_more_classes() -> None:
    label_set = recognise(("Awe", "fear", "'Content'", "disgust", "Sad", "anger"))
    assert (label_set.name, label_set.kind) == ("custom", "evoked")
    assert label_set.labels == ("anger", "awe", "contentment", "disgust", "fear", "sadness")
    assert label_set.index("Sad") == 5
    assert recognise(("angry", "happy", "sad", "neutral")).kind == "felt"  # four of CAER's seven
    assert recognise(("awe", "fear"), None, "mikels") is MIKELS  # asked for
    with pytest.raises(LabelError, match="there is no label set 'wheel'"):
        recognise(("awe", "fear"), None, "wheel")


def test_a_part_of_a_set_is_mapped_to_the_set() -> None:
    part = recognise(("awe", "fear", "contentment", "disgust", "sadness"))
    assert label_map(part, MIKELS).pairs == {label: label for label in part.labels}
    assert label_map(part, POLARITY).pairs["contentment"] == "positive"


PART = LabelSet("custom", ("awe", "content", "sad"), "evoked")
SIGNS = LabelSet("custom", ("negative", "neutral", "positive"), "evoked")


@pytest.mark.parametrize(
    ("model", "data", "scored", "absent"),
    [
        (MIKELS, MIKELS, MIKELS.labels, ""),
        (MIKELS, PART, MIKELS.labels, "amusement anger disgust excitement fear"),
        (LabelSet("custom", ("awe", "content", "joy", "sad"), "evoked"), PART, ("awe", "content", "joy", "sad"), "joy"),
        (SIGNS, POLARITY, SIGNS.labels, "neutral"),
        (PART, MIKELS, MIKELS.labels, ""),  # the data have more labels than the model
        (MIKELS, EKMAN, EKMAN.labels, ""),  # a map between published sets
        (FERPLUS, LabelSet("ekman", EKMAN.labels, "expressed", EKMAN.aliases), EKMAN.labels, ""),
        (MIKELS, POLARITY, POLARITY.labels, ""),
    ],
)
def test_a_model_is_scored_among_its_own_labels_if_the_data_have_some_of_them(
    model: LabelSet, data: LabelSet, scored: tuple[str, ...], absent: str
) -> None:
    result = scored_labels(model, data)
    assert result.labels.labels == scored
    assert result.absent == tuple(absent.split())


def test_scored_classes_of_a_part_are_found_by_word_and_alias() -> None:
    scored = scored_labels(MIKELS, PART)
    assert [scored.truth(i) for i in range(3)] == [MIKELS.index(word) for word in PART.labels]
    assert scored.truth(None) is None
    assert [scored_labels(PART, MIKELS).truth(i) for i in range(8)] == [None, None, 2, 3, None, None, None, 7]


def test_given_kind_overrides_the_kind_of_the_set() -> None:
    assert recognise(("x", "y"), "felt").kind == "felt"
    felt = recognise(MIKELS.labels, "felt")
    assert (felt.name, felt.labels, felt.kind) == ("mikels", MIKELS.labels, "felt")
    assert felt.index("content") == 3
    assert recognise(CAER.labels, "felt") is CAER


@given(st.lists(st.text(), max_size=12))
def test_every_recognised_name_has_an_index(words: list[str]) -> None:
    label_set = recognise(words)
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
        recognise((), requested="joy,Joy")
    with pytest.raises(LabelError, match="names no class"):
        recognise((), requested=",")
    assert recognise((), requested='"joy, love",a=b, x + y').labels == ("joy, love", "a=b", "x + y")
