"""A teacher's answers as targets (arXiv 1503.02531): another classifier's, also for images without labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from uniemox.data.sample import ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox.finetune.config import DistillationConfig
from uniemox.io.files import replacing
from uniemox.labels import LabelSet
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure
from uniemox.training.distributed import rank, wait_for_all

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
