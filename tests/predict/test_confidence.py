"""Less confidence in unfamiliar images: what it does to probabilities, and what it leaves as it was."""

import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.drawn import draw_image
from tests.predict.networks import made, one, tiny_network, values
from tests.runs import uniemox_here
from uniemox.classifier_info import NEW_RULES
from uniemox.errors import ConfigError
from uniemox.evaluate.calibration import conformal_scores
from uniemox.predict.confidence import (
    familiarity_of,
    likely_labels,
    likely_sets,
    max_coverage,
    probabilities_of,
    score_limit,
)
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

NUMBERS = st.floats(-20, 20)


@given(st.lists(NUMBERS, min_size=2, max_size=9), st.floats(0.1, 10), st.floats(0, 1))
def test_unfamiliarity_keeps_the_order_and_never_raises_confidence(
    logits: list[float], temperature: float, familiarity: float
) -> None:
    row = np.array([logits])
    [plain], [found] = (probabilities_of(row, temperature, f) for f in (None, np.array([familiarity])))
    assert found.sum() == pytest.approx(1)
    assert found.max() <= plain.max() + 1e-12
    for i in range(len(logits)):
        for j in range(len(logits)):
            if plain[i] > plain[j] + 1e-12:
                assert found[i] > found[j] - 1e-15
    if familiarity >= NEW_RULES.trusted_familiarity:
        np.testing.assert_allclose(found, plain, atol=1e-15)
    if familiarity == 0:
        min_weight = NEW_RULES.min_weight
        np.testing.assert_allclose(found, min_weight * plain + (1 - min_weight) / len(logits), atol=1e-15)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(0, 49))
def test_familiarity_is_the_share_of_images_at_least_as_far(known: list[float], place: int) -> None:
    known = sorted(known)
    distance = known[min(place, len(known) - 1)]
    [found] = familiarity_of(np.array([distance]), known)
    assert found == pytest.approx((sum(one >= distance for one in known) + 1) / (len(known) + 1))
    assert familiarity_of(np.array([0.0, 2e6]), known).tolist() == [1, 1 / (len(known) + 1)]
    assert familiarity_of(None, known) is familiarity_of(np.array([0.0]), ()) is None


def test_one_in_twenty_familiar_images_is_flagged() -> None:
    draw = np.random.default_rng(0)
    found = familiarity_of(draw.normal(size=20_000) ** 2, np.sort(draw.normal(size=2_000) ** 2).tolist())
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_predictions_hold_familiarity(tmp_path: Path) -> None:
    plain = Predictor(made(tmp_path))
    image = draw_image(3, (64, 64))
    first = one(plain.predict(image))
    assert (first.familiarity, first.is_unfamiliar) == (None, False)
    for distances, familiarity in (((0.0,) * 99, 0.01), ((1e6,) * 99, 1.0)):
        found = one(Predictor(made(tmp_path, distances=distances)).predict(image))
        assert found.familiarity == pytest.approx(familiarity)
        assert found.is_unfamiliar == (familiarity < 0.05)
        told = found.to_dict()
        assert (told["familiarity"], told["is_unfamiliar"]) == (pytest.approx(familiarity), familiarity < 0.05)
        assert found.top(1)[0][0] == first.top(1)[0][0]
        weight = max(NEW_RULES.min_weight, min(1, familiarity / NEW_RULES.trusted_familiarity))
        expected = weight * np.array(values(first)) + (1 - weight) / 8
        np.testing.assert_allclose(values(found), expected, atol=1e-6)


def test_table_and_plot_mark_unfamiliar_images(tmp_path: Path) -> None:
    draw_image(3, (64, 64)).save(tmp_path / "a.png")
    drawn = []
    for name, distances in (("far", (0.0,) * 99), ("near", (1e6,) * 99)):
        tiny_network(tmp_path / f"{name}.onnx", distances=distances)
        words = ("predict", tmp_path / "a.png", "--model", tmp_path / f"{name}.onnx", "--no-persons")
        shown = " ".join(re.sub(r"[^\w,:]+", " ", uniemox_here(*words).stdout).split())
        assert ("a guess" in shown) == (name == "far")
        found = one(load(tmp_path / f"{name}.onnx", finder=None).predict(tmp_path / "a.png"))
        same = replace(found, familiarity=None)
        drawn.append(found.plot().tobytes() == same.plot().tobytes())
    assert drawn == [False, True]


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_smoothing_does_not_change_likely_sets(tmp_path: Path, coverage: float) -> None:
    """It would make every label of an unfamiliar image likely at 0.9, and sets smaller at low coverages."""
    scores = tuple(i / 100 for i in range(100))

    def sizes(distances: tuple[float, ...], **info: Any) -> list[int]:
        predictor = Predictor(made(tmp_path, distances=distances, conformal_scores=scores, **info))
        images = [draw_image(i, (64, 64)) for i in range(8)]
        return [len(one(found).likely or ()) for found in predictor.predict(images, coverage=coverage)]

    unfamiliar = sizes((0.0,) * 99)
    familiar = sizes((1e6,) * 99)
    assert unfamiliar == familiar
    old_rules = {"sets_from": "answer", "min_weight": 0.2}
    assert (sum(sizes((0.0,) * 99, rules=old_rules)) > sum(familiar)) == (coverage == 0.9)


def test_blank_images_are_flagged_as_unfamiliar(tmp_path: Path) -> None:
    """One colour, with the noise of a camera or without: whatever the distance of its features."""
    predictor = Predictor(made(tmp_path, distances=(1e6,) * 99))
    draw = np.random.default_rng(0)
    for colour in ((255, 0, 0), (0, 0, 0), (128, 140, 120)):
        pixels = np.clip(np.array(colour) + draw.normal(0, 2, (64, 64, 3)), 0, 255).astype(np.uint8)
        for image in (Image.new("RGB", (64, 64), colour), Image.fromarray(pixels)):
            found = one(predictor.predict(image))
            assert found.is_unfamiliar
            assert found.familiarity == 0
    half = Image.new("RGB", (64, 64), (255, 0, 0))
    half.paste((250, 40, 0), (0, 0, 64, 32))
    assert not one(predictor.predict(half)).is_unfamiliar


def test_valence_falls_back_to_word_norms(tmp_path: Path) -> None:
    found = one(Predictor(made(tmp_path)).predict(draw_image(1)))
    assert found.valence is not None
    assert (found.affect_from, found.arousal) == ("norms", None)
    p = found.scene
    valences = {"amusement": 0.929, "anger": 0.167, "awe": 0.469, "contentment": 0.875}
    valences |= {"disgust": 0.052, "excitement": 0.896, "fear": 0.073, "sadness": 0.052}
    assert found.valence == pytest.approx(1 + 8 * sum(p[label] * v for label, v in valences.items()), abs=1e-6)
    mapped = one(Predictor(made(tmp_path)).predict(draw_image(1), labels="polarity"))
    assert mapped.valence == pytest.approx(found.valence)
    own = one(Predictor(made(tmp_path, labels=("a", "b"), label_set="mine")).predict(draw_image(1)))
    assert (own.valence, own.arousal) == (None, None)
    head = one(Predictor(made(tmp_path, labels=("valence", "arousal"), task="affect")).predict(draw_image(1)))
    assert (head.valence, head.arousal) == (head.scene["valence"], head.scene["arousal"])


def test_the_view_is_the_middle_square_or_all_of_a_long_image(tmp_path: Path) -> None:
    predictor = Predictor(made(tmp_path, crop_fraction=1.0))
    assert one(predictor.predict(draw_image(1, (90, 60)))).view == (15, 0, 75, 60)
    wide = draw_image(1, (240, 100))
    found = one(predictor.predict(wide))
    assert found.view == (0, 0, 240, 100)
    parts = [one(predictor.predict(wide.crop((x, 0, x + 100, 100)))) for x in (0, 70, 140)]
    # The mean of the logits is the geometric mean of the probabilities, scaled to sum 1.
    expected = np.exp(np.mean([np.log(values(part)) for part in parts], axis=0))
    np.testing.assert_allclose(values(found), expected / expected.sum(), atol=1e-6)
    assert one(predictor.predict(draw_image(1, (50, 90)))).view == (0, 20, 50, 70)
    assert one(predictor.predict(draw_image(1, (50, 91)))).view == (0, 0, 50, 91)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("held_out", [40, 480, 5000])
def test_likely_labels_reach_the_asked_coverage(coverage: float, held_out: int) -> None:
    """Over many draws of held-out and new images of one distribution; within three standard errors."""
    draw = np.random.default_rng(held_out)
    hits = 0.0
    draws = 200
    new = 50
    for _ in range(draws):
        logits = draw.normal(0, 2, (held_out + new, 6))
        wrong = np.exp(0.7 * logits + draw.normal(0, 0.5, logits.shape))  # the model is not quite right
        truth = (wrong.cumsum(axis=1) / wrong.sum(axis=1, keepdims=True) < draw.random((len(logits), 1))).sum(axis=1)
        scores = conformal_scores(probabilities_of(logits[:held_out], None), np.eye(6)[truth[:held_out]])
        limit = score_limit(scores, coverage)
        p = probabilities_of(logits[held_out:], None)
        hits += np.mean([label in likely_labels(row, limit) for row, label in zip(p, truth[held_out:], strict=True)])
    error = math.sqrt(coverage * (1 - coverage) * (1 / new + 1 / held_out) / draws)
    assert hits / draws >= coverage - 3 * error


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_limit_is_the_quantile(scores: list[float], coverage: float) -> None:
    scores = sorted(scores)
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    if place > len(scores):
        with pytest.raises(ConfigError, match="is impossible"):
            score_limit(scores, coverage)
    else:
        limit = score_limit(scores, coverage)
        assert sum(score <= limit for score in scores) >= place
        assert sum(score < limit for score in scores) < place


def test_the_limit_of_a_round_coverage_is_exact() -> None:
    """100 · 0.07 is slightly above 7 in floating point; fractions say which score it is."""
    for percent in range(1, 100):
        for count in (99, 199, 499):
            place = math.ceil(Fraction(percent, 100) * (count + 1))
            assert score_limit(range(1, count + 1), percent / 100) == place


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.floats(0, 1))
def test_likely_labels_are_never_empty_and_sorted(weights: list[float], limit: float) -> None:
    p = np.array(weights) / sum(weights)
    found = likely_labels(p, limit)
    assert found[0] == int(p.argmax())
    assert sorted(found, key=lambda i: (-p[i], i)) == found
    assert set(found[1:]) == {i for i in range(len(p)) if 1 - p[i] <= limit + 1e-5} - {found[0]}


def test_coverage_and_size_of_sets_are_means_over_images() -> None:
    """At a coverage of 0.8 the limit is the eighth of nine scores, 0.8: labels of at least 0.2 are likely."""
    answers = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.9, 0.05, 0.05]])
    coverage, size = likely_sets([i / 10 for i in range(1, 10)], 0.8, answers, np.array([1, 2, 2]))
    assert (coverage, size) == (pytest.approx(2 / 3), 2.0)


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 1.5, float("nan")])
def test_other_coverages_are_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        score_limit([0.5] * 100, coverage)


def test_a_model_without_scores_has_no_likely_labels() -> None:
    with pytest.raises(ConfigError, match="no scores of held-out images"):
        score_limit((), 0.9)
    assert [max_coverage(scores) for scores in ((), (0.5,), (0.5,) * 9)] == [0, 0.5, 0.9]


def test_scores_are_one_minus_the_true_labels_probability() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1]])
    target = np.array([[1, 0, 0], [0, 1, 0], [0.3, 0.6, 0.1]])
    assert conformal_scores(probabilities, target) == (0.2, 0.3, 0.75)


def test_two_thousand_of_many_scores_keep_the_coverage() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (7001, 4))
    truth = draw.integers(0, 4, 7001)
    p = probabilities_of(logits, None)
    kept = conformal_scores(p, np.eye(4)[truth])
    assert len(kept) == 2000
    assert list(kept) == sorted(kept)
    every = np.sort(1 - p[np.arange(7001), truth]).tolist()
    for coverage in (0.1, 0.5, 0.9, 0.99):
        assert 0 <= score_limit(kept, coverage) - score_limit(every, coverage) + 1e-5 < 0.005


def test_a_blank_image_has_no_familiarity_however_few_images_were_held_out() -> None:
    found = familiarity_of(np.array([np.inf, 1e9, 0.0], np.float32), (1.0, 2.0, 3.0))
    assert found is not None
    assert found.tolist() == [0.0, 0.25, 1.0]
