"""Samples that train and samples that are held out: never the same, never those of the test split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import colours, pretrained, tiny_finetuning
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.seen import SEEN, hashes_of, write_hashes
from uniemox.data.split_files import read_splits
from uniemox.errors import DataError
from uniemox.finetune.config import FinetuneConfig, NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.finetune.overlaps import find_overlaps
from uniemox.finetune.parts import note_without_target, split_for_training
from uniemox.finetune.run import finetune
from uniemox.finetune.run_state import FinetuneRun
from uniemox.io.run_files import SPLITS
from uniemox.training.callback import Callback


def keys(samples: list[Sample]) -> set[str]:
    return {sample.key for sample in samples}


def of(data: DataSet, **config: Any) -> tuple[set[str], set[str]]:
    parts = split_for_training(data, FinetuneConfig(**config), None)
    assert len(keys(parts.train)) == len(parts.train)
    held_out = keys(parts.selection) | keys(parts.calibration)
    assert keys(parts.samples) == keys(parts.train) | held_out
    return keys(parts.train), held_out


def named(data: DataSet, split: str) -> set[str]:
    return keys([sample for sample in data.samples if sample.split == split])


def test_images_without_a_target_are_counted() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    assert note_without_target(data, FinetuneConfig()) is None
    samples = [replace(sample, label=None) if i in (3, 5) else sample for i, sample in enumerate(data.samples)]
    said = note_without_target(replace(data, samples=samples), FinetuneConfig())
    assert said is not None
    assert said.startswith(f"2 of {len(samples)} images are not used, such as {samples[3].key}: no label of the set")


def test_val_is_held_out_if_there_is_a_test_split() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    assert of(data) == (named(data, "train"), named(data, "val"))


@pytest.mark.parametrize("splits", [{"train": 10, "val": 3}, {"train": 10, "test": 3}, {"train": 10}])
def test_part_of_train_is_held_out_without_val_and_test(splits: dict[str, int]) -> None:
    data = colours(splits=splits)
    train, watched = of(data, holdout_fraction=0.2)
    assert not train & watched
    assert train | watched == named(data, "train")
    # Two of each of four classes.
    assert len(watched) == 8
    assert of(data, holdout_fraction=0.2) == (train, watched)
    assert of(data, holdout_fraction=0.2, seed=1)[1] != watched


def test_monitor_val_holds_out_val() -> None:
    data = colours(splits={"train": 5, "val": 3})
    assert of(data, monitor="val") == (named(data, "train"), named(data, "val"))


def test_data_without_splits_are_split_and_the_split_is_written(tmp_path: Path) -> None:
    data = colours(10)
    parts = split_for_training(data, FinetuneConfig(), tmp_path)
    splits = read_splits(tmp_path / SPLITS, data)
    assert keys(parts.train) == named(splits, "train")
    assert keys(parts.selection) == keys(parts.calibration) == named(splits, "val")
    assert [len(named(splits, split)) for split in ("train", "val", "test")] == [32, 4, 4]
    before = (tmp_path / SPLITS).read_bytes()
    split_for_training(data, FinetuneConfig(), tmp_path)
    assert (tmp_path / SPLITS).read_bytes() == before


def test_people_of_one_image_stay_together() -> None:
    samples = [replace(sample, group=f"{i // 4}") for i, sample in enumerate(colours(12).samples)]
    data = DataSet("groups", colours().labels, samples)
    parts = split_for_training(data, FinetuneConfig(), None)
    assert not {sample.group for sample in parts.train} & {sample.group for sample in parts.selection}


@given(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_fraction_takes_its_share_of_every_class(fraction: float) -> None:
    data = colours(splits={"train": 8, "val": 4, "test": 1})
    parts = split_for_training(data, FinetuneConfig(fraction=fraction), None)
    for samples, each in ((parts.train, 8), (parts.selection, 4), (parts.calibration, 4)):
        counts = [sum(sample.label == label for sample in samples) for label in {s.label for s in data.samples}]
        assert counts == [each * fraction] * 4


@given(st.sampled_from([0.1, 0.3, 1.0]), st.sampled_from(["best", "last"]), st.sampled_from(["full", "probe"]))
def test_only_labels_of_the_fraction_are_read(fraction: float, select: Any, method: Any) -> None:
    data = colours(splits={"train": 200, "test": 1})
    parts = split_for_training(data, FinetuneConfig(fraction=fraction, select=select, method=method), None)
    assert len(parts.samples) == 4 * 200 * fraction
    assert not keys(parts.train) & (keys(parts.selection) | keys(parts.calibration))


def test_images_that_choose_the_epoch_do_not_calibrate_if_there_are_enough() -> None:
    data = colours(splits={"train": 100})
    parts = split_for_training(data, FinetuneConfig(), None)
    assert not keys(parts.selection) & keys(parts.calibration)
    assert (len(parts.selection), len(parts.calibration)) == (20, 20)
    assert parts.calibration_images == "independent"
    few = split_for_training(colours(splits={"train": 97}), FinetuneConfig(), None)
    assert few.selection == few.calibration
    assert len(few.selection) < 40
    assert few.calibration_images == "selection"


def test_accuracy_chooses_the_epoch_on_all_held_out_images() -> None:
    """The authors' code does so; the same images then calibrate, which is recorded."""
    parts = split_for_training(colours(splits={"train": 100}), FinetuneConfig(select="accuracy"), None)
    assert parts.selection == parts.calibration
    assert (len(parts.selection), parts.calibration_images) == (40, "selection")


@pytest.mark.parametrize(("select", "expected"), [("accuracy", 0.75), ("best", 0.5)])
def test_the_score_of_an_epoch_is_the_accuracy_or_the_mean_recall(select: Any, expected: float) -> None:
    """Three images of the first class, all right, and one of the second, wrong."""
    network = build_network(str(pretrained()), NetworkConfig(), size=32, outputs=2)
    data = colours(splits={"train": 10})
    config = FinetuneConfig(select=select)
    parts = split_for_training(data, config, None)
    run = FinetuneRun(config=config, data=data, network=network, parts=parts, callback=Callback())
    values = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert run.score_of(values, target) == pytest.approx(expected)


@pytest.mark.parametrize("config", [{"select": "last"}, {"method": "probe"}, {"method": "knn"}])
def test_all_held_out_images_calibrate_if_no_epoch_is_chosen(config: dict[str, Any]) -> None:
    parts = split_for_training(colours(splits={"train": 20}), FinetuneConfig(**config), None)
    assert len(parts.calibration) == 8
    assert parts.calibration_images == "independent"


def test_images_that_the_start_has_seen_do_not_calibrate_if_others_are_enough() -> None:
    """Features of such images are like those of training images, which makes likely sets too small."""
    parts = split_for_training(colours(splits={"train": 5, "val": 15, "test": 1}), FinetuneConfig(method="probe"), None)
    held_out = [sample.key for sample in parts.calibration]
    assert parts.without_seen(()) == parts
    fair = parts.without_seen(held_out[:20])
    assert [sample.key for sample in fair.calibration] == held_out[20:]
    assert (fair.calibration_images, fair.selection) == ("independent", parts.selection)
    # 39 would be too few for a temperature.
    unfair = parts.without_seen(held_out[:21])
    assert (unfair.calibration, unfair.calibration_images) == (parts.calibration, "seen")


@pytest.mark.parametrize(
    ("splits", "monitor", "expected"),
    [
        ({"train": 5, "val": 2, "test": 3}, None, "test"),
        ({"train": 10, "val": 3}, None, "val"),
        ({"train": 10, "val": 3}, "val", None),
        ({"train": 10}, None, None),
    ],
)
def test_the_split_that_is_left_for_evaluation_is_known(splits: dict[str, int], monitor: Any, expected: Any) -> None:
    data = colours(splits=splits)
    config = FinetuneConfig(monitor=monitor, init="scratch:timm:test_vit")
    overlaps = find_overlaps(data, config)
    assert overlaps.scored_split == expected
    assert overlaps.scored_images == (0 if expected is None else 4 * splits[expected])
    assert overlaps.seen_scored == {}


def test_training_images_of_the_start_are_found_among_held_out_and_scored_images(tmp_path: Path) -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 3})
    held_out, scored = (data.only(split).samples[:3] for split in ("val", "test"))
    write_hashes(tmp_path / SEEN, hashes_of([*held_out, *scored]))
    overlaps = find_overlaps(data, FinetuneConfig(init=str(tmp_path)))
    assert overlaps.seen_held_out == tuple(sample.key for sample in held_out)
    assert overlaps.seen_scored == {str(tmp_path): tuple(sample.key for sample in scored)}


def test_held_out_images_that_are_copies_of_training_images_are_found() -> None:
    data = colours(splits={"train": 5, "val": 12, "test": 3})
    val = data.only("val").samples
    copy = replace(val[0], image=data.only("train").samples[0].image)
    packed = replace(val[1], source_sha256=next(iter(hashes_of(data.only("train").samples[1:2]))))
    others = [sample for sample in data.samples if sample.key not in (copy.key, packed.key)]
    overlaps = find_overlaps(
        replace(data, samples=[copy, packed, *others]), FinetuneConfig(init="scratch:timm:test_vit")
    )
    assert set(overlaps.held_out_copies) == {copy.key, packed.key}
    assert find_overlaps(data, FinetuneConfig(init="scratch:timm:test_vit")).held_out_copies == ()


def test_scored_images_that_are_copies_of_read_ones_are_found() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 3})
    read = [*data.only("train").samples[:2], data.only("val").samples[0]]
    scored = data.only("test").samples
    copies = [replace(copy, image=sample.image) for copy, sample in zip(scored[:3], read, strict=True)]
    packed = replace(scored[3], source_sha256=next(iter(hashes_of(read[:1]))))
    data = replace(data, samples=[*data.only("train").samples, *data.only("val").samples, *copies, packed, *scored[4:]])
    overlaps = find_overlaps(data, FinetuneConfig(init="scratch:timm:test_vit"))
    assert overlaps.scored_copies == tuple(sample.key for sample in scored[:4])
    assert overlaps.scored_images == len(scored)
    assert find_overlaps(colours(splits={"train": 5, "val": 2, "test": 3}), FinetuneConfig()).scored_copies == ()


@pytest.mark.usefixtures("without_onnx")
def test_copies_with_different_labels_are_named(tmp_path: Path) -> None:
    """Files that can't be read are copies of each other, too, and not meant."""
    data = colours(splits={"train": 8, "val": 3, "test": 3})
    first, second, *others, third, last = data.samples
    copy = replace(last, image=first.image)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    broken = ImageFile(tmp_path / "broken.jpg")
    unreadable = [replace(sample, image=broken) for sample in (second, third)]
    data = replace(data, samples=[first, *others, *unreadable, copy])
    notes = list[str]()
    callback = Callback()
    callback.note = notes.append  # type: ignore[method-assign]
    finetune(tiny_finetuning(pretrained(), method="knn"), data, tmp_path / "run", callback=callback)
    assert first.label != copy.label
    expected = f"2 images are exact copies with different labels, such as {first.key} and {copy.key}: "
    assert [note for note in notes if note.startswith(expected)]


def test_copies_that_leave_nothing_to_hold_out_are_named() -> None:
    data = colours(5, splits=None)
    copies = replace(data, samples=[replace(sample, image=data.samples[0].image) for sample in data.samples])
    split_for_training(copies, FinetuneConfig(), None)
    named_copies = r"has 20 exact copies of other images among 20, such as .*20 samples to train on and 0 held out"
    with pytest.raises(DataError, match=rf"{named_copies}.*; or add different images; .*--exclude check\.json"):
        find_overlaps(copies, FinetuneConfig(init="scratch:timm:test_vit"))


def test_one_class_is_refused_with_the_remedy() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    one = replace(data, samples=[sample for sample in data.samples if data.label_of(sample) == "awe"])
    with pytest.raises(DataError, match=r"only one class, awe: a classifier needs two or more; add images"):
        of(one)
    # A single class folder may be any folder of images, so its reader gives no labels.
    without = replace(data, samples=[replace(sample, label=None) for sample in one.samples])
    with pytest.raises(DataError, match="nothing to train on: no image has a label: give the folder that contains"):
        of(without)


def test_samples_without_a_target_are_left_out() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    data = replace(data, samples=[replace(data.samples[0], label=None), *data.samples[1:]])
    assert data.samples[0].key not in of(data)[0]


def test_missing_training_or_held_out_images_are_an_error() -> None:
    with pytest.raises(DataError, match=r"of 4 samples 4 have a target .* none of these is of split train$"):
        of(colours(splits={"test": 1}))
    with pytest.raises(DataError, match=r"\(4 have no valence or no arousal\).*there are targets for task label, "):
        of(colours(splits={"train": 1}), task="affect")
    several = colours(splits={"train": 1})
    several = replace(several, samples=[replace(item, label=None, categories=(0, 1)) for item in several.samples])
    with pytest.raises(DataError, match="there are targets for task multilabel: give another --task to uniemox"):
        of(several)
    with pytest.raises(DataError, match=r"leaves 4 samples to train on and 0 held out \(monitor=val\)"):
        of(colours(splits={"train": 1}), monitor="val")
    with pytest.raises(DataError, match="nothing to train on"):
        of(replace(colours(), samples=[]))
