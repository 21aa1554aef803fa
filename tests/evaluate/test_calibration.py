"""Calibration against hand-written plain forms, scipy and synthetic data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import DataError
from uniemox.evaluate.calibration import (
    calibrated,
    expected_calibration_error,
    fit_temperature,
    log_loss_change,
    reliability,
)
from uniemox.labels import MIKELS
from uniemox.network_spec import NetworkSpec
from uniemox.predict.confidence import coverage_range, probabilities_of, score_limit

SEEDS = st.integers(0, 2**32 - 1)


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def drawn(n: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 8) and labels that are drawn with just their probabilities: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=spread, size=(n, 8))
    return logits, np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)


def plain_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Equation 3 of arXiv 1706.04599 as it stands."""
    confidence = probabilities.max(axis=1)
    total = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            right = (probabilities.argmax(axis=1) == labels)[inside].mean()
            total += inside.mean() * abs(right - confidence[inside].mean())
    return total


def test_temperature_accounts_for_unfamiliar_images() -> None:
    """Compare with a search over a grid, with smoothed answers for unfamiliar images."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (400, 5))
    familiarity = draw.uniform(0, 0.4, 400)
    truth = np.array([draw.choice(5, p=row) for row in probabilities_of(logits, 1.7, familiarity)])

    def loss(temperature: float) -> float:
        return float(-np.log(probabilities_of(logits, temperature, familiarity)[np.arange(400), truth]).mean())

    temperature = fit_temperature(logits, np.eye(5)[truth], familiarity)
    assert temperature == pytest.approx(1.7, rel=0.25)
    assert loss(temperature) <= min(loss(t) for t in np.geomspace(0.2, 10, 200)) + 1e-6


def test_with_smoothing_the_best_of_several_minima_is_taken() -> None:
    """A search over the whole range ends at 1.092 nats for these samples; the best temperature of a grid has 0.989."""
    draw = np.random.default_rng(727)
    count = int(draw.integers(5, 40))
    classes = int(draw.integers(2, 6))
    logits = draw.normal(size=(count, classes)) * draw.choice([0.3, 1, 3, 8])
    familiarity = draw.uniform(0, 0.3, count)
    truth = draw.integers(0, classes, count)

    def loss(temperature: float) -> float:
        probabilities = probabilities_of(logits, temperature, familiarity)
        return float(-np.log(probabilities[np.arange(count), truth]).mean())

    temperature = fit_temperature(logits, np.eye(classes)[truth], familiarity)
    assert loss(temperature) <= min(loss(candidate) for candidate in np.geomspace(0.01, 100, 300)) + 1e-6


@pytest.mark.parametrize(
    ("logits", "message"), [(np.zeros((0, 2)), "no sample to score"), (np.array([[np.nan, 0]]), "are not finite")]
)
def test_bad_logits_are_refused(logits: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_temperature(logits, np.eye(2)[: len(logits)])


@given(SEEDS, st.floats(0.05, 50))
def test_probabilities_agree_with_scipy(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(scale=50, size=(5, 4)).astype(np.float32)
    result = probabilities_of(logits, temperature)
    np.testing.assert_allclose(result, probabilities(logits, temperature), rtol=1e-12, atol=1e-300)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(probabilities_of(np.array([[1e4, 0.0], [-1e4, -1e4]]), None), [[1, 0], [0.5, 0.5]])


def test_error_by_hand() -> None:
    """Two bins: 0.6, 0.8 of which one is right, and 0.3 that is right: 2/3 |0.5 - 0.7| + 1/3 |1 - 0.3|."""
    probabilities = np.array([[0.6, 0.3, 0.1, 0.0], [0.2, 0.8, 0.0, 0.0], [0.3, 0.25, 0.25, 0.2]])
    labels = np.array([0, 0, 0])
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.7)
    confidence, accuracy, count = reliability(probabilities, labels, bins=2)
    np.testing.assert_allclose(confidence, [0.3, 0.7])
    np.testing.assert_allclose(accuracy, [1, 0.5])
    assert count.tolist() == [1, 2]


def test_bins_hold_their_upper_edge_and_empty_ones_are_nan() -> None:
    confidence, accuracy, count = reliability(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=4)
    assert count.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(accuracy, [np.nan, 1, np.nan, 1])
    np.testing.assert_array_equal(confidence, [np.nan, 0.5, np.nan, 1])


@given(SEEDS, st.integers(1, 60), st.integers(1, 20))
def test_error_agrees_with_the_plain_form(seed: int, n: int, bins: int) -> None:
    logits, labels = drawn(n, seed)
    answers = probabilities(logits)
    error = expected_calibration_error(answers, labels, bins)
    assert error == pytest.approx(plain_error(answers, labels, bins), abs=1e-12)
    assert 0 <= error <= 1
    order = np.random.default_rng(seed).permutation(n)
    assert expected_calibration_error(answers[order], labels[order], bins) == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_calibrated_predictions_have_a_small_error(seed: int) -> None:
    logits, labels = drawn(20_000, seed)
    assert expected_calibration_error(probabilities(logits), labels) < 0.015
    assert expected_calibration_error(probabilities(logits * 3), labels) > 0.1


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_temperature_recovers_a_known_scale(scale: float) -> None:
    logits, labels = drawn(20_000, 0)
    temperature = fit_temperature(logits * scale, np.eye(8)[labels])
    assert temperature == pytest.approx(scale, rel=0.03)
    assert expected_calibration_error(probabilities(logits * scale, temperature), labels) < 0.015


@given(SEEDS, st.floats(0.05, 20))
def test_temperature_of_distributions_is_exact(seed: int, scale: float) -> None:
    logits, _ = drawn(20, seed)
    assert fit_temperature(logits * scale, probabilities(logits)) == pytest.approx(scale, rel=1e-4)


@given(SEEDS, st.integers(1, 30))
def test_no_other_temperature_is_better(seed: int, n: int) -> None:
    """Against a grid of the whole range, also where there is no optimum inside it."""
    logits, labels = drawn(n, seed)

    def loss(temperature: float) -> float:
        return -np.log(np.maximum(probabilities(logits, temperature)[np.arange(n), labels], 1e-300)).mean()

    best = loss(fit_temperature(logits, np.eye(8)[labels]))
    assert best <= min(loss(temperature) for temperature in np.geomspace(0.01, 100, 200)) + 1e-6


def test_few_images_that_are_all_right_keep_the_temperature() -> None:
    info = ClassifierInfo(network=NetworkSpec(labels=("awe", "fear")), label_set="custom", kind="evoked")
    right = np.tile([[2.0, 0.0], [0.0, 2.0]], (20, 1))
    truth = np.tile(np.eye(2), (20, 1))
    assert calibrated(info, right[:39], None, truth[:39]).temperature == 1
    assert calibrated(info, right, None, truth).temperature == pytest.approx(0.01)


def test_few_images_do_not_make_the_model_surer() -> None:
    """Seven right answers of eight would make nearly every probability 0 or 1."""
    info = ClassifierInfo(network=NetworkSpec(labels=("awe", "fear")), label_set="custom", kind="evoked")
    logits = np.tile([[0.3, 0.0], [0.0, 0.3]], (20, 1))
    truth = np.tile(np.eye(2), (20, 1))
    truth[0] = [0.0, 1.0]
    assert calibrated(info, logits[:8], None, truth[:8]).temperature == 1
    assert (calibrated(info, logits, None, truth).temperature or 1) < 0.2


def test_temperature_at_the_edges() -> None:
    right = np.array([[2.0, 0.0], [0.0, 2.0]])
    # All right: the lowest temperature is best.
    assert fit_temperature(right, np.eye(2)[[0, 1]]) == pytest.approx(0.01)
    # All wrong: the highest temperature is best.
    assert fit_temperature(right, np.eye(2)[[1, 0]]) == pytest.approx(100)
    # The temperature has no effect on equal logits.
    assert fit_temperature(np.zeros((2, 2)), np.eye(2)[[0, 1]]) == 1
    # The temperature has no effect on one class.
    assert fit_temperature(np.ones((3, 1)), np.ones((3, 1))) == 1


def test_few_images_raise_the_temperature_by_a_factor_of_four_at_most() -> None:
    """Three wrong answers of a sure model would otherwise make it a hundred, and all probabilities equal."""
    info = ClassifierInfo(network=NetworkSpec(labels=("awe", "fear")), label_set="custom", kind="evoked")
    wrong = np.array([[4.0, 0.0]])
    right = np.array([[0.0, 4.0]])
    target = np.array([[0.0, 1.0]])
    few = calibrated(info, np.repeat(wrong, 3, axis=0), None, np.repeat(target, 3, axis=0))
    assert few.temperature == 4.0
    many = calibrated(info, np.repeat(wrong, 40, axis=0), None, np.repeat(target, 40, axis=0))
    assert (many.temperature or 0) > 50
    sure = calibrated(replace(info, temperature=8.0), np.repeat(right, 3, axis=0), None, np.repeat(target, 3, axis=0))
    assert sure.temperature == 8.0


@pytest.mark.parametrize("count", [30, 60, 250])
def test_true_coverage_is_in_the_range_for_95_percent_of_held_out_sets(count: int) -> None:
    """Scores that are uniform from 0 to 1: the coverage of a limit is the limit itself."""
    low, high = coverage_range(count, 0.9)
    scores = np.sort(np.random.default_rng(count).random((4000, count)), axis=1)
    coverages = np.array([score_limit(tuple(row), 0.9) for row in scores])
    assert ((low <= coverages) & (coverages <= high)).mean() == pytest.approx(0.95, abs=0.015)


def test_range_of_the_coverage_narrows_with_more_images() -> None:
    widths = [high - low for low, high in (coverage_range(count, 0.9) for count in (1, 5, 30, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


def mikels_info(temperature: float) -> ClassifierInfo:
    return ClassifierInfo(
        network=NetworkSpec(labels=MIKELS.labels), label_set="mikels", kind="evoked", size=32, temperature=temperature
    )


def test_log_loss_falls_if_the_model_was_overconfident() -> None:
    logits, labels = drawn(300, seed=1)
    change = log_loss_change(mikels_info(1.0), 3 * logits, None, labels, [str(i) for i in range(300)])
    assert change is not None
    low, high = change.interval
    assert low < change.change < high < -0.2
    assert not change.is_within_noise


def test_log_loss_of_a_calibrated_model_changes_within_noise() -> None:
    """On the images of the fit, the loss would fall for every draw; on held-out ones, it does for some of them."""
    changes = []
    for seed in range(20):
        logits, labels = drawn(100, seed=seed)
        change = log_loss_change(mikels_info(1.0), logits, None, labels, [str(i) for i in range(100)])
        assert change is not None
        changes.append(change)
    assert sum(change.is_within_noise for change in changes) >= 14
    assert 0 < sum(change.change > 0 for change in changes) < 20


def test_parts_of_few_images_are_calibrated_by_the_rule_of_all() -> None:
    """Nine tenths of 41 images are 37, with which a calibration of its own would not make the model surer."""
    logits = np.zeros((41, 8))
    labels = np.arange(41) % 8
    logits[np.arange(41), labels] = 1.0
    change = log_loss_change(mikels_info(1.0), logits, None, labels, [str(i) for i in range(41)])
    assert change is not None
    assert change.change < -0.5
    few = log_loss_change(mikels_info(1.0), logits[:39], None, labels[:39], [str(i) for i in range(39)])
    assert few is not None
    assert few.change == 0


def test_a_part_without_the_largest_group_is_calibrated_as_few_images_are() -> None:
    """Eight images that are all right would give a temperature near 0."""
    logits, labels = drawn(100, seed=4)
    rows = np.arange(92, 100)
    logits[rows, labels[rows]] = logits[rows].max(axis=1) + 1
    units = ["large"] * 92 + ["small"] * 8
    change = log_loss_change(mikels_info(1.0), logits, None, labels, units)
    assert change is not None
    assert change.after < 1.5 * change.before


def test_images_of_one_group_are_held_out_together() -> None:
    """Each group has a temperature of its own: with its images apart, the fit of the others says nothing about it."""
    logits, labels = drawn(200, seed=3)
    logits[:100] *= 6
    units = ["first"] * 100 + ["second"] * 100
    by_group = log_loss_change(mikels_info(1.0), logits, None, labels, units)
    alone = log_loss_change(mikels_info(1.0), logits, None, labels, [str(i) for i in range(200)])
    assert by_group is not None
    assert alone is not None
    assert by_group.after > alone.after + 0.1
    assert log_loss_change(mikels_info(1.0), logits, None, labels, ["all"] * 200) is None
