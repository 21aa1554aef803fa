"""Distillation: targets, additional images, and resuming."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import draw_image
from tests.runs import SPLITS, Told, colours, finetuned, losses, pretrained, sha256, tiny_finetuning
from uniemox.data.sample import Sample
from uniemox.data.seen import read_seen
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError, StoppedError
from uniemox.finetune.config import DistillationConfig, FinetuneConfig
from uniemox.finetune.distillation import PREFIX, TeacherAnswers, ask_teacher, open_unlabelled
from uniemox.finetune.overlaps import find_overlaps
from uniemox.finetune.run import finetune
from uniemox.labels import EKMAN, MIKELS
from uniemox.predict.opening import load
from uniemox.predict.prediction import Prediction
from uniemox.training.run_folder import TEACHER_ANSWERS


@pytest.fixture
def further(tmp_path: Path) -> str:
    """Images without labels, one of them broken."""
    for i in range(6):
        draw_image(i).save(tmp_path / f"{i}.png")
    (tmp_path / "6.png").write_bytes(b"no image")
    (tmp_path / "table.csv").write_text("path,text\n" + "".join(f"{i}.png,a\n" for i in range(7)))
    return f"csv:{tmp_path / 'table.csv'}"


def distilling(data: str = "", **changes: object) -> FinetuneConfig:
    config = DistillationConfig(teacher=str(finetuned("both")), data=data)
    return tiny_finetuning(pretrained(), distillation=config, **changes)


def test_targets_by_hand() -> None:
    prediction = torch.tensor([0.1, 0.6, 0.3])
    answers = TeacherAnswers([], {"a": prediction, PREFIX + "b": prediction}, weight=0.25, classes=3)
    blank = Sample(key="", image=None)  # type: ignore[arg-type]
    samples = [replace(blank, key="a", label=0), replace(blank, key=PREFIX + "b"), replace(blank, key="c", label=2)]
    expected = torch.tensor([[0.75 + 0.025, 0.15, 0.075], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(answers.targets(samples), expected)


def test_teacher_predicts_whole_images_once(tmp_path: Path, further: str) -> None:
    train = colours(2).samples
    config = DistillationConfig(teacher=str(finetuned("both")), data=further, weight=0.5)
    callback = Told()
    images = open_unlabelled(config)
    answers = ask_teacher(config, train, images, MIKELS, tmp_path, callback.progress)
    assert callback.last.pop("asking the teacher") == (15, 15)
    assert [sample.key for sample in answers.unlabelled] == [f"{PREFIX}{i}.png" for i in range(6)]
    assert {sample.label for sample in answers.unlabelled} == {None}
    predictor = load(finetuned("both"), finder=None)
    prediction = predictor.predict(tmp_path / "3.png")
    assert isinstance(prediction, Prediction)
    torch.testing.assert_close(answers.shares[f"{PREFIX}3.png"], torch.tensor(list(prediction.scene.values())))
    # The predictions are saved, so the image is not read again.
    (tmp_path / "3.png").write_bytes(b"")
    again = ask_teacher(config, train, images, MIKELS, tmp_path, callback.progress)
    assert callback.last == {}
    torch.testing.assert_close(again.targets(again.unlabelled), answers.targets(answers.unlabelled), rtol=0, atol=0)
    with pytest.raises(DataError, match="has predictions for other images"):
        ask_teacher(config, train[1:], images, MIKELS, tmp_path)


@pytest.mark.usefixtures("without_onnx")
def test_copies_of_held_out_and_scored_images_are_not_trained_on(tmp_path: Path) -> None:
    """The additional images are all of the run's own: those of training may stay."""
    data = colours(splits=SPLITS)
    folder = tmp_path / "all"
    folder.mkdir()
    split_of = {}
    for i, sample in enumerate(data.samples):
        (folder / f"{i}.jpg").write_bytes(sample.image.read())
        split_of[f"{PREFIX}{i}.jpg"] = sample.split
    config = distilling(f"folder:{folder}?labels=none")
    left_out = find_overlaps(data, config).held_out_unlabelled
    assert set(left_out) == {key for key, split in split_of.items() if split != "train"}
    run = tmp_path / "run"
    finetune(config, data, run)
    with np.load(run / TEACHER_ANSWERS) as saved:
        asked = {key for key in saved["keys"].tolist() if key.startswith(PREFIX)}
    assert asked == {key for key, split in split_of.items() if split == "train"}


def test_a_teacher_of_other_labels_is_refused(tmp_path: Path) -> None:
    config = DistillationConfig(teacher=str(finetuned("both")))
    with pytest.raises(ConfigError, match="the data have anger, disgust"):
        ask_teacher(config, colours(1).samples, [], EKMAN, tmp_path)
    assert not (tmp_path / TEACHER_ANSWERS).exists()


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
def test_killed_at_any_step_it_continues_to_the_same_bytes(tmp_path: Path, further: str) -> None:
    data = colours(splits=SPLITS)
    config = distilling(further)
    finetune(config, data, tmp_path / "whole")
    with pytest.raises(StoppedError):
        finetune(config, data, tmp_path / "out", callback=Told(stop_after=2))
    finetune(config, data, tmp_path / "out", resume=True)
    plain = tmp_path / "plain"
    finetune(tiny_finetuning(pretrained()), data, plain)
    assert sha256(tmp_path / "whole" / "model.safetensors") == sha256(tmp_path / "out" / "model.safetensors")
    assert losses(tmp_path / "whole") == losses(tmp_path / "out") != losses(plain)
    training_hashes = read_seen(tmp_path / "out")
    assert read_seen(finetuned("both")) <= training_hashes
    # One of them is unreadable, so it is not recorded.
    assert len(open_data(further)) == 7
    # Two hashes of each of six images.
    assert len(training_hashes - read_seen(plain) - read_seen(finetuned("both"))) == 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistillationConfig(weight=1.5), "weight must be at most 1"),
        (lambda: DistillationConfig(data="folder:x"), "needs a teacher"),
        (
            lambda: tiny_finetuning("x", method="probe", distillation=DistillationConfig(teacher="small")),
            "trains in steps, such as full or lora",
        ),
        (lambda: tiny_finetuning("x", task="affect", distillation=DistillationConfig(teacher="small")), "task label"),
    ],
)
def test_settings_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
