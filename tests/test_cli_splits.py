"""Every command with --splits reads only the split that it is for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cyclopts import App

from tests.drawn import draw_image
from tests.predict.networks import tiny_network
from tests.runs import uniemox_here
from uniemox.cli.program import add_foreign_commands, app
from uniemox.data.source import open_data
from uniemox.data.split_files import write_splits
from uniemox.predict.opening import load
from uniemox.teacher.features import save_features
from uniemox_paper.zero_shot import PROMPTS

COUNT = 72
OUT = "OUT"
# Commands that fit on train or val; they refuse a data set with only test images.
FITS = {
    "calibrate": "--model m.onnx --out OUT.onnx",
    "calibrate --ratings": "--model m.onnx --out OUT.onnx",
    "few-labels": "--init embedded --methods knn --images 1 --out OUT",
    "finetune": "--method histogram --out OUT",
    "pretrain": "--preset demo --out OUT --teacher.source stored:teacher.npz",
    "teacher fit": "--out OUT",
}
# Commands that score test; they fail if only the test images can't be read.
SCORES = {
    "evaluate": "--model m.onnx",
    "compare": "--ours small --theirs small",
    "export": "m.onnx --int8 --out OUT.onnx",
    "ask": "--endpoint http://127.0.0.1:9/v1 --model any --out OUT",
    "reproduce zero-shot": "--teacher stored:teacher.npz --out OUT",
}
KEEPS = ("data show", "data check", "data shard", "reproduce images", "reproduce pictures")
"""Commands that read all splits: they show or pack images and their splits, and fit or score nothing."""


def commands(group: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """Yield names and commands of an app and of its groups."""
    for name in group:
        if not name.startswith("-"):
            if group[name].default_command is not None:
                yield " ".join((*words, name)), group[name]
            yield from commands(group[name], (*words, name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two labels, a copy with damaged test images, and split files with all parts and test alone."""
    root = tmp_path_factory.mktemp("splits")
    for name in ("photos", "damaged"):
        for i in range(COUNT):
            path = root / name / ("awe", "fear")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_image(i, (48, 48)).save(path)
            if name == "damaged" and i >= 64:
                path.write_bytes(b"no image")
    data = open_data(f"folder:{root}/photos")
    scheme = {
        f"{('awe', 'fear')[i % 2]}/{i}.png": "train" if i < 32 else "val" if i < 64 else "test" for i in range(COUNT)
    }
    assert scheme.keys() == {sample.key for sample in data.samples}
    write_splits(root / "whole.json", scheme, source="photos", how="by hand")
    test = {key: split for key, split in scheme.items() if split == "test"}
    write_splits(root / "test.json", test, source="photos", how="by hand")
    tiny_network(root / "m.onnx", distances=(1.0, 2.0))
    texts = [prompt.format(label) for label in data.labels.labels for prompt in PROMPTS["evoked"]]
    save_features(
        root / "teacher.npz",
        image_keys=list(scheme),
        image_features=torch.rand(COUNT, 8),
        texts=texts,
        text_features=torch.rand(len(texts), 8),
    )
    return root


def test_all_commands_with_splits_are_listed() -> None:
    add_foreign_commands("")
    with_splits = {
        name
        for name, command in commands(app)
        if any("--splits" in argument.names for argument in command.assemble_argument_collection())
    }
    assert with_splits == {name.removesuffix(" --ratings") for name in FITS} | SCORES.keys() | {*KEEPS}


@pytest.mark.parametrize("name", FITS)
def test_fitting_commands_refuse_test_images(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = f"{name} {FITS[name]} --data folder:photos --splits test.json".replace(OUT, str(tmp_path / "out"))
    done = uniemox_here(*words.split())
    assert done.returncode == 1, done.stdout
    assert "it has test" in done.stderr or "none of these is of split train" in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("**/*.onnx"))


@pytest.mark.parametrize("name", SCORES)
def test_scoring_commands_read_only_test_images(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = f"{name} {SCORES[name]} --data folder:damaged --splits whole.json".replace(OUT, str(tmp_path / "out"))
    done = uniemox_here(*words.split())
    assert done.returncode == 1, done.stdout
    assert re.search(r"(none of|no image) .*can be read|no readable image", " ".join(done.stderr.split()))


def test_calibrate_uses_val_and_evaluate_scores_test(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    data = ("--data", "folder:photos", "--splits", "whole.json")
    out = tmp_path / "mine.onnx"
    done = uniemox_here("calibrate", "--model", "m.onnx", *data, "--out", out, "--json")
    result = json.loads(done.stdout)
    assert (result["split"], result["images"]) == ("val", 32)
    assert load(out, finder=None).network.info.calibrated_on == "folder:photos, split val"
    done = uniemox_here("evaluate", "--model", out, *data, "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 8
    done = uniemox_here(
        "calibrate", "--model", "m.onnx", *data, "--out", tmp_path / "other.onnx", "--split", "train", "--json"
    )
    assert json.loads(done.stdout)["split"] == "train"
