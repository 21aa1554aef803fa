"""Likely labels hold the true one as often as asked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.errors import ConfigError
from uniemox.evaluate.calibration import conformal_scores, softmax
from uniemox.predict.confidence import likely_labels, score_limit


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("held_out", [40, 480, 5000])
def test_coverage_on_exchangeable_images_is_at_least_what_was_asked(coverage: float, held_out: int) -> None:
    """Over many draws of held-out and new images of one distribution; within three standard errors."""
    draw = np.random.default_rng(held_out)
    hits, draws, new = 0.0, 200, 50
    for _ in range(draws):
        logits = draw.normal(0, 2, (held_out + new, 6))
        wrong = np.exp(0.7 * logits + draw.normal(0, 0.5, logits.shape))  # the model is not quite right
        truth = (wrong.cumsum(axis=1) / wrong.sum(axis=1, keepdims=True) < draw.random((len(logits), 1))).sum(axis=1)
        scores = conformal_scores(softmax(logits[:held_out]), np.eye(6)[truth[:held_out]])
        limit = score_limit(scores, coverage)
        exponentials = np.exp(logits[held_out:])
        p = exponentials / exponentials.sum(axis=1, keepdims=True)
        hits += np.mean([label in likely_labels(row, limit) for row, label in zip(p, truth[held_out:], strict=True)])
    error = math.sqrt(coverage * (1 - coverage) * (1 / new + 1 / held_out) / draws)
    assert hits / draws >= coverage - 3 * error


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_limit_is_the_quantile(scores: list[float], coverage: float) -> None:
    scores = sorted(scores)
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    if place > len(scores):
        with pytest.raises(ConfigError, match="can't be had"):
            score_limit(scores, coverage)
    else:
        limit = score_limit(scores, coverage)
        assert sum(score <= limit for score in scores) >= place
        assert sum(score < limit for score in scores) < place


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.floats(0, 1))
def test_a_set_is_never_empty_and_in_order(weights: list[float], limit: float) -> None:
    p = np.array(weights) / sum(weights)
    found = likely_labels(p, limit)
    assert found[0] == int(p.argmax())
    assert sorted(found, key=lambda i: (-p[i], i)) == found
    assert set(found[1:]) == {i for i in range(len(p)) if 1 - p[i] <= limit + 1e-5} - {found[0]}


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 1.5, float("nan")])
def test_other_coverages_are_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        score_limit([0.5] * 100, coverage)


def test_scores_are_one_minus_the_true_labels_probability() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1]])
    target = np.array([[1, 0, 0], [0, 1, 0], [0.3, 0.6, 0.1]])
    assert conformal_scores(probabilities, target) == (0.2, 0.3, 0.75)


def test_of_many_scores_two_thousand_are_kept_that_promise_no_less() -> None:
    draw = np.random.default_rng(0)
    logits, truth = draw.normal(0, 2, (7001, 4)), draw.integers(0, 4, 7001)
    kept = conformal_scores(softmax(logits), np.eye(4)[truth])
    assert len(kept) == 2000
    assert list(kept) == sorted(kept)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    every = np.sort(1 - p[np.arange(7001), truth]).tolist()
    for coverage in (0.1, 0.5, 0.9, 0.99):
        assert 0 <= score_limit(kept, coverage) - score_limit(every, coverage) + 1e-5 < 0.005
