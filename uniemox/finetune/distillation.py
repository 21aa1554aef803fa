"""Distillation: a teacher's predictions for the training images, and for additional ones without labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.data.sample import ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox.finetune.config import DistillationConfig
from uniemox.io.arrays import load_arrays
from uniemox.io.files import replacing
from uniemox.io.progress import Progress, silent
from uniemox.labels import LabelSet
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure
from uniemox.training.processes import rank, wait_for_all
from uniemox.training.run_folder import TEACHER_ANSWERS

PREFIX = "unlabelled/"
"""Beginning of the keys of additional images."""


@dataclass(frozen=True, slots=True)
class TeacherAnswers:
    """Predictions of a teacher for the training images."""

    unlabelled: list[Sample]
    """Additional images that the teacher could read."""
    shares: dict[str, Tensor]
    """Predicted probabilities, (E,) with sum 1, by the sample's key."""
    weight: float
    """Weight of the teacher's prediction in the target of a labelled image, 0 to 1."""
    classes: int
    """E."""

    def targets(self, samples: Sequence[Sample]) -> Tensor:
        """Return targets (N, E) with row sums 1: label mixed with the teacher's prediction, or the latter alone."""
        return torch.stack([self._target(sample) for sample in samples])

    def _target(self, sample: Sample) -> Tensor:
        prediction = self.shares.get(sample.key)
        if sample.label is None:
            assert prediction is not None, "an image without answer and label is left out"
            return prediction
        label = nn.functional.one_hot(torch.tensor(sample.label), self.classes).float()
        if prediction is None:
            return label
        return torch.lerp(label, prediction, self.weight)


def open_unlabelled(config: DistillationConfig) -> list[Sample]:
    """Open the additional images, under keys that no other data set has."""
    if not config.data:
        return []
    samples = open_data(config.data, with_texts=False).samples
    # An image with several people counts once.
    unique = {sample.image_key: sample for sample in samples}
    return [replace(sample, key=PREFIX + key, label=None) for key, sample in unique.items()]


def ask_teacher(
    config: DistillationConfig,
    train: Sequence[Sample],
    unlabelled: Sequence[Sample],
    labels: LabelSet,
    out: Path,
    on_progress: Progress = silent,
) -> TeacherAnswers:
    """Predict every whole image with the teacher once; the predictions are saved in `out` for resuming.

    All processes call it: the first one predicts, and the others read the file. Additional images that the teacher
    can't read are left out; labelled ones keep only their label.

    Args:
        config: Teacher.
        train: Training samples.
        unlabelled: Additional images, from `open_unlabelled`, without copies of images that the run holds out.
        labels: Label set of the run.
        out: Folder of the run.
        on_progress: Called after each image.

    Raises:
        ConfigError: If the teacher has other labels.
        CheckpointError: If the teacher can't be opened.
        DataError: If the saved predictions are for other images.
    """
    samples = [*train, *unlabelled]
    keys = [sample.key for sample in samples]
    path = out / TEACHER_ANSWERS
    if rank() == 0 and not path.exists():
        predictions = _predict(config.teacher, samples, labels, on_progress)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, keys=np.array(keys), shares=predictions)
    wait_for_all()
    saved = load_arrays(path)
    values = saved["shares"]
    if saved["keys"].tolist() != keys:
        raise DataError(f"{path} has predictions for other images; give the same --distillation.data, or another --out")
    is_read = np.isfinite(values).all(axis=1)
    shares = {key: torch.from_numpy(row) for key, row, is_good in zip(keys, values, is_read, strict=True) if is_good}
    readable = [sample for sample in unlabelled if sample.key in shares]
    return TeacherAnswers(readable, shares, config.weight, len(labels))


def _predict(teacher: str, samples: Sequence[Sample], labels: LabelSet, on_progress: Progress) -> np.ndarray:
    """Return predictions (N, E) float32; rows of NaN for unreadable images."""
    predictor = load(teacher, finder=None)
    if set(predictor.labels) != set(labels.labels):
        raise ConfigError(
            f"the teacher {teacher} predicts {', '.join(predictor.labels)}; the data have {', '.join(labels.labels)}"
        )
    images = (sample.image.path if isinstance(sample.image, ImageFile) else sample.image.read() for sample in samples)
    values = np.full((len(samples), len(labels)), np.nan, np.float32)
    for i, prediction in enumerate(predictor.predict_each(images)):
        if not isinstance(prediction, Failure):
            values[i] = [prediction.scene[label] for label in labels.labels]
        on_progress("asking the teacher", i + 1, len(samples))
    # In float32 a row's sum is not exactly 1.
    return values / values.sum(axis=1, keepdims=True)
