"""The experiment: statistics by hand, the plan, the choice of recipes, probes on drawn scenes, stored outcomes."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from experiments.does_it_help import finetuning
from experiments.does_it_help.choice import choose_recipes, choose_tunings, read_grid, tunings_to_choose_from
from experiments.does_it_help.figure import draw_doses
from experiments.does_it_help.outcomes import OUTCOMES, read_about, read_outcome, store_labels, write_outcome
from experiments.does_it_help.plan import (
    CONTRAST,
    DISTILLATION,
    DISTILLATION_FEW_LOOKS,
    FULL,
    HISTOGRAM,
    LABELS,
    ROWS,
    TUNED,
    TUNING_LRS,
    UNTRAINED,
    Job,
    Recipe,
    Study,
    Tuning,
    outcome_path,
    recipes_of,
)
from experiments.does_it_help.probe import balanced, probe, true_of
from experiments.does_it_help.running import run_jobs
from experiments.does_it_help.statistics import balanced_mean
from experiments.does_it_help.tables import tables
from tests.runs import tiny_pretraining
from uniemox.cli import app
from uniemox.data.sample import Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import DataError, ShapeError, UniemoxError
from uniemox.model.classifier import Classifier
from uniemox.pretrain.run import pretrain
from uniemox.teacher.features import save_features
from uniemox.views.patches import PixelStats

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
CLASSES = np.repeat(np.arange(4), 50)


def test_classes_count_the_same() -> None:
    labels = np.array([0, 0, 0, 1])
    assert balanced_mean(np.array([[1, 1, 1, 0]]), labels).value == pytest.approx(0.5)
    assert balanced(np.array([1.0, 1.0, 1.0, 0.0]), labels) == pytest.approx(0.5)


def test_a_difference_is_paired() -> None:
    """Two rows that miss the same images differ by nothing, however much the images differ."""
    rng = np.random.default_rng(0)
    hits = rng.random((3, len(CLASSES))) < 0.4
    assert balanced_mean(hits, CLASSES, hits) == replace(
        balanced_mean(hits, CLASSES, hits), value=0.0, low=0.0, high=0.0
    )
    assert balanced_mean(hits, CLASSES).high > balanced_mean(hits, CLASSES).low + 0.05


def test_intervals_contain_the_truth_in_90_to_100_percent() -> None:
    """Rows whose seeds differ by chance of their own: 95 % intervals hold the true difference in 90 to 100 %."""
    rng = np.random.default_rng(1)
    contained = 0
    for _ in range(100):
        chances = 0.4 + 0.05 * rng.standard_normal((3, 1))
        others = 0.4 + 0.05 * rng.standard_normal((3, 1))
        draws = [rng.random((3, len(CLASSES))) < np.clip(chance, 0, 1) for chance in (chances, others)]
        estimate = balanced_mean(draws[0], CLASSES, draws[1])
        contained += estimate.low <= 0 <= estimate.high
    assert contained >= 90


def test_two_seeds_have_no_interval() -> None:
    """One seed has an interval over images; with two, only the sign of a difference shows that a row beats another."""
    hits = np.random.default_rng(0).random((3, len(CLASSES))) < 0.4
    estimate = balanced_mean(hits[:2], CLASSES)
    assert (estimate.low, estimate.high, estimate.visible, estimate.is_above_zero) == (None, None, None, True)
    assert balanced_mean(hits[:1], CLASSES).low is not None
    assert balanced_mean(hits, CLASSES).low is not None


@pytest.mark.parametrize("shapes", [((3,), None), ((2, 7), None), ((2, 200), (3, 200))])
def test_values_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...] | None]) -> None:
    values, others = (None if shape is None else np.zeros(shape) for shape in shapes)
    assert values is not None
    with pytest.raises(ShapeError, match=r"must be \(S, N\)"):
        balanced_mean(values, CLASSES, others)


def study(root: Path) -> Study:
    return Study(root=root, outcomes=root / "o", shards="shards:s", few=root / "few.json", teacher=root / "t.npz")


def training(jobs: Iterable[Job]) -> dict[str, Job]:
    """Pre-training commands by name."""
    return {job.name.removeprefix("train "): job for job in jobs if job.name.startswith("train ")}


def main_jobs(root: Path, recipes: dict[str, Recipe]) -> dict[tuple[str, int], Job]:
    """Pre-training commands of the main table by row and seed."""
    by_name = training(study(root).main(recipes))
    names = {
        (row, i): str(outcome_path("main", row, i).with_suffix("")) for row in ROWS for i in range(ROWS[row].seeds)
    }
    assert set(names.values()) == set(by_name)
    return {key: by_name[name] for key, name in names.items()}


def after(job: Job, option: str) -> str:
    return job.command[job.command.index(option) + 1]


def test_every_row_gets_the_compute_of_distillation_or_the_images_of_the_full_objective(tmp_path: Path) -> None:
    recipes = {name: recipes_of(row)[0] for name, row in ROWS.items() if not row.recipe_of}
    planned = main_jobs(tmp_path, recipes)
    epochs = {name: float(after(planned[name, 0], "--schedule.epochs")) for name in ROWS}
    for name, row in ROWS.items():
        if name != DISTILLATION_FEW_LOOKS:
            assert epochs[name] * row.cost == pytest.approx(epochs[DISTILLATION], rel=1e-3)
    assert epochs[DISTILLATION_FEW_LOOKS] == epochs[FULL]
    assert {after(job, "--schedule.warmup-epochs") for job in planned.values()} == {"1"}


def test_rows_differ_as_their_names_say(tmp_path: Path) -> None:
    recipes = {name: Recipe(1e-3, 0.1, row.fusions[0]) for name, row in ROWS.items() if not row.recipe_of}
    jobs = {name: job for (name, seed), job in main_jobs(tmp_path, recipes).items() if seed == 0}
    losses = [f"--model.losses.{name}" for name in ("scene-reconstruction", "person-reconstruction")]
    assert [after(jobs[FULL], option) for option in losses] == ["0.1", "0.1"]
    assert [after(jobs[DISTILLATION], option) for option in losses] == ["0", "0"]
    assert [after(jobs["MAE"], option) for option in losses] == ["0.1", "0"]
    assert after(jobs["full, second crop"], "--view.person") == "second_crop"
    assert after(jobs["full, second crop"], "--model.fusion") == after(jobs[FULL], "--model.fusion") == "attention"
    assert after(jobs["full without fusion"], "--model.fusion") == "none"


def test_command_line_accepts_every_planned_command(tmp_path: Path) -> None:
    recipes = {name: recipes_of(row)[-1] for name, row in ROWS.items() if not row.recipe_of}
    small_study = study(tmp_path)
    jobs = training(
        (
            *small_study.main(recipes),
            *small_study.small(recipes),
            *small_study.grid(),
            *small_study.control(recipes[FULL]),
        )
    )
    assert len(jobs) == 21 + 9 + 23 + 3
    # --init would split such a path at the comma.
    assert not any(set(", ") & set(after(job, "--out")) for job in jobs.values())
    shapes = {tuple(word for word in job.command if word.startswith("--")): job for job in jobs.values()}
    for job in shapes.values():
        app.parse_args(list(job.command[1:]), exit_on_error=False, print_error=False)


def scores(likelihood: NDArray[np.float64], r2: float) -> dict[str, Any]:
    labels = np.tile([0, 1], 20)
    about = {"val_values": likelihood.tolist(), "val_labels": labels.tolist(), "r2": r2, "val_recall": 0.5}
    return about | {"val_log_likelihood": balanced(likelihood, labels)}


def test_ties_within_a_standard_error_choose_the_highest_r2() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(-1.0, 0.1, 40)
    recipes = [Recipe(lr, 1.0, "none") for lr in (1e-3, 2e-3, 3e-3)]
    tried = [
        (recipes[0], scores(best, 0.2)),
        (recipes[1], scores(best - 0.001 + 0.05 * rng.standard_normal(40), 0.3)),  # as good, nearer to the teacher
        (recipes[2], scores(best - 0.5, 0.9)),  # far worse
    ]
    assert choose_recipes({"row": tried}) == {"row": recipes[1]}


def test_grid_is_read_once_all_its_settings_are_scored(tmp_path: Path) -> None:
    recipes = recipes_of(ROWS["MAE"])
    for recipe in recipes:
        assert read_grid(tmp_path) == {}
        path = tmp_path / outcome_path("grid", "MAE", recipe.name)
        write_outcome(path, scores(np.full(40, -recipe.lr), 0.1))
    grid = read_grid(tmp_path)
    assert [recipe for recipe, _ in grid["MAE"]] == recipes
    assert choose_recipes(grid)["MAE"].lr == 2.5e-4


def test_outcomes_keep_predictions_and_likelihoods(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.log(rng.dirichlet(np.ones(8), 500)).astype(np.float32)
    labels = rng.integers(8, size=500).astype(np.uint8)
    write_outcome(tmp_path / "a.npz", {"r2": 0.5}, rows)
    assert read_about(tmp_path / "a.npz") == {"r2": 0.5}
    outcome = read_outcome(tmp_path / "a.npz", labels)
    assert np.array_equal(outcome.predicted, rows.argmax(axis=1))
    assert np.abs(outcome.true_log_probability - true_of(rows, labels)).max() <= 1 / 32 + 1e-6


def test_other_images_than_the_stored_ones_are_refused(tmp_path: Path) -> None:
    keys = np.array(["a", "b"])
    labels = np.array([0, 1], dtype=np.uint8)
    store_labels(tmp_path / "labels.npz", keys, labels)
    store_labels(tmp_path / "labels.npz", keys, labels)
    with pytest.raises(DataError, match="other images or labels"):
        store_labels(tmp_path / "labels.npz", keys, labels[::-1])


def test_probe_scores_every_training_image_by_cross_fitting(tmp_path: Path) -> None:
    data = synthetic(120)
    samples = [replace(sample, split="val" if i % 4 == 0 else "train") for i, sample in enumerate(data.samples)]
    write_shards(replace(data, samples=samples), tmp_path / "shards", ShardConfig())
    keys = [sample.key for sample in samples]
    features = torch.nn.functional.one_hot(torch.tensor([sample.label or 0 for sample in samples]), 8).float()
    teacher = tmp_path / "teacher.npz"
    save_features(teacher, image_keys=keys, image_features=features, texts=["a"], text_features=torch.ones(1, 8))
    source = f"shards:{tmp_path / 'shards'}"
    about, scored = probe(f"stored:{teacher}", source, teacher, is_scored=True)
    assert scored is not None
    assert len(scored.labels) == sum(sample.split == "train" for sample in samples)
    assert (scored.log_probabilities.argmax(axis=1) == scored.labels).mean() == 1.0  # its features are the labels
    pretrain(tiny_pretraining(), replace(data, samples=samples[:16]), tmp_path / "run")
    run_figures, run_scored = probe(str(tmp_path / "run"), source, teacher, is_scored=True)
    assert run_scored is not None
    assert np.array_equal(run_scored.keys, scored.keys)
    assert run_figures["r2"] < about["r2"]
    assert probe(UNTRAINED, source, teacher, is_scored=False)[1] is None


@pytest.mark.parametrize("init", [UNTRAINED, HISTOGRAM])
def test_fine_tuning_is_scored_on_images_that_it_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    data = synthetic(80)
    samples = [replace(sample, split="val" if i % 5 == 0 else "train") for i, sample in enumerate(data.samples)]
    write_shards(replace(data, samples=samples), tmp_path, ShardConfig())
    fitted_keys: list[str] = []
    monkeypatch.setattr(finetuning, "TUNING_EPOCHS", {0.5: 1})
    monkeypatch.setattr(finetuning, "HELD_OUT", 16)
    fit_head = finetuning._fit_head

    def recorded(network: Classifier, training: list[Sample], stats: PixelStats) -> None:
        fitted_keys.extend(sample.key for sample in training)
        fit_head(network, training, stats)

    monkeypatch.setattr(finetuning, "_fit_head", recorded)
    about, keys, labels, answers = finetuning.fine_tune(init, f"shards:{tmp_path}", Tuning(0.5, 1e-3, 0))
    train = {sample.key for sample in samples if sample.split == "train"}
    assert not set(keys) & set(fitted_keys)
    assert set(keys) | set(fitted_keys) < train
    assert answers.shape == (len(labels), 8)
    assert np.exp(answers).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert abs(len(keys) - 16) <= 8
    assert about["images"] == len(fitted_keys)


def test_the_learning_rate_of_seed_0_is_that_of_all_seeds(tmp_path: Path) -> None:
    """Best on val for each row and share; rows without all settings are left out."""
    tried = tunings_to_choose_from()
    for tuning in tried[FULL]:
        write_outcome(
            tmp_path / tuning.path(FULL), {"val_log_likelihood": -tuning.lr * (1 if tuning.fraction == 1 else -1)}
        )
    write_outcome(tmp_path / tried[DISTILLATION][0].path(DISTILLATION), {"val_log_likelihood": -1.0})
    chosen = choose_tunings(tmp_path, 3)
    assert set(chosen) == {FULL}
    rates = {fraction: {(run.lr, run.seed) for run in runs} for fraction, runs in chosen[FULL].items()}
    low, high = sorted(TUNING_LRS)
    assert rates == {0.1: {(high, seed) for seed in range(3)}, 1.0: {(low, seed) for seed in range(3)}}


def test_fine_tuning_starts_from_the_encoders_of_the_main_table(tmp_path: Path) -> None:
    recipes = {name: recipes_of(row)[0] for name, row in ROWS.items() if not row.recipe_of}
    trained = {after(job, "--out") for job in main_jobs(tmp_path, recipes).values()}
    for row, job in study(tmp_path).tuned({row: [Tuning(0.1, 1e-3, 1)] for row in TUNED}):
        assert after(job, "--init") in (trained if row in CONTRAST else {row})


def test_jobs_run_once_and_resume_after_a_failure(tmp_path: Path) -> None:
    counter = (
        "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"
    )
    jobs = [Job(f"train {i}", ("-c", counter, str(tmp_path / str(i)))) for i in range(3)]
    broken = Job("probe 1", ("-c", "import sys; sys.exit(5)"))
    with pytest.raises(UniemoxError, match="probe 1 failed with exit code 5"):
        run_jobs([*jobs, broken], tmp_path, 1)  # of several at once, the others end with the one that failed
    run_jobs(jobs, tmp_path, 2)
    assert [(tmp_path / str(i)).read_text() for i in range(3)] == ["x"] * 3


def test_jobs_with_a_stored_outcome_do_not_run(tmp_path: Path) -> None:
    failing = [Job("train a", ("-c", "import sys; sys.exit(5)")), Job("probe a", ("-c", ""), tmp_path / "a.npz")]
    with pytest.raises(UniemoxError, match="train a failed"):
        run_jobs(failing, tmp_path, 1)
    write_outcome(tmp_path / "a.npz", {})
    run_jobs(failing, tmp_path, 1)


def test_probe_with_a_lost_outcome_runs_again_without_training(tmp_path: Path) -> None:
    write = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write('x')"
    trained = tmp_path / "trained"
    stored = tmp_path / "a.npz"
    jobs = [Job("train a", ("-c", write, str(trained))), Job("probe a", ("-c", write, str(stored)), stored)]
    run_jobs(jobs, tmp_path, 1)
    stored.unlink()
    run_jobs(jobs, tmp_path, 1)
    assert (trained.read_text(), stored.read_text()) == ("x", "x")


@pytest.mark.skipif(not (OUTCOMES / LABELS).exists(), reason="the experiment has no stored outcomes yet")
def test_the_page_shows_the_tables_of_the_stored_outcomes() -> None:
    lines = tables(OUTCOMES)
    all_tables = (ROOT / "experiments/does_it_help/TABLES.md").read_text("utf-8")
    for line in lines:
        assert line in all_tables, line
    page = (ROOT / "docs/experiments.md").read_text("utf-8").partition("## From random weights")[2]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert set(rows) <= set("\n".join(lines).splitlines())


@pytest.mark.skipif(not (OUTCOMES / LABELS).exists(), reason="the experiment has no stored outcomes yet")
def test_the_figure_is_that_of_the_stored_outcomes(tmp_path: Path) -> None:
    draw_doses(OUTCOMES, tmp_path / "dose.svg")
    drawn, of_page = (file.read_text("utf-8") for file in (tmp_path / "dose.svg", ROOT / "docs/images/dose.svg"))
    assert re.findall("<!-- (.+?) -->", drawn) == re.findall("<!-- (.+?) -->", of_page)  # its words and numbers
