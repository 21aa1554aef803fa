"""Counts of a classifier against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from uniemox.errors import ConfigError, DataError, LabelError, ShapeError
from uniemox.evaluate.metrics import (
    check_distributions,
    check_labels,
    confusion_matrix,
    macro_f1,
    macro_f1_from_counts,
    per_class_recall,
    polarity_accuracy,
    recall_from_counts,
    top_k_accuracy,
)
from uniemox.labels import CAER, EKMAN, MIKELS, POLARITY, LabelSet

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def test_no_sample_has_an_empty_confusion_and_no_score() -> None:
    none = np.array([], dtype=int)
    confusion = confusion_matrix(none, none, 2)
    assert confusion.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(per_class_recall(confusion)).all()
    assert np.isnan(macro_f1(confusion))
    with pytest.raises(DataError, match="no sample to score"):
        top_k_accuracy(np.zeros((0, 2)), none, k=1)
    with pytest.raises(DataError, match="no sample to score"):
        polarity_accuracy(np.zeros((0, 8)), none, MIKELS)


def test_one_sample() -> None:
    confusion = confusion_matrix(np.array([1]), np.array([2]), 3)
    assert confusion.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(per_class_recall(confusion), [np.nan, 0, np.nan])
    assert macro_f1(confusion) == 0


def test_what_does_not_belong_together_is_refused() -> None:
    two = np.array([0, 1])
    with pytest.raises(ShapeError, match=r"labels \(2,\) and predictions \(3,\)"):
        confusion_matrix(two, np.array([0, 1, 2]), 3)
    with pytest.raises(LabelError, match="labels go from 0 to 1, but there are classes 0 to 0"):
        confusion_matrix(two, np.array([0, 0]), 1)
    with pytest.raises(LabelError, match="labels go from -1 to 1"):
        check_labels(np.zeros((2, 3)), np.array([1, -1]))
    with pytest.raises(LabelError, match="whole numbers, the places of classes, got float64"):
        check_labels(np.zeros((2, 3)), np.array([0.0, 1.0]))
    with pytest.raises(ShapeError, match=r"scores \(2, 3\) and labels \(3,\)"):
        check_labels(np.zeros((2, 3)), np.array([0, 1, 2]))
    with pytest.raises(ShapeError, match="scores of 3 classes do not fit mikels, which has 8"):
        check_labels(np.zeros((2, 3)), two, MIKELS)
    with pytest.raises(DataError, match="1 of 2 samples, first number 1, hold what is not finite"):
        check_labels(np.array([[0, 1], [np.inf, 0]]), two)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        top_k_accuracy(np.zeros((2, 3)), two, k=0)


@pytest.mark.parametrize(
    ("shares", "error", "said"),
    [
        (np.zeros(3), ShapeError, r"distributions \(3,\) must be \(N, E\)"),
        (np.zeros((0, 3)), DataError, "no sample to score"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), DataError, r"sample 1 has the sum 1.1. Divide votes by their sum"),
        (np.array([[1.5, -0.5]]), DataError, "the least value is -0.5"),
        (np.array([[np.nan, 1]]), DataError, "hold what is not finite"),
    ],
)
def test_what_is_no_distribution_is_refused(shares: np.ndarray, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_distributions(shares)


@given(PAIRS)
def test_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    confusion = confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(confusion, sklearn_metrics.confusion_matrix(labels, predicted, labels=range(5)))
    recall = sklearn_metrics.recall_score(labels, predicted, average=None, labels=range(5), zero_division=np.nan)
    np.testing.assert_allclose(per_class_recall(confusion), recall)
    f1 = sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(confusion) == pytest.approx(f1)


def test_a_class_that_never_occurs_is_left_out_of_f1_and_one_that_does_is_not() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    assert macro_f1(confusion_matrix(labels, predicted, 8)) == 1
    predicted = np.array([0, 0, 1, 2])  # F1 of 1, 2/3 and 0
    assert macro_f1(confusion_matrix(labels, predicted, 8)) == pytest.approx((1 + 2 / 3 + 0) / 3)


@given(st.lists(PAIRS, min_size=1, max_size=4), st.floats(0.1, 10))
def test_counts_of_many_resamples_are_scored_at_once(resamples: list[list[tuple[int, int]]], scale: float) -> None:
    """Whatever they are divided by: shares of samples serve as well."""
    all_confusions = np.stack([confusion_matrix(*np.array(pairs).T, 5) for pairs in resamples])  # (R, 5, 5)
    hits = np.diagonal(all_confusions, axis1=1, axis2=2) * scale
    labelled, predicted = all_confusions.sum(axis=2) * scale, all_confusions.sum(axis=1) * scale
    f1 = macro_f1_from_counts(hits, labelled, predicted)
    np.testing.assert_allclose(f1, [macro_f1(confusion) for confusion in all_confusions])
    recall = [per_class_recall(confusion) for confusion in all_confusions]
    np.testing.assert_allclose(recall_from_counts(hits, labelled), recall)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_samples_changes_nothing(pairs: list[tuple[int, int]], random: object) -> None:
    before = confusion_matrix(*np.array(pairs).T, 5)
    random.shuffle(pairs)
    np.testing.assert_array_equal(confusion_matrix(*np.array(pairs).T, 5), before)


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_top_k_agrees_with_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 8)), rng.integers(8, size=200)
    theirs = 1.0 if k == 8 else sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(8))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(theirs)


def test_top_k_of_equal_classes_takes_the_first() -> None:
    even = np.full((3, 3), 1 / 3)
    labels = np.array([0, 1, 2])
    assert [top_k_accuracy(even, labels, k) for k in (1, 2, 3, 9)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert top_k_accuracy(even, labels, 1) == (even.argmax(axis=1) == labels).mean()


def test_polarity_sums_the_probabilities_of_each_sign() -> None:
    probabilities = np.array([
        [0.2, 0.3, 0.1, 0.2, 0.0, 0.2, 0.0, 0.0],  # most probable is anger, but 0.7 are positive
        [0.2, 0.3, 0.1, 0.2, 0.0, 0.2, 0.0, 0.0],
        [0.0, 0.2, 0.0, 0.4, 0.2, 0.0, 0.2, 0.0],  # 0.6 are negative
    ])  # fmt: skip
    fear, awe = MIKELS.index("fear"), MIKELS.index("awe")
    assert polarity_accuracy(probabilities, np.array([awe, fear, fear]), MIKELS) == pytest.approx(2 / 3)


def test_polarity_leaves_labels_without_a_sign_out() -> None:
    joy, surprise = EKMAN.index("joy"), EKMAN.index("surprise")
    probabilities = np.zeros((3, 6))
    probabilities[0, joy], probabilities[0, surprise] = 0.3, 0.7
    probabilities[1:, surprise] = 1
    assert polarity_accuracy(probabilities, np.array([joy, surprise, surprise]), EKMAN) == 1
    assert polarity_accuracy(probabilities, np.array([surprise] * 3), EKMAN) is None
    assert polarity_accuracy(probabilities, np.array([joy, joy, joy]), EKMAN) == pytest.approx(1 / 3)  # 0 = 0: negative


@pytest.mark.parametrize(
    ("label_set", "expected"),
    [
        (POLARITY, 0.5),
        (LabelSet("mirrored", ("positive", "negative"), "felt"), 0.5),
        (LabelSet("one sign", ("fear", "anger"), "evoked"), None),
        (LabelSet("no sign", ("b", "a"), "evoked"), None),
    ],
)
def test_polarity_needs_both_signs(label_set: LabelSet, expected: float | None) -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert polarity_accuracy(probabilities, np.array([0, 1]), label_set) == expected


def test_polarity_of_what_people_feel() -> None:
    happy, neutral = CAER.index("happy"), CAER.index("neutral")
    assert polarity_accuracy(np.eye(7)[[happy, neutral]], np.array([happy, neutral]), CAER) == 1
