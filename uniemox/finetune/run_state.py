"""Settings, network and samples of a run, with what it computes of them: batches, outputs, scores, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import Broken, DataSet, Sample, units_of
from uniemox.data.unreadable import absent_classes, describe_unreadable, lost_by_class, refuse_empty_classes
from uniemox.errors import DataError
from uniemox.evaluate.calibration import calibrated
from uniemox.evaluate.classifier_outputs import Reading, encode_samples, outputs_of, select_views
from uniemox.evaluate.multilabel import mean_average_precision
from uniemox.evaluate.outputs import EncodedSamples, Outputs
from uniemox.finetune.config import FinetuneConfig, Task
from uniemox.finetune.distillation import TeacherAnswers
from uniemox.finetune.network import BuiltNetwork
from uniemox.finetune.parts import Parts
from uniemox.finetune.step import FinetuneBatch, Objective
from uniemox.finetune.targets import class_weights, has_target, target_of
from uniemox.losses.tasks import concordance, discrete_weights
from uniemox.model.building import with_fitted
from uniemox.model.classifier import Classifier
from uniemox.model.config import Precision
from uniemox.training.callback import Callback
from uniemox.training.hardware import autocast, count_workers, precision_of
from uniemox.training.starts import named_with_start
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount, ViewBatch
from uniemox.views.patches import normalise


@dataclass(kw_only=True, slots=True)
class FinetuneRun:
    """Settings, network and samples of a run, and the network's outputs for them."""

    config: FinetuneConfig
    data: DataSet
    network: BuiltNetwork
    parts: Parts
    callback: Callback
    answers: TeacherAnswers | None = None
    encoded: EncodedSamples | None = None
    """Encoder outputs for the training images, if the encoder is frozen and they were computed."""
    broken: BrokenCount = field(init=False)
    """Unreadable images of all outputs so far."""
    axes: tuple[str, ...] = field(init=False)
    """Ratings that task affect learns."""
    unreadable: frozenset[str] = field(init=False, default=frozenset())
    """Keys of images that could not be read before the first step. They stay in `parts`, and batches leave them out."""

    def __post_init__(self) -> None:
        self.broken = BrokenCount(self.config.max_unreadable)
        self.axes = self.data.axes

    def leave_out(self, broken: Mapping[str, str]) -> None:
        """Count images that can't be read, and warn of classes that lose many.

        Args:
            broken: Reasons by key.

        Raises:
            DataError: If more images are unreadable than allowed, or if a class has no image left to train on.
        """
        self.broken.add([Broken(key, reason) for key, reason in broken.items()])
        self.unreadable = frozenset(broken)
        labels = self.data.labels
        try:
            refuse_empty_classes(self.parts.train, broken, labels, self.data.name)
        except DataError:
            for line in describe_unreadable(broken):
                self.callback.note(line)
            raise
        if self.config.task in ("label", "multilabel"):
            absent = absent_classes(self.parts.train, labels)
            if absent:
                self.callback.note(
                    f"{self.data.name} has no training image of {', '.join(absent)}: the model never learns these "
                    "classes of its label set"
                )
            not_held_out = [label for label in absent_classes(self.parts.held_out, labels) if label not in absent]
            if self.parts.held_out and not_held_out:
                self.callback.note(
                    f"no held-out image has these classes: {', '.join(not_held_out)}; the best epoch and the "
                    "temperature are chosen without them"
                )
        for name, samples in (("training", self.parts.train), ("the held-out part", self.parts.held_out)):
            for line in lost_by_class(samples, broken, labels, name):
                self.callback.note(line)

    @property
    def readable_train(self) -> list[Sample]:
        """Training samples that were readable before the first step: those that class frequencies are counted on."""
        return [sample for sample in self.parts.train if sample.key not in self.unreadable]

    @property
    def model(self) -> Classifier:
        """The network that is trained."""
        return self.network.classifier

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device

    @property
    def objective(self) -> Objective:
        """The loss."""
        task = self.config.task
        weights = None
        label_weights = None
        if self.config.class_weighting == "balanced":
            weights = class_weights(self.readable_train, self.data.labels, task)
        elif self.config.class_weighting == "discrete":
            label_weights = discrete_weights(self.target(self.readable_train).mean(dim=0))
        return Objective(task=task, class_weights=weights, label_weights=label_weights, method=self.model.method)

    def outputs(
        self,
        samples: Sequence[Sample],
        work: str,
        *,
        model: Classifier | None = None,
        precision: Precision | None = None,
    ) -> Outputs:
        """Return the logits of samples.

        Args:
            samples: Samples whose images the network reads.
            work: Name of the work, for the progress bar.
            model: Network to use instead of the run's own.
            precision: Precision to use instead of the run's own.

        Raises:
            DataError: If there are more unreadable images than allowed.
        """
        reading = self._reading(samples, work, precision)
        outputs = outputs_of(model or self.model, samples, self.config.view, reading)
        self.broken.add(outputs.broken)
        return outputs

    def encode(
        self,
        samples: Sequence[Sample],
        work: str,
        *,
        model: Classifier | None = None,
        view: ViewConfig | None = None,
        precision: Precision | None = None,
    ) -> EncodedSamples:
        """Return the encoder's features of samples, for each view.

        Takes and raises the same as `outputs`, and `view`: settings of the views to use instead of the run's own.
        """
        reading = self._reading(samples, work, precision)
        encoded = encode_samples(model or self.model, samples, view or self.config.view, reading)
        self.broken.add(encoded.broken)
        return encoded

    def _reading(self, samples: Sequence[Sample], work: str, precision: Precision | None) -> Reading:
        """Return how the run reads samples; see `outputs`."""
        return Reading(
            stats=self.network.stats,
            precision=precision or precision_of(self.config.hardware),
            workers=count_workers(self.config.hardware, self.device),
            on_progress=lambda _work, done, _total: self.callback.progress(work, done, len(samples)),
        )

    def forward_pixels(self, pixels: Tensor) -> None:
        """Pass pixels, (N, 3, S, S) uint8, through the network, see `measure_plan`."""
        views = normalise(pixels, self.device)
        # In train mode the grey images would change batch-norm statistics at every resume.
        self.model.eval()
        with autocast(self.device, precision_of(self.config.hardware)):
            self.model(views, views)
        self.model.train()

    def target(self, samples: Sequence[Sample]) -> Tensor:
        """Return targets, (N, E), or (N, 2 or 3) ratings; see `target_of`."""
        return target_of(samples, self.config.task, self.data.labels, self.axes)

    def batch(self, views: ViewBatch, *, progress: float) -> FinetuneBatch:
        """Return the views that the network reads, and their targets.

        Args:
            views: Views of N samples.
            progress: Share of the run's steps that are done, 0 to 1.
        """
        selected = select_views(self.model, views)
        target = self.answers.targets(views.samples) if self.answers else self.target(views.samples)
        batch_targets = None
        if self.model.method is not None:
            batch_targets = self.model.method.batch_targets(views.samples, progress=progress)
        return FinetuneBatch(
            scene=selected.get("scene"), person=selected.get("person"), target=target, batch_targets=batch_targets
        )

    def score(self, model: Classifier) -> float:
        """Return the score on the selection images, see `score_of`."""
        outputs = self.outputs(self.parts.selection, "scoring the epoch", model=model)
        return self.score_of(torch.from_numpy(outputs.values), self.target(outputs.samples))

    def score_of(self, values: Tensor, target: Tensor) -> float:
        """Return the score of predictions; higher is better: recall or accuracy, -KL, concordance, or mean precision.

        Args:
            values: (N, E) logits, or (N, 2) valence and arousal.
            target: Targets of the same shape.
        """
        if self.config.task == "affect":
            return float(concordance(values, target).mean())
        if self.config.task == "distribution":
            log_ratio = target.clamp(min=1e-12).log() - values.log_softmax(dim=1)  # (N, E)
            return -float((target * log_ratio).sum(dim=1).mean())
        if self.config.task == "multilabel":
            return mean_average_precision(values.numpy(), target.numpy() > 0)
        hits = (values.argmax(dim=1) == target.argmax(dim=1)).float()
        if self.config.select == "accuracy":
            return float(hits.mean())
        recalls = [hits[target[:, i] > 0].mean() for i in range(target.shape[1]) if (target[:, i] > 0).any()]
        return float(torch.stack(recalls).mean())

    def describe(self) -> ClassifierInfo:
        """Return the classifier's metadata before calibration."""
        view = self.config.view
        labels = self.data.labels
        return ClassifierInfo(
            label_set=labels.name,
            kind=labels.kind,
            task=self.config.task,
            hides_person=view.hide_person,
            person=view.person,
            size=view.size,
            crop_fraction=view.crop_fraction,
            trained_on=named_with_start(self.data.name_with_split("all"), self.config.init),
            calibration_images=self.parts.calibration_images,
            network=replace(
                with_fitted(self.network.spec, self.model),
                labels=self.axes if self.config.task == "affect" else labels.labels,
                streams=self.model.streams,
            ),
        )

    def calibrate(self) -> ClassifierInfo:
        """Fit the temperature on held-out images, and return the classifier's metadata."""
        labels = self.data.labels
        task: Task = "label" if self.config.calibrate_on == "labels" else self.config.task
        samples = [sample for sample in self.parts.calibration if has_target(sample, task, labels)]
        # The ONNX file computes in float32.
        held_out = self.outputs(samples, "calibrating", precision="float32")
        target = target_of(held_out.samples, task, labels).numpy()
        info = calibrated(self.describe(), held_out.values, held_out.distances, target)
        return replace(info, held_out_count=len(set(units_of(held_out.samples))))
