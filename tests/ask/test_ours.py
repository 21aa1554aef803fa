"""Predictions of a fine-tuned network for the images that models are asked about."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drawn import class_folders
from tests.runs import finetuned
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.readers.folders import read_folder
from uniemox.data.sample import ImageFile, Sample, decode_sample
from uniemox.errors import CheckpointError, ConfigError, DataError, LabelError
from uniemox.evaluate.classifier_outputs import Reading, outputs_of
from uniemox.labels import CAER, CUSTOM, EKMAN, LabelSet
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector
from uniemox.predict.confidence import answers_of
from uniemox.predict.opening import load
from uniemox.views.config import ViewConfig
from uniemox.views.patches import PixelStats
from uniemox_ask.our_model import labels_of_ours, probabilities_of_ours
from uniemox_ask.question import AskedImage, select


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[AskedImage, ...]:
    return select(read_folder(class_folders(tmp_path_factory.mktemp("set") / "x", each=2)), 4, 0).images


def test_labels_are_those_of_torch(images: tuple[AskedImage, ...]) -> None:
    run = finetuned("probe")
    classifier, info = load_classifier(run / "model.safetensors")
    view = ViewConfig(size=info.size, crop_fraction=info.crop_fraction)
    samples = [image.sample for image in images]
    logits = outputs_of(classifier, samples, view, Reading(stats=PixelStats(info.mean, info.std), workers=0)).values
    expected = [info.labels[i] for i in np.argmax(logits, axis=1)]
    for model in (run, run / "model.onnx"):
        labels = labels_of_ours(model, images, info.find_labels())
        assert [labels[image.sha256] for image in images] == expected


@pytest.mark.parametrize("annotation", ["boxes", "target", "nobody"])
def test_two_stream_model_uses_person_boxes_of_the_data(
    images: tuple[AskedImage, ...], annotation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boxes are those that `evaluate` uses, and no detector is run."""

    def refused(name: str) -> Detector:
        raise AssertionError(f"the {name} detector is run")

    monkeypatch.setattr("uniemox_ask.our_model.open_finder", refused)
    box = Box(3, 5, 40, 60)
    other = Detection(Box(0, 0, 20, 20), 0.9)
    people: dict[str, dict[str, Any]] = {
        "boxes": {"persons": (Detection(box, 0.9), other)},
        "target": {"persons": (other,), "target_box": box},
        "nobody": {"persons": ()},
    }
    annotated = [replace(image, sample=replace(image.sample, **people[annotation])) for image in images]
    run = finetuned("both")
    classifier, info = load_classifier(run / "model.safetensors")
    view = ViewConfig(size=info.size, crop_fraction=info.crop_fraction)
    stats = PixelStats(info.mean, info.std)
    samples = [image.sample for image in annotated]
    outputs = outputs_of(classifier, samples, view, Reading(stats=stats, workers=0))
    logits = outputs.values
    network = load(run, finder=None).network
    for sample, expected in zip(samples, answers_of(info, logits, outputs.distances), strict=True):
        views = network.views_of(decode_sample(sample), sample.persons, sample.target_box)
        assert network.answer([views]).values[0] == pytest.approx(expected, abs=1e-4)
    labels = {image.sha256: info.labels[i] for image, i in zip(annotated, np.argmax(logits, axis=1), strict=True)}
    assert labels_of_ours(run, annotated, info.find_labels()) == labels


def test_labels_that_the_model_lacks_have_probability_zero(images: tuple[AskedImage, ...]) -> None:
    """The embedded model has Mikels' labels, of which none is surprise and awe is dropped."""
    for values in probabilities_of_ours(Path("embedded"), images, EKMAN).values():
        assert values.sum() == pytest.approx(1)
        assert [label for label, value in zip(EKMAN.labels, values, strict=True) if not value] == ["surprise"]


def test_models_that_reach_a_single_label_are_refused(images: tuple[AskedImage, ...]) -> None:
    with pytest.raises(LabelError, match=r"of fear, only 1 is reached by .* give a model with more of these labels"):
        labels_of_ours(finetuned("probe"), images, LabelSet(CUSTOM, ("fear",), "evoked"))


def test_incomparable_models_are_refused(images: tuple[AskedImage, ...], tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="not comparable"):
        labels_of_ours(finetuned("probe"), images, CAER)
    with pytest.raises(ConfigError, match="predicts ratings or several labels"):
        labels_of_ours(finetuned("affect"), images, EKMAN)
    with pytest.raises(CheckpointError):
        labels_of_ours(tmp_path / "none.onnx", images, EKMAN)


def test_training_images_are_refused(tmp_path: Path) -> None:
    run = finetuned("probe")
    shutil.copy(run / "model.onnx", tmp_path / "model.onnx")
    image = class_folders(tmp_path / "set") / "awe" / "0.jpg"
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    (tmp_path / "training_pictures.txt").write_text(f"{'0' * 64}\n{digest}\n")
    asked_image = AskedImage(sample=Sample(key="a", image=ImageFile(image)), label="awe", sha256=digest)
    with pytest.raises(DataError, match="trained on 1 of these 1 images"):
        labels_of_ours(tmp_path, [asked_image], EKMAN)
