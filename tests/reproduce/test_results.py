"""Results of finished runs: means over seeds, intervals, chance, differences; and their page."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.reproduce.plans import evaluation, make_run, model_run, scored, table
from uniemox.intervals import interval_over_runs, paired_bootstrap
from uniemox_paper.execute import RunOutcome
from uniemox_paper.page import CSV_FIELDS, LEFT_PX, WIDTH_PX, Record, curves, dots, write_page
from uniemox_paper.plan import Cell, Plan
from uniemox_paper.results import find_evaluation, gain, is_done, mark_of, score_of
from uniemox_paper.targets import _answers

RIGHT = [True] * 9 + [False]
HALF = [True] * 5 + [False] * 5


def dot(**fields: object) -> Record:
    """Return a record with these fields."""
    return dict.fromkeys(CSV_FIELDS) | fields


def test_unfinished_run_has_no_score(tmp_path: Path) -> None:
    open_run = evaluation(model_run(tmp_path, "x"))
    assert score_of(Cell()) is None
    assert score_of(Cell(runs=(open_run,))) is None
    assert find_evaluation(open_run) is None
    assert not is_done(open_run)


def test_one_seed_has_an_interval_over_images(tmp_path: Path) -> None:
    score = score_of(Cell(runs=(scored(tmp_path, "x", RIGHT),)))
    assert score is not None
    assert (score.value, score.over, score.seeds, score.pictures) == (0.9, "pictures", 1, 10)
    assert (score.low, score.high) == pytest.approx((0.7, 1.0))
    assert (score.chance, score.near_chance) == (0.5, False)
    guessing = score_of(Cell(runs=(scored(tmp_path, "guessing", HALF),)))
    assert guessing is not None
    # The interval contains the accuracy of the most common class.
    assert guessing.near_chance


@pytest.mark.parametrize("values", [[0.9, 0.8, 0.7], [0.3, 0.2, 0.1]])
def test_three_seeds_have_an_interval_over_seeds_and_images(tmp_path: Path, values: list[float]) -> None:
    """The interval is clipped to shares from 0 to 1."""
    runs = tuple(
        scored(tmp_path, "x", [True] * round(10 * value) + [False] * round(10 - 10 * value), seed=seed)
        for seed, value in enumerate(values)
    )
    score = score_of(Cell(runs=runs))
    assert score is not None
    low, high = interval_over_runs(np.array([[i < round(10 * value) for i in range(10)] for value in values])) or (0, 0)
    assert low < 0 or high > 1
    assert (score.low, score.high) == pytest.approx((max(low, 0.0), min(high, 1.0)))
    assert (score.over, score.seeds) == ("seeds and pictures", 3)
    two_seeds = score_of(Cell(runs=runs[:2]))
    assert two_seeds is not None
    assert (two_seeds.low, two_seeds.high, two_seeds.over, two_seeds.seeds) == (None, None, "none", 2)


def test_equal_seeds_still_have_the_uncertainty_of_few_images(tmp_path: Path) -> None:
    runs = tuple(scored(tmp_path, "x", [True] * 6 + [False] * 4, seed=seed) for seed in range(3))
    score = score_of(Cell(runs=runs))
    assert score is not None
    assert score.low is not None
    assert score.value == pytest.approx(0.6)
    # The images still contribute to the interval, and half of them are of one class.
    assert score.low < 0.4
    assert score.near_chance


def test_evaluations_of_other_data_or_damaged_ones_are_ignored(tmp_path: Path) -> None:
    run = scored(tmp_path, "x", RIGHT)
    changed = evaluation(run.needs[0], digests=("of changed images",))
    assert changed.folder == run.folder
    assert find_evaluation(run) is not None
    assert find_evaluation(changed) is None
    assert find_evaluation(evaluation(run.needs[0], split="test")) is None
    (run.folder / "evaluations" / f"{run.key}.json").write_text('{"data": "synth')
    assert find_evaluation(run) is None


def test_gain_needs_the_same_images(tmp_path: Path) -> None:
    ours = Cell(runs=(scored(tmp_path, "ours", RIGHT),))
    theirs = Cell(runs=(scored(tmp_path, "theirs", HALF),))
    difference = gain(ours, theirs)
    assert difference is not None
    assert difference.difference == pytest.approx(0.4)
    assert difference.low <= 0.4 <= difference.high
    assert gain(ours, Cell(runs=(scored(tmp_path, "short", HALF[2:]),))) is None
    assert gain(ours, Cell()) is None


def test_gains_over_three_seeds_are_paired_by_seed(tmp_path: Path) -> None:
    def cell(name: str, values: list[float], seeds: int = 3) -> Cell:
        rights = [[True] * round(10 * value) + [False] * round(10 - 10 * value) for value in values]
        return Cell(runs=tuple(scored(tmp_path, name, rights[seed], seed=seed) for seed in range(seeds)))

    ours = [0.9, 0.8, 0.6]
    theirs = [0.5, 0.7, 0.6]
    differences = np.subtract(ours, theirs)
    difference = gain(cell("ours", ours), cell("theirs", theirs))
    assert difference is not None
    hits = [np.array([[i < round(10 * value) for i in range(10)] for value in values]) for values in (ours, theirs)]
    assert difference == paired_bootstrap(*hits, pair_seeds=True)
    assert difference.difference == pytest.approx(differences.mean())
    with_two = gain(cell("few", ours, seeds=2), cell("theirs too", theirs, seeds=2))
    assert with_two is not None
    assert with_two.interval is None


def test_a_cell_is_marked_by_its_runs_and_failures(tmp_path: Path) -> None:
    done = scored(tmp_path, "x", RIGHT)
    missing = evaluation(model_run(tmp_path, "y"), "d")

    def mark(cell: Cell, *failed: str) -> str:
        return mark_of(cell, score_of(cell), {*failed})

    assert mark(Cell(paper=50.0, runs=(done,))) == "ours"
    assert mark(Cell(paper=50.0, runs=(missing,))) == "not run"
    assert mark(Cell(runs=(missing,)), missing.key) == "failed"
    assert mark(Cell(paper=50.0)) == "cited"
    assert mark(Cell()) == "not run"


def write_and_read(
    plan: Plan, root: Path, failed: dict[str, str] | None = None
) -> tuple[str, dict, list[dict[str, str]]]:
    path = write_page(plan, RunOutcome(failed=failed or {}), root)
    records = list(csv.DictReader(io.StringIO(path.with_suffix(".csv").read_text())))
    return path.read_text(), json.loads(path.with_suffix(".json").read_text()), records


def full(root: Path) -> Plan:
    unfinished = evaluation(model_run(root, "z"))
    cells = {
        "good": Cell(paper=88.0, runs=(scored(root, "x", RIGHT),)),
        "base": Cell(runs=(scored(root, "y", HALF),)),
        "later": Cell(runs=(unfinished,), why="its checkpoint"),
    }
    return table(cells, reference="base")


def test_two_seeds_have_no_interval_on_the_page(tmp_path: Path) -> None:
    """Three seeds have one; with two, the mean decides whether the histogram is beaten."""
    seeds = tuple(scored(tmp_path, "x", RIGHT, seed=seed) for seed in range(3))
    base = Cell(runs=(scored(tmp_path, "y", HALF),))
    text, _, records = write_and_read(table({"two": Cell(runs=seeds[:2]), "base": base}, reference="base"), tmp_path)
    two = next(record for record in records if record["method"] == "two")
    assert (two["accuracy"], two["low"], two["gain_low"], two["over"]) == ("0.9", "", "", "none")
    assert "90.0 %</span>" in text
    assert "+40.0 (no interval: two seeds)" in text
    assert "with two seeds, none" in text
    text, _, records = write_and_read(table({"three": Cell(runs=seeds), "base": base}, reference="base"), tmp_path)
    assert next(record for record in records if record["method"] == "three")["over"] == "seeds and pictures"
    assert "over training seeds (Student&#39;s t) and images" in text


def test_every_figure_of_a_page_is_marked(tmp_path: Path) -> None:
    plan = full(tmp_path)
    text, values, records = write_and_read(plan, tmp_path)
    assert "90.0 % (70.0 to 100.0)" in text
    assert re.search(r'88\.00</span><span class="mark cited">cited', text)
    assert "near chance (50.0 %)" in text
    assert "its checkpoint" in text
    marks = {record["method"]: record["mark"] for record in records}
    assert marks == {"good": "ours", "base": "ours", "later": "not run"}
    assert {row["method"]: row["near_chance"] for row in values["rows"]} == {"good": False, "base": True, "later": None}
    assert values["rows"][0]["gain"] == pytest.approx(0.4)
    assert values["rows"][0]["paper_percent"] == 88.0
    assert records[2]["accuracy"] == ""
    assert "+40.0 (" in text
    assert write_and_read(plan, tmp_path) == (text, values, records)  # the same twice
    done = [run["is_done"] for run in values["runs"] if run["command"].startswith("uniemox evaluate")]
    assert done == [True, True, False]


def test_rows_that_do_not_beat_the_histogram_are_marked(tmp_path: Path) -> None:
    """The comparison is paired over images if both were scored on the same; else the row's own interval decides."""
    cells = {
        "good": Cell(runs=(scored(tmp_path, "x", RIGHT),)),
        "as good": Cell(runs=(scored(tmp_path, "y", HALF[::-1]),)),
        "elsewhere": Cell(runs=(scored(tmp_path, "w", [True] * 8 + [False]),)),
        "least": Cell(runs=(scored(tmp_path, "z", HALF),)),
    }
    text, values, records = write_and_read(table(cells, baseline="least"), tmp_path)
    rows_by_method = {row["method"]: row for row in values["rows"]}
    paired = paired_bootstrap(np.array(RIGHT), np.array(HALF), [f"{i}.png" for i in range(len(RIGHT))])
    assert rows_by_method["good"]["over_histogram"] == pytest.approx(0.4)
    assert (rows_by_method["good"]["over_histogram_low"], rows_by_method["good"]["over_histogram_high"]) == (
        paired.low,
        paired.high,
    )
    assert [rows_by_method[name]["beats_histogram"] for name in cells] == [True, False, True, None]
    assert rows_by_method["as good"]["over_histogram"] == 0
    assert rows_by_method["elsewhere"]["over_histogram"] == pytest.approx(8 / 9 - 0.5)
    assert rows_by_method["elsewhere"]["over_histogram_low"] is None  # 8 of 9 less 0.2 is above a half
    assert text.count("▼ ") == 1
    assert "▼ +0.0 (" in text
    assert "+38.9 (no interval: different images) over the colour histogram" in text
    assert records[3]["beats_histogram"] == ""


def test_page_has_a_row_of_chance(tmp_path: Path) -> None:
    """Accuracies of the most common class and of a random class, over the columns' images."""
    cells = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", [True] * 9),))}
    text, values, _ = write_and_read(table(cells), tmp_path)
    assert [(row["chance"], row["uniform"]) for row in values["rows"]] == [(0.5, 0.5), (5 / 9, 0.5)]
    assert "50.0 to 55.6 % (most common class)<br>50.0 % (random class)" in text


def test_user_text_is_escaped(tmp_path: Path) -> None:
    nasty = '<script>alert("1")</script>&'
    run = evaluation(model_run(tmp_path, nasty), nasty)
    cells = {nasty: Cell(runs=(scored(tmp_path, "x", RIGHT),)), "b": Cell(runs=(run,), why=nasty)}
    text, _, records = write_and_read(table(cells, title=nasty), tmp_path, {run.key: nasty})
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert records[0]["method"] == nasty
    assert not re.search(r'(?:src|href)="(?!data:)', text)


def test_failures_are_shown_with_their_reason(tmp_path: Path) -> None:
    run = evaluation(model_run(tmp_path, "x"), "d")
    text, values, _ = write_and_read(table({"a": Cell(runs=(run,))}), tmp_path, {run.key: "exit code 9"})
    assert "exit code 9" in text
    assert values["rows"][0]["mark"] == "failed"


def test_curves_have_one_line_per_method(tmp_path: Path) -> None:
    cells = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", HALF),))}
    text, _, _ = write_and_read(table(cells, is_curve=True), tmp_path)
    assert text.count("<polyline") == 2
    drawing = curves("t", ("10%", "100%"), {"a": (dot(accuracy=0.2), dot(accuracy=0.4))}, chance=0.125)
    first, last = re.search(r'points="([\d.]+),[\d.]+ ([\d.]+),', drawing).groups()  # type: ignore[union-attr]
    assert (float(first), float(last)) == (LEFT_PX + 30, WIDTH_PX - 30)


def test_chance_is_drawn_only_if_equal_for_all_curves(tmp_path: Path) -> None:
    same = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", HALF),))}
    assert 'stroke-dasharray="' in write_and_read(table(same, is_curve=True), tmp_path)[0]
    other = {"of five in nine": Cell(runs=(scored(tmp_path, "z", [True] * 9),))}
    assert 'stroke-dasharray="' not in write_and_read(table(same | other, is_curve=True), tmp_path)[0]


def test_drawing_omits_missing_figures() -> None:
    full_record = dot(accuracy=0.5, low=0.4, high=0.6, paper_percent=70.0)
    drawing = dots("t", {"a": full_record, "b": dot(), "<c>": dot(paper_percent=30.0)}, chance=None)
    assert drawing.count("<circle") == 1
    assert drawing.count("<rect") == 2
    assert "&lt;c&gt;" in drawing
    assert ">b<" not in drawing


def test_multimodal_models_are_compared_with_the_histogram(tmp_path: Path) -> None:
    """They answer for a part of the split, so the comparison is not paired: their own intervals decide."""
    run = make_run(tmp_path, "ask", "ask", options={"out": "{out}"})
    run.folder.mkdir(parents=True)
    about = {"n": 100, "outcomes": {"label": 90}, "agreement": None}
    models = [
        {"model": "good", "accuracy": 0.7, "accuracy_interval": [0.6, 0.8], **about},
        {"model": "bad", "accuracy": 0.55, "accuracy_interval": [0.45, 0.65], **about},
    ]
    (run.folder / "result.json").write_text(json.dumps({"models": models, "ours": None}))
    text = _answers(run, Cell(runs=(scored(tmp_path, "x", HALF),)))
    assert ">good<" in text
    assert ">▼ bad<" in text
    assert ">colour histogram, whole split<" in text
    assert "Chance on the whole split: 0.500 for the most frequent class, 0.500 for a random class." in text
    assert "▼" not in _answers(run, Cell())
