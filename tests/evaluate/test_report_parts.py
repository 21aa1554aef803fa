"""Parts of the report: differences between runs, chosen examples, curves."""

import base64
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import finetuned, pretrained
from uniemox.evaluate.report.curves import MEANINGS, OTHER_MEANING, curves_view, is_flat, meaning_of
from uniemox.evaluate.report.page import names_of
from uniemox.evaluate.report.plots import curve_url, running_mean, surest
from uniemox.evaluate.report.scores import difference
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


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=40), st.integers(0, 45))
def test_running_mean_averages_neighbours(values: list[float], reach: int) -> None:
    given_values = np.array(values)
    means = running_mean(given_values, reach)
    for i in range(len(values)):
        near = given_values[max(0, i - reach) : i + reach + 1]
        near = near[~np.isnan(near)]
        expected = near.mean() if len(near) else np.nan
        np.testing.assert_allclose(means[i], expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan, np.inf, 2.0], [np.nan] * 30, list(range(2500))])
def test_curve_uses_the_pages_text_colour(values: list[float]) -> None:
    arguments = (np.arange(1, len(values) + 1), np.array(values, dtype=np.float64))
    url = curve_url(*arguments, size=(3, 2))
    assert url == curve_url(*arguments, size=(3, 2))
    drawing = base64.b64decode(url.removeprefix("data:image/svg+xml;base64,")).decode()
    assert ET.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in drawing
    assert "prefers-color-scheme:dark" in drawing
    assert "#010203" not in drawing
    assert len(drawing) < 80_000


@pytest.mark.parametrize("name", ["pretrained", "finetuned"])
def test_every_value_that_training_logs_has_a_sentence(name: str) -> None:
    run = read_run(pretrained() if name == "pretrained" else finetuned("both"))
    view = curves_view(run)
    shown = [curve["meaning"] for curve in (*view["losses"], *view["small"], *view["flat"])]
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
