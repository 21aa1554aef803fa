"""Lines after the tables of `uniemox evaluate`: trivial baselines, small classes, calibration."""

from typing import Any

from uniemox.cli.evaluate import _verdict

VALUES: dict[str, Any] = {
    "labels": ("awe", "fear", "joy"),
    "confusion": ((50, 5, 5), (10, 20, 0), (2, 0, 8)),
    "n": 100,
    "accuracy_interval": (0.70, 0.86),
    "ece": 0.08,
    "ece_calibrated": 0.05,
}


def test_chance_and_the_most_frequent_label_are_told() -> None:
    first, *others = _verdict(VALUES)
    assert first == "chance 33.3%; always awe, the most frequent label: 60.0%"
    assert others == ["too few images for a recall that says much: joy (10)"]


def test_an_accuracy_that_may_be_trivial_is_told() -> None:
    lines = list(_verdict(VALUES | {"accuracy_interval": (0.6, 0.8)}))
    assert "the accuracy may be no better than always predicting the most frequent label" in lines


def test_a_temperature_that_hurts_is_told_with_the_remedy() -> None:
    [*_, last] = _verdict(VALUES | {"ece": 0.05, "ece_calibrated": 0.08})
    assert "calibration error (0.050 instead of 0.080)" in last
    assert "uniemox calibrate" in last
    # Files of other programs have no temperature.
    assert len(list(_verdict(VALUES | {"ece_calibrated": None}))) == 2
