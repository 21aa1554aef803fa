"""The commands pretrain, finetune, evaluate and bench resume, with complete runs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.resume import MOMENTS, bench_resume
from tests.drawn import class_folders
from tests.runs import pretrained, uniemox
from uniemox.cli.settings import config_of, options_of
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.presets import paper

KEYS = {"accuracy", "accuracy_interval", "per_class_recall", "macro_f1", "ece", "ece_calibrated", "n"}


def parsed(*words: object, folder: Path | None = None) -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error without line breaks."""
    done = uniemox(*words, folder=folder)
    return done.returncode, " ".join(done.stdout.split()), " ".join(done.stderr.split())


@pytest.mark.portable
@pytest.mark.parametrize(
    ("words", "defaults"),
    [
        (("pretrain", "--help"), ("[default: 200.0]", "[default: 1024]", "[default: attention]")),
        (
            ("pretrain", "--preset", "demo", "--help"),
            ("[default: 20]", "[default: 32]", "[default: gated]", "[default: 0.012]"),
        ),
        (("finetune", "--help"), ("[default: 0.99]", "[default: 0.75]")),
        (("finetune", "--preset", "paper", "--help"), ("[default: 100]", "[default: 256]")),
    ],
)
def test_help_shows_the_defaults_of_the_preset(words: tuple[str, ...], defaults: tuple[str, ...]) -> None:
    status, out, _ = parsed(*words)
    assert status == 0
    # A long line is broken between any two words.
    out = " ".join(out.replace("│", " ").split())
    for default in defaults:
        assert default in out
    assert "--optimizer.base-lr" in out
    assert "Maximum learning rate for a batch of 256" in out


def test_options_of_can_omit_fields_of_a_part() -> None:
    options = options_of(paper(), without=("model.teacher_width", "view.crop_fraction"))()
    assert not hasattr(options.model, "teacher_width")
    assert not hasattr(options.view, "crop_fraction")
    assert config_of(PretrainConfig, options) == paper()


def test_none_is_a_name_only_for_fields_without_none() -> None:
    options = options_of(paper())()
    assert config_of(PretrainConfig, options) == paper()
    options.encoder.start = "none"
    assert config_of(PretrainConfig, options).encoder.start is None
    options.encoder.name = "none"
    assert config_of(PretrainConfig, options).encoder.name == "none"


@pytest.mark.portable
def test_finetune_and_evaluate_from_image_folders_to_scores(tmp_path: Path) -> None:
    """A run fine-tunes on images in folders and is evaluated on the splits that it has drawn."""
    run = tmp_path / "run"
    photos = class_folders(tmp_path / "my photos", ("awe", "fear", "anger", "disgust", "sadness"), 10)
    excluded = tmp_path / "check.json"
    excluded.write_text('{"exclude": []}')
    small = ["--method", "knn", "--view.size", "32", "--hardware.device", "cpu", "--hardware.workers", "0"]
    small += ["--exclude", str(excluded)]
    done = uniemox("finetune", "--init", pretrained(), "--data", f"folder:{photos}", "--out", run, *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    message, line = " ".join(done.stderr.split()).rsplit(" next: ", 1)
    assert message.endswith(f"wrote {run}/model.safetensors and model.onnx;")
    program, *pasted = shlex.split(line)
    assert program == "uniemox"
    assert uniemox(*pasted).returncode == 0
    assert sorted(path.name for path in run.iterdir() if path.is_file()) == [
        *(
            "config.json",
            "encoder.safetensors",
            "initial_weights.txt",
            "model.onnx",
            "model.safetensors",
            "overlaps.json",
            "splits.json",
        ),
        "training_pictures.txt",
    ]
    splits = ("--splits", run / "splits.json", "--exclude", excluded)
    done = uniemox("evaluate", "--model", run, "--data", f"folder:{photos}", *splits, "--by", "label", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) >= KEYS
    assert result["n"] == 5
    assert result["verdict"][0].startswith("chance 20.0%; always ")
    assert result["per_class_recall"].keys() >= {"awe", "fear"}
    assert result["accuracy_interval"][0] <= result["accuracy"] <= result["accuracy_interval"][1]
    assert sum(group["n"] for group in result["by"]["groups"].values()) == 5
    assert "scoring split test: 5 samples" in done.stderr
    status, out, err = parsed("evaluate", "--model", run, "--data", f"folder:{photos}", "--json")
    assert (status, out) == (1, "")
    assert "the model was trained on 45 of these 50 images" in err
    assert f"use images of a split that was held out (--splits {run / 'splits.json'})" in err
    status, _, err = parsed("finetune", "--init", pretrained(), "--data", f"folder:{photos}", "--out", run, *small)
    assert (status, "add --resume to continue it" in err) == (1, True)
    changed = [*("64" if word == "32" else word for word in small), "--resume"]
    status, _, err = parsed("finetune", "--init", pretrained(), "--data", f"folder:{photos}", "--out", run, *changed)
    assert status == 1
    assert "began with other settings: view.size: 64 now, 32 at first" in err


@pytest.mark.thorough
def test_own_labels_are_compared_with_the_built_in_model(tmp_path: Path) -> None:
    """docs/tutorials/classifier.md, whose commands run as a test, fits a head without --init."""
    photos = class_folders(tmp_path / "my photos", ("fun", "yuck", "zest"), 12)
    run = tmp_path / "run"
    data = ("--data", f"folder:{photos}")
    done = uniemox("finetune", *data, "--out", tmp_path / "least", "--method", "histogram", "--hardware.workers", "0")
    assert done.returncode == 0, done.stderr
    assert f"compare --baseline {tmp_path / 'least'}" in " ".join(done.stderr.split())
    start = ("--init", pretrained(), "--method", "knn", "--view.size", "32", "--hardware.workers", "0")
    done = uniemox("finetune", *data, "--out", run, *start, "--splits", tmp_path / "least" / "splits.json")
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stderr.split())
    assert f"uniemox compare --ours {run} --theirs embedded" in printed
    assert "--map fun=...,yuck=...,zest=..." in printed
    parts = (*data, "--splits", tmp_path / "least" / "splits.json")
    scored = ("--ours", run, "--theirs", "small", *parts)
    status, _, err = parsed("compare", *scored, folder=tmp_path)
    assert status == 1
    assert "no map from mikels to custom is known" in err
    # It is found before the run is scored.
    assert not (run / "evaluations").exists()
    assert re.search(r"\(--map \w+=\.\.\.,.*=\.\.\. of uniemox evaluate, compare and calibrate", err)
    labels = ("--map", "fun=amusement+excitement,yuck=disgust,zest=awe")
    status, out, err = parsed("compare", *scored, *labels, folder=tmp_path)
    assert status == 0, err
    assert "small: labels are mapped: mikels -> custom: amusement + excitement become fun" in err
    assert re.search("training (gained|lost) (accuracy|nothing)", out)
    announced = "the scores of small will be saved in the working directory, in evaluations/small"
    assert err.index(announced) < err.index("labels are mapped")
    [scores] = (tmp_path / "evaluations" / "small").glob("*.json")
    assert f"small: scores and predictions are in evaluations/small/{scores.name} and beside it" in err
    status, _, err = parsed("evaluate", "--model", "small", *parts, *labels, folder=tmp_path)
    assert (status, err.count(announced)) == (0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"my photos", "least", "run", "evaluations"}
    status, _, err = parsed("compare", "--ours", run, "--theirs", "small", "--split", "val")
    assert (status, "need --data" in err) == (2, True)


@pytest.mark.thorough
def test_images_that_initial_weights_know_are_named_before_training(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ("awe", "fear"), 10)
    first = tmp_path / "first"
    small = ("--method", "knn", "--view.size", "32", "--hardware.device", "cpu", "--hardware.workers", "0")
    data = ("--data", f"folder:{photos}")
    assert parsed("finetune", "--init", pretrained(), *data, "--out", first, *small)[0] == 0
    # Other splits: the first run was trained on images that now are of split test.
    other = ("--seed", "5")
    status, _, err = parsed("finetune", "--init", first, *data, "--out", tmp_path / "second", *small, *other)
    assert status == 0, err
    known = r"first was trained on [12] of the 2 images of split test"
    assert re.search(rf"{known}, such as .*evaluate will refuse", err)
    # The last lines suggest no command that is refused.
    assert "--splits" not in err[err.index("is it better than") :]
    model = rf"--model {tmp_path / 'second'} --data KIND:PATH \(images that are new to it:"
    assert re.search(rf"next: uniemox evaluate {model} \S*{known}\)$", err)
    assert re.search(r"--theirs embedded --data KIND:PATH \(images that are new", err)


@pytest.mark.thorough
def test_test_images_among_the_training_images_are_named_with_a_remedy_that_works(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    class_folders(photos / "train", ("awe", "fear"), 12)
    # The same files as the first three of each training folder.
    class_folders(photos / "test", ("awe", "fear"), 3)
    run = tmp_path / "run"
    train = ("finetune", "--method", "histogram", "--hardware.workers", "0", "--data", f"folder:{photos}")
    status, _, err = parsed(*train, "--out", run)
    assert status == 0, err
    copies = "6 of the 6 images of split test"
    assert re.search(rf"{copies}, such as test/awe/0.jpg, are copies .*train without these images \(uniemox data", err)
    # The last lines suggest no command that is refused.
    assert re.search(rf"next: uniemox evaluate --model {run} --data KIND:PATH \(images .*: {copies} are copies", err)

    checked = uniemox("data", "check", f"folder:{photos}", "--json")
    exclude = tmp_path / "check.json"
    exclude.write_text(checked.stdout)
    again = tmp_path / "again"
    done = uniemox(*train, "--out", again, "--exclude", exclude)
    assert "are copies" not in done.stderr
    assert f"6 of the 6 images listed in {exclude} were left out" in " ".join(done.stderr.split())
    suggested = " ".join(done.stderr.split()).rpartition("next: uniemox ")[2]
    status, out, err = parsed(*shlex.split(suggested), "--json")
    assert status == 0, err
    assert json.loads(out)["n"] == 6


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.portable
def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """This test kills two processes; `python -m benchmarks.resume` kills twenty."""
    kills: list[int] = []
    outcomes = bench_resume(tmp_path, kills=2, seed=0, on_kill=lambda: kills.append(1))
    assert [outcome.command for outcome in outcomes] == ["pretrain", "finetune"]
    assert [sum(outcome.kills.values()) for outcome in outcomes] == [1, 1]
    assert len(kills) == 2
    for outcome in outcomes:
        assert set(outcome.kills) == set(MOMENTS)
        assert all(run == outcome.undisturbed for run in outcome.disturbed)
        assert outcome.is_same
    assert set(outcomes[1].undisturbed) == {"model.safetensors", "model.onnx"}
