"""The samples of a run: those it trains on, chooses its epoch by and calibrates on; and a teacher's answers to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.classifier_info import CalibrationImages
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.data.splits import split_samples, take_fraction, write_splits
from uniemox.errors import ConfigError, DataError
from uniemox.finetune.config import DistillationConfig, FinetuneConfig
from uniemox.finetune.scoring import MISSING, has_target
from uniemox.io.files import CONFIG, SPLITS, replacing
from uniemox.labels import LabelSet
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure
from uniemox.training.distributed import rank, wait_for_all
from uniemox.training.settings import read_json

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
SETTINGS = ("seed", "task", "monitor", "holdout_fraction", "fraction", "select")  # that decide who learns from what
MIN_HALVED = 40  # held-out samples from which one half can choose the epoch and the other calibrate


@dataclass(frozen=True, slots=True)
class Parts:
    """The samples of a run."""

    train: list[Sample]
    selection: list[Sample]
    """That choose the epoch, or whose score is reported after each where nothing is chosen."""
    calibration: list[Sample]
    """That temperature and conformal scores are fitted on."""
    calibration_images: CalibrationImages

    @property
    def samples(self) -> list[Sample]:
        """All of them, each once."""
        return list({sample.key: sample for sample in [*self.train, *self.selection, *self.calibration]}.values())


def split_for_training(data: DataSet, config: FinetuneConfig, out: Path | None) -> Parts:
    """Training samples, those that choose the epoch, and those on which the temperature is fitted.

    Data without splits are divided 80/10/10 by the seed, which is written to splits.json in `out`, if it is given.
    Samples without what is to be learned are left out. Of config.fraction that part is taken first, so that all labels
    that a run reads are within it. Where an epoch is chosen the held-out samples are halved: one half chooses, the
    other calibrates; with fewer than 40 both are the same, and `calibration_images` says so.
    Raises DataError if nothing is left to train on or to watch by.
    """
    useful = _with_splits(data, config, out)
    train = [sample for sample in useful if sample.split == "train"]
    monitor = config.monitor or find_monitor({sample.split for sample in useful})
    held_out = [sample for sample in useful if sample.split == "val"] if monitor == "val" else []
    if config.fraction < 1:
        train, held_out = (take_fraction(part, config.fraction, config.seed) for part in (train, held_out))
    if monitor == "holdout":
        train, held_out = _halves(train, 1 - config.holdout_fraction, config.seed)
    if not held_out or not train:
        raise DataError(
            f"{data.name} leaves {len(train)} samples to train on and {len(held_out)} to watch by (monitor={monitor}); "
            "both must be there: choose another --monitor, --holdout-fraction or --fraction"
        )
    if not config.chooses_epoch:
        return Parts(train, held_out, held_out, "independent")
    if len(held_out) < MIN_HALVED:
        return Parts(train, held_out, held_out, "selection")
    return Parts(train, *_halves(held_out, 0.5, config.seed), "independent")


def _with_splits(data: DataSet, config: FinetuneConfig, out: Path | None) -> list[Sample]:
    """The samples that have a target, each with a split."""
    data.check_splits()
    samples = list(data.samples)
    if all(sample.split is None for sample in samples):
        scheme = split_samples(samples, SHARES, config.seed)
        samples = [replace(sample, split=scheme[sample.key]) for sample in samples]
        if out is not None:
            write_splits(out / SPLITS, scheme, source=data.name, how=f"80/10/10, seed {config.seed}")
    useful = [sample for sample in samples if has_target(sample, config.task, data.labels)]
    if not any(sample.split == "train" for sample in useful):
        raise DataError(
            f"{data.name} has nothing to train on: of {len(samples)} samples {len(useful)} have a target "
            f"({len(samples) - len(useful)} have {MISSING[config.task]}), and none of these is of split train"
        )
    return useful


def _halves(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Two parts, the first with that share of every class; groups are not divided."""
    scheme = split_samples(samples, {"first": share, "second": 1 - share}, seed)
    return tuple([s for s in samples if scheme[s.key] == part] for part in ("first", "second"))  # type: ignore[return-value]


def find_monitor(splits: set[str | None]) -> Literal["val", "holdout"]:
    """val where the data have a test split to score on as well; else val is left for that, and train gives a part."""
    return "val" if {"val", "test"} <= splits else "holdout"


def check_same_division(run: Path, others: Sequence[str]) -> None:
    """Raise ConfigError unless other runs learned from the same data, divided alike.

    Else the images by which `run` is calibrated would be known to them. All are folders with a config.json.
    """
    own = read_json(run / CONFIG)
    for other in others:
        theirs = read_json(Path(other) / CONFIG)
        differ = [name for name in SETTINGS if own["config"].get(name) != theirs["config"].get(name)]
        if own["data"]["sha256"] != theirs["data"]["sha256"]:
            differ.append("data")
        if differ:
            raise ConfigError(f"{other} was made with another {' and '.join(differ)} than is asked for now")


FILE = "teacher_answers.npz"  # in the run's folder
PREFIX = "unlabelled/"  # of the keys of further images


@dataclass(frozen=True, slots=True)
class TeacherAnswers:
    """What a teacher says of the training images."""

    unlabelled: list[Sample]
    """The further images that it could read."""
    shares: dict[str, Tensor]
    """(E,) by the sample's key, with sum 1."""
    weight: float
    classes: int

    def targets(self, samples: Sequence[Sample]) -> Tensor:
        """(N, E), rows with sum 1: of N samples with a label its mixture with the teacher's answer, of others that."""
        return torch.stack([self._target(sample) for sample in samples])

    def _target(self, sample: Sample) -> Tensor:
        said = self.shares.get(sample.key)
        if sample.label is None:
            assert said is not None, "an image without answer and label is left out"
            return said
        label = nn.functional.one_hot(torch.tensor(sample.label), self.classes).float()
        return label if said is None else torch.lerp(label, said, self.weight)


def open_unlabelled(config: DistillationConfig) -> list[Sample]:
    """The further images, under keys that no other data set has."""
    if not config.data:
        return []
    samples = open_data(config.data, with_texts=False).samples
    unique = {sample.image_key: sample for sample in samples}  # several people of one image are one
    return [replace(sample, key=PREFIX + key, label=None) for key, sample in unique.items()]


def ask_teacher(
    config: DistillationConfig,
    train: Sequence[Sample],
    labels: LabelSet,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> TeacherAnswers:
    """What the teacher says of each whole image, once; the answers are kept in `out`, from which a run resumes.

    Of several processes, which all call it, the first asks and the others read.
    Images that it can't read are left out of the unlabelled ones, and have their label alone.
    Raises ConfigError for a teacher of other labels, CheckpointError for one that can't be opened, DataError for
    answers kept from other images.
    """
    samples = [*train, *open_unlabelled(config)]
    keys = [sample.key for sample in samples]
    path = out / FILE
    if rank() > 0:
        wait_for_all()
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            known, values = file["keys"].tolist(), file["shares"]
        if known != keys:
            raise DataError(
                f"{path} holds answers on other images; give the same --distillation.data, or another --out"
            )
    else:
        values = _answers(config.teacher, samples, labels, on_progress)
        with replacing(path) as partial, partial.open("wb") as to:
            np.savez(to, keys=np.array(keys), shares=values)
    if rank() == 0:
        wait_for_all()
    is_read = np.isfinite(values).all(axis=1)
    shares = {key: torch.from_numpy(row) for key, row, is_good in zip(keys, values, is_read, strict=True) if is_good}
    unlabelled = [sample for sample in samples[len(train) :] if sample.key in shares]
    return TeacherAnswers(unlabelled, shares, config.weight, len(labels))


def _answers(
    teacher: str, samples: Sequence[Sample], labels: LabelSet, on_progress: Callable[[int, int], None]
) -> np.ndarray:
    """(N, E) float32; rows of NaN for images that can't be read."""
    predictor = load(teacher, finder=None)
    if predictor.labels != labels.labels:
        raise ConfigError(
            f"the teacher {teacher} answers {', '.join(predictor.labels)}; the data have {', '.join(labels.labels)}"
        )
    images = (sample.image.path if isinstance(sample.image, ImageFile) else sample.image.read() for sample in samples)
    values = np.full((len(samples), len(labels)), np.nan, np.float32)
    for i, answer in enumerate(predictor.predict_each(images)):
        if not isinstance(answer, Failure):
            values[i] = [answer.scene[label] for label in labels.labels]
        on_progress(i + 1, len(samples))
    return values / values.sum(axis=1, keepdims=True)
