"""Runs of fine-tuning that are killed and resumed, or finished and opened again: same bits, parts and answers."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.finetune.test_run import dies, newest
from tests.runs import (
    BOTH,
    CPU,
    FINETUNINGS,
    SPLITS,
    Dies,
    Killed,
    colours,
    data_of,
    finetuned,
    losses,
    pretrained,
    sha256,
    tiny_finetuning,
)
from uniemox.data.sample import DataSet
from uniemox.data.split_files import read_splits
from uniemox.evaluate.run import evaluate
from uniemox.finetune import run as run_module
from uniemox.finetune.parts import split_for_training
from uniemox.finetune.run import finetune
from uniemox.training.config import SaveConfig, ScheduleConfig

FILES = ("model.safetensors", "encoder.safetensors", "model.onnx")


def with_copies() -> DataSet:
    """Forty images; every second one is a copy of the first."""
    data = colours(10)
    first = data.samples[0].image
    samples = [replace(sample, image=first) if i % 2 else sample for i, sample in enumerate(data.samples)]
    return replace(data, samples=samples)


def splits_of_copies(file: Path, data: DataSet) -> set[str | None]:
    return {sample.split for sample in read_splits(file, data).samples[1::2]}


@pytest.mark.parametrize("at", [5, 13, None])
def test_killed_run_resumes_to_the_same_bits(at: int | None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The run has EMA, mixup, drop path and a head from a probe; it saves at 3, 4, 6, 8, 9, 12, 15 and 16."""
    out = tmp_path / "run"
    config = FINETUNINGS["both"]()
    if at is not None:
        request.getfixturevalue("without_onnx")
    dies(config, out, at)
    finetune(config, data_of("both"), out, resume=True)
    assert losses(out) == losses(finetuned("both"))
    for name in FILES if at is None else FILES[:2]:
        assert sha256(out / name) == sha256(finetuned("both") / name), name


@pytest.mark.usefixtures("without_onnx")
def test_resumed_run_keeps_copies_together_without_looking_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_copies()
    schedule = ScheduleConfig(epochs=1, warmup_epochs=0)
    config = tiny_finetuning(pretrained(), save=SaveConfig(every_steps=1), schedule=schedule)
    finetune(config, data, tmp_path / "whole")
    assert len(splits_of_copies(tmp_path / "whole" / "splits.json", data)) == 1
    dies(config, tmp_path / "killed", 1, data)

    def refuse(*args: Any) -> None:
        pytest.fail("the images were hashed again")

    monkeypatch.setattr(run_module, "find_overlaps", refuse)
    finetune(config, data, tmp_path / "killed", resume=True)
    for name in ("model.safetensors", "splits.json", "overlaps.json"):
        assert sha256(tmp_path / "killed" / name) == sha256(tmp_path / "whole" / name), name


@pytest.mark.usefixtures("without_onnx")
def test_run_of_an_older_version_resumes_with_its_own_parts(tmp_path: Path) -> None:
    """It did not keep copies together; its folder has no file of them."""
    data = with_copies()
    config = tiny_finetuning(pretrained(), method="knn")
    # As that version split them.
    split_for_training(data, config, tmp_path)
    assert len(splits_of_copies(tmp_path / "splits.json", data)) > 1
    out = tmp_path / "run"
    dies(config, out, None, data)
    (out / "overlaps.json").unlink()
    (out / "splits.json").unlink()
    finetune(config, data, out, resume=True)
    assert sha256(out / "splits.json") == sha256(tmp_path / "splits.json")


@pytest.mark.thorough
def test_batch_norm_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """The plan's memory is measured on grey images, which must not change a network's statistics."""
    config = tiny_finetuning("scratch:timm:test_resnet", save=SaveConfig(every_steps=1), batch_size=16)
    for name, deaths in (("whole", ()), ("killed", (2, 3))):
        for at in deaths:
            with pytest.raises(Killed):
                finetune(config, colours(splits=SPLITS), tmp_path / name, resume=True, callback=Dies(at))
        with pytest.raises(Killed):
            finetune(config, colours(splits=SPLITS), tmp_path / name, resume=True, callback=Dies(None))
    uninterrupted = newest(tmp_path / "whole")
    killed = newest(tmp_path / "killed")
    assert int(uninterrupted["encoder.bn1.num_batches_tracked"]) == 4
    assert all(torch.equal(value, killed[name]) for name, value in uninterrupted.items())


@pytest.mark.usefixtures("without_onnx")
def test_finished_run_does_not_need_its_initial_weights(tmp_path: Path) -> None:
    shutil.copytree(pretrained(), tmp_path / "start")
    finetune(tiny_finetuning(tmp_path / "start", method="knn", network=BOTH), data_of("knn"), tmp_path / "run")
    data = colours(2, seed=5)
    before = [line["probabilities"] for line in evaluate(tmp_path / "run", data, hardware=CPU).predictions]
    shutil.rmtree(tmp_path / "start")
    after = evaluate(tmp_path / "run", data, hardware=CPU).predictions
    assert [line["probabilities"] for line in after] == before


@pytest.mark.usefixtures("without_onnx")
def test_keep_finished_off_deletes_checkpoints(tmp_path: Path) -> None:
    config = tiny_finetuning(pretrained(), save=SaveConfig(every_steps=1, keep_finished=False))
    data = colours(splits=SPLITS)
    info = finetune(config, data, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    before = (tmp_path / "run" / "model.onnx").stat().st_mtime_ns
    assert finetune(config, data, tmp_path / "run", resume=True) == info
    # Nothing is written again.
    assert (tmp_path / "run" / "model.onnx").stat().st_mtime_ns == before
