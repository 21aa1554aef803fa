"""The person finder: settings, starts, and a small one from start to file."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import timm
import torch
from cyclopts import App

from recipes.finder.command import finder as finder_commands
from recipes.finder.config import FinderConfig
from recipes.finder.export import FinderGraph, export_finder
from recipes.finder.loss import build_targets, finder_loss
from recipes.finder.network import FinderNetwork, load_body
from recipes.finder.run import FinderReport, fit_finder
from recipes.finder.scores import LabelledImage, score
from recipes.int8 import quantise, same_boxes
from tests.recipes.finder.figures import SAMPLES, figure, view_of
from tests.runs import Told
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.seen import read_seen, seen_file
from uniemox.errors import CheckpointError, ConfigError, DataError, StoppedError
from uniemox.io.onnx_sessions import open_session
from uniemox.persons.box import Box, Detection, Thresholds, select
from uniemox.persons.detector import load_detector
from uniemox.persons.layouts import decode_centres_map
from uniemox.training.journal import read_metrics
from uniemox.views.patches import normalise

pytestmark = pytest.mark.thorough

BODY = "test_efficientnet"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 300}, "multiple of 32"),
        ({"size": 32}, "multiple of 32"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 0.6}, "held_out"),
        ({"min_confidence": 1.1}, "min_confidence"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_config_refuses_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinderConfig(start="timm:mobilenetv2_100", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of a network with random weights, whose norms have the statistics of images."""
    file = tmp_path_factory.mktemp("start") / "body.safetensors"
    torch.manual_seed(0)
    network = timm.create_model(BODY, num_classes=0).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images = [np.asarray(decode_sample(sample)[0].resize((64, 64))) for sample in SAMPLES]
    with torch.no_grad():
        network(normalise(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.device("cpu")))
    safetensors.torch.save_file(network.state_dict(), file)
    return f"timm:{BODY}@{file}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("runs/full", "starts from timm:NAME"),
        ("timm:mobilenetv9", "timm has no model"),
        ("timm:mobilenetv2_100@nowhere.safetensors", "there is no file nowhere"),
        ("timm:vit_tiny_patch16_224", "maps at strides"),
    ],
)
def test_load_body_refuses_bad_sources(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_body(source)


def test_load_body_refuses_weights_of_another_network(start: str) -> None:
    with pytest.raises(CheckpointError, match="could not be built with its weights"):
        load_body(start.replace(BODY, "mobilenetv2_050", 1))


def test_the_first_layers_are_frozen_and_norms_keep_their_statistics(start: str) -> None:
    body, channels, _, _ = load_body(start)
    network = FinderNetwork(body, channels, 8).train()
    is_learned = {name: p.requires_grad for name, p in body.named_parameters()}
    assert not is_learned["conv_stem.weight"]
    assert not is_learned["blocks.1.0.conv_pwl.weight"]
    assert all(
        learned for name, learned in is_learned.items() if not name.startswith(("conv", "bn", "blocks.0", "blocks.1"))
    )
    before = body.bn1.running_mean.clone()
    heat, distances = network(torch.randn(2, 3, 64, 96))
    assert heat.shape == (2, 8, 12)
    assert distances.shape == (2, 4, 8, 12)
    assert (distances > 0).all()
    torch.testing.assert_close(body.bn1.running_mean, before)


def test_data_without_people_are_refused(start: str, tmp_path: Path) -> None:
    config = FinderConfig(start=start, size=64, workers=0)
    nobody = [replace(figure(i), persons=()) for i in range(30)]
    unknown = [replace(figure(i), persons=None) for i in range(30)]
    same = [figure(0)] * 30
    for samples, count in ((nobody, 0), (unknown, 0), (same, 1), ([], 0)):
        with pytest.raises(DataError, match=rf"^{count} different images have people .*uniemox data persons"):
            fit_finder(samples, config, tmp_path / "finder.onnx")
    assert list(tmp_path.iterdir()) == []


# From start to file


def config_of(start: str) -> FinderConfig:
    return FinderConfig(start=start, size=64, width=16, epochs=2, batch_size=12, workers=0)


@pytest.fixture(scope="module")
def fitted(start: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinderReport, Told]:
    path = tmp_path_factory.mktemp("fitted") / "finder.onnx"
    callback = Told()
    report = fit_finder(SAMPLES, config_of(start), path, callback=callback)
    return path, report, callback


Fitted = tuple[Path, FinderReport, Told]


def test_network_can_learn_a_batch(start: str) -> None:
    """In 80 steps the loss of six images falls to a third, and the decoded boxes are the people."""
    torch.manual_seed(0)
    body, channels, _, _ = load_body(start)
    network = FinderNetwork(body, channels, 16).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    images = [decode_sample(detection)[0].resize((64, 64)) for detection in SAMPLES[:6]]
    labelled = [
        tuple(Detection(Box(*_squashed(detection.box)), 0.9) for detection in sample.persons or ())
        for sample in SAMPLES[:6]
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    views = [view_of([detection.box for detection in people], [0.9] * len(people)) for people in labelled]
    targets = build_targets(views, 64)
    losses = []
    for _ in range(80):
        heat, distances = network(normalise(pixels, torch.device("cpu")))
        loss = finder_loss(heat, distances, targets)["total"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3
    maps = torch.cat([torch.sigmoid(heat)[:, None], distances], dim=1).detach().numpy()
    detections = [
        select(boxes, confidences, (64, 64), Thresholds(0.3, 0.6, 9))
        for boxes, confidences in zip(*decode_centres_map([maps], (64, 64)), strict=True)
    ]
    assert score([LabelledImage(64, 64, people) for people in labelled], detections).f_half > 0.8


def _squashed(box: Box) -> Box:
    """Scale a box of a figure, 96 x 64 px, to 64 x 64 px."""
    return Box(box.x1 * 64 / 96, box.y1, box.x2 * 64 / 96, box.y2)


def test_report_and_progress_count_the_images(fitted: Fitted) -> None:
    path, report, callback = fitted
    assert (report.trained_on, report.held_out, report.broken) == (32, 4, 0)
    assert callback.last["looking at held-out images"] == (4, 4)
    assert callback.last["training"] == (4, 4)
    assert 0.01 <= report.threshold <= 0.99
    assert load_detector(path).layout.name == "uniemox finder"  # type: ignore[attr-defined]


def test_int8_file_has_nearly_the_same_outputs(fitted: Fitted, tmp_path: Path) -> None:
    path, _, _ = fitted
    images = [decode_sample(file)[0] for file in SAMPLES[:8]]
    quantise(path, tmp_path / "int8.onnx", images)
    before, after = (onnx.load(file) for file in (path, tmp_path / "int8.onnx"))
    assert before.metadata_props == after.metadata_props
    assert any(node.op_type == "QuantizeLinear" for node in after.graph.node)
    assert load_detector(tmp_path / "int8.onnx").layout.name == "uniemox finder"  # type: ignore[attr-defined]
    pixels = np.stack([np.asarray(image.resize((64, 64)), np.float32).transpose(2, 0, 1) for image in images])
    outputs = [open_session(file).run(None, {"pixels": pixels})[0][:, 0] for file in (path, tmp_path / "int8.onnx")]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1
    assert np.corrcoef(outputs[0].ravel(), outputs[1].ravel())[0, 1] > 0.95


def test_equal_boxes_are_counted_once() -> None:
    small, large = (Detection(Box(0, 0, side, side), 0.9) for side in (10, 11))
    assert same_boxes([[small, small], [small], []], [[large], [], [large]]) == 1


def test_metadata_describe_the_training(fitted: Fitted) -> None:
    path, report, _ = fitted
    model = onnx.load(path)
    about = json.loads(next(item.value for item in model.metadata_props if item.key == "uniemox_finder"))
    assert about["config"]["size"] == 64
    assert about["held_out"] == 4
    assert about["f_half"] == report.scores.f_half
    assert about["threshold"] == report.threshold
    large = [item for item in model.graph.initializer if math.prod(item.dims) > 1000]
    assert {item.data_type for item in large} == {onnx.TensorProto.FLOAT16}
    assert sorted(path.parent.iterdir()) == [path, path.with_name("finder.onnx.run"), seen_file(path)]
    # Two hashes an image: of its file and of what it shows.
    assert len(read_seen(path)) == 2 * (report.trained_on + report.held_out)


def test_file_has_the_outputs_of_the_network(start: str, tmp_path: Path) -> None:
    """Up to the rounding of float16; the confidence is 0.5 where the heat equals the threshold."""
    torch.manual_seed(0)
    body, channels, mean, std = load_body(start)
    network = FinderNetwork(body, channels, 16).eval()
    graph = FinderGraph(network, mean, std, threshold=0.2).eval()
    export_finder(graph, 64, {}, tmp_path / "a.onnx")
    detector = load_detector(tmp_path / "a.onnx")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        expected = graph(pixels)
        heat, _ = network((pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    (output,) = detector._run(pixels.numpy(), (64, 64))  # type: ignore[attr-defined]
    np.testing.assert_allclose(output, expected, rtol=0.02, atol=1e-3)
    p = torch.sigmoid(heat)
    confidence = expected[:, 0]
    torch.testing.assert_close(confidence / (1 - confidence), p / (1 - p) * (0.8 / 0.2), rtol=1e-4, atol=1e-6)


def test_stopped_run_resumes_to_the_same_bytes(fitted: Fitted, start: str, tmp_path: Path) -> None:
    out = tmp_path / "finder.onnx"
    with pytest.raises(StoppedError, match="--resume continues"):
        fit_finder(SAMPLES, config_of(start), out, callback=Told(stop_after=2))
    assert not out.exists()
    with pytest.raises(ConfigError, match="add --resume"):
        fit_finder(SAMPLES, config_of(start), out)
    report = fit_finder(SAMPLES, config_of(start), out, resume=True)
    assert report == fitted[1]
    assert out.read_bytes() == fitted[0].read_bytes()
    undisturbed_metrics, resumed_metrics = (
        read_metrics(path.with_name("finder.onnx.run")) for path in (fitted[0], out)
    )
    assert [line["loss"] for line in undisturbed_metrics] == [line["loss"] for line in resumed_metrics]


def tree(root: Path, samples: Sequence[Sample]) -> tuple[str, Path]:
    """Write a table of images and a file of their people."""
    lines = [json.dumps({"detector": "drawn", "fingerprint": "0"})]
    for sample in samples:
        (root / sample.key).write_bytes(sample.image.read())
        boxes = [[*person.box, person.confidence] for person in sample.persons or ()]
        lines.append(json.dumps({"key": sample.key, "boxes": boxes}))
    (root / "table.csv").write_text("path,text\n" + "".join(f"{sample.key},a\n" for sample in samples))
    (root / "boxes.jsonl").write_text("\n".join(lines) + "\n")
    return f"csv:{root / 'table.csv'}", root / "boxes.jsonl"


def command() -> App:
    app = App(result_action="return_value")
    app.command(finder_commands, name="finder")
    return app


def test_command_writes_a_detector(start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, boxes = tree(tmp_path, SAMPLES)
    out = tmp_path / "out" / "a.onnx"
    words = ["--data", source, "--persons", boxes, "--start", start, "--out", out, "--epochs", 1, "--size", 64]
    command()(["finder", "fit", *map(str, words), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["file"], report["trained_on"]) == (str(out), 32)
    assert load_detector(out).layout.name == "uniemox finder"  # type: ignore[attr-defined]


def test_command_refuses_data_without_boxes(start: str, tmp_path: Path) -> None:
    source, boxes = tree(tmp_path, SAMPLES[:3])
    arguments = ["finder", "fit", "--start", start, "--out", str(tmp_path / "a.onnx"), "--data", f"{source}"]
    with pytest.raises(DataError, match="nobody has looked for people in its images; run: uniemox data persons csv:"):
        command()(arguments)
    with pytest.raises(ConfigError, match="--persons needs a file for each of the 1 data sets, got 2"):
        command()([*arguments, "--persons", str(boxes), str(boxes)])
