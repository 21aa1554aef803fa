"""Targets of samples, the outputs of a run's network for them, and its score."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uniemox.classifier_info import from_affect
from uniemox.data.sample import Sample
from uniemox.errors import DataError, LabelError
from uniemox.evaluate.classifier_outputs import outputs_of
from uniemox.evaluate.outputs import Outputs
from uniemox.finetune.config import FinetuneConfig, Task
from uniemox.labels import LabelSet
from uniemox.losses.affect import concordance
from uniemox.model.classifier import Classifier
from uniemox.training.callbacks import Callback
from uniemox.training.hardware import count_workers, precision_of
from uniemox.views.loader import BrokenCount
from uniemox.views.pixels import PixelStats

MISSING = {
    "label": "no label of the set",
    "distribution": "no vote for one of the labels",
    "affect": "no valence or no arousal",
}


def target_of(samples: Sequence[Sample], task: Task, label_set: LabelSet) -> Tensor:
    """The targets of N samples in float32.

    "label": (N, E), 1 at the label.  "distribution": (N, E), shares of the votes for the set's labels, with sum 1;
    votes for other words are dropped.  "affect": (N, 2), valence and arousal, from 1 to 9 scaled to -1 to 1.
    Raises DataError, with its key, for a sample that has no such target.
    """
    rows = []
    for sample in samples:
        row = _row(sample, task, label_set)
        if row is None:
            raise DataError(
                f"{sample.key} has {MISSING[task]} ({label_set.name}), which task={task!r} needs; leave it out"
            )
        rows.append(row)
    width = 2 if task == "affect" else len(label_set)
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), width)


def has_target(sample: Sample, task: Task, label_set: LabelSet) -> bool:
    """Whether `target_of` has an answer for a sample."""
    return _row(sample, task, label_set) is not None


def class_weights(samples: Sequence[Sample], label_set: LabelSet) -> Tensor:
    """Weights under which all classes count the same: (E,) float32, with mean 1 over the samples.

    A class of n among N samples gets N / (classes that have samples · n), one without samples 0. Samples without label
    are passed over. Raises DataError if none has one.
    """
    labelled = [sample for sample in samples if has_target(sample, "label", label_set)]
    if not labelled:
        raise DataError(
            f"none of {len(samples)} samples has a label of {label_set.name}, so there are no class weights"
        )
    counts = target_of(labelled, "label", label_set).sum(dim=0)  # (E,)
    present = counts > 0
    return torch.where(present, len(labelled) / (present.sum() * counts), 0.0)


def _row(sample: Sample, task: Task, label_set: LabelSet) -> list[float] | None:
    """The target of one sample; None if it has none."""
    match task:
        case "label":
            if sample.label is None or sample.label >= len(label_set):
                return None
            return [float(place == sample.label) for place in range(len(label_set))]
        case "distribution":
            return _shares(sample, label_set)
        case "affect":
            if sample.valence is None or sample.arousal is None:
                return None
            return [from_affect(value) for value in (sample.valence, sample.arousal)]


def _shares(sample: Sample, label_set: LabelSet) -> list[float] | None:
    """Shares of the votes for the labels; None if there is no vote for any."""
    votes = [0.0] * len(label_set)
    for word, share in (sample.distribution or {}).items():
        try:
            place = label_set.index(word)
        except LabelError:
            continue
        votes[place] += share
    total = sum(votes)
    return [vote / total for vote in votes] if total > 0 else None


class Evaluator:
    """Of one run; unreadable images are counted over all calls."""

    def __init__(self, config: FinetuneConfig, labels: LabelSet, stats: PixelStats, callback: Callback) -> None:
        self.config, self.labels, self.stats, self.callback = config, labels, stats, callback
        self.broken = BrokenCount(config.max_unreadable)
        self.encoded: Outputs | None = None
        """What the encoder makes of the training images, where it stays as it is and was asked."""

    def outputs(self, model: Classifier, samples: Sequence[Sample], *, what: str, encoded: bool = False) -> Outputs:
        """Logits, or what the encoder makes of each view.

        what: is done, for the progress bar.  Raises DataError if more images can't be read than may be left out.
        """
        found = outputs_of(
            model,
            samples,
            self.config.view,
            stats=self.stats,
            encoded=encoded,
            precision=precision_of(self.config.hardware),
            workers=count_workers(self.config.hardware, next(model.parameters()).device),
            on_progress=lambda done: self.callback.progress(what, done, len(samples)),
        )
        self.broken.add(found.broken)
        return found

    def target(self, samples: Sequence[Sample]) -> Tensor:
        """(N, E), or (N, 2) valence and arousal; see `target_of`."""
        return target_of(samples, self.config.task, self.labels)

    def score(self, model: Classifier, samples: Sequence[Sample]) -> float:
        """Higher is better: mean recall of the classes, minus KL, or concordance."""
        found = self.outputs(model, samples, what="watching")
        return self.score_of(torch.from_numpy(found.values), self.target(found.samples))

    def score_of(self, values: Tensor, target: Tensor) -> float:
        """See `score`.  values: (N, E) logits, or (N, 2) valence and arousal.  target: of the same shape."""
        if self.config.task == "affect":
            return float(concordance(values, target).mean())
        if self.config.task == "distribution":
            return -float((target * (target.clamp(min=1e-12).log() - values.log_softmax(dim=1))).sum(dim=1).mean())
        hits = (values.argmax(dim=1) == target.argmax(dim=1)).float()
        recalls = [hits[target[:, i] > 0].mean() for i in range(target.shape[1]) if (target[:, i] > 0).any()]
        return float(torch.stack(recalls).mean())
