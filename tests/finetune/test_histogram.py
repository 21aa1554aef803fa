"""Method histogram: a run like any other, without an encoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.tree import says
from tests.runs import CPU, SIZE, SPLITS, colours, once, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.seen import read_seen
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.run import evaluate
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.run import finetune
from uniemox.insight.explain.maps import open_explainer
from uniemox.io.onnx_sessions import open_session
from uniemox.predict.opening import load


def run() -> Path:
    config = tiny_finetuning("", method="histogram")
    return once("histogram", lambda out: finetune(config, colours(splits=SPLITS), out))


@pytest.mark.thorough
def test_colours_are_told_apart_with_calibrated_probabilities() -> None:
    scores = evaluate(run(), colours(splits=SPLITS).only("test"), hardware=CPU).scores
    assert (scores.accuracy, scores.n) == (1.0, 12)
    _, info = load_classifier(run() / "model.safetensors")
    assert info.temperature is not None
    assert len(info.conformal_scores) == 12
    assert (info.network.encoders[0].name, info.streams, info.size) == ("colour_histogram", "scene", SIZE)


@pytest.mark.usefixtures("without_onnx")
def test_logits_are_adjusted_by_the_shares_of_the_classes(tmp_path: Path) -> None:
    """τ times the logarithm of each class's share of the training images, from the bias alone."""
    data = colours(splits=SPLITS)
    train = [s for s in data.samples if s.split == "train"]
    # Two images of the first class remain.
    rare = [s for s in train if s.label == 0][2:]
    data = replace(data, samples=[s for s in data.samples if s not in rare])
    plain = tmp_path / "plain"
    adjusted = tmp_path / "adjusted"
    finetune(tiny_finetuning("", method="histogram"), data, plain)
    finetune(tiny_finetuning("", method="histogram", logit_adjustment=0.5), data, adjusted)
    heads = [load_classifier(run / "model.safetensors")[0].head for run in (plain, adjusted)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    counts = torch.tensor([sum(s.label == i for s in data.samples if s.split == "train") for i in range(8)])
    shares = (counts / counts.sum()).clamp(min=1 / counts.sum())
    torch.testing.assert_close(heads[1].bias, heads[0].bias - 0.5 * shares.log())


def test_training_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own images and no others, whatever lies in the folder where it is started."""
    (tmp_path / "training_pictures.txt").write_text("0" * 64 + "\n")
    monkeypatch.chdir(tmp_path)
    assert len(read_seen(run())) == 4 * 11
    with pytest.raises(DataError, match=says("trained on 44 of these 56 images of colours")):
        evaluate(run(), colours(splits=SPLITS), hardware=CPU)


def test_onnx_file_gives_the_same_logits_and_predicts() -> None:
    classifier, info = load_classifier(run() / "model.safetensors")
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier(scene=pixels).numpy()
    [logits] = open_session(run() / "model.onnx", threads=1).run(["logits"], {"scene": pixels.numpy()})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    samples = colours(splits=SPLITS).only("test").samples
    answers = load(run()).predict_many([sample.image.read() for sample in samples])
    assert [answer.top(1)[0][0] for answer in answers] == [info.labels[sample.label] for sample in samples]


def test_grad_cam_reports_a_missing_feature_map() -> None:
    image = colours(splits=SPLITS).samples[0].image.read()
    with pytest.raises(ConfigError, match="ColourHistogram has no last feature map"):
        open_explainer(run(), "grad-cam").explain(image)


@pytest.mark.usefixtures("without_onnx")
def test_histogram_accepts_class_weights_and_the_person(tmp_path: Path) -> None:
    config = tiny_finetuning(
        "", method="histogram", class_weighting="balanced", network=NetworkConfig(streams="person"), fraction=0.5
    )
    info = finetune(config, colours(splits=SPLITS), tmp_path / "run")
    assert info.streams == "person"
    # Half of the training and of the held-out images.
    assert len(read_seen(tmp_path / "run")) == 4 * (4 + 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"init": "timm:resnet10t"}, "method histogram needs no initial weights: leave out --init"),
        ({"network": NetworkConfig(streams="both")}, "--network.streams scene or person, got network.streams='both'"),
    ],
)
def test_options_without_effect_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=says(message)):
        tiny_finetuning(**({"init": "", "method": "histogram"} | values))
