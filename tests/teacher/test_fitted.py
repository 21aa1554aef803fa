"""A teacher fitted on pairs: its losses and scores, what it learns, resuming, and files and settings it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.data.tree import says
from tests.drawn import jpeg_of
from tests.runs import Told
from uniemox.cli.teacher import teacher as teacher_command
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import ConfigError, DataError, StoppedError, TeacherError
from uniemox.labels import MIKELS
from uniemox.teacher import fitted
from uniemox.teacher.config import FitConfig
from uniemox.teacher.fitted import MAX_WORDS, SMALL, SMALL_CHANNELS, Architecture, FittedTeacher, words_of
from uniemox.teacher.fitting import fit_teacher, pair_loss, recalls
from uniemox.teacher.sources import TimmImageTower
from uniemox.training.journal import read_metrics

QUICK = FitConfig(width=8, image_size=36, views=1, epochs=2, batch_size=8, workers=0)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}


def architecture(*words: str) -> Architecture:
    return Architecture(
        network=SMALL,
        image_size=(36, 36),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        channels=SMALL_CHANNELS,
        width=8,
        words=words,
    )


def colours(folder: Path, each: int = 10) -> DataSet:
    """Images of one colour each, with texts that name it."""
    samples = []
    for name, colour in COLOURS.items():
        for i in range(each):
            path = folder / f"{name}{i}.jpg"
            shade = tuple(min(255, value + 2 * i) for value in colour)
            path.write_bytes(jpeg_of(Image.new("RGB", (48, 48), shade)))
            samples.append(Sample(key=path.name, image=ImageFile(path), text=f"An image. It is {name}."))
    return DataSet("colours", MIKELS, samples)


def plain_pair_loss(image: Tensor, text: Tensor, truth: Tensor, scale: float, bias: float) -> float:
    """The loss in numpy, one pair after the other."""
    a = image.double().numpy()
    b = text.double().numpy()
    weight = [sum(column) ** 0.75 for column in truth.T.tolist()]
    total = 0.0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            logit = scale * (x @ y) / np.linalg.norm(x) / np.linalg.norm(y) + bias
            sign = 1 if truth[i, j] else -1
            total += weight[j] * len(b) / sum(weight) * math.log(1 + math.exp(-sign * logit))
    return total / len(a)


def test_pair_loss_equals_its_plain_form() -> None:
    """Float64, 1e-9; if each text belongs to one image, it is SigLIP's loss."""
    torch.manual_seed(0)
    image, text = torch.randn(2, 5, 4, dtype=torch.float64)
    scale = torch.tensor(3.0, dtype=torch.float64)
    bias = torch.tensor(-2.0, dtype=torch.float64)
    truth = torch.eye(5, dtype=torch.bool)
    logits = 3 * torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T - 2
    siglip = -torch.nn.functional.logsigmoid((2 * torch.eye(5) - 1) * logits).sum() / 5
    torch.testing.assert_close(pair_loss(image, text, truth, scale, bias), siglip, rtol=1e-9, atol=0)
    truth[0, 3] = truth[3, 0] = truth[2, 1] = True
    loss = float(pair_loss(image, text, truth, scale, bias))
    assert loss == pytest.approx(plain_pair_loss(image, text, truth, 3.0, -2.0), rel=1e-9)


def test_recalls_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.0, 0.1, 0.2], [0.0, 0.1, 0.2]])
    truth = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]]).bool()
    assert recalls(similarity, truth) == {
        "recall_at_1": 0.5,
        "chance_at_1": pytest.approx((1 + 1 + 2 + 2) / 3 / 4),
        "recall_at_5": 1.0,
        "chance_at_5": 1.0,
    }


@given(st.integers(1, 9), st.integers(6, 12), st.integers(0, 99))
def test_chance_is_the_mean_over_all_orders(true: int, candidates: int, seed: int) -> None:
    true = min(true, candidates)
    truth = torch.arange(candidates)[None] < true
    expected = 1 - math.prod((candidates - true - i) / (candidates - i) for i in range(5))
    similarity = torch.rand(1, candidates, generator=torch.Generator().manual_seed(seed))
    scores = recalls(similarity, truth)
    assert scores["chance_at_5"] == pytest.approx(max(expected, 0))
    assert scores["chance_at_1"] == pytest.approx(true / candidates)
    assert scores["recall_at_5"] == float(bool((similarity.argsort(descending=True)[0, :5] < true).any()))


def test_words_of_a_text() -> None:
    assert words_of("") == []
    assert words_of("It's a Naïve_café, 3 PEOPLE!") == [
        *("it", "'", "s", "a", "naïve", "café", ",", "3", "people", "!")
    ]
    assert len(words_of("word " * 500)) == MAX_WORDS


def test_text_features_of_any_texts() -> None:
    teacher = FittedTeacher(architecture("a", "beach", "of", "photo"), {}).eval()
    plain, with_unknown, empty, reordered = teacher.text_features(["A photo.", "A nice PHOTO?", "", "photo a"])
    # Unknown words are ignored.
    assert torch.equal(plain, with_unknown)
    torch.testing.assert_close(plain, reordered)
    assert torch.isfinite(empty).all()
    assert not torch.equal(plain, empty)
    assert teacher.text_features([]).shape == (0, 8)
    alone = teacher.text_features(["a beach"])
    torch.testing.assert_close(teacher.text_features(["a beach", "a photo of a beach"])[:1], alone)
    long = "a photo " * 100
    assert torch.equal(teacher.text_features([long]), teacher.text_features([long + "beach"]))


def test_image_features_resize_and_normalise() -> None:
    teacher = FittedTeacher(architecture("a"), {}).eval()
    pixels = torch.rand(2, 3, 36, 36)
    expected = teacher.project(teacher.network((pixels - 0.5) / 0.25))
    torch.testing.assert_close(teacher.image_features(pixels), expected)
    assert teacher.image_features(torch.rand(3, 3, 90, 70), ["a", "b", "c"]).shape == (3, 8)
    with pytest.raises(TeacherError, match="divide by 255"):
        teacher.image_features(torch.zeros(1, 3, 36, 36, dtype=torch.uint8))


@pytest.mark.thorough
def test_a_fitted_teacher_matches_images_and_texts_and_is_loaded_unchanged(tmp_path: Path) -> None:
    data = colours(tmp_path)
    config = replace(QUICK, epochs=12, lr=5e-3)
    callback = Told()
    teacher = fit_teacher(data, config, tmp_path / "out", callback=callback)
    reading = {"reading held-out images": (4, 4), "reading images": (36, 36)}
    assert callback.last == reading | {"fitting": (48, 48), "hashing images": (40, 40)}
    figures = teacher.about["figures"]
    assert (teacher.about["pictures"], teacher.about["texts"], figures["pictures"]) == (36, 4, 4)
    assert figures["picture_to_text"]["recall_at_1"] == 1
    assert figures["picture_to_text"]["chance_at_1"] == pytest.approx(1 / figures["texts"])
    pixels = torch.tensor(list(COLOURS.values())).view(4, 3, 1, 1).expand(-1, -1, 40, 40) / 255
    image = torch.nn.functional.normalize(teacher.image_features(pixels))
    text = torch.nn.functional.normalize(teacher.text_features([f"It is {name}." for name in COLOURS]))
    assert (image @ text.T).argmax(1).tolist() == [0, 1, 2, 3]

    loaded = FittedTeacher.load(tmp_path / "out")
    assert torch.equal(loaded.image_features(pixels), teacher.image_features(pixels))
    assert torch.equal(loaded.text_features(["It is red."]), teacher.text_features(["It is red."]))
    assert loaded.width == 8
    assert loaded.about == json.loads(json.dumps(teacher.about))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_same_seed_gives_the_same_teacher(tmp_path: Path) -> None:
    data = colours(tmp_path, each=6)
    torch.manual_seed(1)
    first = fit_teacher(data, QUICK, tmp_path / "out")
    torch.manual_seed(2)
    again = fit_teacher(data, replace(QUICK, workers=2), tmp_path / "out")  # over the first, which is a teacher
    other = fit_teacher(data, replace(QUICK, seed=1), tmp_path / "other")
    assert not torch.equal(first.project.weight, other.project.weight)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_resumed_fit_gives_the_same_bits(tmp_path: Path) -> None:
    data = colours(tmp_path, each=6)
    uninterrupted = fit_teacher(data, QUICK, tmp_path / "uninterrupted")
    with pytest.raises(StoppedError, match="--resume continues"):
        fit_teacher(data, QUICK, tmp_path / "out", callback=Told(stop_after=2))
    assert not (tmp_path / "out" / "teacher.json").exists()
    with pytest.raises(ConfigError, match="add --resume"):
        fit_teacher(data, QUICK, tmp_path / "out")
    resumed = fit_teacher(data, QUICK, tmp_path / "out", resume=True)
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed.about == uninterrupted.about
    lines = [read_metrics(tmp_path / folder / "fit") for folder in ("uninterrupted", "out")]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert len(lines[0]) == 4
    with pytest.raises(ConfigError, match="began with other settings: lr"):
        fit_teacher(data, replace(QUICK, lr=1e-3), tmp_path / "out", resume=True)


def test_a_frozen_tower_is_not_trained(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    source = f"timm:test_resnet@{tmp_path}/weights.safetensors"
    config = replace(QUICK, image_size=None, image_tower=source, epochs=20, batch_size=16)
    teacher = fit_teacher(colours(tmp_path), config, tmp_path / "out")
    # The teacher's folder contains the tower.
    (tmp_path / "weights.safetensors").unlink()
    loaded = FittedTeacher.load(tmp_path / "out")
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])
    tower = TimmImageTower(network)
    pixels = torch.rand(2, 3, 50, 50)
    expected = loaded.project(tower.image_features(pixels))
    torch.testing.assert_close(loaded.image_features(pixels), expected)
    torch.testing.assert_close(teacher.image_features(pixels), expected)
    assert teacher.about["figures"]["picture_to_text"]["recall_at_1"] >= 0.75


def test_every_text_of_an_image_counts_and_broken_images_are_left_out(tmp_path: Path) -> None:
    data = colours(tmp_path, each=6)
    (tmp_path / "red0.jpg").write_bytes(b"no image")
    twice = [replace(sample, key=f"{sample.key}#2", text="Another text.") for sample in data.samples]
    silent = [replace(sample, key=f"silent{i}", text=" ") for i, sample in enumerate(data.samples)]
    teacher = fit_teacher(replace(data, samples=[*data.samples, *twice, *silent]), QUICK, tmp_path / "out")
    about = teacher.about
    assert (about["broken"], about["texts"]) == (1, 5)
    assert about["pictures"] + about["figures"]["pictures"] == 23
    assert {"another", "white", "."} <= set(teacher.architecture.words)
    with pytest.raises(DataError, match="more than the 0 that may be left out"):
        fit_teacher(data, replace(QUICK, max_unreadable=0), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_data_settings_and_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    silent = replace(synthetic(64), samples=[replace(sample, text=None) for sample in synthetic(64).samples])
    with pytest.raises(DataError, match=says("synthetic:64: 0 of its images", "uniemox data describe synthetic:64")):
        fit_teacher(silent, QUICK, tmp_path / "out")
    with pytest.raises(ConfigError, match="do not fill a batch of 100"):
        fit_teacher(synthetic(64), replace(QUICK, batch_size=100), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    for path in (tmp_path / "full", tmp_path / "full" / "thesis.tex"):
        with pytest.raises(TeacherError, match="other files than a teacher"):
            fit_teacher(synthetic(64), QUICK, path)
    with pytest.raises(TeacherError, match="expected an image tower"):
        fit_teacher(synthetic(64), replace(QUICK, image_size=None, image_tower="onnx:x"), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"image_size": 8}, "image_size must be a multiple of 12"),
        ({"image_size": 64, "image_tower": "timm:resnet18"}, "not be given with image_tower"),
        ({"max_unreadable": -1}, "max_unreadable must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitConfig(**change)


def test_folders_that_hold_no_teacher_are_refused(tmp_path: Path) -> None:
    FittedTeacher(architecture("a"), {"data": "x"}).save(tmp_path / "good")
    description = json.loads((tmp_path / "good" / "teacher.json").read_text())
    assert FittedTeacher.load(tmp_path / "good").architecture == architecture("a")
    with pytest.raises(TeacherError, match=says(tmp_path / "no" / "teacher.json", "uniemox teacher fit")):
        FittedTeacher.load(tmp_path / "no")
    changed = {**description, "architecture": {**description["architecture"], "words": ["a", "b"]}}
    unknown = {**description, "architecture": {**description["architecture"], "network": "resnet_nope"}}
    for content, message in [
        ("{", "not JSON .*; write a teacher with uniemox teacher fit"),
        ("[]", "expected an object, got a list"),
        (json.dumps({**description, "format": 2}), "field format: expected a known value, got 2"),
        (json.dumps({**description, "architecture": {}}), r"field architecture\.network is missing"),
        (json.dumps(changed), "has no weights of this teacher"),
        (json.dumps(unknown), "no model 'resnet_nope'"),
    ]:
        (tmp_path / "good" / "teacher.json").write_text(content)
        with pytest.raises(TeacherError, match=message):
            FittedTeacher.load(tmp_path / "good")
    (tmp_path / "good" / "teacher.json").write_text(json.dumps(description))
    weights = (tmp_path / "good" / "teacher.safetensors").read_bytes()
    for content in (b"", weights[: len(weights) // 2]):
        (tmp_path / "good" / "teacher.safetensors").write_bytes(content)
        with pytest.raises(TeacherError, match="has no weights of this teacher"):
            FittedTeacher.load(tmp_path / "good")


def test_a_description_is_checked_before_memory_is_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FittedTeacher(architecture("a"), {}).save(tmp_path)
    about = json.loads((tmp_path / "teacher.json").read_text())
    # Must not be reached.
    monkeypatch.setattr(fitted, "load_file", None)
    for change in (
        {"width": 3000},
        {"width": 2**40},
        {"channels": 2**50},
        {"width": -1},
        {"width": 10**30},
        {"image_size": [6 * 10**6] * 2},
        {"image_size": [37, 37]},
        {"network": "vit_giant_patch14_dinov2"},
        {"network": ",".join(["vit_giant_patch14_dinov2"] * 1000)},
    ):
        (tmp_path / "teacher.json").write_text(json.dumps(about | {"architecture": about["architecture"] | change}))
        with pytest.raises(TeacherError, match="has no weights of this teacher"):
            FittedTeacher.load(tmp_path)


def run(*arguments: object) -> None:
    teacher_command([str(argument) for argument in arguments], exit_on_error=False, result_action="return_none")


@pytest.mark.thorough
def test_the_command_uses_the_training_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--epochs", 1, "--image-size", 36, "--batch-size", 8, "--width", 12)
    run("fit", "--data", "synthetic:160", "--out", tmp_path / "t", *small, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == str(tmp_path / "t")
    assert result["pictures"] + result["figures"]["pictures"] == sum(s.split == "train" for s in synthetic(160).samples)
    assert result["config"]["seed"] == 0
    assert {key: value for key, value in result.items() if key != "folder"} == FittedTeacher.load(tmp_path / "t").about
    run("fit", "--data", "synthetic:400", "--out", tmp_path / "t", *small, "--split", "val")
    output = capsys.readouterr().out
    assert output.startswith(f"wrote {tmp_path}/t: of 4 held-out images ")
    assert "(by chance 25.0%)" in output
    with pytest.raises(DataError, match=says("no samples of split tset", "test, train, val")):
        run("fit", "--data", "synthetic:160", "--out", tmp_path / "t", "--split", "tset")
