"""Samples of a run: the parts that train, choose the epoch and calibrate; their targets, and the network's outputs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from uniemox.classifier_info import CalibrationImages, ClassifierInfo, from_affect
from uniemox.data.sample import Broken, DataSet, Sample, shares_of
from uniemox.data.splits import split_samples, take_fraction, write_splits
from uniemox.data.unreadable import absent_classes, describe_unreadable, lost_by_class, refuse_empty_classes
from uniemox.errors import DataError
from uniemox.evaluate.calibration import MIN_SAMPLES, calibrated
from uniemox.evaluate.classifier_outputs import outputs_of, select_views
from uniemox.evaluate.multilabel import mean_average_precision
from uniemox.evaluate.outputs import Outputs, units_of
from uniemox.finetune.config import FinetuneConfig, Task
from uniemox.finetune.distillation import TeacherAnswers
from uniemox.finetune.network import BuiltNetwork
from uniemox.finetune.step import FinetuneBatch, Objective
from uniemox.io.run_files import SPLITS
from uniemox.labels import AFFECT, NO_LABELS, LabelSet
from uniemox.losses.methods import concordance, discrete_weights
from uniemox.model.classifier import Classifier
from uniemox.model.config import Precision
from uniemox.model.encoders import with_fitted
from uniemox.plurals import counted
from uniemox.training.hardware import count_workers, precision_of
from uniemox.training.journal import Callback
from uniemox.training.starts import with_start
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount, ViewBatch
from uniemox.views.patches import normalise

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


@dataclass(kw_only=True, slots=True)
class FinetuneRun:
    """Settings, network and samples of a run, and the network's outputs for them."""

    config: FinetuneConfig
    data: DataSet
    network: BuiltNetwork
    parts: Parts
    callback: Callback
    answers: TeacherAnswers | None = None
    encoded: Outputs | None = None
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
        view: ViewConfig | None = None,
        encoded: bool = False,
        precision: Precision | None = None,
    ) -> Outputs:
        """Return logits, or the encoder's output for each view.

        Args:
            samples: Samples whose images the network reads.
            work: Name of the work, for the progress bar.
            model: Network to use instead of the run's own.
            view: Settings of the views to use instead of the run's own.
            encoded: Return the encoder's output, not logits.
            precision: Precision to use instead of the run's own.

        Raises:
            DataError: If there are more unreadable images than allowed.
        """
        outputs = outputs_of(
            model or self.model,
            samples,
            view or self.config.view,
            stats=self.network.stats,
            encoded=encoded,
            precision=precision or precision_of(self.config.hardware),
            workers=count_workers(self.config.hardware, self.device),
            on_progress=lambda _work, done, _total: self.callback.progress(work, done, len(samples)),
        )
        self.broken.add(outputs.broken)
        return outputs

    def probe(self, pixels: Tensor) -> None:
        """Pass pixels, (N, 3, S, S) uint8, through the network, see `measure_plan`."""
        views = normalise(pixels, self.device)
        # In train mode the grey images would change batch-norm statistics at every resume.
        self.model.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision_of(self.config.hardware) == "bfloat16"):
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
        method_target = None
        if self.model.method is not None:
            method_target = self.model.method.batch_targets(views.samples, progress=progress)
        return FinetuneBatch(
            scene=selected.get("scene"), person=selected.get("person"), target=target, method_target=method_target
        )

    def score(self, model: Classifier) -> float:
        """Return the score on the selection images, see `score_of`."""
        outputs = self.outputs(self.parts.selection, "watching", model=model)
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
            trained_on=with_start(self.data.name_with_split("all"), self.config.init),
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
