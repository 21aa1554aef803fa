"""Scores by group: who is ranked, who is worst, and what is only listed."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniemox.evaluate.scores import ClassScores, score_affect, score_classes, score_distributions, score_groups
from uniemox.labels import LabelSet

TWO = LabelSet("two", ("a", "b"), "evoked")


def scored(is_right: list[bool]) -> object:
    """A function from places to scores of a classifier that is right just there."""
    right = np.array(is_right)

    def score(places: np.ndarray) -> ClassScores:
        return score_classes(np.eye(2)[(~right[places]).astype(int)], np.zeros(len(places), dtype=int), TWO)

    return score


def test_one_sample_is_listed_and_nothing_is_ranked() -> None:
    found = score_groups([None], scored([True]))
    assert list(found.groups) == ["unknown"]
    assert (found.groups["unknown"].n, found.groups["unknown"].accuracy) == (1, 1)
    assert (found.worst, found.worst_value, found.worst_interval, found.best, found.gap) == (None,) * 5
    assert found.measure == "accuracy"


def test_the_worst_has_the_lowest_accuracy_among_the_large() -> None:
    values = ["photo"] * 40 + ["sketch"] * 20 + ["meme"] * 19 + [None] * 30
    right = [True] * 36 + [False] * 4 + [True] * 12 + [False] * 8 + [False] * 19 + [True] * 30
    found = score_groups(values, scored(right))
    assert {name: group.n for name, group in found.groups.items()} == {
        "meme": 19,
        "photo": 40,
        "sketch": 20,
        "unknown": 30,
    }
    assert found.groups["meme"].accuracy == 0  # too few to be ranked
    assert (found.worst, found.worst_value, found.best) == ("sketch", 0.6, "unknown")
    assert found.gap == pytest.approx(0.4)
    assert found.worst_interval == found.groups["sketch"].accuracy_interval
    assert found.worst_interval[0] < 0.6 < found.worst_interval[1]
    assert score_groups(values, scored(right), min_samples=19).worst == "meme"
    assert score_groups(values, scored(right), min_samples=31).worst is None  # photo alone is compared with nothing


def test_of_equal_groups_the_first_name_is_worst() -> None:
    found = score_groups(["b", "a", "c"] * 20, scored([True] * 60))
    assert (found.worst, found.gap) == ("a", 0)
    assert list(found.groups) == ["a", "b", "c"]


def test_divergence_is_worst_where_it_is_highest() -> None:
    target = np.tile([0.9, 0.1], (40, 1))
    shares = np.concatenate([np.tile([0.8, 0.2], (20, 1)), np.tile([0.2, 0.8], (20, 1))])
    values = ["near"] * 20 + ["far"] * 20
    found = score_groups(values, lambda places: score_distributions(shares[places], target[places]))
    assert (found.measure, found.worst, found.best) == ("kl", "far", "near")
    assert found.gap == pytest.approx(found.groups["far"].kl - found.groups["near"].kl)
    assert found.gap > 0


def test_concordance_is_worst_where_it_is_lowest_and_undefined_is_not_ranked() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, size=(75, 2))
    predicted = target + rng.normal(scale=np.repeat([0.1, 3.0, 0.0], 25)[:, None], size=(75, 2))
    target[50:] = predicted[50:] = 5.3
    values = ["clean"] * 25 + ["noisy"] * 25 + ["constant"] * 25
    found = score_groups(values, lambda places: score_affect(predicted[places], target[places]))
    assert (found.measure, found.worst, found.best) == ("ccc", "noisy", "clean")
    assert found.groups["constant"].ccc is None
    assert found.worst_value == found.groups["noisy"].ccc


def test_as_json() -> None:
    found = score_groups(["a", None] * 25, scored([True, False] * 25))
    content = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert content["groups"]["a"]["accuracy"] == found.groups["a"].accuracy
    assert {name: content[name] for name in content if name != "groups"} == {
        "measure": "accuracy",
        "min_samples": 20,
        "worst": "unknown",
        "worst_value": 0,
        "worst_interval": [0, 0],
        "best": "a",
        "gap": 1,
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=40))
def test_groups_divide_the_samples(rows: list[tuple[str | None, bool]]) -> None:
    values, right = zip(*rows, strict=True)
    found = score_groups(values, scored(list(right)), min_samples=1)
    assert sum(group.n for group in found.groups.values()) == len(rows)
    hits = sum(group.accuracy * group.n for group in found.groups.values())
    assert hits == pytest.approx(sum(right))
    if found.worst is not None:
        accuracies = [group.accuracy for group in found.groups.values()]
        assert found.worst_value == min(accuracies)
        assert found.gap == max(accuracies) - min(accuracies)
