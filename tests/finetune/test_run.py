"""Complete tiny runs of fine-tuning: they learn, save the right epoch, and are calibrated."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3

from tests.data.tree import says
from tests.drawn import Stored
from tests.runs import (
    CPU,
    FINETUNINGS,
    SIZE,
    SPLITS,
    Dies,
    Killed,
    colours,
    data_of,
    finetuned,
    losses,
    pretrained,
    tiny_finetuning,
)
from uniemox.checkpoints.classifier import load_classifier
from uniemox.checkpoints.onnx_encoders import load_embedded
from uniemox.data.sample import NO_PERSONS
from uniemox.data.seen import read_seen
from uniemox.data.split_files import read_splits
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.calibration import fit_temperature
from uniemox.evaluate.classifier_outputs import Reading, encode_samples, outputs_of
from uniemox.evaluate.run import evaluate
from uniemox.finetune import run_state
from uniemox.finetune.config import FinetuneConfig, NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.finetune.run import _few_images_note, finetune
from uniemox.finetune.targets import target_of
from uniemox.intervals import no_spread_note
from uniemox.io.weight_names import EMBEDDED
from uniemox.predict.confidence import familiarity_of
from uniemox.training.config import SaveConfig, ScheduleConfig
from uniemox.training.journal import read_metrics
from uniemox.training.optimization import parameter_groups
from uniemox.training.state import STATE, Checkpoints, read_state
from uniemox.views.config import ViewConfig
from uniemox.views.patches import PixelStats


def dies(config: FinetuneConfig, out: Path, at: int | None, data: Any = None) -> None:
    """A run of which nothing is exported."""
    with pytest.raises(Killed):
        finetune(config, colours(splits=SPLITS) if data is None else data, out, callback=Dies(at))


def newest(out: Path) -> dict[str, torch.Tensor]:
    return load_file(Checkpoints(out, 2).saved()[-1] / "model.safetensors")


@pytest.mark.parametrize("name", ["both", "knn"])
def test_colours_are_learned(name: str) -> None:
    evaluation = evaluate(finetuned(name), colours(splits=SPLITS).only("test"), hardware=CPU)
    assert (evaluation.scores.accuracy, evaluation.scores.n) == (1.0, 12)
    few = "the images that chose the epoch also calibrated the model (few images, or --select accuracy)"
    sets, *others = [note for note in evaluation.notes if "likely sets" in note]
    assert (sets.startswith("likely sets are fitted to 12 held-out images"), others) == (True, [])
    others = tuple(note for note in evaluation.notes if note != sets)
    absent = "no scored image has these labels, so macro F1 leaves them out: anger, disgust, fear, sadness"
    assert others == ((few, NO_PERSONS) if name == "both" else ()) + (no_spread_note(1.0, 12), absent)


def test_shares_of_votes_are_learned() -> None:
    scores = evaluate(finetuned("probe"), data_of("probe").only("test"), hardware=CPU).scores
    assert scores.kl < 0.1
    _, info = load_classifier(finetuned("probe") / "model.safetensors")
    assert (info.task, info.label_set, info.kind, len(info.labels)) == ("distribution", "ekman", "evoked", 6)


def test_affect_predicts_two_numbers_from_the_person() -> None:
    classifier, info = load_classifier(finetuned("affect") / "model.safetensors")
    assert (info.task, info.labels, info.streams, info.temperature) == (
        "affect",
        ("valence", "arousal"),
        "person",
        None,
    )
    assert classifier.head.out_features == 2
    lines = losses(finetuned("affect"))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert evaluate(finetuned("affect"), data_of("affect").only("test"), hardware=CPU).scores.n == 6


@pytest.mark.parametrize(
    ("changes", "held_out", "words"),
    [
        ({"temperature": 1.0}, 39, "too few to make the model surer, so the temperature stays 1"),
        ({"temperature": 1.5}, 39, "the temperature is rough"),
        ({"temperature": 1.5}, 40, None),
        ({"task": "affect", "temperature": None}, 5, None),
        ({"task": "multilabel", "temperature": 1.0}, 5, "probabilities and thresholds are rough"),
    ],
)
def test_few_held_out_images_are_noted_if_they_fit_something(
    changes: dict[str, Any], held_out: int, words: str | None
) -> None:
    _, info = load_classifier(finetuned("both") / "model.safetensors")
    note = _few_images_note(replace(info, **changes), held_out)
    assert note is None if words is None else f"only {held_out} held-out images: {words}" in str(note)


def test_metadata_describe_labels_and_calibration() -> None:
    _, info = load_classifier(finetuned("both") / "model.safetensors")
    assert info.labels == colours().labels.labels
    assert (info.label_set, info.kind, info.task, info.streams) == ("mikels", "evoked", "label", "both")
    assert (info.size, info.crop_fraction, info.person) == (32, 0.9, "largest")
    assert info.trained_on == "colours; starts from pretrained (synthetic:16)"
    assert info.network is not None
    assert info.network.fusion == "gated"
    assert info.temperature is not None
    # 12 held-out images are too few to be divided.
    assert info.calibration_images == "selection"


def test_training_and_held_out_images_are_recorded() -> None:
    data = colours(splits=SPLITS)
    assert len(read_seen(finetuned("both")) - read_seen(pretrained())) == 4 * 11
    ways_out = ("if these are copies", "--exclude check.json", "--allow-seen (allow_seen=True in Python)")
    with pytest.raises(DataError, match=says("trained on 44 of these 56 images of colours", *ways_out)):
        evaluate(finetuned("both"), data, hardware=CPU)


def test_head_from_a_probe_keeps_learning(tmp_path: Path) -> None:
    """The optimiser must hold the parameters that the probe has set."""
    config = tiny_finetuning(pretrained(), probe_first=True, save=SaveConfig(every_steps=1, keep=9))
    dies(config, tmp_path / "run", 3)
    first, second = (load_file(path / "model.safetensors") for path in Checkpoints(tmp_path / "run", 9).saved())
    # The head comes from the probe; a random one starts near zero.
    assert first["head.weight"].abs().max() > 1e-3
    for name in ("head.weight", "head.bias", "encoder.blocks.0.attn.qkv.weight"):
        assert not torch.equal(first[name], second[name]), name


def test_every_epoch_is_scored_and_the_best_is_saved(tmp_path: Path) -> None:
    """Epochs of 4 steps, saves every 3: the best is an epoch's end, and `last` is the last step."""
    for select in ("best", "last"):
        config = replace(FINETUNINGS["both"](), select=select, ema_decay=None, probe_first=False)
        dies(config, tmp_path / select, None)
    checkpoints = Checkpoints(tmp_path / "best", 2)
    best = checkpoints.best()
    assert best is not None
    assert int(best.name.removeprefix("step-")) % 4 == 0
    scores = {path.name: read_state(path / STATE)["score"] for path in checkpoints.saved()}
    assert scores[best.name] == max(score for score in scores.values() if score is not None)
    assert sorted(scores)[-1] == "step-00000016"
    written = {line["step"]: line["score"] for line in read_metrics(tmp_path / "best") if "score" in line}
    assert sorted(written) == [4, 8, 12, 16]
    assert written[int(best.name.removeprefix("step-"))] == scores[best.name]


@pytest.mark.usefixtures("without_onnx")
def test_ema_weights_are_written(tmp_path: Path) -> None:
    """Against timm's mean over the checkpoints of every step."""
    config = tiny_finetuning(pretrained(), ema_decay=0.5, select="last", save=SaveConfig(every_steps=1, keep=99))
    config = replace(config, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    finetune(config, colours(splits=SPLITS), tmp_path / "run")
    model, _ = load_classifier(tmp_path / "run" / "model.safetensors")
    torch.manual_seed(config.seed)
    network = build_network(config.init, config.network, size=32, outputs=8).classifier
    mean: Any = ModelEmaV3(network, decay=0.5, use_warmup=True)
    for step, path in enumerate(Checkpoints(tmp_path / "run", 99).saved()):
        network.load_state_dict(load_file(path / "model.safetensors"))
        mean.update(network, step=step)
    for name, value in model.state_dict().items():
        # The distance is fitted to the features of the averaged weights.
        if name.startswith("distance."):
            continue
        torch.testing.assert_close(value, mean.module.state_dict()[name], rtol=1e-5, atol=1e-7)
        if name == "head.weight":
            assert not torch.equal(value, newest(tmp_path / "run")[name])


@pytest.mark.usefixtures("without_onnx")
def test_calibration_and_distance_are_fitted_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in bfloat16 fits temperature, conformal scores and distances to outputs in float32, as ONNX computes."""
    precisions = []

    def recorded(compute: Callable[..., Any], classifier: Any, samples: Any, view: Any, reading: Reading) -> Any:
        precisions.append(reading.precision)
        return compute(classifier, samples, view, reading)

    monkeypatch.setattr(run_state, "outputs_of", partial(recorded, outputs_of))
    monkeypatch.setattr(run_state, "encode_samples", partial(recorded, encode_samples))
    config = tiny_finetuning(pretrained(), method="knn", hardware=replace(CPU, precision="bfloat16"))
    finetune(config, colours(splits=SPLITS), tmp_path / "run")
    # Neighbours, distance, calibration.
    assert precisions == ["bfloat16", "float32", "float32"]


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("mistakes", [0, 2])
def test_temperature_is_fitted_on_held_out_images(mistakes: int, tmp_path: Path) -> None:
    """Unless these are few and all right, from which 1 follows."""
    data = colours(splits=SPLITS)
    wrong = [sample.key for sample in data.only("val").samples][:mistakes]
    samples = [replace(s, label=(s.label + 1) % 8) if s.key in wrong else s for s in data.samples]
    data = replace(data, samples=samples)
    finetune(tiny_finetuning(pretrained(), method="knn"), data, tmp_path / "run")
    classifier, info = load_classifier(tmp_path / "run" / "model.safetensors")
    watched = data.only("val")
    reading = Reading(stats=PixelStats(info.mean, info.std), workers=0)
    outputs = outputs_of(classifier, watched.samples, ViewConfig(size=32), reading)
    target = target_of(watched.samples, "label", watched.labels).numpy()
    assert outputs.distances is not None
    familiarity = familiarity_of(outputs.distances, info.distances)
    is_right = outputs.values.argmax(axis=1) == target.argmax(axis=1)
    fitted = fit_temperature(outputs.values, target, familiarity)
    assert is_right.all() == (mistakes == 0)
    assert info.temperature == pytest.approx(1 if mistakes == 0 else fitted, rel=1e-2)


@pytest.mark.usefixtures("without_onnx")
def test_data_without_splits_get_them_and_evaluate_takes_them(tmp_path: Path) -> None:
    data = colours(10)
    finetune(tiny_finetuning(pretrained(), method="knn"), data, tmp_path / "run")
    splits = read_splits(tmp_path / "run" / "splits.json", data)
    assert evaluate(tmp_path / "run", splits.only("test"), hardware=CPU).scores.n == 4
    with pytest.raises(DataError, match="trained on"):
        evaluate(tmp_path / "run", splits.only("val"), hardware=CPU)


def test_balanced_class_weighting_counts_every_class_the_same(tmp_path: Path) -> None:
    """The first loss of a head near zero is log(8), however rare a class is."""
    data = colours(splits=SPLITS)
    rare = replace(data, samples=[s for i, s in enumerate(data.samples) if s.split != "train" or i % 3 or s.label])
    dies(tiny_finetuning(pretrained(), class_weighting="balanced"), tmp_path / "run", 1, rare)
    assert losses(tmp_path / "run")[0]["loss"] == pytest.approx(np.log(8), rel=0.35)


def test_the_last_image_of_a_batch_may_be_broken(tmp_path: Path) -> None:
    data = colours(splits={"train": 4, "val": 2, "test": 1})
    data = replace(data, samples=[replace(data.samples[0], image=Stored(b"x")), *data.samples[1:]])
    dies(tiny_finetuning(pretrained(), max_unreadable=1, batch_size=16), tmp_path / "run", 1, data)
    assert len(losses(tmp_path / "run")) == 1
    with pytest.raises(DataError, match="1 image can't be read, more than the 0"):
        finetune(tiny_finetuning(pretrained(), max_unreadable=0, batch_size=16), data, tmp_path / "other")
    with pytest.raises(DataError, match="1 image can't be read, more than the 0"):
        finetune(tiny_finetuning(pretrained(), max_unreadable=0, method="knn"), data, tmp_path / "knn")


@pytest.mark.usefixtures("without_onnx")
def test_training_images_of_the_start_are_recorded(tmp_path: Path) -> None:
    first = data_of("knn")
    other = colours(splits={"train": 4, "val": 2, "test": 1}, seed=9)
    finetune(tiny_finetuning(finetuned("knn"), method="knn"), other, tmp_path / "run")
    with pytest.raises(DataError, match="the model was trained on"):
        evaluate(tmp_path / "run", first.only("train"), hardware=CPU)
    finetune(tiny_finetuning(f"scratch:{finetuned('knn')}", method="knn"), other, tmp_path / "scratch")
    evaluate(tmp_path / "scratch", first.only("train"), hardware=CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 8, "accumulation": 3}, "accumulation 3 must divide"),
        ({"head_lr_scale": 0}, "head_lr_scale must be above 0"),
        ({"fraction": 0}, "fraction must be above 0"),
        ({"holdout_fraction": 1}, "holdout_fraction must be below 1"),
        ({"ema_decay": 1}, "ema_decay must be below 1"),
        ({"task": "affect", "method": "knn"}, "method knn predicts labels"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"logit_adjustment": -1.0}, "logit_adjustment must be at least 0"),
        ({"logit_adjustment": 1.0, "method": "knn"}, "logit_adjustment needs a linear head"),
    ],
)
def test_bad_settings_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**values)


def test_impossible_run_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        finetune(tiny_finetuning(pretrained()), colours(splits={"test": 2}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="32 samples do not fill a batch of 64"):
        finetune(tiny_finetuning(pretrained(), batch_size=64), colours(splits=SPLITS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_onnx")
def test_the_mean_of_runs_is_the_mean_of_their_calibrated_logits(tmp_path: Path) -> None:
    runs = []
    for i, start in enumerate((f"{pretrained()}", f"scratch:{pretrained()}")):
        config = tiny_finetuning(start, network=NetworkConfig(pool="mean"), method="probe", seed=0)
        runs.append(tmp_path / f"run{i}")
        finetune(config, colours(splits=SPLITS), runs[-1])
    both = replace(config, init=f"{runs[0]},{runs[1]}", method="mean")
    finetune(both, colours(splits=SPLITS), tmp_path / "mean")
    pixels = torch.randn(3, 3, 32, 32)
    logits = []
    for run in runs:
        classifier, info = load_classifier(run / "model.safetensors")
        logits.append(classifier(pixels) / info.temperature)
    mean, _ = load_classifier(tmp_path / "mean" / "model.safetensors")
    torch.testing.assert_close(mean(pixels), (logits[0] + logits[1]) / 2, rtol=1e-4, atol=1e-4)
    cases = (
        (replace(both, seed=1), "a different seed"),
        (replace(both, init=f"{runs[0]},{tmp_path / 'mean'}"), "already has several encoders"),
        (replace(both, init=f"{runs[0]},{pretrained()}"), "made with a different task"),
        # Averaged at another size or crop, two good networks are none.
        (replace(both, view=replace(both.view, crop_fraction=0.5)), r"with view.crop_fraction \S+, not 0.5: the mean"),
    )
    for i, (other, message) in enumerate(cases):
        with pytest.raises((ConfigError, CheckpointError), match=message):
            finetune(other, colours(splits=SPLITS), tmp_path / f"refused{i}")


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("method", ["probe", "full"])
def test_init_small_counts_what_the_package_model_has_seen(method: str, tmp_path: Path) -> None:
    """Its batch norms are folded, so their statistics stay, also in a run that starts from this one."""
    config = tiny_finetuning("small", method=method, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    data = colours(splits=SPLITS)
    info = finetune(config, data, tmp_path / "run")
    # Familiarity is measured from the new training images.
    assert info.network.distance_axes == 16
    # These are blank, so that no distance is known.
    assert info.distances == ()
    training_hashes = read_seen(tmp_path / "run")
    assert read_seen(EMBEDDED / "small.onnx") < training_hashes
    assert len(training_hashes - read_seen(EMBEDDED / "small.onnx")) == 4 * 11
    assert evaluate(tmp_path / "run", data.only("test"), hardware=CPU).scores.n == 12
    saved = load_file(tmp_path / "run" / "encoder.safetensors")
    assert all(bool((value == 0).all()) for name, value in saved.items() if name.endswith("running_mean"))
    assert torch.equal(saved["conv_stem.weight"], load_embedded("small")[0].conv_stem.weight) == (method == "probe")
    again = build_network(str(tmp_path / "run"), NetworkConfig(), size=SIZE, outputs=3).classifier
    assert again.keeps_norm_statistics
    assert torch.equal(again.encoder.conv_stem.weight, saved["conv_stem.weight"])


def test_init_embedded_can_be_trained_layer_by_layer_or_restarted() -> None:
    """Three encoders side by side; with random weights nothing is folded."""
    network = build_network("embedded", NetworkConfig(streams="both", fusion="gated"), size=64, outputs=3)
    assert network.classifier.keeps_norm_statistics
    assert len(network.classifier.encoder.encoders) == 3
    groups = parameter_groups(network.classifier, 0.05, 0.75)
    assert len({group["lr_scale"] for group in groups}) > 3
    fresh = build_network("scratch:embedded", NetworkConfig(), size=64, outputs=3)
    assert not fresh.classifier.keeps_norm_statistics
    with pytest.raises(ConfigError, match="give small instead of embedded"):
        build_network("embedded,small", NetworkConfig(), size=64, outputs=3)


@pytest.mark.parametrize(
    ("method", "streams", "sees_person"),
    [
        ("full", "scene", False),
        ("probe", "person", True),
        ("full", "both", True),
        # Region methods ignore the streams.
        ("solver", "both", False),
        ("eap", "scene", False),
        ("rrla", "scene", True),
        ("emoticon", "scene", True),
    ],
)
def test_sees_person_depends_on_method_and_streams(method: str, streams: Any, sees_person: bool) -> None:
    config = FinetuneConfig(method=method, network=NetworkConfig(streams=streams))
    assert config.sees_person is sees_person
