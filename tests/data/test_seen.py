"""What anything on the way to a classifier has seen is not scored: each chain, from its first link to `evaluate`."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.data.tree import says
from tests.drawn import class_folders
from tests.runs import CPU, SPLITS, colours, finetuned, pretrained, teacher, tiny_finetuning, tiny_pretraining
from uniemox.checkpoints.saving import convert
from uniemox.data.people import detect_persons
from uniemox.data.sample import DataSet
from uniemox.data.seen import (
    OTHERS,
    SEEN,
    hashes_of,
    read_seen,
    refuse_seen,
    seen_by,
    seen_file,
    write_hashes,
    write_seen,
)
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import DataError
from uniemox.evaluate.run import evaluate
from uniemox.finetune.run import finetune
from uniemox.io.parallel import PoolConfig
from uniemox.io.weight_names import file_in_package
from uniemox.persons.box import Box, Detection
from uniemox.pretrain.config import TeacherConfig
from uniemox.pretrain.run import pretrain
from uniemox.teacher.config import FitConfig
from uniemox.teacher.features import save_features
from uniemox.teacher.fitted import FittedTeacher
from uniemox.teacher.fitting import fit_teacher

REFUSED = "through its parts (pre-training, teacher, joined runs, person detector)"


def described(data: DataSet) -> DataSet:
    """Texts that end in the label, as the paper has them."""
    notes = [{"brightness": 0.5, "emotion": data.label_of(sample)} for sample in data.samples]
    samples = [replace(s, text="A photo.", annotation=note) for s, note in zip(data.samples, notes, strict=True)]
    return replace(data, samples=samples)


def fitted(folder: Path, data: DataSet, **config: Any) -> Path:
    fit_teacher(data, FitConfig(width=8, image_size=48, epochs=1, batch_size=8, views=1, workers=0, **config), folder)
    return folder


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
def test_images_of_the_teacher_are_refused_after_pre_training_and_fine_tuning(tmp_path: Path) -> None:
    """As with `teacher fit` without --splits: it read all images, their labels in words among them."""
    data = described(colours(splits=SPLITS))
    folder = fitted(tmp_path / "teacher", data)
    assert read_seen(folder) == hashes_of(data.samples)
    train = data.only("train")
    config = tiny_pretraining(teacher=TeacherConfig(source=f"fitted:{folder}", view="whole"))
    pretrain(config, train, tmp_path / "pre")
    assert read_seen(tmp_path / "pre") == read_seen(folder)
    finetune(tiny_finetuning(tmp_path / "pre", method="knn"), data, tmp_path / "run")
    start = f"its initial weights, {tmp_path / 'pre'}, were trained on all 12: take other test images"
    with pytest.raises(DataError, match=says("12 of these 12 images", REFUSED, start)):
        evaluate(tmp_path / "run", data.only("test"), hardware=CPU)
    assert evaluate(tmp_path / "run", data.only("test"), allow_seen=True, hardware=CPU).scores.n == 12
    fitted(tmp_path / "teacher", train)
    pretrain(config, train, tmp_path / "again")
    finetune(tiny_finetuning(tmp_path / "again", method="knn"), data, tmp_path / "fair")
    assert evaluate(tmp_path / "fair", data.only("test"), hardware=CPU).scores.n == 12


def test_pre_training_without_teacher_losses_ignores_the_teachers_images(tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    config = tiny_pretraining()
    losses = replace(config.model.losses, contrastive_feature_alignment=0.0, semantic_visual_alignment=0.0)
    folder = fitted(tmp_path / "teacher", described(data))
    config = replace(
        config,
        model=replace(config.model, losses=losses, fusion=None),
        teacher=TeacherConfig(source=f"fitted:{folder}", view="whole"),
    )
    pretrain(config, data.only("train"), tmp_path / "pre")
    assert read_seen(tmp_path / "pre") == hashes_of(data.only("train").samples)


def test_stored_features_carry_the_hashes_of_their_teacher(tmp_path: Path) -> None:
    hashes = {"ab" * 32, "cd" * 32}
    features = {"image_features": torch.ones(1, 4), "text_features": torch.ones(1, 4)}
    save_features(tmp_path / "f.npz", image_keys=["a"], texts=["t"], **features, trained_on=hashes)
    assert seen_by(f"stored:{tmp_path}/f.npz") == hashes
    assert seen_by(f"stored:{teacher()}") == set()
    assert seen_by(f"stored:{tmp_path}/missing.npz") == set()


def test_features_stored_by_a_run_carry_the_hashes_of_their_teacher(tmp_path: Path) -> None:
    data = described(colours(splits=SPLITS))
    folder = fitted(tmp_path / "teacher", data)
    config = tiny_pretraining(teacher=TeacherConfig(source=f"fitted:{folder}", view="whole"))
    pretrain(config, data.only("train"), tmp_path / "pre")
    (tmp_path / "pre" / "teacher_features.npz").rename(tmp_path / "elsewhere.npz")
    assert seen_by(f"stored:{tmp_path}/elsewhere.npz") == hashes_of(data.samples)


@pytest.mark.parametrize(
    ("splits", "remedy"),
    [
        (("train", "test"), "use a split without them (--split test, data.only('test') in Python); if these"),
        (("test", "test"), "test was not held out of its training; use another split (--split), or the right splits"),
        ((None, None), "use images of a split that was held out (--splits FILE, the same for every command, or RUN/"),
    ],
)
def test_advice_about_training_images_fits_the_splits_of_the_data(splits: tuple[str | None, ...], remedy: str) -> None:
    samples = [replace(sample, split=split) for sample, split in zip(synthetic(2).samples, splits, strict=True)]
    with pytest.raises(DataError, match=re.escape(f"calibrated on them: {remedy}")):
        refuse_seen(samples, ["0", "1"], {"0"}, "mine")


@pytest.mark.parametrize(
    ("seen_by_model", "remedy"),
    [
        ({"0", "1"}, "calibrated on them: its initial weights, {start}, were trained on all 2: take other"),
        (
            {"0", "1", "2"},
            "RUN/splits.json if the run made the splits); its initial weights, {start}, were trained on 2",
        ),
        ({"2"}, "calibrated on them: train was not held out of its training; use another split"),
    ],
)
def test_advice_about_training_images_names_the_initial_weights(
    seen_by_model: set[str], remedy: str, tmp_path: Path
) -> None:
    """Splits of the run can't help against images that its initial weights have seen."""
    write_hashes(tmp_path / SEEN, ["0", "1"])
    with pytest.raises(DataError, match=re.escape(remedy.format(start=tmp_path))):
        refuse_seen(synthetic(3).samples, ["0", "1", "2"], seen_by_model, "mine", start=str(tmp_path))
    if seen_by_model == {"2"}:
        with pytest.raises(DataError) as caught:
            refuse_seen(synthetic(3).samples, ["0", "1", "2"], seen_by_model, "mine", start=str(tmp_path))
        assert "initial weights" not in str(caught.value)


@pytest.mark.parametrize("start", ["x" * 5000, "a\0b"])
def test_a_record_with_an_impossible_name_of_initial_weights_gives_the_other_advice(start: str) -> None:
    samples = [replace(sample, split="test") for sample in synthetic(2).samples]
    with pytest.raises(DataError, match="test was not held out of its training"):
        refuse_seen(samples, ["0", "1"], {"0"}, "mine", start=start)


@pytest.mark.parametrize(
    "name", ["{run}", "{run}/encoder.safetensors", "timm:vit@{run}/encoder.safetensors", "a.pth,{run}"]
)
def test_hashes_of_a_run_are_read_for_every_name_of_its_weights(name: str) -> None:
    assert seen_by(name.format(run=pretrained())) == read_seen(pretrained()) != set()


@pytest.mark.parametrize("name", ["", "scratch:{run}", "timm:resnet18", "clip:ViT-B-16@openai", "mae.pth"])
def test_random_and_foreign_weights_have_no_hashes(name: str) -> None:
    assert seen_by(name.format(run=pretrained())) == set()


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.usefixtures("without_onnx")
def test_joined_runs_carry_the_hashes_of_each(tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    runs = [tmp_path / "a", tmp_path / "b"]
    for run, start in zip(runs, (pretrained(), finetuned("knn")), strict=True):
        finetune(tiny_finetuning(start, method="probe"), data, run)
    write_hashes(runs[1] / "training_pictures.txt", read_seen(runs[1]) | hashes_of(data.only("test").samples))
    finetune(tiny_finetuning(",".join(map(str, runs)), method="mean"), data, tmp_path / "mean")
    with pytest.raises(DataError, match=says("12 of these 12 images")):
        evaluate(tmp_path / "mean", data.only("test"), hardware=CPU)


def test_a_model_of_ours_without_hashes_has_unknown_training_images(tmp_path: Path) -> None:
    """Whatever starts from it, or learns from it, has so, too."""
    run = tmp_path / "run"
    shutil.copytree(pretrained(), run)
    (run / SEEN).unlink()
    assert seen_by(str(run)) == seen_by(f"timm:vit@{run}/encoder.safetensors") == {OTHERS}
    convert(run / "encoder.safetensors", tmp_path / "alone.safetensors")
    assert seen_by(str(tmp_path / "alone.safetensors")) == {OTHERS}
    finetune(tiny_finetuning(run, method="knn"), colours(splits=SPLITS), tmp_path / "tuned")
    assert OTHERS in read_seen(tmp_path / "tuned")


def test_hashes_beside_the_model_of_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"")
    write_hashes(seen_file(tmp_path / "other.safetensors"), ["ab"])
    assert read_seen(tmp_path) == seen_by(f"timm:local-dir:{tmp_path}") == {"ab"}
    # Of a folder of ours, the hashes of its own model count, and those of other files there do not.
    (tmp_path / "model.onnx").write_bytes(b"")
    assert read_seen(tmp_path) == set()
    write_hashes(seen_file(tmp_path / "model.onnx"), ["cd"])
    assert read_seen(tmp_path) == {"cd"}


def test_a_model_in_the_folder_of_another_one_has_unknown_training_images(tmp_path: Path) -> None:
    write_hashes(tmp_path / SEEN, ["ab"])
    for name in ("b.onnx", "model.b.onnx", "encoder.2.safetensors"):
        assert read_seen(tmp_path / name) == {"ab", OTHERS}
    for name in ("model.onnx", "model.safetensors", "encoder.safetensors"):
        assert read_seen(tmp_path / name) == {"ab"}


def test_an_encoder_of_ours_is_recognised_by_its_metadata(tmp_path: Path) -> None:
    shutil.copy(pretrained() / "encoder.safetensors", tmp_path / "mine.safetensors")
    assert seen_by(f"timm:vit@{tmp_path}/mine.safetensors") == {OTHERS}
    save_file({"a": torch.ones(1)}, tmp_path / "published.safetensors", {"format": "pt"})
    assert seen_by(str(tmp_path / "published.safetensors")) == set()


def test_a_source_that_was_trained_anew_counts_in_a_restarted_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start = tmp_path / "start"
    for folder in (run, start):
        folder.mkdir()
    data = open_data(f"folder:{class_folders(tmp_path / 'a')}")
    for digest in ("ab", "cd"):
        write_hashes(start / SEEN, [digest])
        write_seen(run, data, [str(start)])
    assert read_seen(run) == hashes_of(data.samples) | {"ab", "cd"}


def test_images_of_a_folder_that_took_the_place_of_another_one_count_as_seen(tmp_path: Path) -> None:
    """Moving a folder leaves the times of its files unchanged."""
    first = class_folders(tmp_path / "a")
    class_folders(tmp_path / "b", ("fear", "awe"))
    for path in (tmp_path / "b").rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"other")
    later = hashes_of(open_data(f"folder:{tmp_path / 'b'}").samples)
    run = tmp_path / "run"
    run.mkdir()
    write_seen(run, open_data(f"folder:{first}"), [])
    before = read_seen(run)
    first.rename(tmp_path / "gone")
    (tmp_path / "b").rename(first)
    write_seen(run, open_data(f"folder:{first}"), [])
    assert read_seen(run) == before | later


def test_converted_weights_carry_their_hashes(tmp_path: Path) -> None:
    convert(pretrained() / "encoder.safetensors", tmp_path / "alone.safetensors")
    assert seen_by(str(tmp_path / "alone.safetensors")) == read_seen(pretrained())


def test_packed_images_are_refused_by_the_hash_of_their_original(tmp_path: Path) -> None:
    data = described(colours(splits=SPLITS))
    write_shards(data, tmp_path / "shards", ShardConfig(short_side_px=20, pool=PoolConfig(workers=1)))
    packed = open_data(f"shards:{tmp_path}/shards")
    folder = fitted(tmp_path / "teacher", packed)
    assert read_seen(folder) >= hashes_of(data.samples)
    with pytest.raises(DataError, match="of these 12 images of shards:"):
        evaluate(
            finetuned("both"), replace(packed.only("test"), detector_seen=frozenset(read_seen(folder))), hardware=CPU
        )


class Finder:
    """Finds one person in every image."""

    name = "finder.onnx"
    fingerprint = "0" * 16

    def detect(self, images: list[Image.Image]) -> list[tuple[Detection, ...]]:
        return [(Detection(Box(1, 1, 9, 9), 0.9),)] * len(images)


def test_training_images_of_the_person_detector_are_refused(tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    folder = tmp_path / "photos"
    for sample in data.samples:
        file = folder / str(sample.split) / sample.key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(sample.image.read())
    on_disk = open_data(f"fi:{folder}")
    detect_persons(on_disk, Finder, folder / "persons.jsonl", training_hashes=hashes_of(on_disk.only("test").samples))
    with_people = open_data(f"fi:{folder}")
    assert with_people.detector_seen == hashes_of(on_disk.only("test").samples)
    with pytest.raises(DataError, match=says("12 of these 12 images", "person detector")):
        evaluate(finetuned("both"), with_people.only("test"), hardware=CPU)
    write_shards(with_people, tmp_path / "shards", ShardConfig(pool=PoolConfig(workers=1)))
    assert open_data(f"shards:{tmp_path}/shards").detector_seen == with_people.detector_seen
    assert seen_file(folder / "persons.jsonl").is_file()


def test_a_list_of_hashes_is_sorted(tmp_path: Path) -> None:
    """So the same images give the same file, whatever the order of a set."""
    hashes = {f"{i * 7 % 10}" * 64 for i in range(10)}
    write_hashes(tmp_path / "list.txt", hashes)
    assert (tmp_path / "list.txt").read_text().split() == sorted(hashes)


def test_damaged_list_of_hashes_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "training_pictures.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=says(tmp_path / "training_pictures.txt", "not a list of hashes")):
        read_seen(tmp_path)


def test_teacher_fitted_without_the_emotion_has_no_label_words(tmp_path: Path) -> None:
    data = described(colours(splits=SPLITS))
    with_label = FittedTeacher.load(fitted(tmp_path / "with", data))
    without = FittedTeacher.load(fitted(tmp_path / "without", data, with_emotion=False))
    assert {"amusement", "emotion"} <= set(with_label.architecture.words)
    assert not {"amusement", "emotion"} & set(without.architecture.words)
    assert without.about["config"]["with_emotion"] is False
    assert np.isfinite(without.text_features(["A moderately bright photo."]).numpy()).all()


@pytest.mark.parametrize("name", ["embedded", "small"])
def test_training_images_of_the_packages_models_are_known(name: str) -> None:
    hashes = read_seen(file_in_package(Path(name)))
    assert len(hashes) > 10_000
    assert OTHERS not in hashes
