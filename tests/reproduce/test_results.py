"""What finished runs say: means over seeds, intervals, chance, differences; and the page that shows it."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.reproduce.made import evaluation, make_run, model_run, scored, table
from uniemox.intervals import interval_over_runs, paired_bootstrap
from uniemox.reproduce.execute import RunOutcome
from uniemox.reproduce.page import CSV_FIELDS, LEFT_PX, WIDTH_PX, Record, curves, dots, write_page
from uniemox.reproduce.plan import Cell, Plan
from uniemox.reproduce.results import find_evaluation, gain, is_done, mark_of, score_of
from uniemox.reproduce.targets import _found

RIGHT = [True] * 9 + [False]
HALF = [True] * 5 + [False] * 5


def dot(**known: object) -> Record:
    """A record with these fields."""
    return dict.fromkeys(CSV_FIELDS) | known


def test_no_run_is_no_score(tmp_path: Path) -> None:
    open_run = evaluation(model_run(tmp_path, "x"))
    assert score_of(Cell()) is None
    assert score_of(Cell(runs=(open_run,))) is None
    assert find_evaluation(open_run) is None
    assert not is_done(open_run)


def test_one_seed_has_the_interval_of_its_images(tmp_path: Path) -> None:
    found = score_of(Cell(runs=(scored(tmp_path, "x", RIGHT),)))
    assert found is not None
    assert (found.accuracy, found.over, found.seeds, found.pictures) == (0.9, "pictures", 1, 10)
    assert (found.low, found.high) == pytest.approx((0.7, 1.0))
    assert (found.chance, found.near_chance) == (0.5, False)
    guessing = score_of(Cell(runs=(scored(tmp_path, "guessing", HALF),)))
    assert guessing is not None
    assert guessing.near_chance  # by the interval and the commonest class


@pytest.mark.parametrize("values", [[0.9, 0.8, 0.7], [0.3, 0.2, 0.1]])
def test_three_seeds_have_an_interval_over_seeds_and_images(tmp_path: Path, values: list[float]) -> None:
    """Cut off where it leaves the shares from 0 to 1."""
    runs = tuple(
        scored(tmp_path, "x", [True] * round(10 * value) + [False] * round(10 - 10 * value), seed=seed)
        for seed, value in enumerate(values)
    )
    found = score_of(Cell(runs=runs))
    assert found is not None
    low, high = interval_over_runs(np.array([[i < round(10 * value) for i in range(10)] for value in values])) or (0, 0)
    assert low < 0 or high > 1
    assert (found.low, found.high) == pytest.approx((max(low, 0.0), min(high, 1.0)))
    assert (found.over, found.seeds) == ("seeds and pictures", 3)
    two = score_of(Cell(runs=runs[:2]))
    assert two is not None
    assert (two.low, two.high, two.over, two.seeds) == (None, None, "none", 2)


def test_seeds_that_agree_do_not_make_few_images_a_result(tmp_path: Path) -> None:
    runs = tuple(scored(tmp_path, "x", [True] * 6 + [False] * 4, seed=seed) for seed in range(3))
    found = score_of(Cell(runs=runs))
    assert found is not None
    assert found.low is not None
    assert found.accuracy == pytest.approx(0.6)
    assert found.low < 0.4  # the images still count
    assert found.near_chance  # by the images, of which half are of one class


def test_an_evaluation_of_another_split_of_changed_images_or_cut_off_is_none(tmp_path: Path) -> None:
    run = scored(tmp_path, "x", RIGHT)
    changed = evaluation(run.needs[0], digests=("of changed images",))
    assert changed.folder == run.folder
    assert find_evaluation(run) is not None
    assert find_evaluation(changed) is None
    assert find_evaluation(evaluation(run.needs[0], split="test")) is None
    (run.folder / "evaluations" / f"{run.key}.json").write_text('{"data": "synth')
    assert find_evaluation(run) is None


def test_gains_are_of_the_same_images(tmp_path: Path) -> None:
    ours = Cell(runs=(scored(tmp_path, "ours", RIGHT),))
    theirs = Cell(runs=(scored(tmp_path, "theirs", HALF),))
    found = gain(ours, theirs)
    assert found is not None
    assert found.difference == pytest.approx(0.4)
    assert found.low <= 0.4 <= found.high
    assert gain(ours, Cell(runs=(scored(tmp_path, "short", HALF[2:]),))) is None
    assert gain(ours, Cell()) is None


def test_gains_over_three_seeds_are_paired_by_seed(tmp_path: Path) -> None:
    def cell(name: str, values: list[float], seeds: int = 3) -> Cell:
        rights = [[True] * round(10 * value) + [False] * round(10 - 10 * value) for value in values]
        return Cell(runs=tuple(scored(tmp_path, name, rights[seed], seed=seed) for seed in range(seeds)))

    ours = [0.9, 0.8, 0.6]
    theirs = [0.5, 0.7, 0.6]
    differences = np.subtract(ours, theirs)
    found = gain(cell("ours", ours), cell("theirs", theirs))
    assert found is not None
    hits = [np.array([[i < round(10 * value) for i in range(10)] for value in values]) for values in (ours, theirs)]
    assert found == paired_bootstrap(*hits, pair_seeds=True)
    assert found.difference == pytest.approx(differences.mean())
    with_two = gain(cell("few", ours, seeds=2), cell("theirs too", theirs, seeds=2))
    assert with_two is not None
    assert with_two.interval is None


def test_marks(tmp_path: Path) -> None:
    done = scored(tmp_path, "x", RIGHT)
    missing = evaluation(model_run(tmp_path, "y"), "d")

    def mark(cell: Cell, *failed: str) -> str:
        return mark_of(cell, score_of(cell), {*failed})

    assert mark(Cell(paper=50.0, runs=(done,))) == "ours"
    assert mark(Cell(paper=50.0, runs=(missing,))) == "not run"
    assert mark(Cell(runs=(missing,)), missing.key) == "failed"
    assert mark(Cell(paper=50.0)) == "cited"
    assert mark(Cell()) == "not run"


def written(plan: Plan, root: Path, failed: dict[str, str] | None = None) -> tuple[str, dict, list[dict[str, str]]]:
    path = write_page(plan, RunOutcome(failed=failed or {}), root)
    records = list(csv.DictReader(io.StringIO(path.with_suffix(".csv").read_text())))
    return path.read_text(), json.loads(path.with_suffix(".json").read_text()), records


def full(root: Path) -> Plan:
    waiting = evaluation(model_run(root, "z"))
    cells = {
        "good": Cell(paper=88.0, runs=(scored(root, "x", RIGHT),)),
        "base": Cell(runs=(scored(root, "y", HALF),)),
        "later": Cell(runs=(waiting,), why="its checkpoint"),
    }
    return table(cells, reference="base")


def test_two_seeds_stand_on_a_page_without_an_interval(tmp_path: Path) -> None:
    """One more does not; the histogram is beaten or not by the mean."""
    seeds = tuple(scored(tmp_path, "x", RIGHT, seed=seed) for seed in range(3))
    base = Cell(runs=(scored(tmp_path, "y", HALF),))
    text, _, records = written(table({"two": Cell(runs=seeds[:2]), "base": base}, reference="base"), tmp_path)
    two = next(record for record in records if record["method"] == "two")
    assert (two["accuracy"], two["low"], two["gain_low"], two["over"]) == ("0.9", "", "", "none")
    assert "90.0 %</span>" in text
    assert "+40.0 (no interval: two seeds)" in text
    assert "with two seeds, none" in text
    text, _, records = written(table({"three": Cell(runs=seeds), "base": base}, reference="base"), tmp_path)
    assert next(record for record in records if record["method"] == "three")["over"] == "seeds and pictures"
    assert "over training seeds (Student&#39;s t) and images" in text


def test_every_figure_of_a_page_is_marked(tmp_path: Path) -> None:
    plan = full(tmp_path)
    text, values, records = written(plan, tmp_path)
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
    assert written(plan, tmp_path) == (text, values, records)  # the same twice
    done = [run["is_done"] for run in values["runs"] if run["command"].startswith("uniemox evaluate")]
    assert done == [True, True, False]


def test_rows_that_do_not_beat_the_histogram_are_marked(tmp_path: Path) -> None:
    """Paired over images where both were scored on the same ones; else only by the row's own interval."""
    cells = {
        "good": Cell(runs=(scored(tmp_path, "x", RIGHT),)),
        "as good": Cell(runs=(scored(tmp_path, "y", HALF[::-1]),)),
        "elsewhere": Cell(runs=(scored(tmp_path, "w", [True] * 8 + [False]),)),
        "least": Cell(runs=(scored(tmp_path, "z", HALF),)),
    }
    text, values, records = written(table(cells, baseline="least"), tmp_path)
    found = {row["method"]: row for row in values["rows"]}
    paired = paired_bootstrap(np.array(RIGHT), np.array(HALF), [f"{i}.png" for i in range(len(RIGHT))])
    assert found["good"]["over_histogram"] == pytest.approx(0.4)
    assert (found["good"]["over_histogram_low"], found["good"]["over_histogram_high"]) == (paired.low, paired.high)
    assert [found[name]["beats_histogram"] for name in cells] == [True, False, True, None]
    assert found["as good"]["over_histogram"] == 0
    assert found["elsewhere"]["over_histogram"] == pytest.approx(8 / 9 - 0.5)
    assert found["elsewhere"]["over_histogram_low"] is None  # 8 of 9 less 0.2 is above a half
    assert text.count("▼ ") == 1
    assert "▼ +0.0 (" in text
    assert "+38.9 (no interval: different images) over the colour histogram" in text
    assert records[3]["beats_histogram"] == ""


def test_chance_is_a_row(tmp_path: Path) -> None:
    """What the commonest class gives, and one class of all, over the columns' images."""
    cells = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", [True] * 9),))}
    text, values, _ = written(table(cells), tmp_path)
    assert [(row["chance"], row["uniform"]) for row in values["rows"]] == [(0.5, 0.5), (5 / 9, 0.5)]
    assert "50.0 to 55.6 % (most common class)<br>50.0 % (random class)" in text


def test_words_of_users_are_only_words(tmp_path: Path) -> None:
    nasty = '<script>alert("1")</script>&'
    run = evaluation(model_run(tmp_path, nasty), nasty)
    cells = {nasty: Cell(runs=(scored(tmp_path, "x", RIGHT),)), "b": Cell(runs=(run,), why=nasty)}
    text, _, records = written(table(cells, title=nasty), tmp_path, {run.key: nasty})
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert records[0]["method"] == nasty
    assert not re.search(r'(?:src|href)="(?!data:)', text)


def test_failures_are_shown_with_their_reason(tmp_path: Path) -> None:
    run = evaluation(model_run(tmp_path, "x"), "d")
    text, values, _ = written(table({"a": Cell(runs=(run,))}), tmp_path, {run.key: "exit code 9"})
    assert "exit code 9" in text
    assert values["rows"][0]["mark"] == "failed"


def test_curves_have_a_line_each(tmp_path: Path) -> None:
    cells = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", HALF),))}
    text, _, _ = written(table(cells, is_curve=True), tmp_path)
    assert text.count("<polyline") == 2
    drawn = curves("t", ("10%", "100%"), {"a": (dot(accuracy=0.2), dot(accuracy=0.4))}, chance=0.125)
    first, last = re.search(r'points="([\d.]+),[\d.]+ ([\d.]+),', drawn).groups()  # type: ignore[union-attr]
    assert (float(first), float(last)) == (LEFT_PX + 30, WIDTH_PX - 30)


def test_chance_is_drawn_where_it_is_the_same_for_all_curves(tmp_path: Path) -> None:
    same = {"x": Cell(runs=(scored(tmp_path, "x", RIGHT),)), "y": Cell(runs=(scored(tmp_path, "y", HALF),))}
    assert "stroke-dasharray" in written(table(same, is_curve=True), tmp_path)[0]
    other = {"of five in nine": Cell(runs=(scored(tmp_path, "z", [True] * 9),))}
    assert "stroke-dasharray" not in written(table(same | other, is_curve=True), tmp_path)[0]


def test_drawings_leave_out_what_is_not_known() -> None:
    known = dot(accuracy=0.5, low=0.4, high=0.6, paper_percent=70.0)
    drawn = dots("t", {"a": known, "b": dot(), "<c>": dot(paper_percent=30.0)}, chance=None)
    assert drawn.count("<circle") == 1
    assert drawn.count("<rect") == 2
    assert "&lt;c&gt;" in drawn
    assert ">b<" not in drawn


def test_multimodal_models_stand_beside_the_histogram(tmp_path: Path) -> None:
    """They are asked about a part of the split, so that nothing is paired: by their own intervals."""
    run = make_run(tmp_path, "ask", "ask", options={"out": "{out}"})
    run.folder.mkdir(parents=True)
    about = {"n": 100, "outcomes": {"label": 90}, "agreement": None}
    models = [
        {"model": "good", "accuracy": 0.7, "accuracy_interval": [0.6, 0.8], **about},
        {"model": "bad", "accuracy": 0.55, "accuracy_interval": [0.45, 0.65], **about},
    ]
    (run.folder / "result.json").write_text(json.dumps({"models": models, "ours": None}))
    text = _found(run, Cell(runs=(scored(tmp_path, "x", HALF),)))
    assert ">good<" in text
    assert ">▼ bad<" in text
    assert ">colour histogram, whole split<" in text
    assert "Chance on the whole split: 0.500 for the most frequent class, 0.500 for a random class." in text
    assert "▼" not in _found(run, Cell())
