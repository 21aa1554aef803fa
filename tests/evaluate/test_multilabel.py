"""Scores, probabilities and thresholds of several labels: against scikit-learn and plain counts."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, precision_score, recall_score

from uniemox.errors import DataError, ShapeError
from uniemox.evaluate.multilabel import (
    average_precision,
    interpolated_precision,
    label_calibration_error,
    mean_average_precision,
    score_multilabel,
)
from uniemox.evaluate.multilabel_fit import NEVER, fit_labels, fit_thresholds
from uniemox.predict.confidence import sigmoid

Drawn = tuple[NDArray[np.float64], NDArray[np.bool_]]


def draw(count: int = 300, labels: int = 5, *, seed: int = 0, digits: int = 3) -> Drawn:
    """Probabilities, with ties, and the labels of each image; the first label is rare."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, labels)) - np.linspace(3, 0, labels)
    is_present = rng.random((count, labels)) < sigmoid(logits)
    is_present[:2, 0] = True
    return np.round(sigmoid(logits + rng.normal(size=logits.shape)), digits), is_present


def plain_precision(scores: NDArray[np.float64], is_present: NDArray[np.bool_]) -> float:
    """The area under the curve, by counting at every threshold."""
    area = 0.0
    reached = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = (taken & is_present).sum() / is_present.sum()
        area += (recall - reached) * (taken & is_present).sum() / taken.sum()
        reached = recall
    return area


def plain_interpolation(scores: NDArray[np.float64], is_present: NDArray[np.bool_]) -> float:
    """The mean over eleven recalls of the best precision at this recall or above."""
    points = []
    for threshold in set(scores.tolist()):
        taken = scores >= threshold
        hits = int((taken & is_present).sum())
        points.append((hits * 10, hits / taken.sum()))
    return sum(max(p for hits, p in points if hits >= level * is_present.sum()) for level in range(11)) / 11


@pytest.mark.parametrize("digits", [1, 2, 6])
def test_average_precision_is_that_of_scikit_learn_and_of_plain_counts(digits: int) -> None:
    probabilities, is_present = draw(digits=digits)
    for i in range(5):
        [value] = average_precision(probabilities[:, i], is_present[:, i])
        assert value == pytest.approx(average_precision_score(is_present[:, i], probabilities[:, i]), abs=1e-12)
        assert value == pytest.approx(plain_precision(probabilities[:, i], is_present[:, i]), abs=1e-12)
        weights = np.random.default_rng(i).integers(0, 4, size=(3, 300)).astype(float)
        all_weighted = average_precision(probabilities[:, i], is_present[:, i], weights)
        for row, weighted in zip(weights, all_weighted, strict=True):
            expected = average_precision_score(is_present[:, i], probabilities[:, i], sample_weight=row)
            assert weighted == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [11, 300])
def test_interpolated_precision_is_that_of_plain_counts_at_eleven_recalls(count: int) -> None:
    probabilities, is_present = draw(count)
    for i in range(5):
        value = interpolated_precision(probabilities[:, i], is_present[:, i])
        assert value == pytest.approx(plain_interpolation(probabilities[:, i], is_present[:, i]), abs=1e-12)
        [area] = average_precision(probabilities[:, i], is_present[:, i])
        assert value >= area - 0.05


def test_scores_are_those_of_scikit_learn() -> None:
    probabilities, is_present = draw()
    thresholds = np.full(5, 0.4)
    labels = ("a", "b", "c", "d", "e")
    scores = score_multilabel(probabilities, is_present, labels, thresholds)
    given = probabilities > 0.4
    assert scores.mean_average_precision == pytest.approx(average_precision_score(is_present, probabilities))
    assert scores.mean_average_precision == mean_average_precision(probabilities, is_present)
    assert scores.macro_f1 == pytest.approx(f1_score(is_present, given, average="macro"))
    assert scores.jaccard == pytest.approx(jaccard_score(is_present, given, average="samples", zero_division=1))
    assert scores.positives == dict(zip(labels, is_present.sum(axis=0).tolist(), strict=True))
    for label in labels:
        value = scores.average_precision[label]
        interval = scores.average_precision_interval[label]
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]
    low, high = scores.mean_average_precision_interval or (1, 0)
    assert low < scores.mean_average_precision < high
    rare = scores.average_precision_interval["a"] or (0, 0)
    common = scores.average_precision_interval["e"] or (0, 0)
    assert rare[1] - rare[0] > common[1] - common[0]


def test_images_of_one_group_widen_the_interval() -> None:
    probabilities, is_present = draw(60)
    copies = [np.repeat(values, 10, axis=0) for values in (probabilities, is_present)]
    groups = np.repeat(np.arange(60), 10).tolist()
    arguments = (copies[0], copies[1], tuple("abcde"), np.full(5, 0.5))
    alone = score_multilabel(*arguments).mean_average_precision_interval or (0, 0)
    grouped = score_multilabel(*arguments, groups=groups).mean_average_precision_interval or (0, 0)
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_label_that_no_image_has_is_left_out_of_the_mean() -> None:
    probabilities, is_present = draw()
    is_present[:, 2] = False
    scores = score_multilabel(probabilities, is_present, tuple("abcde"), np.full(5, 0.5))
    assert scores.average_precision["c"] is None
    assert scores.average_precision_interval["c"] is None
    others = [0, 1, 3, 4]
    expected = average_precision_score(is_present[:, others], probabilities[:, others])
    assert scores.mean_average_precision == pytest.approx(expected)
    nothing = score_multilabel(probabilities, np.zeros_like(is_present), tuple("abcde"), np.full(5, 0.5))
    assert nothing.mean_average_precision is None
    assert nothing.mean_interpolated_precision is None


def test_wrong_shapes_and_values_are_refused() -> None:
    probabilities, is_present = draw(4)
    with pytest.raises(ShapeError, match=r"probabilities \(4, 5\) and labels \(4, 5\) must be \(N, E\)"):
        score_multilabel(probabilities, is_present, ("a",), np.full(5, 0.5))
    probabilities[0, 0] = np.nan
    with pytest.raises(DataError, match="are not finite"):
        score_multilabel(probabilities, is_present, tuple("abcde"), np.full(5, 0.5))


def test_fitted_probabilities_are_calibrated_and_keep_the_order_of_images() -> None:
    """Logits that are three times too large and shifted by label, as a weighted loss makes them."""
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(4000, 3)) + np.array([-2.0, 0, 1])
    is_present = rng.random((4000, 3)) < sigmoid(true_logits)
    shifts = np.array([4.0, -3.0, 0.0])
    logits = 3 * true_logits + shifts
    fitted = fit_labels(logits, is_present)
    assert fitted.temperature == pytest.approx(3, rel=0.05)
    assert fitted.offsets == pytest.approx(-shifts / 3, abs=0.15)
    probabilities = fitted.probabilities(logits)
    assert label_calibration_error(probabilities, is_present) < 0.03
    assert label_calibration_error(sigmoid(logits), is_present) > 0.15
    assert (np.argsort(probabilities[:, 0]) == np.argsort(logits[:, 0])).all()


def test_common_slope_of_one_label_is_that_of_platt_scaling() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5000, 1)) * 2
    is_present = rng.random((5000, 1)) < sigmoid(0.4 * logits - 1)
    platt = LogisticRegression(C=np.inf).fit(logits, is_present[:, 0])
    fitted = fit_labels(logits, is_present)
    assert 1 / fitted.temperature == pytest.approx(platt.coef_[0, 0], rel=0.01)
    assert fitted.offsets[0] == pytest.approx(platt.intercept_[0], rel=0.01)


def test_few_images_change_probabilities_little() -> None:
    fitted = fit_labels(np.array([[3.0, -1.0]]), np.array([[True, False]]))
    assert 0.5 < fitted.temperature < 2
    assert np.abs(fitted.offsets).max() < 1


def test_thresholds_give_as_many_labels_as_there_are_so_precision_equals_recall() -> None:
    probabilities, is_present = draw(digits=12)
    is_present[:, 1] = False
    is_present[:, 2] = True
    thresholds = fit_thresholds(probabilities, is_present)
    given = probabilities > thresholds
    assert (given.sum(axis=0) == is_present.sum(axis=0)).all()
    for i in (0, 3, 4):
        precision = precision_score(is_present[:, i], given[:, i])
        assert precision == pytest.approx(recall_score(is_present[:, i], given[:, i]))
    assert thresholds[1] == NEVER
