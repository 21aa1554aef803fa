"""Deletion and insertion, against a plain form and where the right answer is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from tests.insight.explain.spots import LABELS, predictor, spotted
from uniemox.errors import ConfigError
from uniemox.insight.explain.maps import Explainer
from uniemox.insight.explain.scores import STEPS, MapScores, blur, map_scores, summarise
from uniemox.intervals import bootstrap_interval


def corner(pixels: np.ndarray) -> np.ndarray:
    """A label that is as probable as the upper left quarter is bright."""
    half = pixels.shape[2] // 2
    return pixels[:, :, :half, :half].mean(axis=(1, 2, 3))


def bright_corner() -> np.ndarray:
    pixels = np.zeros((3, 32, 32), np.float32)
    pixels[:, :16, :16] = 1
    return pixels


def heat_of(quarter: tuple[int, int]) -> np.ndarray:
    heat = np.zeros((2, 2), np.float32)
    heat[quarter] = 1
    return heat


def test_scores_rank_the_right_map_above_chance() -> None:
    pixels = bright_corner()
    right, wrong = (map_scores(corner, pixels, heat_of(quarter)) for quarter in ((0, 0), (1, 1)))
    assert right.deletion < right.random_deletion < wrong.deletion
    assert right.insertion > right.random_insertion > wrong.insertion
    assert (right.random_deletion, right.random_insertion) == (wrong.random_deletion, wrong.random_insertion)


def test_deletion_is_the_area_under_the_plain_curve() -> None:
    """One px at a time is a plain sum; steps of 1/28 lie within a step of it."""
    pixels = bright_corner()
    heat = np.zeros((32, 32), np.float32)
    heat[:16, :16] = np.linspace(2, 1, 256).reshape(16, 16)
    remaining = pixels.copy()
    curve = []
    mean = pixels.mean(axis=(1, 2))
    for row, column in [(-1, -1), *np.ndindex(16, 16)]:
        if row >= 0:
            remaining[:, row, column] = mean
        curve.append(corner(remaining[None])[0])
    curve += [curve[-1]] * (1024 - 256)
    plain = np.trapezoid(curve, np.linspace(0, 1, 1025))
    assert map_scores(corner, pixels, heat).deletion == pytest.approx(plain, abs=1 / STEPS**2)


def test_an_image_of_one_colour_scores_its_probability() -> None:
    grey = np.full((3, 32, 32), 0.25, np.float32)
    scores = map_scores(corner, grey, heat_of((0, 0)))
    for value in (scores.deletion, scores.insertion, scores.random_deletion, scores.random_insertion):
        assert value == pytest.approx(0.25, abs=1e-6)


def test_blur_matches_scipy() -> None:
    pixels = np.random.default_rng(0).random((3, 40, 40), np.float32)
    expected = pixels.astype(np.float64)
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, 2.0, axis=axis, mode="nearest", radius=6)
    np.testing.assert_allclose(blur(pixels, 2.0), expected, atol=1e-5)


def test_the_same_seed_gives_the_same_scores() -> None:
    pixels = np.random.default_rng(0).random((3, 32, 32), np.float32)
    first, again, other = (map_scores(corner, pixels, heat_of((0, 1)), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.random_deletion != other.random_deletion


def test_maps_of_a_predictor_are_better_than_chance() -> None:
    for has_maps in (True, False):
        explainer = Explainer(predictor(has_maps=has_maps))
        for label in LABELS:
            scores = explainer.score(explainer.explain(spotted(*LABELS), label))
            assert scores.deletion < scores.random_deletion
            assert scores.insertion > scores.random_insertion


def test_values_have_no_scores() -> None:
    affect = Explainer(predictor(task="affect"))
    explanation = affect.explain(spotted("awe"), None)
    with pytest.raises(ConfigError, match="need probabilities"):
        affect.score(explanation)


def test_a_summary_has_means_and_intervals() -> None:
    scores = [
        MapScores(deletion=0.2, insertion=0.8, random_deletion=0.5, random_insertion=0.4),
        MapScores(deletion=0.4, insertion=0.6, random_deletion=0.5, random_insertion=0.6),
    ]
    summary = summarise(scores)
    assert list(summary) == [
        *("pictures", "deletion", "insertion", "random_deletion", "random_insertion"),
        *("deletion_gain", "insertion_gain"),
    ]
    assert summary["pictures"] == 2
    # Two images are too few for intervals.
    assert summary["deletion"] == {"mean": pytest.approx(0.3), "interval": None}
    assert summary["deletion_gain"]["mean"] == pytest.approx(0.2)
    assert summary["insertion_gain"]["mean"] == pytest.approx(0.2)
    deletion = np.array([0.2, 0.4] * 10)
    assert summarise(scores * 10)["deletion"]["interval"] == list(bootstrap_interval(deletion))
    assert summarise(scores * 9 + scores[:1])["deletion"]["interval"] is None
