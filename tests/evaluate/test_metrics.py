"""Counts of a classifier against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from uniemox.errors import DataError
from uniemox.evaluate.metrics import check_finite, macro_f1, polarity_accuracy, ratio, top_k_accuracy
from uniemox.labels import CAER, CUSTOM, EKMAN, MIKELS, POLARITY, LabelSet

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, labels and predictions of each class."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def recalls(confusion: np.ndarray) -> np.ndarray:
    return ratio(*counts(confusion)[:2])


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    return sklearn_metrics.confusion_matrix(labels, predicted, labels=range(classes))


def test_no_sample_is_refused_and_one_is_accepted() -> None:
    confusion = np.zeros((2, 2), dtype=int)
    assert np.isnan(recalls(confusion)).all()
    assert np.isnan(macro_f1(*counts(confusion)))
    confusion = confusion_matrix(np.array([1]), np.array([2]), 3)
    np.testing.assert_array_equal(recalls(confusion), [np.nan, 0, np.nan])
    assert macro_f1(*counts(confusion)) == 0


def test_non_finite_values_are_refused_with_their_index() -> None:
    with pytest.raises(DataError, match="no sample to score"):
        check_finite(np.zeros((0, 2)))
    with pytest.raises(DataError, match="1 of 2 samples, first number 1, are not finite"):
        check_finite(np.array([[0, 1], [np.inf, 0]]))


@given(PAIRS)
def test_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    confusion = confusion_matrix(labels, predicted, 5)
    theirs = sklearn_metrics.recall_score(labels, predicted, average=None, labels=range(5), zero_division=np.nan)
    np.testing.assert_allclose(recalls(confusion), theirs)
    f1 = sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(*counts(confusion)) == pytest.approx(f1)


def test_a_class_that_never_occurs_is_left_out_of_f1_and_one_that_does_is_not() -> None:
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([0, 0, 1, 1])
    assert macro_f1(*counts(confusion_matrix(labels, predicted, 8))) == 1
    # F1 of 1, 2/3 and 0.
    predicted = np.array([0, 0, 1, 2])
    assert macro_f1(*counts(confusion_matrix(labels, predicted, 8))) == pytest.approx((1 + 2 / 3 + 0) / 3)


@given(st.lists(PAIRS, min_size=1, max_size=4), st.floats(0.1, 10))
def test_counts_of_many_resamples_are_scored_at_once(resamples: list[list[tuple[int, int]]], scale: float) -> None:
    """Counts may be divided by any number: shares of samples serve as well."""
    all_counts = [counts(confusion_matrix(*np.array(pairs).T, 5)) for pairs in resamples]
    hits, labelled, predicted = (np.stack(part) * scale for part in zip(*all_counts, strict=True))
    np.testing.assert_allclose(macro_f1(hits, labelled, predicted), [macro_f1(*row) for row in all_counts])
    np.testing.assert_allclose(ratio(hits, labelled), [ratio(*row[:2]) for row in all_counts])


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_top_k_agrees_with_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 8))
    labels = rng.integers(8, size=200)
    if k == 8:
        theirs = 1.0
    else:
        theirs = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(8))
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
    fear = MIKELS.index("fear")
    awe = MIKELS.index("awe")
    assert polarity_accuracy(probabilities, np.array([awe, fear, fear]), MIKELS) == pytest.approx(2 / 3)


def test_polarity_leaves_labels_without_a_sign_out() -> None:
    joy = EKMAN.index("joy")
    surprise = EKMAN.index("surprise")
    probabilities = np.zeros((3, 6))
    probabilities[0, joy] = 0.3
    probabilities[0, surprise] = 0.7
    probabilities[1:, surprise] = 1
    assert polarity_accuracy(probabilities, np.array([joy, surprise, surprise]), EKMAN) == 1
    assert polarity_accuracy(probabilities, np.array([surprise] * 3), EKMAN) is None
    # Both sums are 0, which counts as negative.
    assert polarity_accuracy(probabilities, np.array([joy, joy, joy]), EKMAN) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("label_set", "expected"),
    [
        (POLARITY, 0.5),
        (LabelSet("mirrored", ("positive", "negative"), "felt"), 0.5),
        (LabelSet("one sign", ("fear", "anger"), "evoked"), None),
        (LabelSet("no sign", ("b", "a"), "evoked"), None),
        (LabelSet(CUSTOM, ("happy", "sad"), "evoked"), 0.5),
        # Nobody knows the sign of scary, so a third of the images would be left out.
        (LabelSet(CUSTOM, ("happy", "sad", "scary"), "evoked"), None),
    ],
)
def test_polarity_needs_both_signs(label_set: LabelSet, expected: float | None) -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])[:, : len(label_set)]
    assert polarity_accuracy(probabilities, np.array([0, 1]), label_set) == expected


def test_polarity_of_what_people_feel() -> None:
    happy = CAER.index("happy")
    neutral = CAER.index("neutral")
    assert polarity_accuracy(np.eye(7)[[happy, neutral]], np.array([happy, neutral]), CAER) == 1
