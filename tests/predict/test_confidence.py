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
from tests.predict.networks import as_prediction, make_network, tiny_network, values
from tests.runs import uniemox_here
from uniemox.classifier_info import NEW_RULES
from uniemox.errors import ConfigError, ModelWarning
from uniemox.evaluate.calibration import conformal_scores
from uniemox.predict.confidence import (
    familiarity_of,
    likely_labels,
    likely_sets,
    max_coverage,
    probabilities_of,
    score_limit,
    set_note,
    unflagged_note,
)
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

NUMBERS = st.floats(-20, 20)


def test_a_model_that_can_not_flag_unfamiliar_images_says_so(tmp_path: Path) -> None:
    """Of 20 held-out images, one in twenty-one images may be as far as all of them."""
    none, few, enough = (unflagged_note(make_network(tmp_path, distances=(1.0,) * count).info) for count in (0, 19, 20))
    assert none == "the model can't compare images with its training images, so it flags none as unfamiliar"
    assert few is not None
    assert few.startswith("the model has only 19 held-out images to compare with")
    assert enough is None


def test_loading_a_model_that_flags_only_blank_images_warns(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = tiny_network(tmp_path / "enough.onnx", distances=(1.0,) * 20)
    assert load(file, finder=None).flags_unfamiliar
    assert not [warning for warning in recwarn if warning.category is ModelWarning]
    file = tiny_network(tmp_path / "few.onnx", distances=(1.0,) * 19)
    with pytest.warns(ModelWarning, match="only 19 held-out images .* flags only blank ones"):
        assert not load(file, finder=None).flags_unfamiliar


@given(st.lists(NUMBERS, min_size=2, max_size=9), st.floats(0.1, 10), st.floats(0, 1))
def test_unfamiliarity_keeps_the_order_and_never_raises_confidence(
    logits: list[float], temperature: float, familiarity: float
) -> None:
    row = np.array([logits])
    [plain], [smoothed] = (probabilities_of(row, temperature, f) for f in (None, np.array([familiarity])))
    assert smoothed.sum() == pytest.approx(1)
    assert smoothed.max() <= plain.max() + 1e-12
    for i in range(len(logits)):
        for j in range(len(logits)):
            if plain[i] > plain[j] + 1e-12:
                assert smoothed[i] > smoothed[j] - 1e-15
    if familiarity >= NEW_RULES.trusted_familiarity:
        np.testing.assert_allclose(smoothed, plain, atol=1e-15)
    if familiarity == 0:
        min_weight = NEW_RULES.min_weight
        np.testing.assert_allclose(smoothed, min_weight * plain + (1 - min_weight) / len(logits), atol=1e-15)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(0, 49))
def test_familiarity_is_the_share_of_images_at_least_as_far(held_out: list[float], index: int) -> None:
    held_out = sorted(held_out)
    distance = held_out[min(index, len(held_out) - 1)]
    [familiarity] = familiarity_of(np.array([distance]), held_out)
    assert familiarity == pytest.approx(
        (sum(held_out_distance >= distance for held_out_distance in held_out) + 1) / (len(held_out) + 1)
    )
    assert familiarity_of(np.array([0.0, 2e6]), held_out).tolist() == [1, 1 / (len(held_out) + 1)]
    assert familiarity_of(None, held_out) is familiarity_of(np.array([0.0]), ()) is None


def test_one_in_twenty_familiar_images_is_flagged() -> None:
    draw = np.random.default_rng(0)
    familiarity = familiarity_of(draw.normal(size=20_000) ** 2, np.sort(draw.normal(size=2_000) ** 2).tolist())
    assert (familiarity < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_predictions_hold_familiarity(tmp_path: Path) -> None:
    plain = Predictor(make_network(tmp_path))
    image = draw_image(3, (64, 64))
    plain_prediction = as_prediction(plain.predict(image))
    assert (plain_prediction.familiarity, plain_prediction.is_unfamiliar) == (None, False)
    for distances, familiarity in (((0.0,) * 99, 0.01), ((1e6,) * 99, 1.0)):
        prediction = as_prediction(Predictor(make_network(tmp_path, distances=distances)).predict(image))
        assert prediction.familiarity == pytest.approx(familiarity)
        assert prediction.is_unfamiliar == (familiarity < 0.05)
        fields = prediction.to_dict()
        assert (fields["familiarity"], fields["is_unfamiliar"]) == (pytest.approx(familiarity), familiarity < 0.05)
        assert prediction.top(1)[0][0] == plain_prediction.top(1)[0][0]
        weight = max(NEW_RULES.min_weight, min(1, familiarity / NEW_RULES.trusted_familiarity))
        expected = weight * np.array(values(plain_prediction)) + (1 - weight) / 8
        np.testing.assert_allclose(values(prediction), expected, atol=1e-6)


def test_table_and_plot_mark_unfamiliar_images(tmp_path: Path) -> None:
    draw_image(3, (64, 64)).save(tmp_path / "a.png")
    are_equal = []
    for name, distances in (("far", (0.0,) * 99), ("near", (1e6,) * 99)):
        tiny_network(tmp_path / f"{name}.onnx", distances=distances)
        words = ("predict", tmp_path / "a.png", "--model", tmp_path / f"{name}.onnx", "--no-persons")
        output = " ".join(re.sub(r"[^\w,:]+", " ", uniemox_here(*words).stdout).split())
        assert ("a guess" in output) == (name == "far")
        prediction = as_prediction(load(tmp_path / f"{name}.onnx", finder=None).predict(tmp_path / "a.png"))
        unflagged = replace(prediction, familiarity=None)
        are_equal.append(prediction.plot().tobytes() == unflagged.plot().tobytes())
    assert are_equal == [False, True]


def test_sets_that_few_or_known_images_fit_are_marked(tmp_path: Path) -> None:
    """19 scores: the 18th limits sets for 90 %, whose coverage has the distribution Beta(18, 2)."""
    few = make_network(tmp_path, conformal_scores=tuple(i / 20 for i in range(19))).info
    assert set_note(few, 0.9) == (
        "likely sets are fitted to 19 held-out images: of other images like these, the sets for 90% hold the label of "
        "74% to 99% (with a probability of 95%); more images narrow this range (uniemox calibrate)"
    )
    # Images of one group count as one.
    assert "fitted to 12 held-out" in str(set_note(replace(few, held_out_count=12), 0.9))
    # The error about an impossible coverage says what is possible.
    assert set_note(few, 0.96) is None
    many = replace(few, conformal_scores=tuple(i / 100 for i in range(100)))
    assert set_note(many, 0.9) is None
    known = set_note(replace(many, calibration_images="seen"), 0.9)
    assert str(known).startswith("likely sets may be too small: they are fitted to images that the model")
    assert set_note(replace(few, conformal_scores=()), 0.9) is None


def test_predict_says_what_its_likely_sets_promise(tmp_path: Path) -> None:
    draw_image(3, (64, 64)).save(tmp_path / "a.png")
    tiny_network(tmp_path / "few.onnx", conformal_scores=tuple(i / 20 for i in range(19)))
    words = ("predict", tmp_path / "a.png", "--model", tmp_path / "few.onnx", "--no-persons")
    assert "likely sets" not in uniemox_here(*words).stderr
    assert "hold the label of 74% to 99%" in " ".join(uniemox_here(*words, "--coverage", "0.9").stderr.split())


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_smoothing_does_not_change_likely_sets(tmp_path: Path, coverage: float) -> None:
    """It would make every label of an unfamiliar image likely at 0.9, and sets smaller at low coverages."""
    scores = tuple(i / 100 for i in range(100))

    def sizes(distances: tuple[float, ...], **info: Any) -> list[int]:
        predictor = Predictor(make_network(tmp_path, distances=distances, conformal_scores=scores, **info))
        images = [draw_image(i, (64, 64)) for i in range(8)]
        return [
            len(as_prediction(prediction).likely or ())
            for prediction in predictor.predict_many(images, coverage=coverage)
        ]

    unfamiliar = sizes((0.0,) * 99)
    familiar = sizes((1e6,) * 99)
    assert unfamiliar == familiar
    old_rules = {"sets_from": "answer", "min_weight": 0.2}
    assert (sum(sizes((0.0,) * 99, rules=old_rules)) > sum(familiar)) == (coverage == 0.9)


def test_blank_images_are_flagged_as_unfamiliar(tmp_path: Path) -> None:
    """One colour, with the noise of a camera or without: whatever the distance of its features."""
    predictor = Predictor(make_network(tmp_path, distances=(1e6,) * 99))
    draw = np.random.default_rng(0)
    for colour in ((255, 0, 0), (0, 0, 0), (128, 140, 120)):
        pixels = np.clip(np.array(colour) + draw.normal(0, 2, (64, 64, 3)), 0, 255).astype(np.uint8)
        for image in (Image.new("RGB", (64, 64), colour), Image.fromarray(pixels)):
            prediction = as_prediction(predictor.predict(image))
            assert prediction.is_unfamiliar
            assert prediction.familiarity == 0
    half = Image.new("RGB", (64, 64), (255, 0, 0))
    half.paste((250, 40, 0), (0, 0, 64, 32))
    assert not as_prediction(predictor.predict(half)).is_unfamiliar


@pytest.mark.parametrize(
    ("size", "is_tiny"), [((15, 15), True), ((15, 400), True), ((16, 16), False), ((16, 99), False)]
)
def test_tiny_images_are_flagged_as_unfamiliar(tmp_path: Path, size: tuple[int, int], is_tiny: bool) -> None:
    """Enlarged, they look like a smooth sky: `embedded` saw awe in the 4 x 4 px of a cup, at 0.76."""
    predictor = Predictor(make_network(tmp_path, distances=(1e6,) * 99))
    prediction = as_prediction(predictor.predict(draw_image(1).resize(size)))
    assert prediction.is_unfamiliar == is_tiny
    assert (prediction.familiarity == 0) == is_tiny


def test_valence_falls_back_to_word_norms(tmp_path: Path) -> None:
    prediction = as_prediction(Predictor(make_network(tmp_path)).predict(draw_image(1)))
    assert prediction.valence is not None
    assert (prediction.affect_from, prediction.arousal) == ("norms", None)
    p = prediction.scene
    valences = {"amusement": 0.929, "anger": 0.167, "awe": 0.469, "contentment": 0.875}
    valences |= {"disgust": 0.052, "excitement": 0.896, "fear": 0.073, "sadness": 0.052}
    assert prediction.valence == pytest.approx(1 + 8 * sum(p[label] * v for label, v in valences.items()), abs=1e-6)
    mapped = as_prediction(Predictor(make_network(tmp_path)).predict(draw_image(1), labels="polarity"))
    assert mapped.valence == pytest.approx(prediction.valence)
    custom = as_prediction(
        Predictor(make_network(tmp_path, labels=("a", "b"), label_set="mine")).predict(draw_image(1))
    )
    assert (custom.valence, custom.arousal) == (None, None)
    head = as_prediction(
        Predictor(make_network(tmp_path, labels=("valence", "arousal"), task="affect")).predict(draw_image(1))
    )
    assert (head.valence, head.arousal) == (head.scene["valence"], head.scene["arousal"])


def test_the_view_is_the_middle_square_or_all_of_a_long_image(tmp_path: Path) -> None:
    predictor = Predictor(make_network(tmp_path, crop_fraction=1.0))
    assert as_prediction(predictor.predict(draw_image(1, (90, 60)))).view == (15, 0, 75, 60)
    wide = draw_image(1, (240, 100))
    prediction = as_prediction(predictor.predict(wide))
    assert prediction.view == (0, 0, 240, 100)
    parts = [as_prediction(predictor.predict(wide.crop((x, 0, x + 100, 100)))) for x in (0, 70, 140)]
    # The mean of the logits is the geometric mean of the probabilities, scaled to sum 1.
    expected = np.exp(np.mean([np.log(values(part)) for part in parts], axis=0))
    np.testing.assert_allclose(values(prediction), expected / expected.sum(), atol=1e-6)
    assert as_prediction(predictor.predict(draw_image(1, (50, 90)))).view == (0, 20, 50, 70)
    assert as_prediction(predictor.predict(draw_image(1, (50, 91)))).view == (0, 0, 50, 91)


@pytest.mark.thorough
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
        # The true distribution differs from that of the model.
        wrong = np.exp(0.7 * logits + draw.normal(0, 0.5, logits.shape))
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
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    if rank > len(scores):
        with pytest.raises(ConfigError, match="is impossible"):
            score_limit(scores, coverage)
    else:
        limit = score_limit(scores, coverage)
        assert sum(score <= limit for score in scores) >= rank
        assert sum(score < limit for score in scores) < rank


def test_the_limit_of_a_round_coverage_is_exact() -> None:
    """100 · 0.07 is slightly above 7 in floating point; fractions say which score it is."""
    for percent in range(1, 100):
        for count in (99, 199, 499):
            rank = math.ceil(Fraction(percent, 100) * (count + 1))
            assert score_limit(range(1, count + 1), percent / 100) == rank


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.floats(0, 1))
def test_likely_labels_are_never_empty_and_sorted(weights: list[float], limit: float) -> None:
    probabilities = np.array(weights) / sum(weights)
    labels = likely_labels(probabilities, limit)
    assert labels[0] == int(probabilities.argmax())
    assert sorted(labels, key=lambda i: (-probabilities[i], i)) == labels
    assert set(labels[1:]) == {i for i in range(len(probabilities)) if 1 - probabilities[i] <= limit + 1e-5} - {
        labels[0]
    }


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
    scores = conformal_scores(p, np.eye(4)[truth])
    assert len(scores) == 2000
    assert list(scores) == sorted(scores)
    all_scores = np.sort(1 - p[np.arange(7001), truth]).tolist()
    for coverage in (0.1, 0.5, 0.9, 0.99):
        assert 0 <= score_limit(scores, coverage) - score_limit(all_scores, coverage) + 1e-5 < 0.005


def test_a_blank_image_has_no_familiarity_however_few_images_were_held_out() -> None:
    familiarity = familiarity_of(np.array([np.inf, 1e9, 0.0], np.float32), (1.0, 2.0, 3.0))
    assert familiarity is not None
    assert familiarity.tolist() == [0.0, 0.25, 1.0]
