"""Which samples train and which ones watch: never the same, never those of the test split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import colours
from uniemox.data.sample import DataSet, Sample
from uniemox.data.splits import read_splits
from uniemox.errors import DataError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import SPLITS, divide, find_monitor


def keys(samples: list[Sample]) -> set[str]:
    return {sample.key for sample in samples}


def of(data: DataSet, **config: Any) -> tuple[set[str], set[str]]:
    train, watched = divide(data, FinetuneConfig(**config), None)
    assert len(keys(train)) == len(train)
    return keys(train), keys(watched)


def named(data: DataSet, split: str) -> set[str]:
    return keys([sample for sample in data.samples if sample.split == split])


def test_val_watches_where_there_is_a_test_split_too() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    assert of(data) == (named(data, "train"), named(data, "val"))
    assert find_monitor({"train", "val", None}) == "holdout"
    assert find_monitor({"val", "test"}) == "val"


@pytest.mark.parametrize("splits", [{"train": 10, "val": 3}, {"train": 10, "test": 3}, {"train": 10}])
def test_else_a_part_of_train_watches(splits: dict[str, int]) -> None:
    data = colours(splits=splits)
    train, watched = of(data, holdout_fraction=0.2)
    assert not train & watched
    assert train | watched == named(data, "train")
    assert len(watched) == 8  # 2 of each of 4 classes
    assert of(data, holdout_fraction=0.2) == (train, watched)
    assert of(data, holdout_fraction=0.2, seed=1)[1] != watched


def test_val_can_be_asked_for() -> None:
    data = colours(splits={"train": 5, "val": 3})
    assert of(data, monitor="val") == (named(data, "train"), named(data, "val"))


def test_data_without_splits_are_divided_and_that_is_written(tmp_path: Path) -> None:
    data = colours(10)
    train, watched = divide(data, FinetuneConfig(), tmp_path)
    found = read_splits(tmp_path / SPLITS, data)
    assert keys(train) == named(found, "train")
    assert keys(watched) == named(found, "val")
    assert [len(named(found, split)) for split in ("train", "val", "test")] == [32, 4, 4]
    before = (tmp_path / SPLITS).read_bytes()
    divide(data, FinetuneConfig(), tmp_path)
    assert (tmp_path / SPLITS).read_bytes() == before


def test_people_of_one_picture_stay_together() -> None:
    samples = [replace(sample, group=f"{i // 4}") for i, sample in enumerate(colours(12).samples)]
    train, watched = divide(DataSet("groups", colours().labels, samples), FinetuneConfig(), None)
    assert not {sample.group for sample in train} & {sample.group for sample in watched}


@given(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_a_fraction_takes_so_much_of_every_class_and_leaves_the_watched(fraction: float) -> None:
    data = colours(splits={"train": 8, "val": 2, "test": 1})
    train, watched = divide(data, FinetuneConfig(fraction=fraction), None)
    counts = [sum(sample.label == label for sample in train) for label in {sample.label for sample in data.samples}]
    assert counts == [8 * fraction] * 4
    assert keys(watched) == named(data, "val")


def test_samples_without_a_target_are_left_out() -> None:
    data = colours(splits={"train": 5, "val": 2, "test": 2})
    data = replace(data, samples=[replace(data.samples[0], label=None), *data.samples[1:]])
    assert data.samples[0].key not in of(data)[0]


def test_nothing_to_train_on_or_to_watch_by_is_an_error() -> None:
    with pytest.raises(DataError, match=r"nothing to train on: of 4 samples 4 have a target .* none of these is of"):
        of(colours(splits={"test": 1}))
    with pytest.raises(DataError, match=r"of 4 samples 0 have a target \(4 have no valence or no arousal\)"):
        of(colours(splits={"train": 1}), task="affect")
    with pytest.raises(DataError, match=r"leaves 4 samples to train on and 0 to watch by \(monitor=val\)"):
        of(colours(splits={"train": 1}), monitor="val")
    with pytest.raises(DataError, match="nothing to train on"):
        of(replace(colours(), samples=[]))
