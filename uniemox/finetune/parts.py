"""Which samples a run trains on, and which ones it watches itself by."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from uniemox.data.sample import DataSet, Sample
from uniemox.data.splits import split_samples, take_fraction, write_splits
from uniemox.errors import ConfigError, DataError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.targets import MISSING, has_target
from uniemox.training.run_folder import CONFIG
from uniemox.training.settings import read_json

SPLITS, SHARES = "splits.json", {"train": 0.8, "val": 0.1, "test": 0.1}
DIVIDING = ("seed", "task", "monitor", "holdout_fraction", "fraction")  # settings that decide who learns from what


def divide(data: DataSet, config: FinetuneConfig, out: Path | None) -> tuple[list[Sample], list[Sample]]:
    """Training samples, and those on which the epoch is chosen and the temperature fitted.

    Data without splits are divided 80/10/10 by the seed, which is written to splits.json in `out`, if it is given.
    Samples without what is to be learned are left out.
    Raises DataError if nothing is left to train on or to watch by.
    """
    samples = list(data.samples)
    if all(sample.split is None for sample in samples):
        scheme = split_samples(samples, SHARES, config.seed)
        samples = [replace(sample, split=scheme[sample.key]) for sample in samples]
        if out is not None:
            write_splits(out / SPLITS, scheme, source=data.name, how=f"80/10/10, seed {config.seed}")
    useful = [sample for sample in samples if has_target(sample, config.task, data.labels)]
    train = [sample for sample in useful if sample.split == "train"]
    if not train:
        raise DataError(
            f"{data.name} has nothing to train on: of {len(samples)} samples {len(useful)} have a target "
            f"({len(samples) - len(useful)} have {MISSING[config.task]}), and none of these is of split train"
        )
    monitor = config.monitor or find_monitor({sample.split for sample in useful})
    if monitor == "val":
        watched = [sample for sample in useful if sample.split == "val"]
    else:
        share = config.holdout_fraction
        scheme = split_samples(train, {"train": 1 - share, "holdout": share}, config.seed)
        watched = [sample for sample in train if scheme[sample.key] == "holdout"]
        train = [sample for sample in train if scheme[sample.key] == "train"]
    if config.fraction < 1:
        train = take_fraction(train, config.fraction, config.seed)
    if not watched or not train:
        raise DataError(
            f"{data.name} leaves {len(train)} samples to train on and {len(watched)} to watch by (monitor={monitor}); "
            "both must be there: choose another --monitor or --holdout-fraction"
        )
    return train, watched


def find_monitor(splits: set[str | None]) -> Literal["val", "holdout"]:
    """val where the data have a test split to score on as well; else val is left for that, and train gives a part."""
    return "val" if {"val", "test"} <= splits else "holdout"


def check_same_division(run: Path, others: Sequence[str]) -> None:
    """Raise ConfigError unless other runs learned from the same data, divided alike.

    Else the pictures by which `run` is calibrated would be known to them. All are folders with a config.json.
    """
    own = read_json(run / CONFIG)
    for other in others:
        theirs = read_json(Path(other) / CONFIG)
        differ = [name for name in DIVIDING if own["config"].get(name) != theirs["config"].get(name)]
        if own["data"]["sha256"] != theirs["data"]["sha256"]:
            differ.append("data")
        if differ:
            raise ConfigError(f"{other} was made with another {' and '.join(differ)} than is asked for now")
