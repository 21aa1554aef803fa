"""Settings are compared over seeds, with the bootstrap of the stacked hits."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.test_report import logits_for, photos, score, write_run  # noqa: F401 - a fixture
from uniemox.cli.evaluate import compare as cli_compare
from uniemox.data.sample import DataSet
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.compare import Comparison, Scoring, _wins_and_losses, compare, compare_on
from uniemox.evaluate.comparison_verdict import gain_over_built_in
from uniemox.intervals import PairedDifference, bootstrap_interval, interval_over_runs, paired_bootstrap

NO_VERDICT = "no verdict: the models chose among different labels, or by different label maps; give --map\n"
WRONG = {
    **{"a0": {0, 1}, "a1": {2}, "b0": {0, 1, 5, 6}, "b1": {2, 3, 4}, "b2": {9}, "least": set(range(9))},
    **{"all right": set(), "five wrong": set(range(5)), "six wrong": set(range(6))},
}


@pytest.fixture
def runs(tmp_path: Path, photos: DataSet) -> dict[str, Path]:  # noqa: F811
    runs_by_name = {name: write_run(tmp_path / name, "finetune") for name in WRONG}
    for seed, (name, run) in enumerate(runs_by_name.items()):
        score(run, photos, logits_for(photos, WRONG[name]))
        change_settings(run, seed=seed, batch_size=64)
    return runs_by_name


def change_settings(run: Path, **settings: object) -> None:
    """Change settings in the record of a run."""
    record = json.loads((run / "config.json").read_text())
    record["config"] |= settings
    (run / "config.json").write_text(json.dumps(record))


def change_data(run: Path, **values: str) -> None:
    """Change the record of a run's training data."""
    record = json.loads((run / "config.json").read_text())
    record["data"] = {**(record.get("data") or {}), **values}
    (run / "config.json").write_text(json.dumps(record))


def hits(*names: str) -> np.ndarray:
    return np.array([[i not in WRONG[name] for i in range(16)] for name in names], dtype=float)


def test_seeds_are_pooled(runs: dict[str, Path]) -> None:
    ours = [runs["a0"], runs["a1"], runs["least"]]
    [comparison] = compare(ours, [runs["b0"], runs["b1"], runs["b2"]])
    ours = hits("a0", "a1", "least")
    theirs = hits("b0", "b1", "b2")
    assert comparison.pictures == 16
    assert comparison.ours == (14 / 16, 15 / 16, 7 / 16)
    assert comparison.theirs == (12 / 16, 13 / 16, 15 / 16)
    assert comparison.difference.difference == pytest.approx(ours.mean() - theirs.mean())
    groups = [str(i) for i in range(16)]
    assert comparison.difference == paired_bootstrap(ours, theirs, groups)
    low, high = interval_over_runs(ours, groups) or (0, 0)
    assert high > 1
    # The interval of an accuracy ends at 1.
    assert comparison.ours_interval == (low, 1)
    assert json.loads(json.dumps(asdict(comparison)))["theirs"] == list(comparison.theirs)


def test_scores_on_images_that_a_run_may_have_seen_are_named(runs: dict[str, Path]) -> None:
    [file] = (runs["a0"] / "evaluations").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "may_be_seen": True}))
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    assert f"{runs['a0']} may have been trained on some of these images" in comparison.note
    assert str(runs["b0"]) not in comparison.note


def change_hashes(run: Path, hash_of: dict[str, str]) -> None:
    """Change the hash of images in a run's only evaluation; other images have none."""
    [file] = (run / "evaluations").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"sha256": hash_of.get(line["key"], "")}) + "\n" for line in lines))


def test_other_images_of_the_same_names_are_refused(runs: dict[str, Path], photos: DataSet) -> None:  # noqa: F811
    key, other = (photos.samples[0].key, photos.samples[1].key)
    for name in ("a0", "b0"):
        change_hashes(runs[name], {key: "12", other: "34"})
    assert compare([runs["a0"]], [runs["b0"]])
    change_hashes(runs["b0"], {key: "12"})
    assert compare([runs["a0"]], [runs["b0"]])
    change_hashes(runs["b0"], {key: "12", other: "56"})
    with pytest.raises(DataError, match=f"1 image has another content in one of the runs' data, such as {other}"):
        compare([runs["a0"]], [runs["b0"]])


def test_runs_of_one_side_are_seeds_of_one_setting(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [runs["a0"], runs["a1"]]
    theirs = [runs["b0"]]
    with pytest.raises(ConfigError, match="a0 twice"):
        compare([runs["a0"], runs["a0"]], theirs)
    with pytest.raises(ConfigError, match="a0 twice"):
        compare([runs["a0"], tmp_path / "b0" / ".." / "a0"], theirs)
    shutil.copytree(runs["a0"], tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"theirs: .*copies of one run"):
        compare(ours, [runs["a0"], tmp_path / "copy"])
    change_settings(runs["a1"], batch_size=7)
    with pytest.raises(ConfigError, match=r"batch_size 64 and 7.*--mixed"):
        compare(ours, theirs)
    [comparison] = compare(ours, theirs, allow_mixed=True)
    assert comparison.settings == ()
    # Two spellings of one folder are one data set.
    change_settings(runs["a1"], batch_size=64)
    for run, source in ((runs["a0"], "folder:photos"), (runs["a1"], "folder:./photos")):
        change_data(run, source=source, sha256="1234567890")
    assert compare(ours, theirs)
    change_data(runs["a1"], sha256="abcdefghij")
    with pytest.raises(ConfigError, match=r"training data 12345678 and abcdefgh"):
        compare(ours, theirs)
    change_data(runs["a1"], sha256="1234567890")
    # Teachers and starts count by their settings, not by their folders.
    for name, start in (("a0", "b0"), ("a1", "b1")):
        change_settings(runs[name], init=f"{runs[start]},{runs[start]}", distillation={"teacher": str(runs[start])})
    assert compare(ours, theirs)
    for name in ("a0", "a1"):
        change_settings(runs[name], init="timm:a", distillation={"teacher": "none"})
    # A method without a draw gives one model for all seeds.
    for name in ("a0", "a1"):
        (runs[name] / "model.onnx").write_bytes(b"one model")
    with pytest.raises(ConfigError, match=r"ours: .*same model"):
        compare(ours, theirs, allow_mixed=True)
    (runs["a1"] / "model.onnx").write_bytes(b"another one")
    # Settings that change what is stored, or where it is computed, are no other settings.
    change_settings(runs["a1"], batch_size=64, hardware={"device": "cuda"}, save={"keep": 9})
    assert compare(ours, theirs)
    change_settings(runs["b0"], schedule={"epochs": 99.0})
    cli_compare(ours=ours, theirs=theirs, mixed=False)
    printed = capsys.readouterr().out
    assert "schedule.epochs" in printed
    assert "and 99.0" in printed


def test_runs_may_start_from_seeds_of_one_pretraining(runs: dict[str, Path], tmp_path: Path) -> None:
    """Each run starts from another pre-training, as in the plans of `uniemox reproduce`."""
    for number, name in enumerate(("a0", "a1")):
        start = write_run(tmp_path / f"pre{number}", "pretrain")
        change_settings(start, seed=number, batch_size=64)
        change_settings(runs[name], init=str(start))
    assert compare([runs["a0"], runs["a1"]], [runs["b0"]])
    change_settings(tmp_path / "pre1", batch_size=7)
    with pytest.raises(ConfigError, match="init: batch_size"):
        compare([runs["a0"], runs["a1"]], [runs["b0"]])


def test_interval_of_one_run_is_that_of_its_evaluation(runs: dict[str, Path]) -> None:
    [comparison] = compare([runs["b0"]], [runs["least"]])
    [file] = (runs["b0"] / "evaluations").glob("*.json")
    [other] = (runs["least"] / "evaluations").glob("*.json")
    assert list(comparison.ours_interval or ()) == json.loads(file.read_text())["accuracy_interval"]
    assert list(comparison.theirs_interval or ()) == json.loads(other.read_text())["accuracy_interval"]


def test_two_runs_are_printed_without_an_interval(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    cli_compare(ours=[runs["a0"], runs["a1"]], theirs=[runs["b0"]], baseline=[runs["least"]])
    printed = capsys.readouterr().out
    assert "ours 90.6% (two runs: no interval; give three or more); runs: 87.5%, 93.8%" in printed
    assert "theirs 75.0% (" in printed
    assert "difference +15.6% (two runs: no interval" in printed
    assert "does not beat" not in printed
    cli_compare(ours=[runs["a0"], runs["a1"]], theirs=[runs["b0"]], as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ours_interval"], printed["difference"]["low"]) == (None, None)


def test_few_groups_of_images_that_tell_the_models_apart_are_counted_as_groups() -> None:
    """Five people of one image each counted as five images, enough to claim a gain."""
    leads = np.array([1.0, 1.0, 0.0, 1.0, -1.0, 0.0, -1.0, 0.0])
    assert _wins_and_losses(leads, ["a", "a", "a", "b", "b", "c", "d", "e"]) == (1, 1)
    comparison = Comparison(
        title="people",
        pictures=200,
        ours=(0.55,),
        ours_interval=(0.5, 0.6),
        theirs=(0.5,),
        theirs_interval=(0.45, 0.55),
        difference=PairedDifference(0.05, 0.01, 0.09, share_above_zero=0.99),
        commonest=0.5,
        uniform=0.5,
        discordant=10,
        wins_and_losses=(5, 0),
        units=100,
    )
    words = gain_over_built_in(comparison)
    assert words is not None
    assert "training gained nothing here that these images can show" in words
    assert "Only 5 of the 100 groups of these 200 images tell the models apart" in words
    assert "with a probability of 6%" in words
    gain = gain_over_built_in(replace(comparison, wins_and_losses=(10, 0)))
    assert gain is not None
    assert gain.startswith("training gained accuracy")


def test_a_model_of_the_package_is_compared_by_its_evaluations(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in ./evaluations/embedded."""
    monkeypatch.chdir(tmp_path)
    expected = compare([runs["a0"]], [runs["b0"]])
    with pytest.raises(DataError, match="small was not scored in this folder; give --data, or run uniemox evaluate"):
        compare([Path("small")], [runs["b0"]])
    Path("evaluations").mkdir()
    (runs["a0"] / "evaluations").rename(tmp_path / "evaluations" / "embedded")
    assert compare([Path("embedded")], [runs["b0"]]) == expected
    cli_compare(ours=[runs["b0"]], theirs=[Path("embedded")])
    printed = capsys.readouterr().out
    assert "training gained nothing here that these images can show" in printed
    [comparison] = compare([runs["b0"]], [Path("embedded")])
    assert comparison.difference.interval is not None
    low, high = comparison.difference.interval
    # 2.80 standard errors; half the width of a 95 % interval is 1.96 of them.
    detectable = 2.8016 / 1.95996 * (high - low) / 2
    apart = int((hits("b0") != hits("a0")).sum())
    assert comparison.discordant == apart < 10
    assert f"Only {apart} of these 16 images tell the models apart, too few to say how many images it takes" in printed
    monkeypatch.setattr("uniemox.evaluate.comparison_verdict.MIN_DISCORDANT", apart)
    cli_compare(ours=[runs["b0"]], theirs=[Path("embedded")])
    printed = capsys.readouterr().out
    assert f"16 images show a difference of about {100 * detectable:.0f} points with 80% power" in printed
    [needed] = re.findall(r"takes about ([\d,]+) images that are new to both", printed)
    assert 0 <= int(needed.replace(",", "")) - 16 * (detectable / 0.05) ** 2 <= 10
    # More images don't narrow the part of the seeds.
    cli_compare(ours=[runs["b0"], runs["b1"], runs["b2"]], theirs=[Path("embedded")])
    printed = capsys.readouterr().out
    assert "16 images show a difference of about" in printed
    assert "because the runs differ, too" in printed
    assert "takes about" not in printed
    # No image tells a model from itself.
    shutil.copytree(tmp_path / "evaluations" / "embedded", runs["a1"] / "evaluations", dirs_exist_ok=True)
    cli_compare(ours=[runs["a1"]], theirs=[Path("embedded")])
    printed = capsys.readouterr().out
    assert "Both are right on the same of these 16 images; of other images, up to 21% may tell them apart" in printed
    # No answer of the other run is one of the labels that both have.
    [file] = (runs["b0"] / "evaluations").glob("*.json")
    file.write_text(file.read_text().replace('"fear"', '"boredom"'))
    [lines] = (runs["b0"] / "evaluations").glob("*.jsonl")
    lines.write_text(lines.read_text().replace('"fear"', '"boredom"'))
    cli_compare(ours=[runs["b0"]], theirs=[Path("embedded")])
    assert capsys.readouterr().out.endswith(NO_VERDICT)


@pytest.mark.parametrize(("other", "is_shown"), [("five wrong", False), ("six wrong", True)])
def test_few_images_show_a_gain_only_if_chance_does_not_explain_it(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: str,
    is_shown: bool,
) -> None:
    """Resamples of five images that tell the models apart never favour the other one; the exact test gives 0.06."""
    monkeypatch.chdir(tmp_path)
    Path("evaluations").mkdir()
    (runs[other] / "evaluations").rename(tmp_path / "evaluations" / "embedded")
    [comparison] = compare([runs["all right"]], [Path("embedded")])
    assert comparison.difference.interval is not None
    assert comparison.difference.interval[0] > 0
    cli_compare(ours=[runs["all right"]], theirs=[Path("embedded")])
    printed = capsys.readouterr().out
    assert ("training gained accuracy over the built-in model" in printed) == is_shown
    assert ("Only 5 of these 16 images tell the models apart" in printed) != is_shown
    assert ("equally good models differ as much with a probability of 6%" in printed) != is_shown


def test_images_of_groups_bound_the_share_that_may_differ(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [file] = (runs["b0"] / "evaluations").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    grouped = [line | {"group": str(i // 2)} for i, line in enumerate(lines)]
    file.write_text("".join(json.dumps(line) + "\n" for line in grouped))
    Path("evaluations").mkdir()
    shutil.copytree(runs["b0"] / "evaluations", tmp_path / "evaluations" / "embedded")
    cli_compare(ours=[runs["b0"]], theirs=[Path("embedded")])
    # One-sided, eight groups: 1 - 0.025 ** (1 / 8).
    assert "up to 37% may tell them apart" in capsys.readouterr().out


def test_the_order_of_the_images_in_a_file_changes_nothing(runs: dict[str, Path]) -> None:
    before = compare([runs["a0"]], [runs["b0"]])
    [file] = (runs["b0"] / "evaluations").glob("*.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[::-1]) + "\n")
    assert compare([runs["a0"]], [runs["b0"]]) == before


def test_runs_that_were_scored_against_other_labels_are_refused(runs: dict[str, Path]) -> None:
    """After a correction of the data, equal models differed by 44 points."""
    [file] = (runs["b0"] / "evaluations").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    other = next(line["label"] for line in lines if line["label"] != lines[0]["label"])
    before = lines[0]["label"]
    lines[0]["label"] = other
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = rf"different labels of 1 image, such as {lines[0]['key']} \({before} and {other}\), so the data have changed"
    with pytest.raises(DataError, match=said):
        compare([runs["a0"]], [runs["b0"]])


def test_runs_with_other_scores_than_labels_are_refused_with_the_reason(runs: dict[str, Path]) -> None:
    [file] = (runs["a0"] / "evaluations").glob("*.json")
    values = json.loads(file.read_text())
    del values["confusion"]
    file.write_text(json.dumps(values | {"mean_average_precision": 0.5}))
    with pytest.raises(DataError, match=r"has mean_average_precision for .*, not labels: compare takes models"):
        compare([runs["a0"]], [runs["b0"]])


def test_a_model_file_is_refused_before_anything_is_scored(
    runs: dict[str, Path],
    tmp_path: Path,
    photos: DataSet,  # noqa: F811
) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"")
    for ours, theirs in (([file], [runs["a0"]]), ([Path("embedded")], [file])):
        with pytest.raises(
            ConfigError, match=r"mine\.onnx is a file: compare takes folders of runs, embedded or small"
        ):
            compare_on(photos, Scoring(split="all"), ours, theirs, on_progress=no_progress)
        with pytest.raises(ConfigError, match="is a file"):
            compare(ours, theirs)
    (runs["a0"] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no such file; give the folder of a run"):
        compare_on(photos, Scoring(split="all"), [Path("embedded")], [runs["a0"]], on_progress=no_progress)


def no_progress(work: str, done: int, total: int | None) -> None:
    pytest.fail(f"{work}: {done} of {total}")


def test_run_equals_itself(runs: dict[str, Path]) -> None:
    [comparison] = compare([runs["a0"]], [runs["a0"]])
    assert (comparison.difference.difference, comparison.difference.low, comparison.difference.high) == (0, 0, 0)


def test_images_of_few_groups_are_marked(runs: dict[str, Path]) -> None:
    for name in ("a0", "b0"):
        [file] = (runs[name] / "evaluations").glob("*.jsonl")
        lines = [json.loads(line) | {"group": "all"} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    assert comparison.note.startswith("the 16 images are of 1 group, and images of a group are resampled together")


def test_runs_that_are_right_on_all_images_are_marked(runs: dict[str, Path], photos: DataSet) -> None:  # noqa: F811
    score(runs["a0"], photos, logits_for(photos, set()))
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    assert comparison.note == (
        "ours: all 16 images are right, so resampling shows no spread; the exact 95 % interval is 79 to 100 %"
    )


def test_baseline_and_chance_are_reported(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    [comparison] = compare([runs["a0"], runs["a1"]], [runs["b0"]], [runs["least"]])
    groups = [str(i) for i in range(16)]
    assert comparison.baseline == (7 / 16,)
    assert comparison.baseline_interval == bootstrap_interval(hits("least")[0], groups)
    assert comparison.ours_over_baseline == paired_bootstrap(hits("a0", "a1"), hits("least"), groups)
    assert comparison.theirs_over_baseline == paired_bootstrap(hits("b0"), hits("least"), groups)
    assert (comparison.commonest, comparison.uniform) == (0.5, 0.5)
    cli_compare(ours=[runs["least"]], theirs=[runs["a0"]], baseline=[runs["least"]])
    printed = capsys.readouterr().out
    assert "chance 50.0% (most common class), 50.0% (1 / classes)" in printed
    assert "ours over baseline +0.0% (+0.0% to +0.0%); these images can't show that it beats the baseline" in printed
    assert "theirs over baseline +43.8% (" in printed
    cli_compare(ours=[runs["least"]], theirs=[runs["a0"]], baseline=[runs["b0"]])
    printed = capsys.readouterr().out
    assert printed.count("it does not beat the baseline") == 1
    [without] = compare([runs["a0"]], [runs["b0"]])
    assert (without.baseline, without.baseline_interval, without.ours_over_baseline) == ((), None, None)


def test_runs_that_share_nothing_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    unscored = write_run(tmp_path / "unscored", "finetune")
    with pytest.raises(DataError, match=r"unscored was not scored yet; run uniemox evaluate"):
        compare([runs["a0"]], [unscored])
    for ours, theirs in (([], [runs["a0"]]), ([runs["a0"]], [])):
        with pytest.raises(DataError, match="give at least one run"):
            compare(ours, theirs)
    other = shutil.copytree(runs["a1"], tmp_path / "other")
    [scores] = (other / "evaluations").glob("*.json")
    values = json.loads(scores.read_text())
    scores.write_text(json.dumps(values | {"data": "folder:elsewhere"}))
    with pytest.raises(DataError, match=r"not scored on the same data \(.*a0 on .*other on .*elsewhere"):
        compare([runs["a0"]], [other])
    with pytest.raises(DataError, match="has no run"):
        compare([tmp_path], [runs["a0"]])
    [file] = (runs["a1"] / "evaluations").glob("*.jsonl")
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match="different images"):
        compare([runs["a0"]], [runs["a1"]])


def test_a_run_that_was_scored_twice_is_not_compared_by_chance(
    runs: dict[str, Path],
    photos: DataSet,  # noqa: F811
) -> None:
    [evaluation] = (runs["a0"] / "evaluations").glob("*.json")
    for file in (evaluation, evaluation.with_suffix(".jsonl")):
        (file.parent / f"again{file.suffix}").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="was scored twice on"):
        compare([runs["a0"]], [runs["b0"]])
    other = json.loads(evaluation.read_text()) | {"persons": "other.jsonl"}
    (evaluation.parent / "again.json").write_text(json.dumps(other))
    # The evaluation with other people counts as another one.
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    assert comparison.ours == (14 / 16,)
