"""Outputs of a classifier in torch for many images: batches, squares of long images, and views."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.drawn import draw_image
from tests.runs import colours
from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import ImageFile, Sample
from uniemox.errors import DataError
from uniemox.evaluate.classifier_outputs import Reading, encode_samples, outputs_of, select_views
from uniemox.evaluate.outputs import outputs_of_network
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.labels import MIKELS
from uniemox.model.building import with_fitted
from uniemox.model.classifier import Classifier
from uniemox.model.distance import Distance
from uniemox.network_spec import NetworkSpec
from uniemox.predict.network import Network
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewDataset, collate
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import EvalViews


def tiny_classifier() -> Classifier:
    torch.manual_seed(0)
    return build_network("scratch:timm:test_vit", NetworkConfig(), size=32, outputs=8).classifier


def test_the_mode_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on after the error would otherwise train with the statistics of evaluation."""
    classifier = tiny_classifier().train()

    def fail(**_: torch.Tensor) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(classifier, "answer", fail)
    stats = PixelStats((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(RuntimeError, match="out of memory"):
        outputs_of(classifier, colours(1).samples, ViewConfig(size=32), Reading(stats=stats, workers=0))
    assert classifier.training


def test_outputs_do_not_depend_on_batches_or_workers() -> None:
    classifier = tiny_classifier()
    stats = PixelStats((0.5,) * 3, (0.5,) * 3)
    # 68 images: a batch of 64 and a short one.
    data = colours(17)
    progress: list[tuple[str, int, int | None]] = []

    def tell(*report: Any) -> None:
        progress.append(report)

    reading = Reading(stats=stats, workers=0, on_progress=tell)
    expected = outputs_of(classifier, data.samples, ViewConfig(size=32), reading)
    again = outputs_of(classifier, data.samples, ViewConfig(size=32), Reading(stats=stats, workers=2))
    assert np.array_equal(expected.values, again.values)
    last = outputs_of(classifier, data.samples[-1:], ViewConfig(size=32), Reading(stats=stats, workers=0))
    np.testing.assert_allclose(last.values[0], expected.values[-1], rtol=1e-4, atol=1e-6)
    assert progress == [("evaluating", 64, 68), ("evaluating", 68, 68)]
    assert [sample.key for sample in expected.samples] == [sample.key for sample in data.samples]
    # The mode is restored.
    assert classifier.training
    encoded = encode_samples(classifier, data.samples[:2], ViewConfig(size=32), Reading(stats=stats, workers=0))
    assert encoded.values.shape == (2, 1, classifier.head.in_features)
    with torch.no_grad():
        answers = classifier.eval().head(classifier.fuse(torch.from_numpy(encoded.values))).numpy()
    np.testing.assert_allclose(answers, expected.values[:2], rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="there is none"):
        outputs_of(classifier, [], ViewConfig(size=32), Reading(stats=stats, workers=0))


@pytest.mark.thorough
def test_long_images_are_seen_as_in_a_prediction(tmp_path: Path) -> None:
    """The run in torch and its ONNX file average the outputs of several squares."""
    classifier = tiny_classifier().eval()
    # The head starts near zero.
    torch.nn.init.normal_(classifier.head.weight)
    half = (0.5,) * 3
    info = ClassifierInfo(
        network=NetworkSpec(labels=MIKELS.labels, mean=half, std=half), label_set="mikels", kind="evoked", size=32
    )
    export_classifier(classifier, info, tmp_path / "model.onnx")
    samples = []
    for i, size in enumerate(((40, 40), (60, 40), (90, 40), (40, 110), (300, 40), (95, 44))):
        draw_image(i, size).save(tmp_path / f"{i}.png")
        samples.append(Sample(key=str(i), image=ImageFile(tmp_path / f"{i}.png")))
    stats = PixelStats(info.mean, info.std)
    outputs = outputs_of(classifier, samples, ViewConfig.of(info), Reading(stats=stats, workers=0))
    expected = outputs_of_network(Network.open(tmp_path / "model.onnx"), samples)
    np.testing.assert_allclose(outputs.values, expected.values, atol=2e-3)
    middle = [EvalViews(ViewConfig.of(info))(sample).scene for sample in samples]
    with torch.no_grad():
        of_middle = classifier(scene=normalise(torch.stack(middle), torch.device("cpu"), stats)).numpy()
    differs = np.abs(of_middle - outputs.values).max(axis=1) > 1e-3
    assert differs.tolist() == [False, False, True, True, True, True]


def test_tiny_images_are_infinitely_far_as_in_a_prediction(tmp_path: Path) -> None:
    classifier = tiny_classifier().eval()
    features = torch.randn(64, classifier.width, generator=torch.Generator().manual_seed(0))
    classifier.distance = Distance.fit(features, None)
    half = (0.5,) * 3
    spec = with_fitted(NetworkSpec(labels=MIKELS.labels, mean=half, std=half), classifier)
    info = ClassifierInfo(network=spec, label_set="mikels", kind="evoked", size=32, distances=(1.0,) * 20)
    export_classifier(classifier, info, tmp_path / "model.onnx")
    samples = []
    for i, size in enumerate(((40, 40), (15, 40), (16, 40), (300, 15))):
        draw_image(i).resize(size).save(tmp_path / f"{i}.png")
        samples.append(Sample(key=str(i), image=ImageFile(tmp_path / f"{i}.png")))
    reading = Reading(stats=PixelStats(info.mean, info.std), workers=0)
    outputs = outputs_of(classifier, samples, ViewConfig.of(info), reading)
    expected = outputs_of_network(Network.open(tmp_path / "model.onnx"), samples)
    assert outputs.distances is not None
    assert expected.distances is not None
    assert np.isinf(outputs.distances).tolist() == [False, True, False, True]
    assert np.isinf(expected.distances).tolist() == [False, True, False, True]


def test_a_classifier_compiled_for_training_is_scored_eagerly() -> None:
    """Scored batches have other sizes and no gradients: each kind would be compiled again."""
    classifier = tiny_classifier()
    stats = PixelStats((0.5,) * 3, (0.5,) * 3)
    samples = colours(1).samples
    expected = outputs_of(classifier, samples, ViewConfig(size=32), Reading(stats=stats, workers=0))

    def no_compiler(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> None:
        raise RuntimeError("there is no compiler")

    torch._dynamo.reset()
    for block in classifier.encoder.blocks:  # type: ignore[union-attr]
        block.compile(backend=no_compiler)
    outputs = outputs_of(classifier, samples, ViewConfig(size=32), Reading(stats=stats, workers=0))
    assert np.array_equal(outputs.values, expected.values)


@pytest.mark.parametrize(
    ("streams", "names"), [("scene", ["scene"]), ("person", ["person"]), ("both", ["scene", "person"])]
)
def test_only_views_of_the_streams_are_selected(streams: str, names: list[str]) -> None:
    classifier = tiny_classifier()
    classifier.streams = streams  # type: ignore[assignment]
    dataset = ViewDataset(colours(1).samples, EvalViews(ViewConfig(size=32)))
    assert list(select_views(classifier, collate([dataset[0, 0]]))) == names
