"""The experiment on a published start: parts of the data, heads, scores, its statistics, and a rehearsal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from experiments.continued import outcomes as stored
from experiments.continued.probe import Scores, best_penalty, fit, log_probabilities, standardised
from experiments.published_start.__main__ import HERE
from experiments.published_start.drawn import drawn_pack
from experiments.published_start.outcomes import (
    LABELS_OF,
    chosen_rate,
    chosen_tuning_rate,
    precision_of,
    read_means,
    write_choice,
    write_labels,
)
from experiments.published_start.pack import NO_LABEL, Pack, parts_of
from experiments.published_start.plan import (
    ALL,
    ARMS,
    CHOICE,
    CPU,
    FULL,
    HELD_OUT,
    L3,
    SCORED,
    START,
    SUPERVISED,
    TINY,
    TRAIN,
    TUNED,
    UNLABELLED,
    ChoiceJob,
    Job,
    Study,
    choice_jobs,
    jobs_of,
)
from experiments.published_start.running import choose_rates, run_arms
from experiments.published_start.scoring import Mean, probe_elsewhere, tuning_rows
from experiments.published_start.start import build
from experiments.published_start.statistics import holm, smallest_detectable, verdict
from experiments.published_start.tables import at, print_tables
from experiments.published_start.training import Workshop, start_head

pytestmark = pytest.mark.thorough

DEVICE = torch.device("cpu")
PARTS = (TRAIN, CHOICE, SCORED, HELD_OUT, UNLABELLED)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return drawn_pack()


def workshop_of(pack: Pack, root: Path, study: Study) -> Workshop:
    torch.manual_seed(0)
    start = build(study.profile.side_px, **study.profile.encoder)
    return Workshop(study, start, {part: pack.images([part], DEVICE) for part in PARTS}, root)


def test_parts_are_disjoint_and_stratified() -> None:
    labels = np.repeat([0, 1], [400, 200])
    is_train = np.tile([True, True, True, False], 150)
    part = parts_of(labels, is_train)
    assert set(part[~is_train]) == {HELD_OUT}
    shares = {name: np.mean(part[is_train] == name) for name in (TRAIN, CHOICE, SCORED)}
    assert shares == pytest.approx({TRAIN: 0.4, CHOICE: 0.1, SCORED: 0.5}, abs=0.01)
    for name in shares:
        assert np.mean(labels[part == name] == 0) == pytest.approx(2 / 3, abs=0.01)


def test_pack_is_read_as_it_was_written(pack: Pack, tmp_path: Path) -> None:
    pack.write(tmp_path / "pack.npz")
    read = Pack.read(tmp_path / "pack.npz")
    for name in Pack.__slots__:
        np.testing.assert_array_equal(getattr(read, name), getattr(pack, name))
    images = read.images([UNLABELLED], DEVICE)
    assert set(images.labels.tolist()) == {NO_LABEL}
    assert sum(len(read.images([part], DEVICE)) for part in PARTS) == len(read.labels)


def test_a_head_starts_as_the_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    features = rng.normal(size=(150, 6)) * [1, 10, 0.1, 1, 1, 1] + 3 + np.eye(3, 6)[labels]
    head = nn.Linear(6, 3).double()
    start_head(head, features, labels)
    scale = standardised(features)
    model = fit(scale(features), labels, best_penalty(scale(features), labels, 3))
    logits = head(torch.from_numpy(features)).detach().numpy()
    expected = log_probabilities(model, scale(features), 3)
    np.testing.assert_allclose(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), expected, atol=1e-6)


def test_probes_of_other_images_do_not_read_the_scored_labels() -> None:
    """With labels by chance, recall is chance, however often a probe is fitted."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 40))
    labels = rng.integers(0, 4, 300)
    scores = probe_elsewhere(features[:200], labels[:200], features[200:], labels[200:], [np.arange(200)])
    assert 0.1 < scores.hit.mean() < 0.4
    fitted, scored = tuning_rows(labels)
    assert not set(fitted) & set(scored)
    assert len(scored) == pytest.approx(60, abs=4)


def test_holms_correction() -> None:
    """Values by hand: 3 x 0.01, 2 x 0.02, and 0.03, which can't be below the second."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_smallest_detectable_difference_is_detected_in_four_of_five_experiments() -> None:
    """Power of the t test by the noncentral t distribution; the sum of two quantiles is an approximation."""
    values = [0.2, 0.5, -0.1, 0.3, 0.1]
    error = float(np.std(values, ddof=1)) / 5**0.5
    critical = stats.t.ppf(0.975, 4)
    power = stats.nct.sf(critical, 4, smallest_detectable(values) / error)
    assert power == pytest.approx(0.8, abs=0.05)


def test_verdicts() -> None:
    assert verdict([1.9, 2.1, 2.0, 2.2, 1.8], 0.001, bound=1.0) == ["helps"]
    assert verdict([-0.31, -0.3, -0.29, -0.3, -0.3], 0.001, bound=1.0) == ["harms", "no effect above the bound"]
    assert verdict([0.1, -0.1, 0.0, 0.05, -0.05], 0.9, bound=1.0) == ["no effect above the bound"]
    assert verdict([3.0, -3.0, 2.0, -1.0, 0.5], 0.8, bound=1.0) == ["undecided"]


def test_rates_with_the_highest_log_likelihood_are_chosen(tmp_path: Path) -> None:
    for job in choice_jobs(CPU):
        best = 2e-4 if job.arm == L3 else 2e-5
        head = Mean(50.0, -1.0 if job.lr == 6e-5 else -2.0)
        write_choice(job, tmp_path, Mean(40.0, -1.0 if job.lr == best else -1.5), head)
    assert chosen_rate(L3, CPU, tmp_path) == 2e-4
    assert chosen_rate(FULL, CPU, tmp_path) == 2e-5
    assert chosen_tuning_rate(CPU, tmp_path) == 6e-5


def test_a_seed_keeps_its_precision(tmp_path: Path) -> None:
    assert precision_of(0, tmp_path, "bfloat16") == "bfloat16"
    stored.write(Job(L3, 0).path(tmp_path), {}, {"is_bfloat16": 0.0})
    assert precision_of(0, tmp_path, "bfloat16") == "float32"
    assert precision_of(1, tmp_path, "bfloat16") == "bfloat16"


def write_outcomes(folder: Path, gains: dict[str, float], seeds: int = 5) -> None:
    """Write scores of arms whose share of hits exceeds the start's by these gains."""
    labels = np.repeat(np.arange(4), 250)
    write_labels(folder, dict.fromkeys(LABELS_OF.values(), labels))
    rng = np.random.default_rng(0)
    for job in jobs_of(CPU):
        if job.seed < seeds:
            share = 0.4 + gains.get(job.arm, 0.0) + (0.0 if job.arm == START else rng.normal(0, 0.005))
            hit = (np.arange(1000) % 250 < 250 * share).astype(float)
            stored.write(job.path(folder), dict.fromkeys(LABELS_OF, Scores(np.full(1000, -1.0), hit)), {})


def test_tables_give_verdicts_only_with_all_seeds_and_a_positive_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_outcomes(tmp_path / "all", {SUPERVISED: 0.1, FULL: 0.06, L3: 0.06})
    print_tables(tmp_path / "all", CPU)
    text = capsys.readouterr().out
    [claim, *_] = [line for line in text.splitlines() if line.startswith("| claim |")]
    [mechanism, *_] = [line for line in text.splitlines() if line.startswith("| mechanism |")]
    assert claim.endswith("| helps |")
    assert mechanism.endswith("| no effect above the bound |")
    write_outcomes(tmp_path / "some", {SUPERVISED: 0.1, FULL: 0.06}, seeds=3)
    print_tables(tmp_path / "some", CPU)
    text = capsys.readouterr().out
    assert "helps" not in text
    assert "Some seeds are missing" in text
    write_outcomes(tmp_path / "without", {FULL: 0.06})
    print_tables(tmp_path / "without", CPU)
    text = capsys.readouterr().out
    assert "helps" not in text
    assert "The positive control is not above 0" in text


def test_rehearsal_stores_every_outcome_and_changes_no_start(
    pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = replace(TINY, rates=(6e-5,), profile=replace(TINY.profile, seeds=1, precision="float32"))
    workshop = workshop_of(pack, tmp_path / "runs", study)
    before = {name: value.clone() for name, value in workshop.start.state_dict().items()}
    outcomes = tmp_path / "outcomes"
    choose_rates(workshop, outcomes, jobs=1)
    assert all(ChoiceJob(arm, 6e-5).path(outcomes).exists() for arm in ARMS)
    run_arms(workshop, [], outcomes, jobs=1)
    for name, value in workshop.start.state_dict().items():
        assert torch.equal(value, before[name]), name
    labels = stored.read_labels(outcomes)
    means = {job.arm: read_means(job, outcomes, labels) for job in jobs_of(study)}
    assert set(means[L3]) == set(LABELS_OF)
    assert TUNED not in means["L2 + L3"]
    times = {path: path.stat().st_mtime_ns for path in outcomes.rglob("*.npz")}
    run_arms(workshop, [], outcomes, jobs=1)
    written_again = [path.name for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert written_again == ["labels.npz"]
    print_tables(outcomes, study)
    assert capsys.readouterr().out.startswith("5 of 5 encoders are scored.")


def test_stored_outcomes_are_those_of_planned_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = HERE / "outcomes"
    planned = {job.path(outcomes) for job in (*jobs_of(CPU), *choice_jobs(CPU))}
    stored_files = {path for path in outcomes.rglob("*") if path.is_file()} - {
        outcomes / "labels.npz",
        outcomes / "baselines.json",
    }
    assert stored_files <= planned
    print_tables(outcomes, CPU)
    assert "encoders are scored" in capsys.readouterr().out


def test_the_frozen_start_alone_is_the_same_for_every_seed() -> None:
    results = {Job(START, 0): {ALL: Mean(1.0, -1.0), TUNED: Mean(2.0, -1.0)}}
    assert at(results, Job(START, 3), ALL) == Mean(1.0, -1.0)
    assert at(results, Job(START, 3), TUNED) is None
