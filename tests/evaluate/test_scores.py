"""All scores at once: against the single metrics, scikit-learn in a plain bootstrap, and at the edges."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest, spearmanr
from sklearn import metrics as sklearn_metrics

from tests.evaluate.test_distributions import concordance, pearson
from uniemox.errors import DataError, ShapeError
from uniemox.evaluate import metrics
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.evaluate.scores import Scores, as_values, score_affect, score_classes, score_distributions
from uniemox.evaluate.verdict import verdict_of
from uniemox.intervals import percentile_interval
from uniemox.labels import MIKELS, LabelSet
from uniemox.resampling import resampled_means


def classified(n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of Mikels' eight that are right about half of the time; sadness has no sample."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(7, size=n)
    return softmax(rng.normal(size=(n, 8)) + 2 * np.eye(8)[labels], axis=1), labels


def voted(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=(n, 6)), axis=1), rng.multinomial(15, np.full(6, 1 / 6), size=n) / 15


def affect(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 9, size=(n, 2))
    return 0.5 * target + rng.normal(size=(n, 2)) + [2, 4], target


def assert_json(scores: Scores) -> None:
    assert json.loads(json.dumps(asdict(scores), allow_nan=False)).keys() == asdict(scores).keys()


@pytest.mark.parametrize(
    ("score", "values", "error", "message"),
    [
        (score_classes, (np.zeros((0, 8)), np.array([], dtype=int), MIKELS), DataError, "no sample to score"),
        (score_distributions, (np.zeros((0, 8)), np.zeros((0, 8))), DataError, "no sample to score"),
        (score_affect, (np.zeros((0, 2)), np.zeros((0, 2))), DataError, "no sample to score"),
        (score_classes, (np.full((1, 8), np.inf), np.array([0]), MIKELS), DataError, "not finite"),
        (score_distributions, (np.full((4, 8), np.nan), np.full((4, 8), 1 / 8)), DataError, "not finite"),
        (score_affect, (np.zeros((1, 2)), np.array([[1, np.nan]])), DataError, "not finite"),
        (score_affect, (np.zeros((4, 4)), np.zeros((4, 4))), ShapeError, r"must both be \(N, 2\), valence and arousal"),
    ],
)
def test_bad_values_are_refused(
    score: object, values: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        score(*values)


def test_class_scores_equal_the_single_metrics() -> None:
    probabilities, labels = classified()
    scores = score_classes(probabilities, labels, MIKELS)
    predicted = probabilities.argmax(axis=1)
    assert scores.n == 240
    assert scores.labels == MIKELS.labels
    assert scores.accuracy == (predicted == labels).mean()
    assert scores.top2_accuracy == metrics.top_k_accuracy(probabilities, labels, 2)
    assert scores.polarity_accuracy == metrics.polarity_accuracy(probabilities, labels, MIKELS)
    assert scores.macro_f1 == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    assert scores.ece == expected_calibration_error(probabilities, labels)
    assert (scores.temperature, scores.ece_calibrated) == (None, None)
    np.testing.assert_array_equal(
        scores.confusion, sklearn_metrics.confusion_matrix(labels, predicted, labels=range(8))
    )
    assert scores.per_class_recall["awe"] == pytest.approx((predicted[labels == 2] == 2).mean())
    assert scores.accuracy_interval[0] < scores.accuracy < scores.accuracy_interval[1]
    assert_json(scores)


@pytest.mark.thorough
def test_intervals_agree_with_a_plain_bootstrap() -> None:
    probabilities, labels = classified()
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    f1 = []
    recall = []
    accuracy = []
    for _ in range(1000):
        drawn = rng.integers(len(labels), size=len(labels))
        t = labels[drawn]
        p = predicted[drawn]
        f1.append(sklearn_metrics.f1_score(t, p, average="macro", zero_division=0))
        recall.append((p[t == 2] == 2).mean())
        accuracy.append((p == t).mean())
    scores = score_classes(probabilities, labels, MIKELS)
    np.testing.assert_allclose(scores.accuracy_interval, np.quantile(accuracy, [0.025, 0.975]), atol=0.015)
    np.testing.assert_allclose(scores.macro_f1_interval, np.quantile(f1, [0.025, 0.975]), atol=0.015)
    np.testing.assert_allclose(scores.per_class_interval["awe"], np.quantile(recall, [0.025, 0.975]), atol=0.03)


def test_undefined_scores_are_none() -> None:
    probabilities, labels = classified()
    scores = score_classes(probabilities, labels, MIKELS)
    assert scores.per_class_recall["sadness"] is None
    assert scores.per_class_interval["sadness"] is None
    custom = LabelSet("custom", tuple("abcdefgh"), "evoked")
    assert score_classes(probabilities, labels, custom).polarity_accuracy is None


def test_scores_of_one_sample() -> None:
    scores = score_classes(np.array([[0.25, 0.75]]), np.array([1]), LabelSet("two", ("a", "b"), "felt"))
    assert (scores.accuracy, scores.accuracy_interval) == (1, (pytest.approx(0.025), 1))
    assert scores.per_class_recall == {"a": None, "b": 1}
    assert scores.per_class_interval == {"a": None, "b": (1, 1)}
    assert (scores.macro_f1, scores.macro_f1_interval, scores.top2_accuracy) == (1, (1, 1), 1)
    assert scores.ece == pytest.approx(0.25)
    assert scores.confusion == [[0, 0], [0, 1]]
    assert_json(scores)
    assert_json(score_distributions(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])))
    assert_json(score_affect(np.array([[2.0, 3.0]]), np.array([[2.0, 4.0]])))


def test_all_right_and_all_wrong() -> None:
    labels = np.arange(24) % 8
    right, wrong = (score_classes(np.eye(8)[predicted], labels, MIKELS) for predicted in (labels, (labels + 1) % 8))
    assert (right.accuracy, right.macro_f1_interval) == (1, (1, 1))
    assert (wrong.accuracy, wrong.macro_f1_interval) == (0, (0, 0))
    for scores in (right, wrong):
        exact = binomtest(24 * int(scores.accuracy), 24).proportion_ci(method="exact")
        assert scores.accuracy_interval == pytest.approx((exact.low, exact.high))
    in_pairs = score_classes(np.eye(8)[labels], labels, MIKELS, groups=[i // 2 for i in range(24)])
    exact = binomtest(12, 12).proportion_ci(method="exact")
    assert in_pairs.accuracy_interval == pytest.approx((exact.low, exact.high))


def test_grouped_people_of_an_image_widen_the_interval() -> None:
    probabilities, labels = classified()
    four = (np.tile(probabilities, (4, 1)), np.tile(labels, 4))
    once = score_classes(probabilities, labels, MIKELS)
    grouped = score_classes(*four, MIKELS, groups=list(range(240)) * 4)
    assert grouped.accuracy == pytest.approx(once.accuracy)
    assert grouped.accuracy_interval == pytest.approx(once.accuracy_interval)
    low, high = score_classes(*four, MIKELS).accuracy_interval
    assert high - low < 0.6 * (once.accuracy_interval[1] - once.accuracy_interval[0])


def test_the_order_of_samples_changes_nothing() -> None:
    order = np.random.default_rng(3).permutation(120)
    probabilities, labels = classified(120)
    before, after = (asdict(score_classes(probabilities[o], labels[o], MIKELS)) for o in (slice(None), order))
    assert after.pop("ece") == pytest.approx(before.pop("ece"))
    assert after == before
    for score, values in ((score_distributions, voted()), (score_affect, affect())):
        before, after = (asdict(score(values[0][o], values[1][o])) for o in (slice(None), order))
        assert flat(after) == pytest.approx(flat(before))


def flat(content: object) -> list[float]:
    """All numbers of a JSON object, None as -1."""
    if isinstance(content, dict | tuple):
        return [
            number for part in (content.values() if isinstance(content, dict) else content) for number in flat(part)
        ]
    return [-1 if content is None else content]


def test_distributions_are_the_means_of_the_single_measures() -> None:
    predicted, target = voted()
    scores = score_distributions(predicted, target)
    for name, values in metrics.distribution_measures(target, predicted).items():
        assert getattr(scores, name) == pytest.approx(values.mean())
        width = values.std() / len(values) ** 0.5
        expected = percentile_interval(resampled_means(values[:, None], resamples=20_000)[:, 0])
        np.testing.assert_allclose(getattr(scores, f"{name}_interval"), expected, atol=0.25 * width)
    assert scores.accuracy == pytest.approx((target.argmax(axis=1) == predicted.argmax(axis=1)).mean())
    assert (scores.temperature, scores.n) == (None, 120)
    assert_json(scores)


def test_perfect_distributions_have_perfect_scores() -> None:
    _, target = voted()
    shares = (target + 0.01) / (target + 0.01).sum(axis=1, keepdims=True)
    scores = score_distributions(shares, shares)
    assert (scores.kl, scores.clark, scores.canberra, scores.chebyshev) == pytest.approx((0, 0, 0, 0), abs=1e-9)
    assert (scores.cosine, scores.intersection, scores.accuracy) == pytest.approx((1, 1, 1))


def test_affect_scores_equal_the_single_measures() -> None:
    predicted, target = affect()
    scores = score_affect(predicted, target)
    for i, axis in enumerate((scores.valence, scores.arousal)):
        t = target[:, i]
        p = predicted[:, i]
        assert axis.mae == pytest.approx(np.abs(t - p).mean())
        assert axis.pearson == pytest.approx(pearson(t, p))
        assert axis.ccc == pytest.approx(concordance(t, p))
        assert axis.spearman == pytest.approx(spearmanr(t, p).statistic)
        assert axis.coverage is None
        assert axis.mae_of_mean == pytest.approx(np.abs(t - t.mean()).mean())
        for value, (low, high) in (
            (axis.mae, axis.mae_interval),
            (axis.pearson, axis.pearson_interval),
            (axis.ccc, axis.ccc_interval),
            (axis.spearman, axis.spearman_interval),
        ):
            assert low < value < high
    assert scores.ccc == pytest.approx((scores.valence.ccc + scores.arousal.ccc) / 2)
    assert scores.ccc_interval[0] < scores.ccc < scores.ccc_interval[1]
    assert scores.n == 120
    assert_json(scores)
    [sentence] = verdict_of(as_values(scores), 0, flags=False)
    errors = [f"{axis} {getattr(scores, axis).mae_of_mean:.3f}" for axis in ("valence", "arousal")]
    assert (
        sentence
        == f"always the mean rating of these images: mean absolute error {', '.join(errors)}, and no correlation"
    )


def test_dominance_is_a_third_axis() -> None:
    predicted, target = affect()
    three = score_affect(np.hstack([predicted, predicted[:, :1]]), np.hstack([target, target[:, :1]]))
    two = score_affect(predicted, target)
    assert (three.valence.mae, three.arousal.ccc) == (two.valence.mae, two.arousal.ccc)
    assert three.dominance is not None
    assert three.dominance.ccc == three.valence.ccc
    assert three.ccc == pytest.approx((2 * two.valence.ccc + two.arousal.ccc) / 3)
    assert "dominance" in as_values(three)
    assert "dominance" not in as_values(two)


def test_ratings_inside_their_intervals_are_counted() -> None:
    """Equal ratings share a rank, as scipy has it."""
    predicted, target = affect()
    target = target.round()
    ends = np.stack([predicted - 1, predicted + 1], axis=2)
    scores = score_affect(predicted, target, intervals=ends)
    inside = (np.abs(predicted - target) <= 1).mean(axis=0)
    assert (scores.valence.coverage, scores.arousal.coverage) == pytest.approx(inside)
    assert scores.valence.coverage_interval[0] < scores.valence.coverage < scores.valence.coverage_interval[1]
    assert scores.arousal.spearman == pytest.approx(spearmanr(target[:, 1], predicted[:, 1]).statistic)


def test_intervals_of_correlations_agree_with_a_plain_bootstrap() -> None:
    predicted, target = affect()
    rng = np.random.default_rng(1)
    draws = [rng.integers(120, size=120) for _ in range(2000)]
    scores = score_affect(predicted, target)
    for name, measure in (("pearson", pearson), ("ccc", concordance)):
        resampled = [measure(target[d, 0], predicted[d, 0]) for d in draws]
        interval = getattr(scores.valence, f"{name}_interval")
        np.testing.assert_allclose(interval, np.quantile(resampled, [0.025, 0.975]), atol=0.012)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    _, target = affect()
    scores = score_affect(np.full_like(target, 5.3), target)
    assert (scores.valence.pearson, scores.valence.pearson_interval) == (None, None)
    assert (scores.ccc, scores.ccc_interval) == (0, (0, 0))
    same = score_affect(np.full_like(target, 5.3), np.full_like(target, 5.3))
    assert (same.ccc, same.ccc_interval, same.arousal.ccc, same.arousal.mae) == (None, None, None, 0)
    assert_json(same)
