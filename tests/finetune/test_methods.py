"""Fine-tuning with methods that relate regions: they learn, see what they should, and their files say the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.data.tree import says
from tests.runs import Told, colours, one_thread, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.sample import decode_sample
from uniemox.data.source import open_data
from uniemox.data.synthetic import synthetic
from uniemox.errors import ConfigError, StoppedError
from uniemox.evaluate.classifier_outputs import outputs_of
from uniemox.export.maps import WithFeatures, has_maps
from uniemox.finetune import probe
from uniemox.finetune.config import FinetuneConfig, NetworkConfig
from uniemox.finetune.evaluator import Evaluator
from uniemox.finetune.head import fit_after_encoder
from uniemox.finetune.region_network import network_of
from uniemox.finetune.run import finetune
from uniemox.finetune.step import Objective
from uniemox.finetune.words import WordLists
from uniemox.labels import MIKELS
from uniemox.model.config import RegionMethod
from uniemox.model.methods.ccim import Ccim
from uniemox.predict.network import Network
from uniemox.training.callbacks import NullCallback
from uniemox.training.journal import read_metrics
from uniemox.training.state import Checkpoints
from uniemox.views.config import ViewConfig
from uniemox.views.pixels import PixelStats

START = "scratch:timm:test_vit"
SMALL = NetworkConfig(fused_width=16, dropout=0.0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def config(method: str, network: NetworkConfig = SMALL, **changes: object) -> FinetuneConfig:
    return tiny_finetuning(START, method=method, network=network, **changes)


def short(method: str) -> FinetuneConfig:
    """One epoch of eight steps, with four kinds of surroundings."""
    schedule = replace(config(method).schedule, epochs=1)
    return config(method, replace(SMALL, confounders=4), schedule=schedule)


class Killed(BaseException):
    """In place of a signal that can't be caught."""


class Ends(Told):
    """Stops after some steps, or is killed when all are done (None)."""

    def progress(self, what: str, done: int, total: int) -> None:
        if what == "calibrating":
            raise Killed


@pytest.mark.parametrize("method", get_args(RegionMethod))
def test_thirty_two_images_are_learned_by_heart(method: RegionMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what a random encoder sees of them, with nothing that holds them back."""
    monkeypatch.setattr(probe, "STEPS", 250)
    data = synthetic(32)
    settings = config(method)
    torch.manual_seed(0)
    words = WordLists(data.samples, data.labels)
    network = network_of(settings, data.labels.labels, words.counts if method == "eap" else ())
    model = network.classifier
    evaluator = Evaluator(settings, data.labels, network.stats, NullCallback())
    objective = Objective(task="label", method=model.method)
    fit_after_encoder(model, evaluator, data.samples, objective, words if method == "eap" else None)
    found = evaluator.outputs(model, data.samples, what="scoring")
    assert (found.values.argmax(axis=1) == evaluator.target(found.samples).argmax(dim=1).numpy()).mean() >= 31 / 32


def test_a_run_ends_in_files_that_say_the_same(tmp_path: Path) -> None:
    """With an LSTM, and CCIM's head."""
    data = synthetic(80)
    finetune(short("stimuli"), data, tmp_path)
    classifier, info = load_classifier(tmp_path / "model.safetensors")
    assert info.streams == "both"
    assert isinstance(classifier.head, Ccim)
    assert classifier.head.shares.sum() == pytest.approx(1)
    assert (classifier.head.confounders.abs().sum(dim=1) > 0).all()

    samples = data.only("test").samples
    found = outputs_of(classifier, samples, ViewConfig.of(info), stats=PixelStats(info.mean, info.std))
    network_file = Network.open(tmp_path / "model.onnx")
    looks = [(*decode_sample(sample), sample) for sample in samples]
    views = [network_file.look(image, full, one.persons, one.target_box) for image, full, one in looks]
    logits, distances = network_file.measure(views)
    np.testing.assert_allclose(logits, found.values, atol=1e-4)
    np.testing.assert_allclose(distances, found.distances, rtol=1e-3, atol=1e-3)


def test_a_stopped_run_comes_to_the_same_bits(tmp_path: Path) -> None:
    """Its surroundings are clustered once, before the first step; the person is hidden in both parts alike."""
    for name, stops in (("whole", [None]), ("stopped", [2, None])):
        for at in stops:
            with pytest.raises((Killed, StoppedError)):
                finetune(short("emoticon"), synthetic(80), tmp_path / name, resume=True, callback=Ends(at))
    whole, stopped = (
        load_file(Checkpoints(tmp_path / name, 2).found()[-1] / "model.safetensors") for name in ("whole", "stopped")
    )
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(value, stopped[key]) for key, value in whole.items())


@pytest.mark.parametrize("method", ["solver", "emoticon"])
def test_with_a_frozen_encoder_a_method_starts_as_the_linear_probe(
    method: RegionMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which nothing is kept that does not score higher on held-out images."""
    data = synthetic(64)
    settings = config(method, replace(SMALL, frozen_encoder=True, confounders=4 if method == "emoticon" else 0))
    torch.manual_seed(0)
    network = network_of(settings, data.labels.labels)
    model, evaluator = network.classifier, Evaluator(settings, data.labels, network.stats, NullCallback())
    if isinstance(model.head, Ccim):
        model.head.of_confounders.weight.data.zero_()
    objective = Objective(task="label", method=model.method)
    monkeypatch.setattr(probe, "STEPS", 20)
    monkeypatch.setattr(Evaluator, "score_of", lambda *_: 0.5)
    fit_after_encoder(model, evaluator, data.samples[:40], objective, selection=data.samples[40:])
    found = evaluator.outputs(model, data.samples[:40], what="scoring")
    encoded = evaluator.outputs(model, data.samples[:40], what="scoring", encoded=True)
    with torch.no_grad():
        features = model.eval().fuse(torch.from_numpy(encoded.values))[:, : model.method.linear]
    target = evaluator.target(found.samples).numpy()
    head, _ = probe.fit_head(features.numpy(), target, task="label", seed=settings.seed)
    np.testing.assert_allclose(found.values, head(features).detach().numpy(), atol=1e-3)


def test_words_come_first_then_labels(tmp_path: Path) -> None:
    data = synthetic(64)
    settings = config("eap", batch_size=16, select="last")
    finetune(settings, data, tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    half = len(losses) // 2
    # Three kinds of words, -log of a share each, then one of eight labels.
    assert min(losses[:half]) > 4 > max(losses[half:])
    _, info = load_classifier(tmp_path / "run" / "model.safetensors")
    words = WordLists([sample for sample in data.samples if sample.split == "train"], data.labels)
    assert info.parts["word_counts"] == words.counts
    assert {("attribute", "happy"), ("object", "person")} <= words.places.keys()


@pytest.mark.parametrize("method", ["solver", "mdan", "eap"])
def test_what_relates_regions_has_no_maps_of_its_head(method: RegionMethod) -> None:
    """Though its encoder is convolutional and it looks at the scene alone: the head reads more than the map's mean."""
    settings = replace(config(method), init="scratch:timm:resnet10t")
    model = network_of(settings, MIKELS.labels).classifier.eval()
    assert not has_maps(model, settings.view.size)
    views = torch.zeros(2, 3, settings.view.size, settings.view.size)
    assert WithFeatures(model)(views)["features"].shape == (2, model.width)


def test_words_of_a_sample() -> None:
    data = synthetic(16)
    words = WordLists(data.samples, data.labels)
    rows = words.rows(data.samples)
    assert rows[:, :8].argmax(dim=1).tolist() == [sample.label for sample in data.samples]
    assert (rows[:, 8:].sum(dim=1) >= 4).all()  # a place, a face, an action, a person
    plain = WordLists(colours().samples, colours().labels)
    assert plain.counts == [8, 1, 1]
    assert plain.rows(colours().samples)[:, 8:].sum() == 0


def test_settings_that_contradict_each_other_are_refused() -> None:
    for said, changes in (
        ("network.objects goes with methods solver", {"method": "full", "network": NetworkConfig(objects="a.onnx")}),
        ("method probe leaves the encoder as it is", {"method": "full", "network": NetworkConfig(frozen_encoder=True)}),
        ("method mdan predicts labels", {"method": "mdan", "task": "affect"}),
        ("network.confounders frees what a person", {"method": "solver", "network": NetworkConfig(confounders=4)}),
        ("network.confounders frees what a person", {"method": "full", "network": NetworkConfig(confounders=4)}),
    ):
        with pytest.raises(ConfigError, match=says(said)):
            FinetuneConfig(init="x", **changes)
    with pytest.raises(ConfigError, match=says("confounders must be 0, or at least 2, got 1")):
        NetworkConfig(confounders=1)
    FinetuneConfig(init="x", network=NetworkConfig(confounders=4, streams="person"))


def test_more_surroundings_than_images_are_refused(tmp_path: Path) -> None:
    data = open_data("synthetic:64")
    with pytest.raises(
        ConfigError, match=says("network.confounders is 200, but there are", "training images; give fewer")
    ):
        finetune(config("rrla", replace(SMALL, confounders=200)), data, tmp_path / "run")
