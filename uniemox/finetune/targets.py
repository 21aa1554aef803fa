"""Targets of samples for each task, and class weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from uniemox.classifier_info import from_affect
from uniemox.data.sample import Sample, shares_of
from uniemox.errors import DataError
from uniemox.finetune.config import Task
from uniemox.labels import AFFECT, LabelSet

MISSING: Mapping[Task, str] = {
    "label": "no label of the set",
    "distribution": "no vote for one of the labels",
    "affect": "no valence or no arousal",
    "multilabel": "no label of the set",
}


def target_of(samples: Sequence[Sample], task: Task, label_set: LabelSet, axes: Sequence[str] = AFFECT) -> Tensor:
    """Return the targets of N samples in float32.

    "label": (N, E), 1 at the label. "distribution": (N, E), shares of the votes for the set's labels, with sum 1; votes
    for other words are dropped. "affect": (N, 2 or 3), the axes, 1 to 9 scaled to -1 to 1. "multilabel": (N, E), 1 for
    each category, or for the label.

    Raises:
        DataError: If a sample has no such target; names its key.
    """
    rows = []
    for sample in samples:
        row = _row(sample, task, label_set, axes)
        if row is None:
            raise DataError(
                f"{sample.key} has {MISSING[task]} ({label_set.name}), which task={task!r} needs; leave it out"
            )
        rows.append(row)
    width = len(axes) if task == "affect" else len(label_set)
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), width)


def has_target(sample: Sample, task: Task, label_set: LabelSet) -> bool:
    """Return True if a sample has a target for the task."""
    return _row(sample, task, label_set) is not None


def class_weights(samples: Sequence[Sample], label_set: LabelSet, task: Task = "label") -> Tensor:
    """Return class weights under which all classes count the same: (E,) float32, with mean 1 over the samples.

    A class with n of N samples gets N / (number of classes with samples · n); a class without samples gets 0. With task
    distribution, n is the sum of the class's shares. Samples without target are ignored.

    Raises:
        DataError: If no sample has a target.
    """
    labelled = [sample for sample in samples if has_target(sample, task, label_set)]
    if not labelled:
        raise DataError(f"all {len(samples)} samples have {MISSING[task]} ({label_set.name}): class weights need one")
    counts = target_of(labelled, task, label_set).sum(dim=0)  # (E,)
    present = counts > 0
    return torch.where(present, len(labelled) / (present.sum() * counts), 0.0)


def _row(sample: Sample, task: Task, label_set: LabelSet, axes: Sequence[str] = AFFECT) -> list[float] | None:
    """Return the target of one sample; None if it has none."""
    match task:
        case "label":
            if sample.label is None or sample.label >= len(label_set):
                return None
            return [float(index == sample.label) for index in range(len(label_set))]
        case "distribution":
            return shares_of(sample, label_set)
        case "affect":
            values = [getattr(sample, axis) for axis in axes]
            if None in values:
                return None
            return [from_affect(value) for value in values]
        case "multilabel":
            if not sample.classes:
                return None
            return [float(index in sample.classes) for index in range(len(label_set))]
