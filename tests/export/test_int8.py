"""Computation in 8 bits: metadata stay, outputs stay near, and a file is written only if it is better."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import jaccard_score

from tests.export.networks import SIZE, Convolutions, classify, info_of
from tests.runs import colours, data_of, finetuned
from uniemox.data.sample import DataSet
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.run import evaluate
from uniemox.export import int8
from uniemox.export.compact import store_as_float16
from uniemox.export.int8 import Int8Check, export_int8, quantise
from uniemox.export.onnx import METADATA_KEY, export_classifier
from uniemox.export.run import export_onnx
from uniemox.io.onnx_sessions import open_session
from uniemox.labels import MIKELS, LabelSet
from uniemox.predict.network import ONE_BY_ONE, Network, run_views

CHECK = Int8Check(
    method="dynamic",
    pictures=50,
    kept_float=(),
    change=0.01,
    agreement=0.98,
    measure="accuracy",
    accuracy_before=0.6,
    accuracy_after=0.6,
    accuracy_error=0.02,
    float32_ms=2,
    int8_ms=1,
    float32_bytes=4000,
    int8_bytes=1000,
)


def test_images_without_labels_check_no_accuracy() -> None:
    unlabelled = replace(CHECK, accuracy_before=None, accuracy_after=None, accuracy_error=None, training_images=3)
    assert "its accuracy was not checked, because the images have no labels of the model" in str(unlabelled)
    assert "training images" not in str(unlabelled)
    assert "not checked" not in str(CHECK)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"img_size": SIZE, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    path = tmp_path_factory.mktemp("int8") / "vit.onnx"
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options)
    export_classifier(classify(vit, 64), info_of(), path)
    return path


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("int8") / "convolutions.onnx"
    export_classifier(classify(Convolutions(256), 256), info_of(), path)
    return path


def views(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"scene": np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)}


def run(path: Path, pixels: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, str]]:
    # Without VNNI, products of 8 bits overflow unless the session is opened for them.
    session = open_session(path)
    return session.run(["logits"], pixels)[0], session.get_modelmeta().custom_metadata_map


def check_near(before: Path, after: Path) -> None:
    """Check that metadata are the same except for the mark of dynamic files, and that logits are near in any batch."""
    for count in (1, 9):
        (expected, metadata) = run(before, views(count, 5))
        (outputs, new_metadata) = run(after, views(count, 5))
        assert {name: value for name, value in new_metadata.items() if name != ONE_BY_ONE} == metadata
        assert METADATA_KEY in new_metadata
        assert np.abs(outputs - expected).max() < 0.1 * np.abs(expected).max() + 0.02


def test_convolutions_take_ranges_from_images(convolutional: Path, tmp_path: Path) -> None:
    assert quantise(convolutional, tmp_path / "int8.onnx", [views(1, seed) for seed in range(8)]) == "static"
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * convolutional.stat().st_size
    check_near(convolutional, tmp_path / "int8.onnx")
    with pytest.raises(DataError, match="needs images"):
        quantise(convolutional, tmp_path / "none.onnx", [])
    assert not (tmp_path / "none.onnx").exists()


def test_matrix_products_need_no_images(transformer: Path, tmp_path: Path) -> None:
    assert quantise(transformer, tmp_path / "int8.onnx", []) == "dynamic"
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * transformer.stat().st_size
    check_near(transformer, tmp_path / "int8.onnx")


def test_dynamic_files_give_the_same_outputs_in_any_batch(transformer: Path, tmp_path: Path) -> None:
    """Their ranges are one over a whole batch, so an image of strong contrast would move the answers beside it."""
    quantise(transformer, tmp_path / "int8.onnx", [])
    store_as_float16(tmp_path / "int8.onnx", tmp_path / "both.onnx")
    scene = views(5)["scene"] * np.array([1, 6, 0.2, 1, 3], np.float32).reshape(5, 1, 1, 1)
    assert np.abs(run(tmp_path / "int8.onnx", {"scene": scene})[0][:1] - run_alone(tmp_path, scene)[:1]).max() > 1e-3
    for name in ("int8.onnx", "both.onnx"):
        network = Network.open(tmp_path / name, threads=1)
        for size in (1, 2, 3, 5):
            logits = np.concatenate([network.logits({"scene": scene[i : i + size]}) for i in range(0, 5, size)])
            np.testing.assert_allclose(logits, run_alone(tmp_path, scene, name), atol=1e-6)


def run_alone(folder: Path, scene: np.ndarray, name: str = "int8.onnx") -> np.ndarray:
    return np.concatenate([run(folder / name, {"scene": view[None]})[0] for view in scene])


def test_timing_runs_files_as_in_prediction(
    transformer: Path, convolutional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 and static files in batches, dynamic ones image by image."""
    modes: list[bool] = []

    def watched(*arguments: object, one_by_one: bool) -> list[np.ndarray]:
        modes.append(one_by_one)
        return run_views(*arguments, one_by_one=one_by_one)  # type: ignore[arg-type]

    monkeypatch.setattr(int8, "run_views", watched)
    export_int8(transformer, tmp_path / "a.onnx", colours(2))
    assert sorted(modes) == [False] * (len(modes) // 2) + [True] * (len(modes) // 2)
    modes.clear()
    export_int8(convolutional, tmp_path / "b.onnx", colours(2))
    assert set(modes) == {False}


def test_measurements_decide_if_the_file_is_written(convolutional: Path, tmp_path: Path) -> None:
    """Written exactly where it is kept; the agreement is that of the two files."""
    out = tmp_path / "out.onnx"
    done = []
    check = export_int8(convolutional, out, colours(5), on_progress=lambda *counts: done.append(counts))
    assert out.exists() == check.is_kept
    assert check.pictures == 20
    assert done[-1] == ("comparing int8 with float32", 20, 20)
    assert check.float32_bytes == convolutional.stat().st_size
    assert 0 <= check.agreement <= 1
    assert check.agreement * 20 == pytest.approx(round(check.agreement * 20))


def test_training_images_among_the_compared_ones_are_told(convolutional: Path, tmp_path: Path) -> None:
    data = colours(5)
    hashes = [hashlib.sha256(sample.image.read()).hexdigest() for sample in data.samples[:3]]
    check = export_int8(convolutional, tmp_path / "out.onnx", data, training_hashes=hashes)
    assert check.training_images == 3
    assert "3 of these images are training images, so both values are too high" in str(check)
    assert "training images" not in str(CHECK)


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [
        ({}, True),
        ({"int8_ms": 2}, False),
        ({"change": 0.016}, False),
        ({"accuracy_after": 0.57}, True),
        ({"accuracy_after": 0.55}, False),
        ({"accuracy_before": None, "accuracy_after": None, "accuracy_error": None}, True),
    ],
)
def test_int8_is_kept_if_faster_and_as_accurate(changes: dict[str, Any], is_kept: bool) -> None:
    check = replace(CHECK, **changes)
    assert check.is_kept == check.as_dict()["is_kept"] == is_kept
    assert f"of 50 images change by {check.change:.3f} on average" in str(check)


LAYERS = {"classifier.encoder.first", "classifier.encoder.second"}


@pytest.mark.parametrize("worse", sorted(LAYERS))
def test_the_layer_that_changes_the_answers_most_stays_float32(
    convolutional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: str
) -> None:
    """Changes are given: 0.2 by one layer, 0.01 by the other, 0.21 by both."""
    tried: list[set[str]] = []

    def quantised(src: Path, dst: Path, images: object, keep: str = "") -> str:
        tried.append({layer for layer in LAYERS if not (keep and re.match(keep, f"{layer}.weight"))})
        return quantise(src, dst, images, keep)  # type: ignore[arg-type]

    def shares(session: object, images: object, info: object) -> np.ndarray:
        return np.full((1, 1), sum(0.2 if layer == worse else 0.01 for layer in tried[-1]) if tried else 0.0)

    monkeypatch.setattr(int8, "quantise", quantised)
    monkeypatch.setattr(int8, "_shares", shares)
    check = export_int8(convolutional, tmp_path / "out.onnx", colours(2))
    assert check.kept_float == (worse,)
    # The last file is the one that was compared.
    assert tried[-1] == LAYERS - {worse}


def test_accuracy_counts_labels_by_name(convolutional: Path, tmp_path: Path) -> None:
    """The data may have other labels, in another order."""
    data = colours(5)
    named = [label for label in MIKELS.labels if label != "anger"]
    labels = LabelSet("own", tuple(reversed(named)), "evoked")
    renamed = [replace(sample, label=labels.labels.index(MIKELS.labels[sample.label or 0])) for sample in data.samples]
    checks = [
        export_int8(convolutional, tmp_path / "out.onnx", part).accuracy_before
        for part in (data, replace(data, samples=renamed, labels=labels))
    ]
    assert checks[0] == checks[1]
    unlabelled = replace(data, samples=[replace(sample, label=None) for sample in data.samples])
    assert export_int8(convolutional, tmp_path / "out.onnx", unlabelled).accuracy_before is None


def scored(model: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, given labels and true labels of the test images, (N, 26) each, as `evaluate` saves them."""
    predictions = evaluate(model, data_of("multilabel").only("test")).predictions
    probabilities = np.array([list(line["probabilities"].values()) for line in predictions])
    truth = np.array([[word in line["labels"] for word in line["probabilities"]] for line in predictions])
    return probabilities, probabilities > Network.open(model).info.thresholds, truth


@pytest.mark.thorough
def test_a_classifier_of_several_labels_keeps_its_calibration_and_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timings, which decide if the file is written, are left out."""
    monkeypatch.setattr(Int8Check, "is_kept", property(lambda check: check.change <= int8.MAX_CHANGE))
    model = finetuned("multilabel") / "model.onnx"
    out = tmp_path / "int8.onnx"
    test = data_of("multilabel").only("test")
    check = export_int8(model, out, test)
    assert Network.open(out).info == Network.open(model).info
    probabilities, given, truth = scored(model)
    new_probabilities, new_given, _ = scored(out)
    assert 0 < np.abs(new_probabilities - probabilities).mean() < int8.MAX_CHANGE
    assert check.change == pytest.approx(np.abs(new_probabilities - probabilities).mean(), abs=1e-5)
    assert check.agreement == (given == new_given).all(axis=1).mean()
    assert check.measure == "Jaccard index"
    assert given.any()
    assert check.accuracy_before == pytest.approx(jaccard_score(truth, given, average="samples", zero_division=0))
    assert check.accuracy_after == pytest.approx(jaccard_score(truth, new_given, average="samples", zero_division=0))
    assert f"keep their labels; Jaccard index {check.accuracy_after:.1%}, before " in str(check)


def test_8_bit_weights_keep_the_labels_of_a_classifier_of_several(tmp_path: Path) -> None:
    model = finetuned("multilabel") / "model.onnx"
    export_onnx(model, tmp_path / "small.onnx", weights="int8")
    assert Network.open(tmp_path / "small.onnx").info == Network.open(model).info
    probabilities, given, _ = scored(model)
    small_probabilities, small_given, _ = scored(tmp_path / "small.onnx")
    np.testing.assert_allclose(small_probabilities, probabilities, atol=0.05)
    # Only probabilities next to a threshold may fall to its other side.
    thresholds = np.array(Network.open(model).info.thresholds)
    moved = given != small_given
    assert (np.abs(probabilities - thresholds)[moved] < 0.05).all()


def test_files_that_cannot_be_quantised_are_an_error(convolutional: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    store_as_float16(convolutional, small)
    with pytest.raises(CheckpointError, match="already stored in 16 or 8 bits"):
        quantise(small, tmp_path / "out.onnx", [views(1)])
    with pytest.raises(ConfigError, match="valence and arousal; --int8 needs labels for its test: store the weights"):
        export_int8(finetuned("affect") / "model.onnx", tmp_path / "out.onnx", colours(1))
    with pytest.raises(DataError, match="images"):
        export_int8(convolutional, tmp_path / "out.onnx", DataSet("none", colours(1).labels, []))
    (tmp_path / "broken.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError):
        export_int8(tmp_path / "broken.onnx", tmp_path / "out.onnx", colours(1))
    assert not (tmp_path / "out.onnx").exists()
