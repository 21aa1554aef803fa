"""Runs of all tables at both scales: pre-training, fine-tuning and evaluation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from uniemox.finetune import FinetuneConfig
from uniemox.io import ENCODER, ONNX
from uniemox.labels import scored_labels
from uniemox.network_spec import Streams
from uniemox_paper.config import ReproduceConfig, Scale
from uniemox_paper.plan import KEY, OUT, PRETRAININGS, Cell, PlannedRun, changed
from uniemox_paper.protocol import Protocol, augmentation_of, epoch_of, head_of, pooling_of, views_of_method
from uniemox_paper.sources import DataSource, digest_of_weights

Options = Mapping[str, Any]
"""Options of a command, by name; see `PlannedRun.options`."""
# Γ and C3 of the pre-training of preset demo.
DEMO_FUSION: Options = {"network.fusion": "gated", "network.fused_width": 64}
# Fusion of the columns with scene and person, new for every row: no pre-training of the plans has one of this name,
# which fine-tuning would continue with. Γ2 itself would start badly: its offset comes to dominate.
NEW_FUSION: Options = {"network.fusion": "scaled_attention"}
# Epochs of pre-training and fine-tuning in a demo: on synthetic scenes, and on other data.
SCENE_EPOCHS = (13, 1)
OWN_EPOCHS = (40, 12)
# Batches of 64. The demo's teacher learns places in some hundred steps, and faces in this number.
TEACHER_STEPS = 736
TEACHER_PX = 72
# Epochs of the paper.
PRETRAIN_EPOCHS = 200
SCRATCH_EPOCHS = 150
FINETUNE_EPOCHS = 100
# Minimum number of training images for a run to use all GPUs.
LARGE_SET = 20_000
CLIP = "clip:ViT-B-16-quickgelu@openai"
# Names of rows.
SCRATCH = "ViT from scratch"
DBOT = "dBOT"
OURS = "UniEmoX"
# Billions of multiplications and additions per image in a training step; see docs/models.md and docs/performance.md.
PRETRAIN_GFLOP = 282.8
VIT_L_GFLOP = 2 * 61.55
# A training step costs three forward passes: the backward pass does twice the work of one.
TRAINED = 3
PRETRAIN_PARAMETERS_M = 331.0
VIT_L_PARAMETERS_M = 303.3
HELD_OUT = 0.1
# Name of the pre-training without changes.
MAIN = "as it is"
# Checkpoints of a pre-training that figure 9 shows.
STAGES = 4
# Batch sizes of the presets of fine-tuning and pre-training.
BATCH: Mapping[Scale, int] = {"demo": 64, "paper": 256}
PRETRAIN_BATCH: Mapping[Scale, int] = {"demo": 32, "paper": 1024}
HISTOGRAM = "colour histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """A part of a planned run, such as its teacher: what it adds to the command, and what it needs."""

    options: Options = field(default_factory=dict)
    needs: tuple[PlannedRun, ...] = ()
    digests: tuple[str, ...] = ()
    """Hashes of the weights that it reads."""
    lacks: str | None = None
    """What is missing to run it; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method's initial weights and its options for fine-tuning."""

    name: str
    starts: Mapping[int, PlannedRun | str]
    """Initial weights by seed: a run, or a value of --init."""
    network: str = ""
    """Network that is really used, if the name does not tell."""
    changes: Options = field(default_factory=dict)
    """Options of `uniemox finetune`."""
    needs: tuple[PlannedRun, ...] = ()
    """Runs that are needed besides the initial weights."""
    view_count: int | None = None
    """Number of an image's views that it reads, regardless of the study's streams; None: as the study's streams."""
    has_fusion: bool = False
    """True if its initial weights include a Γ, which a demo keeps. At the paper's scale all rows get a new one."""
    is_random: bool = False
    """True if it has random initial weights. In a demo it is then fine-tuned on as many more images as our pre-training
    uses."""
    lacks: str | None = None
    """Missing requirement; None if there is none."""
    pooling: str | None = None
    """Pooling of a network that is no plain ViT, in words; None for plain ViTs, which `network.pool` sets."""
    gflop: float = TRAINED * VIT_L_GFLOP
    """GFLOP per image in a training step, at the paper's scale."""
    parameters_m: float = VIT_L_PARAMETERS_M
    """Parameters in millions, at the paper's scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The comparison: settings, data sets, seeds and initial weights."""

    config: ReproduceConfig
    targets: tuple[DataSource, ...]
    """Data sets on which methods are compared."""
    pretraining: DataSource
    """Data set for pre-training."""
    weights: Mapping[str, str]
    """Published checkpoint, or timm:NAME, by row of table III."""
    seeds: tuple[int, ...]
    """Seeds of fine-tuning; each gives a score."""
    with_emotion: bool
    """End the texts for teachers and pre-training with the emotion, the label in words."""

    @property
    def plain_start(self) -> str:
        """Row of the network before our pre-training."""
        if self.is_demo:
            return SCRATCH
        return DBOT

    @property
    def is_demo(self) -> bool:
        """True for small networks and budgets, for two cores."""
        return self.config.is_demo

    @property
    def about_texts(self) -> str:
        """The page's note on labels in the texts of teacher and pre-training."""
        if self.with_emotion:
            return (
                "The texts that teacher and pre-training read end with the emotion, as the paper's in all tables but "
                "VII: they have read the label of every training image in words, even if fine-tuning uses few labels. "
                "--no-with-emotion leaves it out."
            )
        return (
            "The texts that teacher and pre-training read do not name the emotion: only fine-tuning uses labels, "
            "of which some are held out to choose an epoch or a temperature. The paper's texts end "
            "with the emotion: --with-emotion."
        )

    @property
    def about_pretraining(self) -> str:
        """The page's note on intervals and repeated pre-training."""
        if (seeds := self.config.pretrain_seeds) > 1:
            return f"Each pre-training was done with {seeds} seeds, which the seeds of fine-tuning share."
        return (
            "Each pre-training was done once, with seed 0, so intervals do not include the variation of pre-training; "
            "--pretrain-seeds N does it N times."
        )

    def streams(self, target: DataSource) -> Streams:
        """Return the classifiers' views: those of the column at the paper's scale, and all that a demo's data have."""
        if not self.is_demo:
            return target.streams
        if self.pretraining.has_people:
            return "both"
        return "scene"

    @property
    def _disk(self) -> Options:
        """Options that limit the disk space of hundreds of large runs."""
        if self.is_demo:
            return {}
        return {"save.keep_finished": False}

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs of pre-training and fine-tuning."""
        if not self.is_demo:
            return PRETRAIN_EPOCHS, FINETUNE_EPOCHS
        if self.pretraining.is_synthetic:
            return SCENE_EPOCHS
        return OWN_EPOCHS

    def fit_teacher(self) -> PlannedRun | None:
        """Return the run that fits the demo's teacher; None if there is a teacher."""
        if self.config.teacher is not None or not self.is_demo:
            return None
        data = self.pretraining
        epochs = max(1, round(TEACHER_STEPS / max(1, data.train * (1 - HELD_OUT) // 64)))
        options = {"data": data.source, "out": OUT, "resume": True, "epochs": epochs, "image_size": TEACHER_PX}
        if not self.with_emotion:
            options["without_emotion"] = True
        images = 2 * data.train * epochs
        return data.run(self.config.out, "teacher", "teacher fit", options=options, makes="teacher.json", images=images)

    def pretrain(self, name: str = MAIN, changes: Options | None = None, *, seed: int = 0) -> PlannedRun:
        """Return our pre-training, with changes to the preset's settings.

        Without changes the run keeps the checkpoints of each quarter, which figure 9 shows.

        Args:
            name: Name of the pre-training.
            changes: Options that differ from the preset's.
            seed: Random seed.
        """
        config = self.config
        data = self.pretraining.with_people()
        changes = changes or {}
        teacher = self._teacher_part(changes)
        start = self._start_part(changes)
        epochs = changes.get("schedule.epochs", self.epochs[0])
        images = self._pretraining_images
        # The order of the options is part of a run's key: another one would repeat every finished run.
        options: dict[str, Any] = {"preset": config.scale, "data": data.source, **data.files, **data.people}
        options |= {"split": config.pretrain_split, "out": OUT, "resume": True}
        options |= {**teacher.options, **start.options}
        options |= {**_smaller_batch(images, PRETRAIN_BATCH[config.scale]), **self._disk, **changes}
        if not changes:
            options["save.keep_every"] = max(1, epochs * images // PRETRAIN_BATCH[config.scale] // STAGES)
        if seed:
            options["seed"] = seed
        name = f"pretrain {name}" + (f", seed {seed}" if config.pretrain_seeds > 1 else "")
        run = data.run(
            config.out,
            name,
            "pretrain",
            options=options,
            makes=ENCODER,
            needs=teacher.needs,
            digests=(*teacher.digests, *start.digests),
            images=epochs * images,
        )
        run = replace(run, lacks=data.missing or start.lacks)
        return self._trained(run, images, PRETRAIN_GFLOP, PRETRAIN_PARAMETERS_M)

    def _teacher_part(self, changes: Options) -> "RunPart":
        """Return the teacher of a pre-training, if its losses need one."""
        config = self.config
        if not changed(PRETRAININGS[config.scale](), changes).model.needs_image_features:
            return RunPart()
        fitted = self.fit_teacher()
        source = f"fitted:{fitted.folder}" if fitted else config.teacher or CLIP
        return RunPart(
            options={"teacher.source": source, "teacher.with_emotion": self.with_emotion},
            needs=(fitted,) if fitted else (),
            digests=digest_of_weights(config.teacher) if config.teacher else (),
        )

    def _start_part(self, changes: Options) -> "RunPart":
        """Return the initial weights of a pre-training; a demo starts from random ones, and has its own length."""
        if self.is_demo:
            return RunPart(options={"schedule.epochs": self.epochs[0]})
        if "encoder.start" in changes:
            return RunPart()
        start = self.weights.get("dBOT")
        if start is None:
            missing = "the weights that it starts from: --weights dBOT=FILE"
            return RunPart(options={"encoder.start": "dBOT.pth"}, lacks=missing)
        return RunPart(options={"encoder.start": start}, digests=digest_of_weights(start))

    def _trained(self, run: PlannedRun, images: int, gflop: float, parameters_m: float) -> PlannedRun:
        """Return the training run with its number of images and its cost at the paper's scale."""
        if self.is_demo:
            return run
        # Runs on small sets use one GPU each, so that several run in parallel.
        processes = self.config.gpus if images >= LARGE_SET else 1
        return replace(run, gflop=gflop, parameters_m=parameters_m, processes=processes)

    @property
    def _pretraining_images(self) -> int:
        data = self.pretraining
        splits = self.config.pretrain_split
        if splits == ("train",) or not data.sizes:
            return data.train
        if "all" in splits:
            return sum(data.sizes.values())
        return sum(data.sizes.get(split, 0) for split in splits)

    def finetune(self, method: Method, target: DataSource, *, seed: int, fraction: float = 1.0) -> PlannedRun:
        """Return the fine-tuning on a data set, the same for all methods."""
        init = method.starts[seed]
        streams = self.streams(target)
        scale = self.config.scale
        epochs = self.epochs[1]
        if self.is_demo and method.is_random:
            # Random weights get as many more images as our pre-training uses.
            epochs += round(self.epochs[0] * self._pretraining_images / max(1.0, target.train * fraction))
        options: dict[str, Any] = {"preset": scale, "data": target.source, **target.files, **target.people}
        options |= {"init": str(init.folder) if isinstance(init, PlannedRun) else init, "out": OUT, "resume": True}
        options["seed"] = seed
        if self.is_demo:
            options["schedule.epochs"] = epochs
        # A method with a number of views has views and a fusion of its own.
        if method.view_count is None:
            options |= self._views_of(method, streams)
        if fraction < 1:
            options["fraction"] = fraction
        options |= _task_of(target)
        options |= {**_smaller_batch(target.train * fraction, BATCH[scale]), **self._disk, **method.changes}
        files = [method.changes[name] for name in ("network.objects", "network.faces") if name in method.changes]
        if isinstance(init, str) and not any(str(run.folder) in init for run in method.needs):
            # The output of a run needs no digest: its folder's name contains the run's hash.
            files.append(init)
        # A probe computes the features of every image once.
        if method.changes.get("method") == "probe":
            epochs = 1
        views_of_streams = 2 if streams == "both" else 1
        views = method.view_count or views_of_streams
        run = target.run(
            self.config.out,
            f"finetune {method.name} on {target.column}, seed {seed}",
            "finetune",
            options=options,
            makes=ONNX,
            needs=(*([init] if isinstance(init, PlannedRun) else []), *method.needs),
            digests=tuple(digest for file in files for digest in digest_of_weights(file)),
            images=round(epochs * target.train * fraction),
        )
        run = replace(run, lacks=run.lacks or method.lacks)
        return self._trained(run, target.train, method.gflop * views, method.parameters_m)

    def _views_of(self, method: Method, streams: Streams) -> dict[str, Any]:
        """Return options for the views that a method reads, and for their fusion."""
        if not self.is_demo:
            if streams == "both":
                return {"network.streams": streams, **NEW_FUSION}
            return {}
        options: dict[str, Any] = {"network.streams": streams}
        if streams == "both" and not method.has_fusion:
            options |= DEMO_FUSION
        return options

    def fit_histogram(self, target: DataSource, *, fraction: float = 1.0) -> PlannedRun:
        """Return method histogram on the labels of every row's first seed. It has no seeds of its own."""
        options: dict[str, Any] = {"preset": self.config.scale, "method": "histogram", "network.streams": "scene"}
        options |= {"data": target.source, **target.files, "out": OUT, "resume": True, "seed": self.seeds[0]}
        options |= _task_of(target)
        if fraction < 1:
            options["fraction"] = fraction
        name = f"{HISTOGRAM} of {target.name}"
        images = round(target.train * fraction)
        return target.run(self.config.out, name, "finetune", options=options, makes=ONNX, images=images)

    def evaluate(self, model: PlannedRun, target: DataSource) -> PlannedRun:
        """Return the evaluation on images that were not used in training."""
        data = target.scored
        splits = self.config.pretrain_split
        options = {"model": model.folder, "data": data.source, "split": target.split, **data.files}
        options |= data.people
        if {target.split, "all"} & {*splits} and data.source == self.pretraining.source:
            options["allow_seen"] = True
        options["name"] = KEY
        run = data.run(self.config.out, f"score {model.name}", "evaluate", options=options)
        scores = (data.source, target.split)
        return replace(run, model=model, scores=scores, needs=(model, *run.needs), images=target.scored_images)

    def cell(self, method: Method, target: DataSource, *, fraction: float = 1.0, paper: float | None = None) -> Cell:
        """Return a method's cell for a data set: fine-tuned and scored once per seed."""
        models = [self.finetune(method, target, seed=seed, fraction=fraction) for seed in method.starts]
        return self.scored(models, target, target, paper=paper, pooling=method.pooling)

    def scored(
        self,
        models: list[PlannedRun],
        trained: DataSource,
        target: DataSource,
        *,
        paper: float | None = None,
        pooling: str | None = None,
    ) -> Cell:
        """Return the cell of fine-tuning runs, scored on a data set.

        Args:
            models: One run per seed.
            trained: Data that they were trained on.
            target: Data to score.
            paper: The paper's figure in percent.
            pooling: See `Method.pooling`.

        Raises:
            LabelError: If the labels of the two data sets have no map.
        """
        runs = tuple(self.evaluate(model, target) for model in models)
        protocol = self._protocol(models[0], trained, target, pooling)
        return Cell(paper, runs, runs[0].missing or "", protocol)

    def _protocol(self, model: PlannedRun, trained: DataSource, target: DataSource, pooling: str | None) -> Protocol:
        assert isinstance(model.config, FinetuneConfig)
        config = model.config.resolved()
        scored = scored_labels(trained.labels, target.labels)
        return Protocol(
            trained_on=trained.name,
            labels=trained.labels,
            views=views_of_method(config),
            pooling=pooling_of(config, pooling),
            head=head_of(config),
            augmentation=augmentation_of(config),
            epoch=epoch_of(config),
            scored_on=target.scored.name,
            split=target.split,
            scored_labels=replace(scored.labels, labels=scored.choices),
        )

    def pretrained(self, name: str = MAIN, changes: Options | None = None) -> Mapping[int, PlannedRun | str]:
        """Return pre-training runs by seed of fine-tuning; the one without changes is shared by most tables."""
        return {
            seed: self.pretrain(name, changes, seed=i % self.config.pretrain_seeds) for i, seed in enumerate(self.seeds)
        }


def _task_of(target: DataSource) -> dict[str, str]:
    """Return the options for several labels per image, weighted as by EMOTIC's authors; none for one label."""
    if target.task == "label":
        return {}
    return {"task": target.task, "class_weighting": "discrete"}


def _smaller_batch(images: float, batch: int) -> dict[str, int]:
    """Return a batch size that this number of images fills, after held-out images and rounding by class.

    Returns:
        The option for a power of two; no option if the preset's batch is small enough.
    """
    available = 0.75 * images
    if available >= batch or not images:
        return {}
    return {"batch_size": 2 ** max(1, int(math.log2(max(available, 2))))}
