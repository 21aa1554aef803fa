"""Maps between label sets."""

import itertools

import pytest

from uniemox.errors import LabelError
from uniemox.labels import (
    CAER,
    EKMAN,
    FERPLUS,
    HECO,
    LABEL_SETS,
    MIKELS,
    POLARITY,
    UBE,
    LabelSet,
    find_label_set,
    join_labels,
    label_map,
    recognise_labels,
    scored_labels,
)

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
        label_map(recognise_labels(["cosy", "eerie"]), MIKELS)
    with pytest.raises(LabelError, match="no map from polarity to mikels is known"):
        label_map(POLARITY, MIKELS)
    four = LabelSet("custom", ("disgust", "fear", "joy", "sadness"), "evoked")
    with pytest.raises(LabelError, match=r"are labels of ekman, .*: read the data with .*PATH\?labels=ekman"):
        label_map(MIKELS, four)


@pytest.mark.parametrize(("count", "listed"), [(8, "a, b, c, d, e, f, g, h"), (9, "a, b, c, d, e, f, g, h, …")])
def test_a_refusal_lists_up_to_eight_labels(count: int, listed: str) -> None:
    with pytest.raises(LabelError, match=f"{listed} can't become"):
        label_map(recognise_labels("abcdefghi"[:count]), EKMAN)


def test_a_part_of_a_set_is_mapped_to_the_set() -> None:
    part = recognise_labels(("awe", "fear", "contentment", "disgust", "sadness"))
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
