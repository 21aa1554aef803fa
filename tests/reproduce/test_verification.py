"""Verification of saved evaluations, and the images of the figures."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from tests.data.tree import says
from tests.drawn import class_folders
from tests.runs import pretrained, tiny_finetuning
from uniemox.data.people import read_people
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.run import evaluate
from uniemox.finetune.run import finetune
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection
from uniemox.teacher.features import save_features
from uniemox.training.config import HardwareConfig
from uniemox_paper.costs import measure_run
from uniemox_paper.figures import read_images, write_images
from uniemox_paper.verification import verify
from uniemox_paper.zero_shot import PROMPTS, score_zero_shot

CPU = HardwareConfig(device="cpu", workers=0)
CLASSES = ("anger", "awe", "disgust", "fear", "sadness")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images in folders, scored on others of them."""
    folder = tmp_path_factory.mktemp("audit")
    data = open_data(f"folder:{class_folders(folder / 'photos', CLASSES, 6)}")
    run = folder / "run"
    finetune(tiny_finetuning(pretrained(), method="probe"), data, run)
    scored = open_data(data.name, splits=run / "splits.json").only("test")
    write_evaluation(evaluate(run, scored, hardware=CPU), run, scored, "test")
    return run


@pytest.mark.thorough
def test_verify_reproduces_the_saved_accuracy(tuned: Path) -> None:
    [verified] = verify(tuned)
    saved = json.loads(next((tuned / "evaluations").glob("*.json")).read_text())
    assert (verified["accuracy"], verified["pictures"], verified["split"]) == (saved["accuracy"], saved["n"], "test")
    assert verified["largest_difference"] <= 1e-6


def test_verify_detects_changed_weights(tuned: Path) -> None:
    path = tuned / "model.safetensors"
    before = path.read_bytes()
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = safetensors.torch.load_file(path)
    name = next(name for name in tensors if name.startswith("head") and name.endswith("bias"))
    # All predictions are the second class now.
    tensors[name][1] += 1e4
    try:
        safetensors.torch.save_file(tensors, path, header)
        with pytest.raises(CheckpointError, match=says("its weights give accuracy")):
            verify(tuned)
    finally:
        path.write_bytes(before)


def test_verify_fails_without_evaluations_or_images(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no evaluation to verify"):
        verify(tmp_path)
    file = next((tuned / "evaluations").glob("*.jsonl"))
    before = file.read_text()
    line = json.loads(before.splitlines()[0])
    try:
        file.write_text(before + json.dumps(line | {"key": "gone.jpg"}) + "\n")
        with pytest.raises(DataError, match=says("scored images, such as gone.jpg")):
            verify(tuned)
    finally:
        file.write_text(before)


def test_costs_are_measured_once_and_counted_right(tuned: Path) -> None:
    cost = measure_run(tuned)
    classifier = safetensors.torch.load_file(tuned / "model.safetensors")
    assert cost.parameters_m == pytest.approx(sum(value.numel() for value in classifier.values()) / 1e6, rel=0.05)
    assert cost.multiply_adds_g > 0
    assert cost.size_px == 32
    assert measure_run(tuned) == cost


def test_write_images_takes_the_classes_in_turn(tmp_path: Path) -> None:
    data = open_data("synthetic:64")
    files = write_images(data, tmp_path / "a", count=8, seed=0)
    entries = read_images(tmp_path / "a")
    assert [file.name for file in files] == [f"{i:02d}.png" for i in range(8)]
    assert [entry["label"] for entry in entries] == list(data.labels.labels)
    assert not any("The overall emotion is" in entry["text"] for entry in entries)
    write_images(data, tmp_path / "told", count=8, seed=0, with_emotion=True)
    assert all("The overall emotion is" in entry["text"] for entry in read_images(tmp_path / "told"))
    write_images(data, tmp_path / "b", count=8, seed=0)
    assert read_images(tmp_path / "b") == entries
    write_images(data, tmp_path / "c", count=8, seed=1)
    assert read_images(tmp_path / "c") != entries
    assert len(write_images(open_data("synthetic:3"), tmp_path / "d", count=8, seed=0)) == 3
    with pytest.raises(ConfigError, match="--count must be at least 1"):
        write_images(data, tmp_path, count=0, seed=0)


def test_write_images_writes_the_people_in_px_of_the_copies(tmp_path: Path) -> None:
    """Boxes are in px of the written image, at most 640; only the target person, if the data name one."""
    image = tmp_path / "a.png"
    Image.new("RGB", (1280, 960)).save(image)
    people = (Detection(Box(100, 200, 300, 400), 0.5), Detection(Box(0, 0, 640, 640), 0.75))
    people_fields: dict[str, dict[str, Any]] = {
        "two": {"persons": people},
        "meant": {"persons": people, "target_box": Box(2, 4, 6, 8)},
        "none": {"persons": ()},
        "unknown": {},
    }
    for name, values in people_fields.items():
        sample = Sample(key="a.png", image=ImageFile(image), **values)
        write_images(DataSet("data", MIKELS, [sample]), tmp_path / name, count=1, seed=0)
    people_by_name = {name: read_people(tmp_path / name / "persons.jsonl") for name in people_fields}
    assert people_by_name == {
        "two": {"00.png": (Detection(Box(50, 100, 150, 200), 0.5), Detection(Box(0, 0, 320, 320), 0.75))},
        "meant": {"00.png": (Detection(Box(1, 2, 3, 4), 1.0),)},
        "none": {"00.png": ()},
        "unknown": {},
    }


def test_zero_shot_predicts_the_class_of_the_nearest_sentence(tmp_path: Path) -> None:
    """A stored teacher whose image features are the means of its sentences' features predicts all labels correctly."""
    data = open_data("synthetic:16")
    prompts = PROMPTS["evoked"]
    texts = [prompt.format(label) for label in data.labels.labels for prompt in prompts]
    space = torch.eye(8)
    text_features = space.repeat_interleave(len(prompts), dim=0) + 0.3 * torch.eye(8).repeat(len(prompts), 1)
    keys = [sample.key for sample in data.samples]
    images = torch.stack([space[sample.label or 0] for sample in data.samples])
    path = tmp_path / "teacher.npz"
    for features, accuracy in ((images, 1.0), (images.roll(1, 1), 0.0)):
        save_features(path, image_keys=keys, image_features=features, texts=texts, text_features=text_features)
        written = json.loads(score_zero_shot(f"stored:{path}", data, tmp_path / "out", split="all").read_text())
        assert (written["accuracy"], written["n"], written["split"]) == (accuracy, 16, "all")
