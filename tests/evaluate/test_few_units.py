"""Scores over one or few groups of images, and shares of votes that a model can't answer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.test_run import CPU, labelled_data
from tests.runs import finetuned
from uniemox.data.sample import ImageFile, Sample
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.run import evaluate
from uniemox.evaluate.run_records import score_lines
from uniemox.evaluate.scores import score_affect, score_classes, score_distributions
from uniemox.evaluate.targets import _notes_on_votes, target_shares
from uniemox.intervals import interval_over_runs, share_difference, share_interval
from uniemox.labels import MIKELS, LabelSet, scored_labels

TWO = LabelSet("two", ("a", "b"), "evoked")


def test_the_share_of_a_single_group_is_unknown() -> None:
    half = np.array([1, 0] * 20)
    assert share_interval(half, ["film"] * 40) == (0, 1)
    low, high = share_interval(half)
    assert 0.3 < low < high < 0.7


def test_a_class_of_a_single_group_has_no_interval() -> None:
    truth = np.array([0] * 30 + [1] * 30)
    predicted = np.eye(2)[np.array([0, 1] * 30)]
    groups = ["film"] * 30 + [f"photo {i}" for i in range(30)]
    intervals = score_classes(predicted, truth, TWO, groups=groups).per_class_interval
    assert intervals["a"] is None
    low, high = intervals["b"]
    assert low < 0.5 < high


def test_shares_of_all_right_have_the_exact_interval() -> None:
    votes = np.eye(3)[[0] * 10]
    assert score_distributions(votes, votes).accuracy_interval == (pytest.approx(0.692, abs=1e-3), 1)
    ratings = np.random.default_rng(0).uniform(1, 9, (10, 2))
    inside = np.stack([ratings - 1, ratings + 1], axis=-1)
    scores = score_affect(ratings, ratings, intervals=inside)
    assert scores.valence.coverage_interval == (pytest.approx(0.692, abs=1e-3), 1)


def test_runs_that_are_all_right_have_the_exact_interval() -> None:
    assert interval_over_runs(np.ones((5, 16))) == share_interval(np.ones(16))
    assert interval_over_runs(np.zeros((5, 16))) == share_interval(np.zeros(16))


def test_one_group_shows_no_difference_of_models() -> None:
    ours = np.array([[1] * 15 + [0] * 5, [1] * 14 + [0] * 6, [1] * 15 + [0] * 5])
    theirs = np.array([1] * 5 + [0] * 15)
    groups = ["film"] * 20
    for runs in (ours, ours[:1]):
        assert share_difference(runs, theirs, groups).interval == (-1, 1)
        assert share_difference(runs, theirs).interval != (-1, 1)
    assert interval_over_runs(ours, groups) == (0, 1)
    assert share_difference(ours[:2], theirs, groups).interval is None


def test_the_card_has_the_interval_over_groups_alone(tmp_path: Path) -> None:
    """It added the exact interval of as many images without groups."""
    (tmp_path / "config.json").write_text((finetuned("knn") / "config.json").read_text())
    data = labelled_data((("awe", "awe", 30), ("amusement", "amusement", 30)))
    samples = [replace(sample, group=str(i % 6)) for i, sample in enumerate(data.samples)]
    evaluation = evaluate(finetuned("knn"), replace(data, samples=samples), hardware=CPU)
    file = write_evaluation(evaluation, tmp_path, data, "test")
    low, high = json.loads(file.read_text())["accuracy_interval"]
    [line] = score_lines(tmp_path)
    assert f"95 % interval {low:.3f} to {high:.3f}" in line
    assert "exact" not in line
    assert low == pytest.approx(0.541, abs=1e-3)


def voted(**shares: float) -> Sample:
    return Sample(key=str(shares), image=ImageFile(Path("a.jpg")), distribution=shares)


def test_votes_for_a_label_that_the_model_lacks_are_left_out() -> None:
    """They made the divergence of every image infinite, up to the smallest number."""
    scored = scored_labels(LabelSet("custom", ("awe", "fear", "sadness"), "evoked"), MIKELS)
    samples = [voted(awe=0.4, fear=0.1, anger=0.5), voted(anger=1.0), voted()]
    shares = target_shares(samples, scored)
    assert dict(zip(MIKELS.labels, shares[0], strict=True))["awe"] == pytest.approx(0.8)
    assert shares.sum(axis=1).tolist() == [pytest.approx(1), 0, 0]
    assert target_shares([], scored).shape == (0, 8)

    notes = list(_notes_on_votes(samples[:2], 1, MIKELS, scored, without=frozenset()))
    assert notes[0].startswith("75.0% of the votes were left out: the model has no label for ")
    assert "anger" in notes[0]
    assert notes[1] == "1 image was left out: it has no other votes"
