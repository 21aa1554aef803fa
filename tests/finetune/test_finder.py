"""The person finder: views, targets, loss, scores against plain forms, and a small one from start to file."""

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
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.drawn import Stored, jpeg_of
from uniemox.cli.finder import finder as finder_commands
from uniemox.data.sample import Sample, decode_sample
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.finetune.finder import FinderConfig, FinderReport, fit_finder
from uniemox.finetune.finder_export import FinderGraph, export_finder
from uniemox.finetune.finder_loss import boxes_of, build_targets, finder_loss, generalised_overlap
from uniemox.finetune.finder_network import FinderNetwork, load_body
from uniemox.finetune.finder_scores import Known, best_threshold, score
from uniemox.finetune.finder_views import FinderView, FinderViews, draw_crop, place_people, vary_light
from uniemox.persons.box import Box, Detection
from uniemox.persons.centres import decode_centres_map
from uniemox.persons.detector import load_detector
from uniemox.persons.selection import select
from uniemox.views.pixels import normalise

BODY = "mobilenetv2_035"


def figure(seed: int, people: int = 1) -> Sample:
    """A dark picture with bright upright ellipses, the people."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 64), (20, 30, 40))
    draw = ImageDraw.Draw(image)
    found = []
    for _ in range(people):
        x, y, w, h = rng.integers(5, 60), rng.integers(5, 20), rng.integers(15, 30), rng.integers(25, 40)
        box = Box(float(x), float(y), float(x + w), float(y + h))
        draw.ellipse(box, fill=(240, 200, 180))
        found.append(Detection(box, 0.9))
    return Sample(key=f"{seed}.jpg", picture=Stored(jpeg_of(image)), persons=tuple(found))


SAMPLES = [figure(i, 1 + i % 2) for i in range(36)]


def view_of(boxes: Sequence[Sequence[float]], confidences: Sequence[float], size: int = 64) -> FinderView:
    pixels = np.zeros((size, size, 3), np.uint8)
    return FinderView(pixels, np.array(boxes, np.float32).reshape(-1, 4), np.array(confidences, np.float32))


# Views


def test_people_move_with_the_part_of_the_picture() -> None:
    """The part from 50, 0 to 100, 100, twice as wide: one inside, one cut to 40 %, one cut to 30 %, one outside."""
    found = np.array(
        [[60, 10, 80, 60, 0.9], [41, 0, 56, 50, 0.8], [43, 0, 53, 50, 0.8], [0, 0, 50, 90, 0.9]], np.float32
    )
    boxes, confidences = place_people(found, Box(50, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(boxes, [[20, 10, 60, 60], [0, 0, 12, 50], [0, 0, 6, 50]])
    np.testing.assert_allclose(confidences, [0.9, 0.8, 0])


def test_who_is_unsure_or_tiny_is_not_learned() -> None:
    found = np.array([[0, 0, 50, 50, 0.29], [0, 0, 50, 50, 0.3], [0, 0, 7, 8, 0.9], [0, 0, 8, 8, 0.9]], np.float32)
    _, confidences = place_people(found, Box(0, 0, 100, 100), 100, 100, 0.3)
    np.testing.assert_allclose(confidences, [0, 0.3, 0, 0.9])


def test_nobody() -> None:
    boxes, confidences = place_people(np.zeros((0, 5), np.float32), Box(0, 0, 10, 10), 32, 32, 0.3)
    assert boxes.shape == (0, 4)
    assert confidences.shape == (0,)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**31))
def test_a_crop_lies_in_its_picture(width: int, height: int, seed: int) -> None:
    crop = draw_crop((width, height), np.random.default_rng(seed))
    assert crop.x1 >= 0
    assert crop.y1 >= 0
    assert crop.x2 <= width * (1 + 1e-9)
    assert crop.y2 <= height * (1 + 1e-9)
    assert crop.x2 - crop.x1 >= 0.5 * width * (1 - 1e-9)
    assert crop.y2 - crop.y1 >= 0.5 * height * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([32, 64, 96]))
@example(520, 32)
def test_boxes_are_where_the_people_are(seed: int, size: int) -> None:
    """In a view of any kind, what lies outside all boxes is dark, and the middle of whom is learned is bright."""
    views = FinderViews([figure(1), figure(2), replace(figure(3, 0), persons=())], seed, 0.3)
    view = views[(0, 0, size)]
    assert isinstance(view, FinderView)
    assert view.pixels.shape == (size, size, 3)
    outside = np.ones((size, size), bool)
    for x1, y1, x2, y2 in view.boxes:
        outside[max(0, math.floor(y1) - 3) : math.ceil(y2) + 3, max(0, math.floor(x1) - 3) : math.ceil(x2) + 3] = False
    bright = outside & (view.pixels.max(axis=-1) >= 135)
    assert bright.sum() <= size // 8  # less than a px of somebody who is cut off may be left, and has no box
    for (x1, y1, x2, y2), confidence in zip(view.boxes, view.confidences, strict=True):
        if confidence > 0 and (x2 - x1) * (y2 - y1) > 200:
            assert view.pixels[int((y1 + y2) / 2), int((x1 + x2) / 2)].max() > 100


def test_a_view_is_a_function_of_seed_epoch_and_index() -> None:
    views = FinderViews([figure(i) for i in range(4)], 7, 0.3)
    first, again, later = views[(2, 1, 64)], views[(2, 1, 64)], views[(3, 1, 64)]
    assert isinstance(first, FinderView)
    assert isinstance(again, FinderView)
    assert isinstance(later, FinderView)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.pixels, later.pixels)


def test_a_broken_picture_is_named() -> None:
    broken = Sample(key="bad.jpg", picture=Stored(b"no picture"), persons=())
    item = FinderViews([broken], 0, 0.3)[(0, 0, 64)]
    assert not isinstance(item, FinderView)
    assert item.key == "bad.jpg"


def test_light_keeps_shape_and_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    varied = [vary_light(pixels, np.random.default_rng(seed)) for seed in range(60)]
    assert {one.shape for one in varied} == {(8, 8, 3)}
    assert {one.dtype for one in varied} == {np.dtype(np.uint8)}
    assert sum(bool((one[..., 0] == one[..., 2]).all()) for one in varied) in range(1, 10)  # grey


# Targets and loss


def test_targets_without_people() -> None:
    heat, weight, _, box_weight = build_targets([view_of([], [])], 64)
    assert heat.shape == (1, 8, 8)
    assert not heat.any()
    assert (weight == 1).all()
    assert not box_weight.any()


def test_a_peak_is_a_gaussian() -> None:
    """A box of 32 x 48 px: 4 x 6 cells, deviations of 0.4 (the least) and 0.54 cells around column 3, row 4."""
    targets = build_targets([view_of([[12, 12, 44, 60]], [0.8])], 64)
    y, x = np.mgrid[:8, :8]
    spread_x, spread_y = max(4 * 0.54 / 6, 0.4), 6 * 0.54 / 6
    expected = np.exp(-((x - 3) ** 2) / (2 * spread_x**2) - (y - 4) ** 2 / (2 * spread_y**2))
    np.testing.assert_allclose(targets.heat[0], expected, atol=1e-6)
    assert targets.heat[0, 4, 3] == 1
    assert targets.heat_weight[0, 4, 3] == pytest.approx(0.8)
    assert targets.box_weight.sum().item() == pytest.approx(0.8)
    np.testing.assert_allclose(targets.boxes[0, :, 4, 3], [12, 12, 44, 60])


def test_who_is_unsure_is_left_out_of_the_loss() -> None:
    targets = build_targets([view_of([[0, 0, 32, 32]], [0])], 64)
    assert not targets.heat.any()
    assert (targets.heat_weight[0, :4, :4] == 0).all()
    assert targets.heat_weight.sum() == 64 - 16
    heat, distances = torch.full((1, 8, 8), -9.0), torch.ones(1, 4, 8, 8)
    before = finder_loss(heat, distances, targets)["total"]
    heat[0, :4, :4] = 9
    assert finder_loss(heat, distances, targets)["total"] == before


def test_everybody_has_a_peak_and_the_nearest_owns_a_cell() -> None:
    boxes = [[0, 0, 16, 32], [40, 0, 64, 64], [0, 40, 30, 60]]
    targets = build_targets([view_of(boxes, [0.9, 0.5, 0.4])], 64)
    assert (targets.heat == 1).sum() == 3
    for (x1, y1, x2, y2), sure in zip(boxes, (0.9, 0.5, 0.4), strict=True):
        row, column = int((y1 + y2) / 16), int((x1 + x2) / 16)
        np.testing.assert_allclose(targets.boxes[0, :, row, column], [x1, y1, x2, y2])
        assert targets.heat_weight[0, row, column] == pytest.approx(sure)
    assert targets.box_weight.sum().item() == pytest.approx(1.8)


def distances_to(boxes: torch.Tensor) -> torch.Tensor:
    """What a network would say that knows the boxes (N, 4, h, w)."""
    at = torch.arange(boxes.shape[-1]) * 8 + 4.0
    x, y = at[None, :], at[:, None]
    return torch.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], dim=1)


def test_who_knows_all_has_no_box_loss_and_less_heat_loss() -> None:
    targets = build_targets([view_of([[0, 0, 40, 60], [30, 10, 64, 64]], [0.9, 0.6])], 64)
    right = distances_to(targets.boxes)
    torch.testing.assert_close(boxes_of(right), targets.boxes)
    heat = torch.logit(targets.heat.clamp(1e-6, 1 - 1e-6))
    losses = finder_loss(heat, right, targets)
    assert losses["box"].item() == pytest.approx(0, abs=1e-5)
    assert losses["heat"] < finder_loss(torch.zeros_like(heat), right, targets)["heat"]
    assert losses["total"] == losses["heat"] + 2 * losses["box"]


def test_focal_loss_cell_by_cell() -> None:
    rng = np.random.default_rng(0)
    targets = build_targets([view_of([[0, 0, 40, 60], [40, 10, 64, 64]], [0.9, 0.6])] * 2, 64)
    logits = torch.from_numpy(rng.normal(size=(2, 8, 8)).astype(np.float32))
    total = 0.0
    cells = (one.flatten().tolist() for one in (logits, targets.heat, targets.heat_weight))
    for z, y, w in zip(*cells, strict=True):
        p = 1 / (1 + math.exp(-z))
        total += w * (-((1 - p) ** 2) * math.log(p) if y == 1 else -((1 - y) ** 4) * p**2 * math.log(1 - p))
    loss = finder_loss(logits, torch.ones(2, 4, 8, 8), targets)["heat"].item()
    assert loss == pytest.approx(total / 3.0, rel=1e-4)  # two pictures with 0.9 + 0.6 people


def test_extreme_logits_stay_finite() -> None:
    targets = build_targets([view_of([[0, 0, 40, 60]], [0.9])], 64)
    heat = torch.tensor([-1e4, 1e4]).repeat(32).view(1, 8, 8).requires_grad_()
    losses = finder_loss(heat, torch.full((1, 4, 8, 8), 1e-6), targets)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert heat.grad is not None
    assert torch.isfinite(heat.grad).all()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 1, 1), (3, 0, 4, 1), -0.5),
        ((0, 0, 1, 1), (1, 1, 2, 2), -0.5),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
    ],
)
def test_generalised_overlap(one: Sequence[float], other: Sequence[float], expected: float) -> None:
    found = generalised_overlap(torch.tensor([one]).float(), torch.tensor([other]).float())
    assert found.item() == pytest.approx(expected)


# Scores


def person(x: float, confidence: float = 0.9, side: float = 10) -> Detection:
    return Detection(Box(x, 0, x + side, side), confidence)


def test_scores_count_each_person_once() -> None:
    """Of two people one is found twice: once counts, the other box is wrong. 10 x 10 px of 100 x 50 are 2 %."""
    known = [Known(100, 49, (person(0), person(50)))]
    scores = score(known, [[person(0), person(1), person(80)]])
    assert (scores.people, scores.found, scores.boxes, scores.large) == (2, 1, 3, 2)
    assert (scores.recall, scores.precision) == (0.5, 1 / 3)
    assert scores.f_half == pytest.approx(1.25 / 3.5)
    assert score([Known(100, 50, (person(0),))], [[person(0)]]).large == 0


def test_who_is_perhaps_there_is_neither_found_nor_wrong() -> None:
    scores = score([Known(100, 50, (), (person(0, 0.2),))], [[person(0), person(50)]])
    assert (scores.people, scores.found, scores.boxes) == (0, 0, 1)
    assert scores.recall == scores.precision == 0
    assert score([], []).f_half == 0


def test_best_threshold() -> None:
    """Right at 0.9 and 0.6, wrong at 0.3: everything from 0.31 on is right, until somebody is lost above 0.6."""
    known = [Known(100, 50, (person(0), person(30)))]
    threshold, scores = best_threshold(known, [[person(0, 0.9), person(30, 0.6), person(60, 0.3)]])
    assert threshold == pytest.approx(0.31)
    assert scores.f_half == 1


# Settings, starts, data


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"size": 300}, "multiple of 32"),
        ({"size": 32}, "multiple of 32"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"rate": math.nan}, "rate must be above 0"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 0.6}, "held_out"),
        ({"least_confidence": 1.1}, "least_confidence"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_bad_settings(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FinderConfig(start="timm:mobilenetv2_100", **wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with random weights, whose norms have seen pictures, as a file."""
    file = tmp_path_factory.mktemp("start") / "body.safetensors"
    torch.manual_seed(0)
    network = timm.create_model(BODY, num_classes=0).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    pictures = [np.asarray(decode_sample(one)[0].resize((64, 64))) for one in SAMPLES]
    with torch.no_grad():
        network(normalise(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.device("cpu")))
    safetensors.torch.save_file(network.state_dict(), file)
    return f"timm:{BODY}@{file}"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("runs/full", "starts from timm:NAME"),
        ("timm:mobilenetv9", "timm has no model"),
        ("timm:mobilenetv2_100@nowhere.safetensors", "there is no file nowhere"),
        ("timm:vit_tiny_patch16_224", "maps at strides"),
    ],
)
def test_bad_starts(bad: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        load_body(bad)


def test_another_networks_weights(start: str) -> None:
    with pytest.raises(CheckpointError, match="could not be built with its weights"):
        load_body(start.replace(BODY, "mobilenetv2_050", 1))


def test_the_first_layers_are_frozen_and_norms_keep_their_statistics(start: str) -> None:
    body, channels, _, _ = load_body(start)
    network = FinderNetwork(body, channels, 8).train()
    is_learned = {name: p.requires_grad for name, p in body.named_parameters()}
    assert not is_learned["conv_stem.weight"]
    assert not is_learned["blocks.1.1.conv_pwl.weight"]
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
        with pytest.raises(DataError, match=rf"^{count} different pictures have people .*uniemox data persons"):
            fit_finder(samples, config, tmp_path / "finder.onnx")
    assert list(tmp_path.iterdir()) == []


# From start to file


def config_of(start: str) -> FinderConfig:
    return FinderConfig(start=start, size=64, width=16, epochs=2, batch_size=12, workers=0)


@pytest.fixture(scope="module")
def fitted(
    start: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, FinderReport, list[tuple[str, int, int]]]:
    path, seen = tmp_path_factory.mktemp("fitted") / "finder.onnx", []
    report = fit_finder(SAMPLES, config_of(start), path, lambda *step: seen.append(step))
    return path, report, seen


Fitted = tuple[Path, FinderReport, list[tuple[str, int, int]]]


def test_a_batch_can_be_learned(start: str) -> None:
    """Six pictures by heart in 80 steps: the loss falls to a third, and what is decoded are the people."""
    torch.manual_seed(0)
    body, channels, _, _ = load_body(start)
    network = FinderNetwork(body, channels, 16).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    images = [decode_sample(one)[0].resize((64, 64)) for one in SAMPLES[:6]]
    known = [tuple(Detection(Box(*_squashed(one.box)), 0.9) for one in sample.persons or ()) for sample in SAMPLES[:6]]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    views = [view_of([one.box for one in people], [0.9] * len(people)) for people in known]
    targets, losses = build_targets(views, 64), []
    for _ in range(80):
        heat, distances = network(normalise(pixels, torch.device("cpu")))
        loss = finder_loss(heat, distances, targets)["total"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3
    maps = torch.cat([torch.sigmoid(heat)[:, None], distances], dim=1).detach().numpy()
    found = [
        select(boxes, confidences, (64, 64), confidence=0.3, nms_overlap=0.6, most=9)
        for boxes, confidences in zip(*decode_centres_map([maps], (64, 64)), strict=True)
    ]
    assert score([Known(64, 64, people) for people in known], found).f_half > 0.8


def _squashed(box: Box) -> Box:
    """A box of a figure, 96 x 64 px, in 64 x 64."""
    return Box(box.x1 * 64 / 96, box.y1, box.x2 * 64 / 96, box.y2)


def test_what_is_reported(fitted: Fitted) -> None:
    path, report, seen = fitted
    assert (report.trained_on, report.held_out, report.broken) == (32, 4, 0)
    assert seen[-1] == ("looking at held-out pictures", 4, 4)
    assert ("training", 4, 4) in seen
    assert 0.01 <= report.threshold <= 0.99
    assert load_detector(path).layout.name == "uniemox finder"  # type: ignore[attr-defined]


def test_its_file_says_how_it_came_about(fitted: Fitted) -> None:
    path, report, _ = fitted
    model = onnx.load(path)
    about = json.loads(next(one.value for one in model.metadata_props if one.key == "uniemox_finder"))
    assert about["config"]["size"] == 64
    assert about["held_out"] == 4
    assert about["f_half"] == report.scores.f_half
    assert about["threshold"] == report.threshold
    large = [one for one in model.graph.initializer if math.prod(one.dims) > 1000]
    assert {one.data_type for one in large} == {onnx.TensorProto.FLOAT16}
    assert list(path.parent.iterdir()) == [path]


def test_the_file_computes_what_the_network_does(start: str, tmp_path: Path) -> None:
    """Up to the rounding of float16: 0.5 stands where the heat was the threshold."""
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
    (found,) = detector._run(pixels.numpy(), (64, 64))  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-3)
    p, shown = torch.sigmoid(heat), expected[:, 0]
    torch.testing.assert_close(shown / (1 - shown), p / (1 - p) * (0.8 / 0.2), rtol=1e-4, atol=1e-6)


def test_a_stopped_training_leaves_nothing(start: str, tmp_path: Path) -> None:
    def stop(what: str, done: int, _: int) -> None:
        if (what, done) == ("training", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_finder(SAMPLES, config_of(start), tmp_path / "finder.onnx", stop)
    assert list(tmp_path.iterdir()) == []


def tree(root: Path, samples: Sequence[Sample]) -> tuple[str, Path]:
    """A table of pictures and a file of their people."""
    lines = [json.dumps({"detector": "drawn", "fingerprint": "0"})]
    for sample in samples:
        (root / sample.key).write_bytes(sample.picture.read())
        boxes = [[*one.box, one.confidence] for one in sample.persons or ()]
        lines.append(json.dumps({"key": sample.key, "boxes": boxes}))
    (root / "table.csv").write_text("path,text\n" + "".join(f"{sample.key},a\n" for sample in samples))
    (root / "boxes.jsonl").write_text("\n".join(lines) + "\n")
    return f"csv:{root / 'table.csv'}", root / "boxes.jsonl"


def command() -> App:
    app = App(name="uniemox", result_action="return_value")
    app.command(finder_commands)
    return app


def test_the_command_twice(start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed gives the same bytes."""
    source, boxes = tree(tmp_path, SAMPLES)
    for name in ("a.onnx", "b.onnx"):
        options = ["--epochs", "1", "--size", "64", "--json"]
        out = tmp_path / "out" / name
        command()(
            ["finder", "fit", "--data", source, "--persons", str(boxes), "--start", start, "--out", str(out), *options]
        )
        said = json.loads(capsys.readouterr().out)
        assert said["file"] == str(out)
        assert said["trained_on"] == 32
    assert (tmp_path / "out" / "a.onnx").read_bytes() == (tmp_path / "out" / "b.onnx").read_bytes()


def test_the_command_wants_boxes(start: str, tmp_path: Path) -> None:
    source, boxes = tree(tmp_path, SAMPLES[:3])
    given = ["finder", "fit", "--start", start, "--out", str(tmp_path / "a.onnx"), "--data", f"{source}"]
    with pytest.raises(DataError, match="nobody has looked for people in its pictures; run: uniemox data persons csv:"):
        command()(given)
    with pytest.raises(ConfigError, match="--persons needs a file for each of the 1 data sets, got 2"):
        command()([*given, "--persons", str(boxes), str(boxes)])
