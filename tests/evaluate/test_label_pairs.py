"""Label maps that users write: which labels of a model mean a label of their data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniemox.errors import LabelError
from uniemox.evaluate.label_pairs import labels_by, left_out_by, needs_map, read_label_pairs, score_by_pairs
from uniemox.evaluate.targets import mapped
from uniemox.labels import CAER, CUSTOM, EKMAN, MIKELS, LabelSet, quoted

DATA = LabelSet(CUSTOM, ("fun", "meh", "yuck"), "evoked")


def test_pairs_are_read_from_text_and_from_a_file(tmp_path: Path) -> None:
    pairs = {"fun": ("amusement", "excitement"), "yuck": ("disgust",), "meh": ()}
    assert read_label_pairs(" fun = amusement+ excitement,yuck=disgust,meh=,") == pairs
    file = tmp_path / "map.txt"
    file.write_text("\ufefffun=amusement+excitement\n\nyuck=disgust, meh=\n", "utf-8")
    assert read_label_pairs(str(file)) == pairs


def test_labels_with_separators_stand_in_quotes() -> None:
    words = ("joy, love", "a=b", "up+down", "plain")
    text = ",".join(f"{quoted(word)}={quoted(word)}+awe" for word in words)
    assert read_label_pairs(text) == {word: (word, "awe") for word in words}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "joy, love=awe",
            "got 'joy'; write a label that contains one of , = [+] in double quotes, such as \"joy, love\"",
        ),
        ("a=b=awe", "got 'a=b=awe'; write a label"),
        ("fun=awe,yuck", "expected LABEL=LABEL OF THE MODEL, .*got 'yuck'"),
        ("fun=awe,Fun=", "Fun occurs twice"),
        ("=awe", "got '=awe'"),
        ("fun=awe,fun=amusement", "fun occurs twice; write its labels with"),
        ("missing.txt", "missing.txt is no file of label pairs .*such as fun="),
        ("", "the label map is empty; give pairs"),
    ],
)
def test_text_that_is_no_map_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_label_pairs(text)


def test_a_text_in_place_of_a_tuple_is_refused_with_the_remedy() -> None:
    pairs: dict[str, Any] = {"fun": "amusement", "meh": (), "yuck": ("disgust",)}
    with pytest.raises(LabelError, match=r"a text for fun, not a tuple of labels; write \('amusement',\)"):
        score_by_pairs(MIKELS, DATA, pairs)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    for content, message in ((b"\n", "no pair of labels"), (b"\xff\xfe", "no file of label pairs"), (b"fun", "got 'f")):
        file.write_bytes(content)
        with pytest.raises(LabelError, match=message):
            read_label_pairs(str(file))


def test_answers_are_scored_among_the_labels_of_the_data() -> None:
    scored = score_by_pairs(MIKELS, DATA, read_label_pairs("fun=Amusement+excitement,meh=contentment,yuck=disgust"))
    assert scored.labels == DATA
    assert [scored.truth(i) for i in range(3)] == [0, 1, 2]
    probabilities = np.zeros((1, 8))
    for label, share in (("amusement", 0.2), ("excitement", 0.2), ("disgust", 0.1), ("awe", 0.5)):
        probabilities[0, MIKELS.labels.index(label)] = share
    # Awe, half of the answer, has no counterpart; the rest is divided by its sum.
    assert mapped(probabilities, scored.of_model) == pytest.approx(np.array([[0.8, 0, 0.2]]))


def test_images_of_a_label_without_counterpart_are_not_scored() -> None:
    scored = score_by_pairs(MIKELS, DATA, read_label_pairs("fun=awe,meh=,yuck=disgust"))
    assert [scored.truth(i) for i in range(3)] == [0, None, 1]
    assert scored.labels.labels == ("fun", "yuck")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fun=awe,yuck=disgust", "lacks meh: give labels of the model .*amusement, .* or write meh="),
        ("fun=awe,meh=awe,yuck=disgust", "awe is given for fun and for meh"),
        ("fun=awe,meh=joy,yuck=disgust", "'joy' is none of the 8 labels of mikels"),
        ("fun=awe,meh=,yuck=disgust,wow=awe", "'wow' is none of the 3 labels"),
        ("fun=awe,meh=,yuck=", "fewer than two labels"),
    ],
)
def test_a_map_that_does_not_fit_the_labels_is_refused(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        score_by_pairs(MIKELS, DATA, read_label_pairs(text))


def test_a_model_needs_no_map_for_labels_that_the_map_leaves_out() -> None:
    two = LabelSet(CUSTOM, ("fun", "yuck"), "evoked")
    pairs = read_label_pairs("fun=awe,meh=,yuck=disgust")
    assert not needs_map(two, DATA, pairs)
    assert not needs_map(DATA, DATA, pairs)
    assert needs_map(two, DATA, pairs | {"meh": ("anger",)})
    assert needs_map(MIKELS, DATA, pairs)
    # Data may lack a class of the model.
    four = LabelSet(CUSTOM, ("fun", "meh", "wow", "yuck"), "evoked")
    assert not needs_map(four, DATA, pairs)
    # This map chooses two of eight labels.
    chosen = LabelSet(CUSTOM, ("awe", "fear", "meh"), "evoked")
    own = {"awe": ("awe",), "fear": ("Fear",), "meh": ()}
    assert needs_map(MIKELS, chosen, own)
    assert labels_by(MIKELS, chosen, own).choices == ("awe", "fear")
    # A model of other labels, of which the data lack one, and the model one of the data's.
    other = LabelSet(CUSTOM, ("fun", "wow", "yuck"), "evoked")
    assert not needs_map(other, DATA, pairs)
    # An image may be mistaken for a class that the data lack, as without a map.
    assert labels_by(other, DATA, pairs).choices == ("fun", "wow", "yuck")
    assert needs_map(MIKELS, MIKELS, {"awe": ("content",)})
    assert not needs_map(MIKELS, MIKELS, {"fear": ()})
    assert needs_map(MIKELS, MIKELS, {"fear": (), "awe": ("awe", "fear")})


def test_a_map_that_only_leaves_labels_out_keeps_all_other_choices() -> None:
    three = LabelSet(CUSTOM, ("awe", "fear", "sadness"), "evoked")
    assert not needs_map(MIKELS, three, {"sadness": ()})
    scored = labels_by(MIKELS, three, {"sadness": ()})
    assert scored.choices == tuple(label for label in MIKELS.labels if label != "sadness")
    assert [scored.truth(i) for i in range(3)] == [scored.choices.index("awe"), scored.choices.index("fear"), None]
    # The known map of published sets stays, too. Awe is no label of Ekman's, and nothing means surprise.
    of_ekman = labels_by(MIKELS, EKMAN, {"happy": ()})
    assert of_ekman.choices == ("anger", "disgust", "fear", "sadness")
    assert of_ekman.of_model.pairs["amusement"] is None
    with pytest.raises(LabelError, match="fewer than two labels to choose among"):
        labels_by(three, three, {"sadness": (), "awe": ()})


@pytest.mark.parametrize("order", [1, -1])
def test_unknown_labels_are_errors_in_any_order_of_the_pairs(order: int) -> None:
    pairs = [("awe", ("awe", "contentment")), ("contentment", ()), ("fear", ("afraid",))]
    with pytest.raises(LabelError, match="'afraid' is none of the 8 labels"):
        labels_by(MIKELS, MIKELS, dict(pairs[::order]))


def test_two_names_of_one_label_are_refused() -> None:
    for pairs in ({"happy": (), "joy": ("amusement",)}, {"joy": ("amusement",), "happy": ()}):
        with pytest.raises(LabelError, match="names joy twice"):
            labels_by(MIKELS, EKMAN, pairs)
        with pytest.raises(LabelError, match="names joy twice"):
            left_out_by(pairs, EKMAN)


def test_data_without_labels_have_nothing_to_map() -> None:
    with pytest.raises(LabelError, match=r"nothing to map: no image has a label: give the folder that contains"):
        labels_by(MIKELS, LabelSet(CUSTOM, (), "evoked"), {"fun": ("awe",)})


def test_no_map_makes_evoked_emotions_of_felt_ones() -> None:
    with pytest.raises(LabelError, match="the model predicts felt emotions"):
        score_by_pairs(CAER, DATA, {"fun": ("happy",), "meh": (), "yuck": ("disgust",)})
