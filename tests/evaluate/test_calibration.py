"""Calibration against hand-written plain forms, scipy and synthetic data whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from uniemox.errors import ConfigError, DataError, LabelError, ShapeError
from uniemox.evaluate.calibration import expected_calibration_error, fit_temperature, reliability, softmax
from uniemox.predict.confidence import probabilities_of

SEEDS = st.integers(0, 2**32 - 1)


def drawn(n: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 8) and labels that are drawn with just their probabilities: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=spread, size=(n, 8))
    return logits, np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)


def plain_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Equation 3 of arXiv 1706.04599 as it stands."""
    confidence, total = probabilities.max(axis=1), 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            right = (probabilities.argmax(axis=1) == labels)[inside].mean()
            total += inside.mean() * abs(right - confidence[inside].mean())
    return total


def test_the_temperature_is_that_of_what_is_answered() -> None:
    """With answers drawn together for unfamiliar images: against a search over a grid."""
    draw = np.random.default_rng(0)
    logits, familiarity = draw.normal(0, 3, (400, 5)), draw.uniform(0, 0.4, 400)
    truth = np.array([draw.choice(5, p=row) for row in probabilities_of(logits, 1.7, familiarity)])

    def loss(temperature: float) -> float:
        return float(-np.log(probabilities_of(logits, temperature, familiarity)[np.arange(400), truth]).mean())

    found = fit_temperature(logits, truth, familiarity)
    assert found == pytest.approx(1.7, rel=0.25)
    assert loss(found) <= min(loss(t) for t in np.geomspace(0.2, 10, 200)) + 1e-6


def test_no_sample_is_refused() -> None:
    none = np.array([], dtype=int)
    for function in (expected_calibration_error, reliability, fit_temperature):
        with pytest.raises(DataError, match="no sample to score"):
            function(np.zeros((0, 3)), none)
    with pytest.raises(DataError, match="no sample to score"):
        fit_temperature(np.zeros((0, 3)), np.zeros((0, 3)))


def test_bad_values_are_refused() -> None:
    labels = np.array([0, 1])
    with pytest.raises(DataError, match=r"probabilities go from -3 to 2, not from 0 to 1; are they logits"):
        expected_calibration_error(np.array([[-3.0, 2.0], [1.0, 0.0]]), labels)
    with pytest.raises(ConfigError, match="bins must be at least 1, got 0"):
        expected_calibration_error(np.full((2, 2), 0.5), labels, bins=0)
    with pytest.raises(LabelError):
        expected_calibration_error(np.full((2, 2), 0.5), np.array([0, 2]))
    with pytest.raises(ConfigError, match="a temperature must be above 0, got 0"):
        softmax(np.zeros((2, 2)), temperature=0)
    with pytest.raises(ConfigError, match="a temperature must be above 0, got nan"):
        softmax(np.zeros((2, 2)), temperature=float("nan"))
    with pytest.raises(ShapeError, match=r"logits \(2,\) must be \(N, E\)"):
        softmax(np.zeros(2))
    with pytest.raises(ShapeError, match=r"logits \(2, 2\) and target \(2, 3\) must both be"):
        fit_temperature(np.zeros((2, 2)), np.full((2, 3), 1 / 3))
    with pytest.raises(DataError, match="has the sum 2"):
        fit_temperature(np.zeros((2, 2)), np.ones((2, 2)))
    with pytest.raises(DataError, match="not finite"):
        fit_temperature(np.array([[np.nan, 0], [0, 0]]), labels)


@given(SEEDS, st.floats(0.05, 50))
def test_softmax_agrees_with_scipy(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(scale=50, size=(5, 4)).astype(np.float32)
    found = softmax(logits, temperature)
    expected = special.softmax(logits.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
    assert found.dtype == np.float64


def test_softmax_of_large_logits_stays_finite() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]])


def test_error_by_hand() -> None:
    """Two bins: 0.6, 0.8 of which one is right, and 0.3 that is right: 2/3 |0.5 - 0.7| + 1/3 |1 - 0.3|."""
    probabilities = np.array([[0.6, 0.3, 0.1, 0.0], [0.2, 0.8, 0.0, 0.0], [0.3, 0.25, 0.25, 0.2]])
    labels = np.array([0, 0, 0])
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.7)
    table = reliability(probabilities, labels, bins=2)
    np.testing.assert_allclose(table.confidence, [0.3, 0.7])
    np.testing.assert_allclose(table.accuracy, [1, 0.5])
    assert table.count.tolist() == [1, 2]


def test_bins_hold_their_upper_edge_and_empty_ones_are_nan() -> None:
    table = reliability(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=4)
    assert table.count.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(table.accuracy, [np.nan, 1, np.nan, 1])
    np.testing.assert_array_equal(table.confidence, [np.nan, 0.5, np.nan, 1])


@given(SEEDS, st.integers(1, 60), st.integers(1, 20))
def test_error_agrees_with_the_plain_form(seed: int, n: int, bins: int) -> None:
    logits, labels = drawn(n, seed)
    probabilities = softmax(logits)
    found = expected_calibration_error(probabilities, labels, bins)
    assert found == pytest.approx(plain_error(probabilities, labels, bins), abs=1e-12)
    assert 0 <= found <= 1
    order = np.random.default_rng(seed).permutation(n)
    assert expected_calibration_error(probabilities[order], labels[order], bins) == pytest.approx(found, abs=1e-12)


def test_sure_and_wrong_is_the_worst() -> None:
    assert expected_calibration_error(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])) == 0
    assert expected_calibration_error(np.eye(3)[[0, 1, 2]], np.array([1, 2, 0])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_calibrated_predictions_have_a_small_error(seed: int) -> None:
    logits, labels = drawn(20_000, seed)
    assert expected_calibration_error(softmax(logits), labels) < 0.015
    assert expected_calibration_error(softmax(logits * 3), labels) > 0.1


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_temperature_recovers_a_known_scale(scale: float) -> None:
    logits, labels = drawn(20_000, 0)
    temperature = fit_temperature(logits * scale, labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    assert expected_calibration_error(softmax(logits * scale, temperature), labels) < 0.015


@given(SEEDS, st.floats(0.05, 20))
def test_temperature_of_distributions_is_exact(seed: int, scale: float) -> None:
    logits, _ = drawn(20, seed)
    assert fit_temperature(logits * scale, softmax(logits)) == pytest.approx(scale, rel=1e-4)


@given(SEEDS, st.floats(0.2, 5))
def test_temperature_follows_the_scale(seed: int, scale: float) -> None:
    logits, labels = drawn(100, seed)
    assert fit_temperature(logits * scale, labels) == pytest.approx(scale * fit_temperature(logits, labels), rel=1e-4)


@given(SEEDS, st.integers(1, 30))
def test_no_other_temperature_is_better(seed: int, n: int) -> None:
    """Against a grid of the whole range, also where there is no optimum inside it."""
    logits, labels = drawn(n, seed)

    def loss(temperature: float) -> float:
        return -np.log(np.maximum(softmax(logits, temperature)[np.arange(n), labels], 1e-300)).mean()

    best = loss(fit_temperature(logits, labels))
    assert best <= min(loss(temperature) for temperature in np.geomspace(0.01, 100, 200)) + 1e-6


def test_temperature_at_the_edges() -> None:
    right = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(right, np.array([0, 1])) == pytest.approx(0.01)  # all right: the surer the better
    assert fit_temperature(right, np.array([1, 0])) == pytest.approx(100)  # all wrong: the flatter the better
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 1  # it changes nothing
    assert fit_temperature(np.ones((3, 1)), np.array([0, 0, 0])) == 1  # one class
