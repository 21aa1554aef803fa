"""Parts of the report: differences between runs, chosen examples, curves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.runs import finetuned, pretrained
from uniemox.evaluate.report.charts import (
    MAX_POINTS,
    curve_chart,
    curve_points,
    curve_rows,
    reliability_bins,
    tick_words,
    ticks_of,
)
from uniemox.evaluate.report.curves import MEANINGS, OTHER_MEANING, curves_view, is_flat, meaning_of
from uniemox.evaluate.report.examples import surest
from uniemox.evaluate.report.page import names_of
from uniemox.evaluate.report.scores import difference, reliability_view
from uniemox.evaluate.run_records import Predictions, read_run
from uniemox.intervals import paired_bootstrap


def answers(keys: str, labels: list[int], predicted: list[int]) -> Predictions:
    groups = tuple(key.partition("#")[0] for key in keys.split())
    return Predictions(
        tuple(keys.split()), groups, np.array(labels), np.array(predicted), np.eye(2)[predicted], ("a", "b")
    )


def test_a_difference_needs_the_same_images() -> None:
    ours = answers("a b c d", [0, 1, 0, 1], [0, 1, 0, 0])
    theirs = answers("a b c d", [0, 1, 0, 1], [0, 0, 1, 1])
    result = difference(ours, theirs)
    expected = paired_bootstrap(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 1]))
    assert result == expected
    assert result.difference == 0.25
    assert difference(ours, answers("a b c", [0, 1, 0], [0, 1, 0])) is None
    assert difference(ours, answers("a b c e", [0, 1, 0, 1], [0, 1, 0, 0])) is None
    # Two folders may have files of the same names.
    with_hashes = [replace(item, hashes=("1", "2", "3", "4")) for item in (ours, theirs)]
    assert difference(*with_hashes) == expected
    assert difference(with_hashes[0], replace(theirs, hashes=("1", "2", "3", "5"))) is None
    # Other labels can't be compared.
    assert difference(ours, answers("a b c d", [0, 1, 0, 0], [0, 1, 0, 0])) is None


def test_people_of_one_image_are_drawn_together() -> None:
    ours = answers("a a#2 b b#2", [0] * 4, [0] * 4)
    theirs = answers("a a#2 b b#2", [0] * 4, [0, 0, 1, 1])
    assert difference(ours, theirs) == paired_bootstrap(np.ones(4), np.array([1, 1, 0, 0]), list("aabb"))


def test_names_of_runs_are_unique(tmp_path: Path) -> None:
    assert names_of([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert names_of([Path("x/a"), Path("y/a"), Path("b")]) == ["x/a", "y/a", "b"]
    assert names_of([Path("x/a"), Path("x/a")]) == ["x/a (1)", "x/a (2)"]


def test_most_confident_predictions_come_first() -> None:
    top = np.array([0.6, 0.9, 0.9, 0.7, 0.8, 0.95, 0.55, 0.65, 0.75])
    predictions = Predictions(
        tuple("abcdefghi"),
        tuple("abcdefghi"),
        np.zeros(9, int),
        np.zeros(9, int),
        np.stack([top, 1 - top], axis=1),
        ("a", "b"),
    )
    assert surest(predictions, np.ones(9, bool)).tolist() == [5, 1, 2, 4, 8, 3]
    assert surest(predictions, np.arange(9) < 2).tolist() == [1, 0]
    assert surest(predictions, np.zeros(9, bool)).tolist() == []


VALUES = st.lists(st.floats(-1e99, 1e99) | st.sampled_from([np.nan, np.inf, 1e300]), min_size=1, max_size=60)


@given(VALUES)
def test_curves_show_the_mean_and_the_range_of_neighbours(values: list[float]) -> None:
    """With fewer than 30 values, each value."""
    steps = np.arange(len(values)) * 3 + 5
    points = curve_points((steps, np.array(values)))
    reach = len(values) // 30
    expected = []
    for i in range(len(values)):
        near = [value for value in values[max(0, i - reach) : i + reach + 1] if abs(value) < 1e100]
        if near:
            expected.append((i / max(len(values) - 1, 1) * 100, np.mean(near), min(near), max(near)))
    assert len(points) == len(expected)
    for point, (x, mean, low, high) in zip(points, expected, strict=True):
        assert point.x == pytest.approx(x)
        assert point.value == pytest.approx(mean, rel=1e-9, abs=1e-9 * max(abs(low), abs(high)))
        assert point.bounds == ((low, high) if len(values) >= 30 else None)


def test_a_long_curve_has_few_points_and_loses_no_spike() -> None:
    values = np.ones(100_000)
    values[[12_345, 77_777]] = (9, -3)
    chart = curve_chart((np.arange(len(values)), values))
    bounds = [point.bounds for point in chart.points]
    assert (len(chart.points), chart.has_points, chart.undrawn) == (MAX_POINTS, False, 0)
    assert (chart.points[0].x, chart.points[-1].x) == (0, 100)
    assert (min(low for low, _ in bounds), max(high for _, high in bounds)) == (-3, 9)
    assert chart.ends == ("step 0", "step 99,999")
    assert curve_chart((np.arange(3), np.array([1, np.nan, np.inf]))).undrawn == 2


@given(st.floats(-1e99, 1e99), st.floats(-1e99, 1e99))
@example(0.0, 5e-324)
def test_grid_lines_are_few_and_enclose_the_values(a: float, b: float) -> None:
    low, high = sorted((a, b))
    ticks = ticks_of(low, high)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low + step / 1e6
    assert ticks[-1] >= high - step / 1e6
    assert np.diff(ticks) == pytest.approx(step, rel=1e-6)
    assert len(tick_words(ticks)) == len(ticks)


def test_sparse_curves_have_all_their_values_in_the_table() -> None:
    """A score after each epoch, and a loss at each of 1,000 steps."""
    loss = (np.arange(1, 1001), 1 / np.arange(1, 1001))
    score = (np.array([333, 666, 1000]), np.array([0.5, 0.75, 0.625]))
    rows = curve_rows([loss, score])
    assert [row for row in rows if row[2] != "–"] == [
        ["333", "0.003003", "0.5"],
        ["666", "0.001502", "0.75"],
        ["1,000", "0.001", "0.625"],
    ]
    assert len(rows) == 22
    assert rows[0] == ["1", "1", "–"]


def test_bins_of_the_reliability_diagram_are_a_table() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    labels = np.array([0, 1, 1])
    predictions = Predictions(tuple("abc"), tuple("abc"), labels, probabilities.argmax(1), probabilities, ("a", "b"))
    assert [bin.cells for bin in reliability_bins(predictions)] == [
        ["73 to 80 %", "1", "0.800", "1.000"],
        ["87 to 93 %", "2", "0.900", "0.500"],
    ]


def test_a_temperature_of_1_is_not_called_a_calibration() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    labels = np.array([0, 1])
    predictions = Predictions(("a", "b"), ("a", "b"), labels, labels, probabilities, ("a", "b"))
    said = {value: reliability_view(predictions, value)["calibration"] for value in (None, 1.0, 1.3)}
    assert said == {None: "", 1.0: "not calibrated (temperature 1)", 1.3: "calibrated on held-out images"}


@pytest.mark.parametrize("name", ["pretrained", "finetuned"])
def test_every_value_that_training_logs_has_a_sentence(name: str) -> None:
    run = read_run(pretrained() if name == "pretrained" else finetuned("both"))
    view = curves_view(run)
    shown = [curve["meaning"] for curve in (*view["curves"], *view["flat"])]
    assert len(shown) > 3
    assert OTHER_MEANING not in shown
    for meaning in (*MEANINGS.values(), OTHER_MEANING, meaning_of("grad_norm_total")):
        assert meaning.count(". ") == 0
        assert meaning.endswith(".")


@pytest.mark.parametrize(
    ("values", "flat"),
    [([1.0], True), ([0.5] * 9, True), ([np.nan] * 3, True), ([1.0, np.nan], False), ([0.0, 0.0, 1.0], False)],
)
def test_values_that_never_change_are_flat(values: list[float], flat: bool) -> None:
    assert is_flat(np.array(values)) is flat
