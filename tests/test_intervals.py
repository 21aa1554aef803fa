"""Bootstrap intervals against the binomial distribution, scipy and plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from tools.coverage import coverage
from uniemox import resampling
from uniemox.errors import DataError, ShapeError
from uniemox.intervals import (
    bootstrap_interval,
    interval_over_runs,
    no_spread_note,
    paired_bootstrap,
    percentile_interval,
    share_interval,
    spread_over_seeds,
)
from uniemox.resampling import resampled_means


def interval_of(scores: np.ndarray, groups: list | None = None, **draw: int) -> tuple[float, float]:
    """`bootstrap_interval` with other draws."""
    return percentile_interval(resampled_means(np.asarray(scores, float)[:, None], groups, **draw)[:, 0])


NUMBERS = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


def test_no_sample_is_refused() -> None:
    with pytest.raises(DataError, match="no sample to resample"):
        bootstrap_interval(np.array([]))
    with pytest.raises(DataError, match="no sample to resample"):
        paired_bootstrap(np.array([]), np.array([]))


def test_one_sample_has_no_spread() -> None:
    assert bootstrap_interval(np.array([0.3])) == (0.3, 0.3)
    comparison = paired_bootstrap(np.array([1]), np.array([0]))
    assert (comparison.difference, comparison.low, comparison.high, comparison.share_above_zero) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"per_sample": np.zeros((2, 2))}, ShapeError, r"scores \(2, 2\) must be \(N,\)"),
        ({"per_sample": np.array([1.0, np.nan])}, DataError, "sample 1 has a score that is not finite"),
        ({"per_sample": np.zeros(3), "groups": ["a"]}, ShapeError, "1 groups do not match 3 samples"),
    ],
)
def test_bad_input_is_refused(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bootstrap_interval(**arguments)


def test_paired_scores_must_have_the_same_number_of_images() -> None:
    for ours, theirs in ((3, 4), ((2, 3), (2, 4)), ((1, 2, 3), 3), ((0, 3), 3)):
        with pytest.raises(ShapeError, match="must both be"):
            paired_bootstrap(np.zeros(ours), np.zeros(theirs))


@pytest.mark.parametrize(("right", "n"), [(30, 100), (380, 480), (19, 20)])
def test_a_fraction_has_the_quantiles_of_the_binomial_distribution(right: int, n: int) -> None:
    """The mean of resampled zeros and ones is binomial; 20,000 resamples find its quantiles to within one count."""
    low, high = interval_of(np.arange(n) < right, resamples=20_000)
    assert abs(low * n - stats.binom.ppf(0.025, n, right / n)) <= 1
    assert abs(high * n - stats.binom.ppf(0.975, n, right / n)) <= 1


def test_agrees_with_scipy() -> None:
    scores = np.random.default_rng(0).gamma(2, size=150)
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose(interval_of(scores, resamples=20_000), theirs, atol=0.01)


def test_agrees_with_a_plain_loop_over_groups() -> None:
    """Groups of 1 to 5 samples, drawn whole: the mean is over the samples of the drawn groups."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200)
    groups = rng.integers(60, size=200).tolist()
    members = [np.flatnonzero(np.array(groups) == group) for group in sorted(set(groups))]
    means = []
    for _ in range(10_000):
        drawn = rng.integers(len(members), size=len(members))
        means.append(np.concatenate([scores[members[i]] for i in drawn]).mean())
    interval = interval_of(scores, groups, resamples=10_000)
    np.testing.assert_allclose(interval, np.quantile(means, [0.025, 0.975]), atol=0.01)


def test_interval_covers_the_true_mean_at_its_level() -> None:
    rng = np.random.default_rng(0)
    intervals = [interval_of(rng.random(200) < 0.7, resamples=400) for _ in range(400)]
    assert 0.92 <= np.mean([low <= 0.7 <= high for low, high in intervals]) <= 0.98


def test_samples_of_one_group_count_once() -> None:
    """Every image three times over changes nothing if they are one group, and fakes certainty if they are not."""
    once = np.random.default_rng(0).random(80)
    thrice = np.tile(once, 3)
    groups = list(range(80)) * 3
    np.testing.assert_allclose(bootstrap_interval(thrice, groups), bootstrap_interval(once), rtol=1e-12)
    low, high = bootstrap_interval(once)
    fake_low, fake_high = bootstrap_interval(thrice)
    assert fake_high - fake_low < 0.7 * (high - low)


def test_samples_without_a_group_are_drawn_alone() -> None:
    scores = np.random.default_rng(0).random(30)
    assert bootstrap_interval(scores, [None] * 30) == bootstrap_interval(scores)
    assert bootstrap_interval(scores, ["one"] * 30) == pytest.approx((scores.mean(), scores.mean()))


def test_draws_depend_on_the_seed() -> None:
    scores = np.random.default_rng(0).random(30)
    assert interval_of(scores) == interval_of(scores, seed=0) == bootstrap_interval(scores)
    assert interval_of(scores, seed=1) != interval_of(scores, seed=2)


def test_blocks_do_not_repeat_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 2 and of 7 resamples of 10 units; each must go on where the one before stopped."""
    values = np.random.default_rng(0).random((10, 2))
    draw = resampling._draw
    blocks = []

    def recorded(*arguments: object) -> np.ndarray:
        times = draw(*arguments)
        blocks.append(times.sum())
        return times

    monkeypatch.setattr(resampling, "_draw", recorded)
    for draws, resamples in ((20, 7), (70, 8), (1, 3)):
        monkeypatch.setattr(resampling, "MAX_DRAWS", draws)
        blocks.clear()
        means = resampled_means(values, resamples=resamples)
        assert max(blocks) <= max(draws, len(values))  # so memory is limited
        assert means.shape == (resamples, 2)
        assert len(np.unique(means[:, 0])) == resamples


def test_columns_come_from_the_same_draws() -> None:
    values = np.random.default_rng(0).random(40)
    means = resampled_means(np.stack([values, 2 * values + 1], axis=1))
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0] + 1)


def test_undefined_resamples_are_left_out() -> None:
    assert percentile_interval(np.array([np.nan, 0.5, np.nan, 0.5])) == (0.5, 0.5)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


@given(NUMBERS, st.integers(0, 100))
def test_interval_contains_the_mean(values: list[float], seed: int) -> None:
    """True of the percentile interval up to the luck of the draw: with 400 resamples half of them are on each side."""
    scores = np.array(values)
    low, high = interval_of(scores, resamples=400, seed=seed)
    assert low - 1e-9 <= scores.mean() <= high + 1e-9
    assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9


@given(NUMBERS, st.randoms(use_true_random=False))
def test_interval_does_not_depend_on_the_order_of_samples(values: list[float], random: object) -> None:
    scores = np.array(values)
    groups = [i % 7 for i in range(len(values))]
    order = list(range(len(values)))
    random.shuffle(order)
    assert interval_of(scores, resamples=50) == interval_of(scores[order], resamples=50)
    ones = (scores > 0).astype(float)
    regrouped = [groups[i] for i in order]
    assert interval_of(ones, groups, resamples=50) == interval_of(ones[order], regrouped, resamples=50)


@given(NUMBERS)
def test_equal_models_have_zero_difference(values: list[float]) -> None:
    scores = np.array(values)
    comparison = paired_bootstrap(scores, scores)
    assert (comparison.difference, comparison.low, comparison.high, comparison.share_above_zero) == (0, 0, 0, 0)
    seeds = np.stack([scores, scores[::-1], scores])
    comparison = paired_bootstrap(seeds, seeds, pair_seeds=True)
    assert (comparison.difference, comparison.low, comparison.high, comparison.share_above_zero) == (0, 0, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_three_seeds_that_tie_are_not_above_zero(rows: list[tuple[bool, bool, bool]]) -> None:
    """Thirds do not add up in floating point; seeds in another order must still tie exactly."""
    scores = np.array(rows).T  # (3, N)
    comparison = paired_bootstrap(scores, scores[[2, 0, 1]])
    assert comparison.low is not None
    assert (comparison.difference, comparison.low, comparison.share_above_zero) == (0, -comparison.high, 0)


def test_paired_interval_equals_the_interval_of_the_difference() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random(60)
    theirs = rng.random(60)
    groups = [i // 2 for i in range(60)]
    comparison = paired_bootstrap(ours, theirs, groups)
    assert comparison.difference == pytest.approx((ours - theirs).mean())
    assert (comparison.low, comparison.high) == pytest.approx(bootstrap_interval(ours - theirs, groups))


def test_two_runs_have_no_interval() -> None:
    """Neither alone nor beside three others: their difference says too little about other seeds."""
    hits = np.random.default_rng(0).random((5, 100)) < 0.7
    assert interval_over_runs(hits[:2]) is None
    for ours, theirs in ((hits[:2], hits[2:]), (hits[:3], hits[3:]), (hits[:2], hits[4:])):
        comparison = paired_bootstrap(ours, theirs)
        assert comparison.interval is None
        assert comparison.is_above_zero == (comparison.difference > 0)
    assert paired_bootstrap(hits[:3], hits[4]).interval is not None  # a single run counts as fixed


def test_runs_on_images_of_equal_difficulty_have_students_interval() -> None:
    """Every image has the same score, so only the seeds differ: scipy's interval of a mean, and Welch's of two."""
    ours = np.array([0.7, 0.9, 0.8, 0.75])
    theirs = np.array([0.5, 0.45, 0.6])
    low, high = stats.t.interval(0.95, 3, loc=ours.mean(), scale=stats.sem(ours))
    assert interval_over_runs(np.repeat(ours[:, None], 20, axis=1)) == pytest.approx((low, high))
    comparison = paired_bootstrap(*(np.repeat(scores[:, None], 20, axis=1) for scores in (ours, theirs)))
    reaches = [stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores) for scores in (ours, theirs)]
    assert comparison.interval == pytest.approx(
        (comparison.difference - np.hypot(*reaches), comparison.difference + np.hypot(*reaches))
    )
    paired = paired_bootstrap(*(np.repeat(scores[:3, None], 20, axis=1) for scores in (ours, theirs)), pair_seeds=True)
    low, high = stats.t.interval(0.95, 2, loc=paired.difference, scale=stats.sem(ours[:3] - theirs))
    assert paired.interval == pytest.approx((low, high))


def test_runs_that_agree_have_the_interval_of_their_images() -> None:
    once = np.random.default_rng(0).random(80) < 0.6
    low, high = interval_over_runs(np.stack([once] * 3)) or (0, 0)
    assert (low, high) == pytest.approx(bootstrap_interval(once), abs=0.01)


def test_more_images_do_not_hide_the_seeds() -> None:
    """Three runs 5 points apart: the interval over images shrinks, the one over seeds and images does not."""
    rng = np.random.default_rng(0)
    widths = []
    for images in (100, 10_000):
        hits = rng.random((3, images)) < np.array([[0.65], [0.70], [0.75]])
        low, high = interval_over_runs(hits) or (0, 0)
        widths.append(high - low)
    assert widths[1] > 0.2  # Student's t over 0.65, 0.70, 0.75: 0.248
    spread = spread_over_seeds(hits.mean(axis=1), resampled=[resampled_means(hits.T)])
    assert spread is not None
    assert spread.reach(0.975, 0.8) > spread.reach(0.975) == pytest.approx(widths[1] / 2)


@pytest.mark.thorough
def test_simulated_intervals_contain_new_seeds_where_images_alone_do_not() -> None:
    """`python -m tools.coverage` on few images, whose seeds differ by 5 points."""
    assert coverage(2, 50, 5.0, trials=2)[:2] == [None, None]
    mean, difference, mean_over_images, difference_over_images, _ = coverage(3, 400, 5.0, trials=60)
    assert mean is not None and difference is not None  # noqa: PT018
    assert min(mean, difference) >= 0.88
    assert mean_over_images is not None and mean_over_images < 0.8  # noqa: PT018
    assert difference_over_images is not None and difference_over_images < 0.8  # noqa: PT018


@pytest.mark.parametrize(("ours", "theirs"), [((3, 4), (2, 4)), ((3, 4), (4,))])
def test_different_numbers_of_runs_cannot_be_paired(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="can't be paired by seed"):
        paired_bootstrap(np.zeros(ours), np.zeros(theirs), pair_seeds=True)
    with pytest.raises(ShapeError, match="one row per run"):
        interval_over_runs(np.zeros(4))


def test_pairing_detects_a_gain_that_two_intervals_hide() -> None:
    """Hard images are hard for both: a gain of 2 % on 500 images is certain when paired, and hidden when not."""
    theirs = (np.arange(500) < 300).astype(float)
    ours = (np.arange(500) < 310).astype(float)
    comparison = paired_bootstrap(ours, theirs)
    assert comparison.difference == pytest.approx(0.02)
    assert comparison.low > 0
    assert comparison.share_above_zero == 1
    assert bootstrap_interval(ours)[0] < bootstrap_interval(theirs)[1]


ROWS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=40)


@given(ROWS, st.sampled_from([1, 2, 3]), st.sampled_from([(1, 1), (3, 1), (1, 3)]))
def test_swapping_the_models_mirrors_the_interval(
    rows: list[list[bool]], group_size: int, runs: tuple[int, int]
) -> None:
    scores = np.array(rows).T  # (4, N)
    ours = scores[: runs[0]]
    theirs = scores[-runs[1] :]
    groups = [i // group_size for i in range(len(rows))]
    comparison = paired_bootstrap(ours, theirs, groups)
    # As many wins as losses are the same in both directions.
    assume(comparison.difference != 0)
    swapped = paired_bootstrap(theirs, ours, groups)
    assert swapped.difference == -comparison.difference
    assert comparison.low is not None
    assert comparison.high is not None
    assert (swapped.low, swapped.high) == pytest.approx((-comparison.high, -comparison.low), abs=1e-12)
    assert swapped.share_above_zero + comparison.share_above_zero <= 1


@pytest.mark.parametrize("least", [10**9, 100])
def test_negated_scores_have_negated_resamples(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where repeated scores are drawn as a multinomial."""
    monkeypatch.setattr(resampling, "MIN_MULTINOMIAL_UNITS", least)
    scores = np.random.default_rng(6).integers(-2, 4, 5000)[:, None]
    np.testing.assert_allclose(resampled_means(-scores), -resampled_means(scores), rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(24_000)]])
def test_multinomial_draws_have_the_same_distribution(
    groups: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a multinomial over the distinct ones: other draws, the same distribution."""
    right = np.random.default_rng(3).random((24_000, 2)) < (0.3, 0.9)
    monkeypatch.setattr(resampling, "MIN_MULTINOMIAL_UNITS", 8_000)
    fast = resampled_means(right, groups, resamples=4000)
    order = np.random.default_rng(4).permutation(24_000)
    moved = None if groups is None else [groups[i] for i in order]
    np.testing.assert_allclose(resampled_means(right[order], moved, resamples=4000), fast, rtol=1e-12)
    monkeypatch.setattr(resampling, "MIN_MULTINOMIAL_UNITS", 10**9)
    one_by_one = resampled_means(right, groups, resamples=4000)
    assert not np.array_equal(fast, one_by_one)
    deviation = one_by_one.std(axis=0)
    np.testing.assert_allclose(fast.mean(axis=0), right.mean(axis=0), atol=4 * deviation.max() / 4000**0.5)
    np.testing.assert_allclose(fast.std(axis=0), deviation, rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(fast.T), np.corrcoef(one_by_one.T), atol=0.1)


def test_distinct_units_are_not_drawn_as_multinomial(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(5).random((24_000, 1))
    means = resampled_means(scores, resamples=20)
    monkeypatch.setattr(resampling, "MIN_MULTINOMIAL_UNITS", 10**9)
    assert np.array_equal(means, resampled_means(scores, resamples=20))


@pytest.mark.parametrize("count", [1, 6, 60, 1000])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_note_about_samples_that_agree_has_the_exact_interval(share: float, count: int) -> None:
    exact = stats.binomtest(round(share * count), count).proportion_ci(method="exact")
    note = no_spread_note(share, count)
    assert note is not None
    assert note.endswith(f"the exact 95 % interval is {100 * exact.low:.0f} to {100 * exact.high:.0f} %")
    assert no_spread_note((share + 0.5) / 2, count) is None


def test_samples_without_a_group_count_one_by_one_in_the_exact_interval() -> None:
    assert share_interval(np.ones(10), [None] * 10) == share_interval(np.ones(10))
    assert share_interval(np.ones(4), ["a", "a", None, None]) == share_interval(np.ones(3))
