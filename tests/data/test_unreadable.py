"""Images that can't be read: what is hashed, listed, warned of and refused, in every kind of run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tests.data.tree import says
from tests.drawn import Stored
from tests.runs import CPU, L1, PLAIN, colours, pretrained, tiny_finetuning, tiny_pretraining
from uniemox.classifier_info import PersonPolicy
from uniemox.data.hashes import decoded_hashes, image_hashes
from uniemox.data.sample import DataSet
from uniemox.data.seen import hashes_of, read_seen, refuse_seen, write_seen
from uniemox.data.unreadable import (
    UNREADABLE_FILE,
    describe_unreadable,
    lost_by_class,
    read_unreadable,
    refuse_empty_classes,
    write_unreadable,
)
from uniemox.errors import DataError
from uniemox.evaluate.recalibration import recalibrate
from uniemox.evaluate.run import evaluate
from uniemox.finetune.fitted_parts import adjust_logits
from uniemox.finetune.run import finetune
from uniemox.finetune.run_state import FinetuneRun
from uniemox.persons.box import Box
from uniemox.pretrain.run import pretrain
from uniemox.training.callback import Callback

SPLITS = {"train": 6, "val": 2, "test": 3}


class Notes(Callback):
    """Keeps what a run tells its user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def with_broken(data: DataSet, rows: Sequence[int], content: bytes = b"") -> DataSet:
    """The data set with other files at these rows."""
    samples = list(data.samples)
    for row in rows:
        samples[row] = replace(samples[row], image=Stored(content))
    return replace(data, samples=samples)


def rows_of(data: DataSet, split: str | None, class_number: int) -> list[int]:
    """Rows of one of the classes that the data have."""
    label = sorted({sample.label for sample in data.samples if sample.label is not None})[class_number]
    return [i for i, sample in enumerate(data.samples) if sample.split == split and sample.label == label]


def test_only_decoded_images_are_hashed() -> None:
    """An empty file, and one that is cut off, have no hash, and are not among the images that a model has seen."""
    data = colours(splits=SPLITS)
    hashes = image_hashes(data.samples)
    cut_off = data.samples[1].image.read()[:60]
    broken = with_broken(with_broken(data, [0]), [1], cut_off)
    digests, unreadable = decoded_hashes(broken.samples)
    assert digests == ["", "", *hashes[2:]]
    assert [sample.key for sample in unreadable] == [sample.key for sample in data.samples[:2]]
    assert all(sample.reason for sample in unreadable)
    assert hashes_of(broken.samples) == set(hashes[2:])


def test_identical_unreadable_files_are_not_seen_images() -> None:
    """Also for a run from before: its list has the hash of the empty file."""
    data = with_broken(colours(splits=SPLITS), [0])
    [empty] = image_hashes(data.samples[:1])
    refuse_seen(data.samples, image_hashes(data.samples), {empty}, "data")
    with pytest.raises(DataError, match="trained on 1 of these"):
        refuse_seen(data.samples, image_hashes(data.samples), {empty, image_hashes(data.samples)[1]}, "data")


def test_list_survives_writing_and_damaged_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / UNREADABLE_FILE
    broken = {"ä/1.jpg": "cut\noff", "2\u2028.jpg": "empty", "caf\udce9.jpg": "no image"}
    write_unreadable(path, broken)
    assert read_unreadable(path) == broken
    write_unreadable(path, {})
    assert not path.exists()
    assert read_unreadable(path) == {}
    path.write_text('{"key": 1}')
    with pytest.raises(DataError, match=says(path)):
        read_unreadable(path)


def test_description_lists_unreadable_images() -> None:
    assert describe_unreadable({}) == []
    assert describe_unreadable({"a": "empty"}) == ["left out 1 image that can't be read:", "  a: empty"]
    lines = describe_unreadable({f"{i}": "empty" for i in range(23)}, Path("run/unreadable.jsonl"))
    assert lines[0] == "left out 23 images that can't be read; see run/unreadable.jsonl:"
    assert (lines[-1], len(lines)) == ("  and 3 more", 22)


def test_classes_that_lose_images_are_named() -> None:
    """From more than a twentieth on; a class without any readable image is refused for training."""
    data = colours(each=20)
    of_class = [[data.samples[row].key for row in rows_of(data, None, class_number)] for class_number in range(4)]
    keys = [*of_class[1][:1], *of_class[2][:2], *of_class[3]]
    broken = {key: f"{key}: empty" for key in keys}
    names = [
        data.labels.labels[class_number] for class_number in sorted({sample.label or 0 for sample in data.samples})
    ]
    assert lost_by_class(data.samples, broken, data.labels, "training") == [
        f"training loses 2 of 20 images of {names[2]} (10%), which can't be read",
        f"training has no readable image of {names[3]}: all 20 can't be read",
    ]
    with pytest.raises(DataError, match=rf"no readable training image of {names[3]} \(20 images\): {of_class[3][0]}"):
        refuse_empty_classes(data.samples, broken, data.labels, "colours")
    refuse_empty_classes(data.samples, dict.fromkeys(keys[:3], "empty"), data.labels, "colours")


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("method", ["full", "probe", "knn", "histogram"])
def test_fine_tuning_lists_unreadable_images(method: str, tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    rows = [rows_of(data, "train", 0)[0], rows_of(data, "val", 1)[0]]
    broken = with_broken(data, rows)
    notes = Notes()
    init = "" if method == "histogram" else pretrained()
    finetune(tiny_finetuning(init, method=method, batch_size=8), broken, tmp_path / "run", callback=notes)
    listed = read_unreadable(tmp_path / "run" / UNREADABLE_FILE)
    assert set(listed) == {data.samples[row].key for row in rows}
    for key, reason in listed.items():
        assert f"  {key}: {reason}" in notes.lines
    assert any(line.startswith("training loses 1 of 6 images") for line in notes.lines)
    readable = [sample for i, sample in enumerate(data.samples) if i not in rows and sample.split != "test"]
    training_hashes = set(image_hashes(readable)) | (set() if method == "histogram" else read_seen(pretrained()))
    assert read_seen(tmp_path / "run") == training_hashes


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("method", ["full", "probe"])
def test_a_class_without_readable_training_images_is_refused(method: str, tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    rows = rows_of(data, "train", 2)
    notes = Notes()
    config = tiny_finetuning(pretrained(), method=method, batch_size=8)
    label = data.labels.labels[data.samples[rows[0]].label or 0]
    with pytest.raises(DataError, match=f"no readable training image of {label}"):
        finetune(config, with_broken(data, rows), tmp_path / "run", callback=notes)
    assert set(read_unreadable(tmp_path / "run" / UNREADABLE_FILE)) == {data.samples[row].key for row in rows}
    assert len(notes.lines) == 1 + len(rows)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_pre_training_lists_unreadable_images(tmp_path: Path) -> None:
    data = colours(splits=SPLITS).only("train")
    notes = Notes()
    config = tiny_pretraining(max_unreadable=1)
    config = replace(config, model=replace(config.model, losses=L1, fusion=None))
    pretrain(config, with_broken(data, [3]), tmp_path / "run", callback=notes)
    assert list(read_unreadable(tmp_path / "run" / UNREADABLE_FILE)) == [data.samples[3].key]
    assert notes.lines[-1].startswith(f"  {data.samples[3].key}: ")
    assert len(read_seen(tmp_path / "run")) == len(data) - 1


def test_evaluation_and_calibration_name_unreadable_images(tmp_path: Path) -> None:
    data = colours(each=10)
    rows = [0]
    broken = with_broken(data, rows)
    key = data.samples[rows[0]].key
    result = evaluate(Path("small"), broken, hardware=CPU)
    assert list(result.unreadable) == [key]
    assert result.as_dict()["unreadable"] == [{"key": key, "reason": result.unreadable[key]}]
    assert any(note.startswith("the scored part loses 1 of 10 images") for note in result.notes)
    json.dumps(result.as_dict())
    fitted = recalibrate("small", broken, tmp_path / "mine.onnx")
    assert list(fitted.unreadable) == [key]
    assert read_seen(tmp_path / "mine.onnx") >= set(image_hashes(data.samples[1:]))
    assert image_hashes(broken.samples[:1])[0] not in read_seen(tmp_path / "mine.onnx")


def test_repaired_images_are_read_again_and_count_as_seen(tmp_path: Path) -> None:
    """Otherwise a run stays refused after its files are restored, and a resumed one trains on images unseen."""
    data = colours()
    damaged = with_broken(data, [2, 3], b"no image")
    assert set(write_seen(tmp_path, damaged, [])) == {data.samples[2].key, data.samples[3].key}
    before = read_seen(tmp_path)
    half_repaired = with_broken(data, [3], b"no image")
    assert set(write_seen(tmp_path, half_repaired, [])) == {data.samples[3].key}
    assert set(read_unreadable(tmp_path / UNREADABLE_FILE)) == {data.samples[3].key}
    assert read_seen(tmp_path) - before == hashes_of([data.samples[2]])
    assert write_seen(tmp_path, data, []) == {}
    assert not (tmp_path / UNREADABLE_FILE).exists()
    assert read_seen(tmp_path) == hashes_of(data.samples)


@pytest.mark.usefixtures("without_onnx")
def test_refused_run_starts_after_its_images_are_restored(tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    config = tiny_finetuning(pretrained(), method="knn", max_unreadable=0)
    with pytest.raises(DataError, match="can't be read"):
        finetune(config, with_broken(data, [0]), tmp_path / "run")
    finetune(config, data, tmp_path / "run")
    assert not (tmp_path / "run" / UNREADABLE_FILE).exists()


@pytest.mark.usefixtures("without_onnx")
def test_class_frequencies_are_those_of_readable_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are scikit-learn's on the readable images, and the adjusted bias is the log of their shares."""
    data = colours(splits=SPLITS)
    rows = rows_of(data, "train", 0)[:3]
    runs: list[FinetuneRun] = []
    monkeypatch.setattr("uniemox.finetune.run.fit_distance", runs.append)
    config = tiny_finetuning(
        pretrained(), method="probe", batch_size=8, class_weighting="balanced", logit_adjustment=1.0, augment=PLAIN
    )
    finetune(config, with_broken(data, rows), tmp_path / "run")
    labels = [sample.label or 0 for i, sample in enumerate(data.samples) if sample.split == "train" and i not in rows]
    present = sorted(set(labels))
    weights = runs[0].objective.class_weights
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.array(present), y=labels)
    np.testing.assert_allclose(weights[present], expected, rtol=1e-6)
    head: Any = runs[0].model.head
    adjusted = head.bias.detach().clone()
    adjust_logits(runs[0])
    shares = np.bincount(labels, minlength=8)[present] / len(labels)
    np.testing.assert_allclose((adjusted - head.bias.detach())[present], np.log(shares), rtol=1e-4)


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("policy", ["largest", "second_crop"])
def test_a_target_outside_of_the_image_is_unreadable_where_the_view_needs_it(
    policy: PersonPolicy, tmp_path: Path
) -> None:
    data = colours(splits=SPLITS)
    rows = rows_of(data, "train", 2)
    label = data.labels.labels[data.samples[rows[0]].label or 0]
    samples = list(data.samples)
    for row in rows:
        samples[row] = replace(samples[row], target_box=Box(500, 500, 600, 600))
    outside = replace(data, samples=samples)
    config = tiny_finetuning(pretrained(), method="probe", batch_size=8)
    config = replace(config, view=replace(config.view, person=policy))
    if policy == "second_crop":  # it reads no target
        finetune(config, outside, tmp_path / "run")
        assert hashes_of(data.only("train").samples) <= read_seen(tmp_path / "run")
        return
    with pytest.raises(DataError, match=f"no readable training image of {label}"):
        finetune(config, outside, tmp_path / "run")
    assert set(read_unreadable(tmp_path / "run" / UNREADABLE_FILE)) == {data.samples[row].key for row in rows}
    assert not read_seen(tmp_path / "run") & hashes_of([data.samples[row] for row in rows])


def notes_without(split: str, tmp_path: Path) -> tuple[str, list[str]]:
    """Train without the images of one class in a split; return the class and all notes."""
    data = colours(splits=SPLITS)
    first = data.samples[rows_of(data, split, 1)[0]]
    remaining = [sample for sample in data.samples if (sample.label, sample.split) != (first.label, split)]
    notes = Notes()
    config = tiny_finetuning(pretrained(), method="probe", batch_size=8)
    finetune(config, replace(data, samples=remaining), tmp_path / "run", callback=notes)
    return str(data.label_of(first)), notes.lines


@pytest.mark.usefixtures("without_onnx")
def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    name, notes = notes_without("train", tmp_path)
    [line] = [line for line in notes if "has no training image of" in line]
    assert name in line
    # That it is not held out either, or is, says nothing more.
    assert not [line for line in notes if "no held-out image has" in line and name in line]


@pytest.mark.usefixtures("without_onnx")
def test_a_class_without_held_out_images_is_named(tmp_path: Path) -> None:
    name, notes = notes_without("val", tmp_path)
    [line] = [line for line in notes if "no held-out image has these classes" in line]
    absent = line.removeprefix("no held-out image has these classes: ").partition(";")[0]
    assert absent == name
