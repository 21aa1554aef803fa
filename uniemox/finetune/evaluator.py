"""Outputs, targets and scores of a run's network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uniemox.data.sample import Sample
from uniemox.evaluate.classifier_outputs import outputs_of
from uniemox.evaluate.outputs import Outputs
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.samples import target_of
from uniemox.labels import LabelSet
from uniemox.losses.methods import concordance
from uniemox.model.classifier import Classifier
from uniemox.training.hardware import count_workers, precision_of
from uniemox.training.journal import Callback
from uniemox.views.loader import BrokenCount
from uniemox.views.patches import PixelStats


class Evaluator:
    """Evaluator of one run; unreadable images are counted over all calls."""

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
            on_progress=lambda _, done, total: self.callback.progress(what, done, len(samples)),
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
