"""The samples that train, those that choose the epoch, and those that calibrate."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniemox.classifier_info import CalibrationImages
from uniemox.data.sample import DataSet, Sample
from uniemox.data.split_files import write_splits
from uniemox.data.splits import split_samples, take_fraction
from uniemox.errors import DataError
from uniemox.evaluate.calibration import MIN_SAMPLES
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.targets import MISSING, has_target
from uniemox.io.run_files import SPLITS
from uniemox.labels import NO_LABELS, LabelSet
from uniemox.plurals import counted

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
# From this number of held-out samples on, one half chooses the epoch and the other calibrates.
MIN_HALVED = 40


@dataclass(frozen=True, slots=True)
class Parts:
    """The samples of a run."""

    train: list[Sample]
    selection: list[Sample]
    """Samples that choose the epoch. If nothing is chosen, their score is only reported after each epoch."""
    calibration: list[Sample]
    """Samples on which temperature and conformal scores are fitted."""
    calibration_images: CalibrationImages
    scored: list[Sample]
    """Samples that the run does not read and `uniemox evaluate` scores by default: those of split test, else val."""

    @property
    def samples(self) -> list[Sample]:
        """All samples that the run reads, each once."""
        return list({sample.key: sample for sample in [*self.train, *self.held_out]}.values())

    def without_seen(self, seen_keys: Collection[str]) -> "Parts":
        """Return the parts, calibrated on images that the initial weights were not trained on, if there are enough.

        A network is surer of images on which its encoder was trained, so scores from them make likely sets too small.
        If too few others remain, all of them calibrate, which `calibration_images` records.

        Args:
            seen_keys: Keys of the images that the initial weights or the teacher were trained on.
        """
        calibration = [sample for sample in self.calibration if sample.key not in seen_keys]
        if len(calibration) == len(self.calibration):
            return self
        if len(calibration) >= MIN_SAMPLES:
            return replace(self, calibration=calibration)
        return replace(self, calibration_images="seen")

    @property
    def held_out(self) -> list[Sample]:
        """Samples that choose the epoch or calibrate, each once."""
        return list({sample.key: sample for sample in [*self.selection, *self.calibration]}.values())


def split_for_training(data: DataSet, config: FinetuneConfig, out: Path | None) -> Parts:
    """Return the samples for training, for choosing the epoch, and for fitting the temperature.

    Data without splits are split 80/10/10 by the seed; the split is written to splits.json in `out`, if given. Samples
    without a target are left out. config.fraction is applied first, so a run reads no label outside of it. If an epoch
    is chosen, half of the held-out samples choose it and half calibrate. With fewer than 40, or with select accuracy,
    all do both, which `calibration_images` records.

    Args:
        data: The data set.
        config: Settings of the run.
        out: Folder of the run, to which a new split is written; None: it is not written.

    Raises:
        DataError: If no sample is left to train on or to hold out.
    """
    usable = _with_splits(data, config, out)
    train = [sample for sample in usable if sample.split == "train"]
    # Images of val may choose the epoch only if test remains for scoring.
    has_val_and_test = {"val", "test"} <= {sample.split for sample in usable}
    monitor = config.monitor or ("val" if has_val_and_test else "holdout")
    held_out = [sample for sample in usable if sample.split == "val"] if monitor == "val" else []
    if config.fraction < 1:
        train, held_out = (take_fraction(part, config.fraction, config.seed) for part in (train, held_out))
    if monitor == "holdout":
        train, held_out = _halves(train, 1 - config.holdout_fraction, config.seed)
    if not held_out or not train:
        raise DataError(
            f"{data.name} leaves {counted(len(train), 'sample')} to train on and {len(held_out)} held out "
            f"(monitor={monitor}); both are needed: choose another --monitor, --holdout-fraction or --fraction"
        )
    scored = [sample for sample in usable if sample.split == "test"]
    if not scored and monitor == "holdout":
        scored = [sample for sample in usable if sample.split == "val"]
    if not config.chooses_epoch:
        return Parts(train, held_out, held_out, "independent", scored)
    if len(held_out) < MIN_HALVED or config.select == "accuracy":
        return Parts(train, held_out, held_out, "selection", scored)
    return Parts(train, *_halves(held_out, 0.5, config.seed), "independent", scored)


def _with_splits(data: DataSet, config: FinetuneConfig, out: Path | None) -> list[Sample]:
    """Return the samples that have a target, each with a split."""
    data.check_splits()
    if config.task == "multilabel":
        data.check_categories()
    samples = list(data.samples)
    if all(sample.split is None for sample in samples):
        scheme = split_samples(samples, SHARES, config.seed)
        samples = [replace(sample, split=scheme[sample.key]) for sample in samples]
        if out is not None:
            write_splits(out / SPLITS, scheme, source=data.name, how=f"80/10/10, seed {config.seed}")
    usable = [sample for sample in samples if has_target(sample, config.task, data.labels)]
    if samples and config.task != "affect" and not data.has_labels:
        raise DataError(f"{data.name} has nothing to train on: {NO_LABELS}")
    if not any(sample.split == "train" for sample in usable):
        raise DataError(
            f"{data.name} has nothing to train on: of {len(samples)} samples {len(usable)} have a target "
            f"({len(samples) - len(usable)} have {MISSING[config.task]}), and none of these is of split train"
            + ("" if usable else _other_tasks(samples, data.labels))
        )
    classes = {data.label_of(sample) for sample in usable if sample.split == "train"}
    if config.task == "label" and len(classes) == 1:
        raise DataError(
            f"{data.name} has training images of only one class, {classes.pop()}: a classifier needs two or more; add "
            "images of another class (folder:PATH names the folder that contains the folders of all classes)"
        )
    return usable


def note_without_target(data: DataSet, config: FinetuneConfig) -> str | None:
    """Return a sentence about the images that a run does not use, because its task has no target for them."""
    without = [sample for sample in data.samples if not has_target(sample, config.task, data.labels)]
    if not without:
        return None
    return (
        f"{len(without):,} of {counted(len(data), 'image')} are not used, such as {without[0].key}: "
        f"{MISSING[config.task]}, which task {config.task} needs"
    )


def _other_tasks(samples: Sequence[Sample], labels: LabelSet) -> str:
    """Return the end of a message with the tasks for which samples have a target; empty if there are none."""
    tasks = [task for task in MISSING if any(has_target(sample, task, labels) for sample in samples)]
    if not tasks:
        return ""
    return f"; there are targets for task {', '.join(tasks)}: give another --task to uniemox finetune"


def _halves(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return two parts, the first with this share of every class; groups stay together."""
    scheme = split_samples(samples, {"first": share, "second": 1 - share}, seed)
    first = [sample for sample in samples if scheme[sample.key] == "first"]
    second = [sample for sample in samples if scheme[sample.key] == "second"]
    return first, second
