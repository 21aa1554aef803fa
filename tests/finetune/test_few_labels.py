"""Curves over few labelled images: draws, heads, intervals, baselines, and work that is stopped and continued."""

import csv
import json
import os
import signal
from collections.abc import Callable as Function
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

import uniemox
from tests.data.test_unreadable import Notes, with_broken
from tests.drawn import class_folders
from tests.networks import drawn_clip
from tests.runs import SIZE, Told, colours, pretrained, tiny_finetuning, uniemox_here
from uniemox.data.sample import DataSet
from uniemox.errors import ConfigError, DataError, StoppedError
from uniemox.finetune import few_labels as module
from uniemox.finetune import few_labels_heads
from uniemox.finetune.config import LoraConfig
from uniemox.finetune.few_labels import FittedHead, draw_images, few_labels
from uniemox.finetune.few_labels_config import FewLabelsConfig
from uniemox.finetune.run import finetune
from uniemox.finetune.step import finetune_step
from uniemox.intervals import clip_to_share, interval_over_runs
from uniemox.io.html import Html
from uniemox.training.callback import Callback

SPLITS = {"train": 6, "val": 1, "test": 5}


def data() -> DataSet:
    return colours(splits=SPLITS)


def settings(**changes: object) -> FewLabelsConfig:
    values = {"init": str(pretrained()), "images": (1, 4), "seeds": 3, "size": SIZE, "device": "cpu", "workers": 0}
    return FewLabelsConfig(**values | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curves") / "run"
    few_labels(settings(), data(), out)
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def answers_of(out: Path) -> dict[tuple[str, int, int], list[int]]:
    lines = map(json.loads, (out / "answers.jsonl").read_text().splitlines())
    return {(line["method"], line["images"], line["seed"]): line["predicted"] for line in lines}


def features_of(out: Path) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    for path in sorted((out / "features").iterdir()):
        with np.load(path) as saved:
            rows |= dict(zip(saved["keys"].tolist(), saved["values"], strict=True))
    return rows


def test_the_public_function_writes_and_returns_the_same_curve(finished: Path, tmp_path: Path) -> None:
    options: Any = {"images": (1, 4), "seeds": 3, "size": SIZE, "device": "cpu", "workers": 0}
    points = uniemox.few_labels(data(), out=tmp_path / "run", init=pretrained(), **options)
    assert (tmp_path / "run" / "curve.csv").read_text() == (finished / "curve.csv").read_text()
    names = [(row["method"], row["images_per_class"], float(row["accuracy"])) for row in rows_of(finished)]
    assert [(point.method, str(point.images_per_class or ""), point.accuracy) for point in points] == names


def test_smaller_draws_are_parts_of_larger_ones_and_seeds_differ() -> None:
    pool = data().only("train").samples
    labels = data().labels
    drawn = [
        {label: [sample.key for sample in members] for label, members in draw_images(pool, 4, seed, labels).items()}
        for seed in (0, 1)
    ]
    few = draw_images(list(reversed(pool)), 1, 0, labels)
    assert {label: members[0].key for label, members in few.items()} == {
        label: keys[0] for label, keys in drawn[0].items()
    }
    assert all(len(set(keys)) == 4 for draw in drawn for keys in draw.values())
    assert drawn[0] != drawn[1]


def test_copies_of_an_image_are_drawn_once() -> None:
    pool = data().only("train").samples
    copies = [replace(sample, group="copies") if i % 6 < 3 else sample for i, sample in enumerate(pool)]
    for members in draw_images(copies, 4, 0, data().labels).values():
        assert sum(sample.group == "copies" for sample in members) == 1
    with pytest.raises(DataError, match="amusement has 4 different training images"):
        draw_images(copies, 5, 0, data().labels)


def test_a_curve_has_baselines_and_a_point_for_each_method_and_number(finished: Path) -> None:
    rows = rows_of(finished)
    names = [(row["method"], row["images_per_class"], row["seeds"]) for row in rows]
    points = [(method, number, "3") for method in ("probe", "knn") for number in ("1", "4")]
    assert names == [("chance", "", "0"), ("always amusement", "", "0"), *points]
    accuracy = {(row["method"], row["images_per_class"]): float(row["accuracy"]) for row in rows}
    assert accuracy["chance", ""] == 1 / 8
    # Four of Mikels' eight labels have images, five each.
    assert accuracy["always amusement", ""] == 1 / 4
    assert accuracy["probe", "4"] > 0.7


def test_points_are_means_over_seeds_with_intervals_over_seeds_and_images(finished: Path) -> None:
    scored = data().only("test").samples
    truth = np.array([sample.label for sample in scored])
    answers = answers_of(finished)
    for row in rows_of(finished)[2:]:
        method = row["method"]
        number = int(row["images_per_class"])
        hits = np.array([answers[method, number, seed] for seed in range(3)]) == truth
        bounds = clip_to_share(interval_over_runs(hits, [sample.key for sample in scored]))
        assert bounds is not None
        np.testing.assert_allclose([float(row[name]) for name in ("accuracy", "low", "high")], [hits.mean(), *bounds])


def test_intervals_of_accuracies_end_at_0_and_1() -> None:
    """With few images, Student's t reaches beyond."""
    scored = data().only("test").samples
    truth = [sample.label for sample in scored]
    wrong = [-1, *truth[1:]]
    runs = [FittedHead("knn", 1, seed, tuple(labels)) for seed, labels in enumerate((truth, truth, wrong))]
    [point] = module._points(settings(methods=("knn",), images=(1,)), runs, scored)
    assert point.low is not None
    assert point.low < point.accuracy < 1
    assert point.high == 1


def test_heads_are_fitted_to_the_drawn_images_alone(finished: Path) -> None:
    """With one image of a class, the probe is scikit-learn's regression at C = 0.01, and knn weighs all images."""
    features = features_of(finished)
    scored = np.stack([features[sample.key] for sample in data().only("test").samples])
    draw = draw_images(data().only("train").samples, 1, 2, data().labels)
    train = np.stack([features[members[0].key] for members in draw.values()])
    labels = np.array(list(draw))
    scale = train.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.01, max_iter=2000).fit((train - train.mean(axis=0)) / scale, labels)
    answers = answers_of(finished)
    assert answers["probe", 1, 2] == model.predict((scored - train.mean(axis=0)) / scale).tolist()
    cosines = normalize(torch.from_numpy(scored)) @ normalize(torch.from_numpy(train)).T
    assert answers["knn", 1, 2] == labels[cosines.argmax(dim=1).numpy()].tolist()


def test_a_clip_adds_zero_shot_and_prototypes(tmp_path: Path) -> None:
    init = f"clip:local-dir:{drawn_clip(tmp_path / 'clip')}"
    points = few_labels(settings(init=init, methods=("prototypes",), seeds=1), data(), tmp_path / "run")
    curves = {(point.method, point.images_per_class): point.accuracy for point in points[2:]}
    assert list(curves) == [("zero-shot", 0), ("prototypes", 1), ("prototypes", 4)]
    assert curves["prototypes", 4] > curves["zero-shot", 0]
    with pytest.raises(ConfigError, match="method prototypes needs a CLIP"):
        settings(methods=("prototypes",))


@pytest.mark.parametrize("work", ["encoding images", "fitting heads"])
def test_stopped_work_continues_and_computes_nothing_twice(
    work: str, finished: Path, tmp_path: Path, interruptible: Function[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)

    class Interrupts(Told):
        def progress(self, what: str, done: int, total: int | None) -> None:
            super().progress(what, done, total)
            if (what, done) == (work, {"encoding images": 16, "fitting heads": 5}[work]):
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(StoppedError, match="--resume continues"):
        few_labels(settings(), data(), out, callback=Interrupts())
    files = {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    lines = (out / "answers.jsonl").read_text() if work == "fitting heads" else ""
    assert files
    assert lines.count("\n") == (6 if lines else 0)
    if lines:
        # A kill in the middle of a line.
        (out / "answers.jsonl").write_text(lines + '{"method": "knn", "im')
    few_labels(settings(), data(), out, resume=True)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    assert files.items() <= after.items()
    assert (out / "answers.jsonl").read_text().startswith(lines)
    assert (out / "curve.csv").read_text() == (finished / "curve.csv").read_text()
    with pytest.raises(ConfigError, match="seeds: 2 now, 3 at first"):
        few_labels(settings(seeds=2), data(), out, resume=True)


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="amusement has 6 different training images, and 9 of each class"):
        few_labels(settings(images=(9,)), data(), tmp_path / "run")


def test_methods_of_other_names_are_refused() -> None:
    for images in ("4", 4, (4, "8"), (), (0, 1), (4, 4)):
        with pytest.raises(ConfigError, match="images must be different numbers of at least 1, such as"):
            settings(images=images)
    assert settings(images=(np.int64(1), np.int64(4))).images == (1, 4)
    with pytest.raises(ConfigError, match="seeds must be a number, got '3'"):
        settings(seeds="3")
    with pytest.raises(ConfigError, match="methods must be some of probe, knn, prototypes, lora, got 'full'"):
        settings(methods=("knn", "full"))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[float]]:
    """A curve of lora and probe with two draws, its notes, and the losses of all steps."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    notes = Notes()
    losses: list[float] = []

    def watched(*arguments: Any, **options: Any) -> dict[str, float]:
        values = finetune_step(*arguments, **options)
        losses.append(values["loss"])
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_labels_heads, "finetune_step", watched)
        few_labels(settings(methods=("lora", "probe"), seeds=2), data(), out, callback=notes)
    return out, notes.lines, losses


@pytest.mark.thorough
def test_lora_is_trained_for_every_draw_and_leaves_the_encoder_of_other_heads(
    finished: Path, adapted: tuple[Path, list[str], list[float]]
) -> None:
    out, notes, losses = adapted
    answers = answers_of(out)
    truth = np.array([sample.label for sample in data().only("test").samples])
    for method in ("lora", "probe"):
        for number in (1, 4):
            predicted = np.array([answers[method, number, seed] for seed in (0, 1)])
            [row] = [row for row in rows_of(out) if (row["method"], row["images_per_class"]) == (method, str(number))]
            assert float(row["accuracy"]) == (predicted == truth).mean()
    assert {key: value for key, value in answers_of(finished).items() if key[0] == "probe" and key[2] < 2} == {
        key: value for key, value in answers.items() if key[0] == "probe"
    }
    assert len(losses) == 400
    for start in range(0, 400, 100):
        assert losses[start + 99] < 0.95 * losses[start]
    assert notes[-1] == f"lora: 4 trainings of 100 steps; each encodes {len(truth)} images again"
    assert "Method lora also trains the encoder" in (out / "index.html").read_text()


def test_lora_begins_as_the_probe(
    adapted: tuple[Path, list[str], list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a learning rate nothing changes."""
    monkeypatch.setattr(few_labels_heads, "LORA_LR", 0.0)
    monkeypatch.setattr(few_labels_heads, "LORA_STEPS", 2)
    few_labels(settings(methods=("lora",), seeds=2), data(), tmp_path / "run")
    probe = {key[1:]: value for key, value in answers_of(adapted[0]).items() if key[0] == "probe"}
    assert {key[1:]: value for key, value in answers_of(tmp_path / "run").items()} == probe


@pytest.mark.thorough
def test_lora_stops_within_a_training_and_continues_to_the_same_curve(
    adapted: tuple[Path, list[str], list[float]], tmp_path: Path, interruptible: Function[..., object]
) -> None:
    class Interrupts(Told):
        trainings = 0

        def progress(self, what: str, done: int, total: int | None) -> None:
            super().progress(what, done, total)
            self.trainings += (what, done) == ("training low-rank changes", 1)
            if self.trainings == 2 and what == "training low-rank changes":
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    config = settings(methods=("lora", "probe"), seeds=2)
    with pytest.raises(StoppedError, match="--resume continues"):
        few_labels(config, data(), out, callback=Interrupts())
    assert list(answers_of(out)) == [("lora", 1, 0)]
    few_labels(config, data(), out, resume=True)
    assert answers_of(out) == answers_of(adapted[0])


def test_networks_that_lora_cannot_change_are_refused_before_the_work(tmp_path: Path) -> None:
    config = settings(init="scratch:timm:test_resnet", methods=("probe", "lora"))
    with pytest.raises(ConfigError, match="ResNet has no linear layer in its attention"):
        few_labels(config, data(), tmp_path / "run")
    assert not (tmp_path / "run" / "features").exists()
    with pytest.raises(ConfigError, match="the settings of lora need method lora: add lora to --methods"):
        settings(lora=LoraConfig(rank=2))


def test_draws_of_unreadable_images_are_refused_and_others_are_noted(tmp_path: Path) -> None:
    config = settings(methods=("knn",), images=(1,), seeds=1)
    drawn = {members[0].key for members in draw_images(data().only("train").samples, 1, 0, data().labels).values()}
    rows = [row for row, sample in enumerate(data().samples) if sample.key in drawn]
    with pytest.raises(DataError, match="no image of draw 0 can be read, and 1 of each class are needed"):
        few_labels(config, with_broken(data(), rows), tmp_path / "none")
    notes = Notes()
    few_labels(config, with_broken(data(), rows[:1]), tmp_path / "run", callback=notes)
    assert [line for line in notes.lines if line.startswith("left out: ")]
    word = data().label_of(data().samples[rows[0]])
    note = f"1 drawn image can't be read: draws with such an image have fewer images of {word} than the table says"
    assert any(line.startswith(note) for line in notes.lines)


def test_copies_of_training_images_are_not_scored_and_missing_classes_are_named(tmp_path: Path) -> None:
    samples = data().samples
    train = data().only("train").samples
    scored = data().only("test").samples
    copied = [replace(sample, image=train[0].image) if sample is samples[-1] else sample for sample in samples]
    notes = Notes()
    config = settings(methods=("knn",), images=(1,), seeds=1)
    few_labels(config, replace(data(), samples=copied), tmp_path / "run", callback=notes)
    assert len(answers_of(tmp_path / "run")["knn", 1, 0]) == len(scored) - 1
    [refused, absent] = notes.lines
    assert refused.startswith("1 image of split test is not scored: training images of ")
    assert "has no training image of anger, disgust, fear, sadness: heads don't learn these labels" in absent


@pytest.mark.usefixtures("without_onnx")
def test_images_on_which_the_encoder_was_trained_are_not_scored(tmp_path: Path) -> None:
    seen = data()
    samples = [replace(sample, split="train" if sample.split == "test" else sample.split) for sample in seen.samples]
    finetune(tiny_finetuning(pretrained(), method="knn"), replace(seen, samples=samples), tmp_path / "start")
    with pytest.raises(DataError, match="has no image to score: give data with a split test, or another --init"):
        few_labels(settings(init=str(tmp_path / "start")), seen, tmp_path / "run")


def test_page_and_drawing_show_every_point(finished: Path) -> None:
    drawing = (finished / "curve.svg").read_text()
    tree = ElementTree.fromstring(drawing)
    space = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f"{space}circle")) == 4
    assert len(tree.findall(f"{space}polyline")) == 2
    words = [element.text for element in tree.findall(f"{space}text")]
    assert {"probe", "knn", "chance", "always amusement", "1", "4", "0 %", "10 %", "20 %"} <= set(words)
    page = (finished / "index.html").read_text()
    assert Html(drawing) in page
    for row in rows_of(finished)[2:]:
        assert f"{float(row['accuracy']):.1%}" in page


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "photos", each=12)
    words = ["few-labels", "--data", f"folder:{folder}", "--out", tmp_path / "run", "--init", pretrained()]
    words += ["--methods", "knn", "--images", "1", "2", "--seeds", "1", "--size", SIZE, "--device", "cpu"]
    done = uniemox_here(*words, "--workers", 0)
    assert done.returncode == 0, done.stderr
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    assert [row[1:3] for row in rows if row[:1] == ["knn"]] == [["1", "1"], ["2", "1"]]
    assert "chance" in done.stdout
    assert "index.html, curve.svg and curve.csv" in done.stderr


def test_weights_of_unknown_normalisation_are_named(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=1, img_size=32)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    notes: list[str] = []

    class Notes(Callback):
        def note(self, line: str) -> None:
            notes.append(line)

    chosen = settings(init=str(tmp_path / "vit.pth"), methods=("knn",), images=(1,), seeds=1)
    few_labels(chosen, data(), tmp_path / "run", callback=Notes())
    assert any("does not say how its pixels are normalised" in line for line in notes)
