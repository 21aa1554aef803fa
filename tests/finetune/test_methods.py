"""Fine-tuning with region methods: they learn, see the right regions, and their files agree."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.data.tree import says
from tests.runs import PLAIN, Dies, Killed, Told, colours, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import ConfigError, StoppedError
from uniemox.evaluate.classifier_outputs import Reading, outputs_of
from uniemox.evaluate.report.page import write_report
from uniemox.evaluate.run_records import read_run
from uniemox.export.onnx import WithFeatures, has_maps
from uniemox.finetune import fit_methods, head_training
from uniemox.finetune.config import AugmentConfig, FinetuneConfig, NetworkConfig
from uniemox.finetune.fit_methods import fit_after_encoder
from uniemox.finetune.heads import fit_head
from uniemox.finetune.network import network_of
from uniemox.finetune.parts import Parts
from uniemox.finetune.run import finetune
from uniemox.finetune.run_state import FinetuneRun
from uniemox.model.config import REGION_METHODS
from uniemox.model.detectors import Candidates
from uniemox.model.methods.ccim import Ccim
from uniemox.model.regions import RegionReader
from uniemox.predict.network import Network
from uniemox.training.callback import Callback
from uniemox.training.config import ScheduleConfig
from uniemox.training.journal import read_metrics
from uniemox.training.state import Checkpoints
from uniemox.views.config import ViewConfig
from uniemox.views.patches import PixelStats
from uniemox_paper.methods.eap import WordLists

START = "scratch:timm:test_vit"
SMALL = NetworkConfig(fused_width=16, dropout=0.0)


def config(method: str, network: NetworkConfig = SMALL, **changes: object) -> FinetuneConfig:
    return tiny_finetuning(START, method=method, network=network, **changes)


def short(method: str) -> FinetuneConfig:
    """One epoch of eight steps, with four kinds of surroundings."""
    schedule = replace(config(method).schedule, epochs=1)
    return config(method, replace(SMALL, confounders=4), schedule=schedule)


def begun(settings: FinetuneConfig, data: DataSet, train: Sequence[Sample]) -> FinetuneRun:
    """A run on these images before its first step."""
    parts = Parts(list(train), [], [], "independent", [])
    network = network_of(settings, data, data.samples)
    return FinetuneRun(config=settings, data=data, network=network, parts=parts, callback=Callback())


@pytest.mark.thorough
@pytest.mark.parametrize("method", REGION_METHODS)
def test_thirty_two_images_can_be_overfitted(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what a random encoder sees of them, with nothing that holds them back."""
    monkeypatch.setattr(head_training, "steps_for", lambda images: 150)
    data = synthetic(32)
    settings = config(method)
    torch.manual_seed(0)
    run = begun(settings, data, data.samples)
    run.model.method.prepare(data.samples, data.labels)
    fit_after_encoder(run)
    outputs = run.outputs(data.samples, "scoring")
    assert (outputs.values.argmax(axis=1) == run.target(outputs.samples).argmax(dim=1).numpy()).mean() >= 31 / 32


@pytest.mark.thorough
def test_torch_and_onnx_files_give_the_same_outputs(tmp_path: Path) -> None:
    """The network has an LSTM, and CCIM's head."""
    data = synthetic(80)
    finetune(short("stimuli"), data, tmp_path)
    classifier, info = load_classifier(tmp_path / "model.safetensors")
    assert info.streams == "both"
    assert isinstance(classifier.head, Ccim)
    assert classifier.head.shares.sum() == pytest.approx(1)
    assert (classifier.head.confounders.abs().sum(dim=1) > 0).all()

    samples = data.only("test").samples
    outputs = outputs_of(classifier, samples, ViewConfig.of(info), Reading(stats=PixelStats(info.mean, info.std)))
    network_file = Network.open(tmp_path / "model.onnx")
    views = [network_file.views_of(decode_sample(sample), sample.persons, sample.target_box) for sample in samples]
    file_outputs = network_file.run(views)
    logits = file_outputs["logits"]
    distances = file_outputs.get("distance")
    np.testing.assert_allclose(logits, outputs.values, atol=1e-4)
    np.testing.assert_allclose(distances, outputs.distances, rtol=1e-3, atol=1e-3)


@pytest.mark.thorough
def test_stopped_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Its surroundings are clustered once, before the first step; the person is hidden in both parts alike."""
    for name, callbacks in (("whole", [Dies(None)]), ("stopped", [Told(stop_after=2), Dies(None)])):
        for callback in callbacks:
            with pytest.raises((Killed, StoppedError)):
                finetune(short("emoticon"), synthetic(80), tmp_path / name, resume=True, callback=callback)
    uninterrupted, stopped = (
        load_file(Checkpoints(tmp_path / name, 2).saved()[-1] / "model.safetensors") for name in ("whole", "stopped")
    )
    assert uninterrupted.keys() == stopped.keys()
    assert all(torch.equal(value, stopped[key]) for key, value in uninterrupted.items())


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["solver", "emoticon"])
def test_with_a_frozen_encoder_a_method_starts_as_the_linear_probe(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not score higher on held-out images are discarded."""
    data = synthetic(64)
    settings = config(method, replace(SMALL, frozen_encoder=True, confounders=4 if method == "emoticon" else 0))
    torch.manual_seed(0)
    run = begun(settings, data, data.samples[:40])
    model = run.model
    if isinstance(model.head, Ccim):
        model.head.of_confounders.weight.data.zero_()
    monkeypatch.setattr(head_training, "steps_for", lambda images: 20)
    monkeypatch.setattr(fit_methods, "_scorer", lambda *_: lambda: 0.5)
    fit_after_encoder(run, selection=data.samples[40:])
    outputs = run.outputs(data.samples[:40], "scoring")
    encoded = run.encode(data.samples[:40], "scoring")
    with torch.no_grad():
        features = model.eval().fuse(torch.from_numpy(encoded.values))[:, : model.method.linear]
    target = run.target(outputs.samples).numpy()
    linear, _ = fit_head(features.numpy(), target, task="label", seed=settings.seed)
    np.testing.assert_allclose(outputs.values, linear(features).detach().numpy(), atol=1e-3)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
def test_boxes_do_not_depend_on_augmentation(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors look at clean images, in training as in testing: what moves, mixes or erases pixels is off."""
    detect = RegionReader._detect
    boxes_by_seed = []

    def recorded(reader: RegionReader, network: torch.nn.Module, view: torch.Tensor) -> Candidates:
        if reader.training:
            boxes_by_seed[-1].append(view)
        return detect(reader, network, view)

    monkeypatch.setattr(RegionReader, "_detect", recorded)
    network = replace(SMALL, objects=str(shared / "models" / "yolox_nano.onnx"))
    strong = AugmentConfig(mixup=0.8, cutmix=1.0, smoothing=0.0, erasing=0.5)
    for name, augment in (("plain", PLAIN), ("strong", strong)):
        boxes_by_seed.append([])
        settings = config(
            "solver", network, augment=augment, select="last", schedule=ScheduleConfig(epochs=1, warmup_epochs=0)
        )
        finetune(settings, synthetic(24), tmp_path / name)
    assert len(boxes_by_seed[0]) == len(boxes_by_seed[1]) > 1
    assert all(torch.equal(first, second) for first, second in zip(*boxes_by_seed, strict=True))
    run = read_run(tmp_path / "strong")
    assert (run.setting("config.augment.mixup"), run.setting("config.augment.randaugment")) == (0.0, None)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
def test_a_run_records_what_held_out_images_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its page too, so that a start that nothing improved on is not taken for what was fitted."""
    settings = config("solver", replace(SMALL, frozen_encoder=True))
    monkeypatch.setattr(head_training, "steps_for", lambda images: 20)
    progress = []
    monkeypatch.setattr(Callback, "progress", lambda _, work, done, total: progress.append((work, done, total)))
    for name, scores, expected in (
        ("start", repeat(0.5), "start, no step was better"),
        ("later", count(), "step 20, rate 0.001"),
    ):
        monkeypatch.setattr(fit_methods, "_scorer", lambda *_, scores=scores: lambda: float(next(scores)))
        finetune(settings, synthetic(64), tmp_path / name)
        assert read_run(tmp_path / name).kept == expected
        write_report([tmp_path / name], tmp_path / "report.html")
        assert expected in (tmp_path / "report.html").read_text("utf-8")
    steps = [report[1:] for report in progress if report[0] == "training the head"]
    assert steps[:40] == [(done, 40) for done in range(1, 41)]


def test_fewer_images_are_fitted_in_fewer_steps() -> None:
    step_counts = [head_training.steps_for(images) for images in (10, 128, 500, 5_000, 50_000)]
    assert step_counts == [100, 100, 250, 1000, 1000]


@pytest.mark.usefixtures("without_onnx")
def test_losses_begin_with_words_then_labels(tmp_path: Path) -> None:
    data = synthetic(64)
    settings = config("eap", batch_size=16, select="last")
    finetune(settings, data, tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    half = len(losses) // 2
    # Three kinds of words, -log of a share each, then one of eight labels.
    assert min(losses[:half]) > 4 > max(losses[half:])
    _, info = load_classifier(tmp_path / "run" / "model.safetensors")
    words = WordLists([sample for sample in data.samples if sample.split == "train"], data.labels)
    assert info.network.method_options["word_counts"] == words.counts
    objects, attributes = words.columns
    assert "person" in objects
    assert "happy" in attributes


@pytest.mark.parametrize("method", ["solver", "mdan", "eap"])
def test_region_methods_have_no_class_activation_maps(method: str) -> None:
    """Though its encoder is convolutional and it looks at the scene alone: the head reads more than the map's mean."""
    settings = replace(config(method), init="scratch:timm:resnet10t")
    model = network_of(settings, synthetic(8), ()).classifier.eval()
    assert not has_maps(model, settings.view.size)
    views = torch.zeros(2, 3, settings.view.size, settings.view.size)
    assert WithFeatures(model)(views)["features"].shape == (2, model.width)


def test_words_of_a_sample() -> None:
    data = synthetic(16)
    words = WordLists(data.samples, data.labels)
    rows = words.rows(data.samples)
    assert rows[:, :8].argmax(dim=1).tolist() == [sample.label for sample in data.samples]
    # A place, a face, an action, a person.
    assert (rows[:, 8:].sum(dim=1) >= 4).all()
    plain = WordLists(colours().samples, colours().labels)
    assert plain.counts == [8, 1, 1]
    assert plain.rows(colours().samples)[:, 8:].sum() == 0


def test_settings_that_contradict_each_other_are_refused() -> None:
    for message, changes in (
        ("network.objects needs a method of eap", {"method": "full", "network": NetworkConfig(objects="a.onnx")}),
        ("method probe always freezes the encoder", {"method": "full", "network": NetworkConfig(frozen_encoder=True)}),
        ("mdan does not use what network.objects", {"method": "mdan", "network": NetworkConfig(objects="a.onnx")}),
        ("solver does not use what network.faces", {"method": "solver", "network": NetworkConfig(faces="a.onnx")}),
        ("method mdan predicts labels", {"method": "mdan", "task": "affect"}),
        (
            "network.confounders needs a network that reads the person",
            {"method": "solver", "network": NetworkConfig(confounders=4)},
        ),
        (
            "network.confounders needs a network that reads the person",
            {"method": "full", "network": NetworkConfig(confounders=4)},
        ),
    ):
        with pytest.raises(ConfigError, match=says(message)):
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
