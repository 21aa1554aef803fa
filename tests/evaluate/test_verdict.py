"""Lines after the tables of `uniemox evaluate`: trivial baselines, small classes, calibration."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from uniemox.cli.evaluate import _confusion, score_tables
from uniemox.evaluate.verdict import verdict_of

VALUES: dict[str, Any] = {
    "labels": ("awe", "fear", "joy"),
    "confusion": ((50, 5, 5), (10, 20, 0), (2, 0, 8)),
    "n": 100,
    "accuracy_interval": (0.70, 0.86),
    "ece": 0.08,
    "ece_calibrated": 0.05,
    "temperature": 1.5,
}


@dataclass
class Scored:
    per_class_recall: dict[str, float] = field(default_factory=lambda: {"awe": 0.8, "joy": 1.0})
    per_class_interval: dict[str, Any] = field(default_factory=lambda: {"awe": (0.7, 0.9), "joy": (1.0, 1.0)})
    labels: tuple[str, ...] = ("awe", "joy")
    confusion: tuple[tuple[int, ...], ...] = ((40, 10), (0, 4))
    n: int = 54
    accuracy_interval: tuple[float, float] = (0.7, 0.9)
    ece: float = 0.1
    ece_calibrated: float | None = None


def test_chance_and_the_most_frequent_label_are_told() -> None:
    first, *others = verdict_of(VALUES, 3, flags=False)
    assert first == "chance 33.3%; always awe, the most frequent label: 60.0%"
    assert others == ["too few images for a recall with an interval: joy (10)"]


def test_chance_is_among_the_labels_that_the_model_can_choose() -> None:
    first, *_ = verdict_of(VALUES, 2, flags=False)
    assert first.startswith("chance 50.0%")


def test_labels_with_commas_are_quoted() -> None:
    scores = SimpleNamespace(scores=Scored(), trust={}, by=None, scored_labels=("cosy, warm", "grim"), verdict=())
    *_, lines = [line for line in score_tables(scores) if isinstance(line, str) and "scored" in line]  # type: ignore[arg-type]
    assert lines == '54 samples, scored among 2 labels: "cosy, warm", grim'
    first, *_ = verdict_of(VALUES | {"labels": ("cosy, warm", "fear", "joy")}, 3, flags=False)
    assert 'always "cosy, warm", the most frequent label' in first


def test_a_class_of_few_images_has_a_recall_without_interval() -> None:
    scores = SimpleNamespace(scores=Scored(), trust={}, by=None, scored_labels=("awe", "joy"), verdict=())
    table, *_ = score_tables(scores)  # type: ignore[arg-type]
    rows = dict(zip(*(list(column.cells) for column in table.columns[::2]), strict=True))  # type: ignore[union-attr]
    assert rows["recall of awe"] == "0.7000 to 0.9000"
    assert rows["recall of joy"] == ""
    # The bootstrap of images that are all right has no width.
    scores.scores.accuracy_interval = (1.0, 1.0)
    table, *_ = score_tables(scores)  # type: ignore[arg-type]
    assert "1.0000 to 1.0000" not in list(table.columns[2].cells)  # type: ignore[union-attr]


def test_headings_of_the_confusion_matrix_tell_labels_apart() -> None:
    def headings_of(*labels: str) -> list[object]:
        table = _confusion(labels, [[1] * len(labels)] * len(labels))
        return [str(column.header) for column in table.columns[1:]] + list(map(str, table.columns[0].cells))

    assert headings_of("contempt", "contentment") == ["contempt", "contentment"] * 2
    many = ("contempt", "contentment", "amusement", "anger")
    assert headings_of(*many) == ["contem", "conten", "amusem", "anger", *many]
    long_labels = ("photographs of joy", "photographs of awe")
    assert headings_of(*long_labels) == ["1", "2", f"1 {long_labels[0]}", f"2 {long_labels[1]}"]
    assert headings_of("[red]", "2") == ["[red]", "2"] * 2


def test_an_accuracy_that_may_be_trivial_is_told() -> None:
    lines = list(verdict_of(VALUES | {"accuracy_interval": (0.6, 0.8)}, 3, flags=False))
    assert "the accuracy may be no better than always predicting the most frequent label" in lines


@pytest.mark.parametrize(
    ("temperature", "flags", "cause"),
    [
        (1.5, False, "the temperature (1.50)"),
        (1.5, True, "the temperature (1.50) and less certainty for unfamiliar images"),
        # A temperature of 1 changes nothing.
        (1.0, True, "less certainty for unfamiliar images"),
        (1.0, False, "less certainty for unfamiliar images"),
    ],
)
def test_corrections_that_hurt_are_told_with_the_remedy(temperature: float, flags: bool, cause: str) -> None:
    hurt = {"ece": 0.05, "ece_calibrated": 0.08, "temperature": temperature, "n": 1200}
    [*_, last] = verdict_of(VALUES | hurt, 3, flags=flags)
    assert "smaller calibration error (0.050) than those of the model's answers (0.080)" in last
    assert f"which differ by {cause}; uniemox calibrate" in last


def test_a_larger_calibration_error_of_few_images_is_noise() -> None:
    hurt = {"ece": 0.05, "ece_calibrated": 0.14}
    assert len(list(verdict_of(VALUES | hurt, 3, flags=False))) == 2
    [*_, last] = verdict_of(VALUES | hurt | {"n": 130}, 3, flags=False)
    assert "smaller calibration error (0.050)" in last


def test_files_of_other_programs_have_no_temperature() -> None:
    values = VALUES | {"ece_calibrated": None, "temperature": None}
    assert len(list(verdict_of(values, 3, flags=False))) == 2


def test_several_labels_are_told_with_chance_and_labels_of_few_images() -> None:
    values = {"positives": {"fear": 5, "joy": 60, "pain": 0}, "n": 100}
    assert list(verdict_of(values, 3, flags=False)) == [
        "chance: a mean average precision of 0.325, the mean share of images with a label",
        "few images, so these precisions may be far off: fear (5)",
        "no image has these labels, so the mean leaves them out: pain",
    ]
