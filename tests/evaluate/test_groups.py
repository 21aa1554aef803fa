"""Scores by group: ranking, the worst group, and groups that are only listed."""

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

    def score(rows: np.ndarray) -> ClassScores:
        return score_classes(np.eye(2)[(~right[rows]).astype(int)], np.zeros(len(rows), dtype=int), TWO)

    return score


def test_one_sample_is_listed_and_nothing_is_ranked() -> None:
    scores = score_groups([None], scored([True]))
    assert list(scores.groups) == ["unknown"]
    assert (scores.groups["unknown"].n, scores.groups["unknown"].accuracy) == (1, 1)
    assert (scores.worst, scores.worst_value, scores.worst_interval, scores.best, scores.gap) == (None,) * 5
    assert scores.measure == "accuracy"


def test_the_worst_has_the_lowest_accuracy_among_the_large() -> None:
    values = ["photo"] * 40 + ["sketch"] * 20 + ["meme"] * 19 + [None] * 30
    right = [True] * 36 + [False] * 4 + [True] * 12 + [False] * 8 + [False] * 19 + [True] * 30
    scores = score_groups(values, scored(right))
    assert {name: group.n for name, group in scores.groups.items()} == {
        "meme": 19,
        "photo": 40,
        "sketch": 20,
        "unknown": 30,
    }
    # This group is too small to be ranked.
    assert scores.groups["meme"].accuracy == 0
    assert (scores.worst, scores.worst_value, scores.best) == ("sketch", 0.6, "unknown")
    assert scores.gap == pytest.approx(0.4)
    assert scores.worst_interval == scores.groups["sketch"].accuracy_interval
    assert scores.worst_interval[0] < 0.6 < scores.worst_interval[1]
    assert score_groups(values, scored(right), min_samples=19).worst == "meme"
    # A single group can't be compared.
    assert score_groups(values, scored(right), min_samples=31).worst is None


def test_tied_groups_rank_by_name() -> None:
    scores = score_groups(["b", "a", "c"] * 20, scored([True] * 60))
    assert (scores.worst, scores.gap) == ("a", 0)
    assert list(scores.groups) == ["a", "b", "c"]


def test_divergence_is_worst_where_it_is_highest() -> None:
    target = np.tile([0.9, 0.1], (40, 1))
    shares = np.concatenate([np.tile([0.8, 0.2], (20, 1)), np.tile([0.2, 0.8], (20, 1))])
    values = ["near"] * 20 + ["far"] * 20
    scores = score_groups(values, lambda rows: score_distributions(shares[rows], target[rows]))
    assert (scores.measure, scores.worst, scores.best) == ("kl", "far", "near")
    assert scores.gap == pytest.approx(scores.groups["far"].kl - scores.groups["near"].kl)
    assert scores.gap > 0


def test_concordance_is_worst_where_it_is_lowest_and_undefined_is_not_ranked() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, size=(75, 2))
    predicted = target + rng.normal(scale=np.repeat([0.1, 3.0, 0.0], 25)[:, None], size=(75, 2))
    target[50:] = predicted[50:] = 5.3
    values = ["clean"] * 25 + ["noisy"] * 25 + ["constant"] * 25
    scores = score_groups(values, lambda rows: score_affect(predicted[rows], target[rows]))
    assert (scores.measure, scores.worst, scores.best) == ("ccc", "noisy", "clean")
    assert scores.groups["constant"].ccc is None
    assert scores.worst_value == scores.groups["noisy"].ccc


def test_group_scores_are_json_serialisable() -> None:
    scores = score_groups(["a", None] * 25, scored([True, False] * 25))
    content = json.loads(json.dumps(asdict(scores), allow_nan=False))
    assert content["groups"]["a"]["accuracy"] == scores.groups["a"].accuracy
    assert {name: content[name] for name in content if name != "groups"} == {
        "measure": "accuracy",
        "min_samples": 20,
        "worst": "unknown",
        "worst_value": 0,
        "worst_interval": [0, pytest.approx(0.1372, abs=1e-4)],
        "best": "a",
        "gap": 1,
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=40))
def test_groups_divide_the_samples(rows: list[tuple[str | None, bool]]) -> None:
    values, right = zip(*rows, strict=True)
    scores = score_groups(values, scored(list(right)), min_samples=1)
    assert sum(group.n for group in scores.groups.values()) == len(rows)
    hits = sum(group.accuracy * group.n for group in scores.groups.values())
    assert hits == pytest.approx(sum(right))
    if scores.worst is not None:
        accuracies = [group.accuracy for group in scores.groups.values()]
        assert scores.worst_value == min(accuracies)
        assert scores.gap == max(accuracies) - min(accuracies)
