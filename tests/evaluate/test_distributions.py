"""Measures of distributions and axes against scipy and plain forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from uniemox.evaluate import metrics
from uniemox.evaluate.metrics import distribution_measures, moments

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 6, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Two tables of distributions; the first is of ten votes, with zeros."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(10, np.full(classes, 1 / classes), size=n) / 10, rng.dirichlet(np.ones(classes), size=n)


def pearson(target: np.ndarray, pred: np.ndarray) -> float:
    return float(metrics.pearson(moments(target, pred).mean(axis=0)))


def concordance(target: np.ndarray, pred: np.ndarray) -> float:
    return float(metrics.concordance(moments(target, pred).mean(axis=0)))


def plain_concordance(t: np.ndarray, p: np.ndarray) -> float:
    covariance = ((t - t.mean()) * (p - p.mean())).mean()
    return 2 * covariance / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)


@given(SEEDS)
def test_agrees_with_scipy(seed: int) -> None:
    target, pred = drawn(seed)
    measures = distribution_measures(target, pred)
    np.testing.assert_allclose(measures["kl"], stats.entropy(target, pred, axis=1), atol=1e-12)
    for name, theirs in {
        "cosine": lambda t, p: 1 - distance.cosine(t, p),
        "canberra": distance.canberra,
        "chebyshev": distance.chebyshev,
        # This holds for distributions.
        "intersection": lambda t, p: 1 - distance.cityblock(t, p) / 2,
        "clark": lambda t, p: sum(((a - b) / (a + b)) ** 2 for a, b in zip(t, p, strict=True) if a + b) ** 0.5,
    }.items():
        np.testing.assert_allclose(
            measures[name], [theirs(t, p) for t, p in zip(target, pred, strict=True)], atol=1e-12
        )


def test_opposites_by_hand() -> None:
    """Classes where both are 0 add nothing; the divergence from what was called impossible is large, not infinite."""
    measures = distribution_measures(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
    expected = {"clark": 2**0.5, "canberra": 2, "chebyshev": 1, "intersection": 0, "cosine": 0}
    expected["kl"] = -np.log(np.finfo(np.float64).tiny)
    assert {name: float(values[0]) for name, values in measures.items()} == pytest.approx(expected)
    half = distribution_measures(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    assert half["kl"] == pytest.approx([0.5 * np.log(4 / 3)])


@given(SEEDS)
def test_the_order_of_samples_and_classes_changes_nothing(seed: int) -> None:
    target, pred = drawn(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(target))
    columns = rng.permutation(target.shape[1])
    before = distribution_measures(target, pred)
    for name, values in distribution_measures(target[rows][:, columns], pred[rows][:, columns]).items():
        np.testing.assert_allclose(values, before[name][rows], atol=1e-12)


@given(SEEDS, st.integers(3, 50))
def test_axes_agree_with_scipy_and_the_plain_form(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 9, size=n)
    pred = 0.5 * target + rng.normal(size=n) + 2
    assert pearson(target, pred) == pytest.approx(stats.pearsonr(target, pred).statistic, abs=1e-9)
    assert concordance(target, pred) == pytest.approx(plain_concordance(target, pred), abs=1e-9)
    order = rng.permutation(n)
    for measure in (pearson, concordance):
        assert measure(target[order], pred[order]) == pytest.approx(measure(target, pred), abs=1e-12)
    assert pearson(target * 3 - 50, pred) == pytest.approx(pearson(target, pred), abs=1e-9)
    assert concordance(target - 50, pred - 50) == pytest.approx(concordance(target, pred), abs=1e-9)
    assert abs(concordance(target, pred)) <= abs(pearson(target, pred)) + 1e-12


def test_agreement_by_hand() -> None:
    target = np.array([1.0, 2.0, 3.0])
    assert (pearson(target, target), concordance(target, target)) == pytest.approx((1, 1))
    assert (pearson(target, -target + 4), concordance(target, -target + 4)) == pytest.approx((-1, -1))
    assert pearson(target, target + 1) == pytest.approx(1)
    # A shift lowers the concordance.
    assert concordance(target, target + 1) == pytest.approx(2 * (2 / 3) / (2 / 3 + 2 / 3 + 1))
    # A single sample has no correlation.
    assert np.isnan(pearson(np.array([3.3]), np.array([4.4])))
    assert concordance(np.array([3.3]), np.array([4.4])) == 0


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.3, 1e6 + 0.1])
def test_constants_are_undefined_or_no_agreement(constant: float) -> None:
    """Numbers that binary fractions can't hold are constant too: rounding must not look like variance."""
    values = np.linspace(1, 9, 11)
    constants = np.full(11, constant)
    for target, pred in ((values, constants), (constants, values)):
        assert np.isnan(pearson(target, pred))
        assert concordance(target, pred) == 0
    assert np.isnan(pearson(constants, constants))
    assert np.isnan(concordance(constants, constants))
    assert concordance(constants, constants + 1) == 0


def test_moments_of_resamples_give_what_the_resamples_give() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, size=40)
    pred = rng.uniform(1, 9, size=40)
    draws = rng.integers(40, size=(30, 40))  # (R, N)
    # This resample has one sample only.
    draws[0] = 7
    means = moments(target, pred)[draws].mean(axis=1)  # (R, 5)
    for at_once, alone in ((metrics.pearson, pearson), (metrics.concordance, concordance)):
        np.testing.assert_allclose(at_once(means), [alone(target[d], pred[d]) for d in draws], atol=1e-9)


def test_float32_is_scored_in_float64() -> None:
    target, pred = (table.astype(np.float32) for table in drawn(0))
    assert {values.dtype for values in distribution_measures(target, pred).values()} == {np.dtype(np.float64)}
    assert moments(target[:, 0], pred[:, 0]).dtype == np.float64
