"""Request for a reproduction, and the commands of all tables at both scales."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniemox.io.files import ENCODER, ONNX
from uniemox.reproduce.check_networks import digest_of_weights
from uniemox.reproduce.names import Scale
from uniemox.reproduce.plan import OUT, Cell, Run, plan_evaluation, plan_run
from uniemox.reproduce.sources import DataSource, Target

DEMO_FUSION = ("--network.fusion", "gated", "--network.fused-width", "64")  # Γ and C3 of preset demo's pre-training
PAPER_FUSION = ("--network.fusion", "attention")  # Γ2, which the paper pre-trains with
SCENE_EPOCHS, OWN_EPOCHS = (13, 1), (40, 12)  # of pre-training and fine-tuning on synthetic scenes, on other data
TEACHER_STEPS, TEACHER_PX = 736, "72"  # of 64 images: places are told apart after some hundred, faces after these
PRETRAIN_EPOCHS, SCRATCH_EPOCHS, FINETUNE_EPOCHS = 200, 150, 100  # the paper's
LARGE_SET = 20_000  # training images from which a run uses all GPUs
CLIP = "clip:ViT-B-16-quickgelu@openai"
# Multiplications and additions of an image in a training step, billions; see docs/models.md and docs/performance.md.
PRETRAIN_GFLOP, VIT_L_GFLOP, TRAINED = 282.8, 2 * 61.55, 3
PRETRAIN_PARAMETERS_M, VIT_L_PARAMETERS_M = 331.0, 303.3
HELD_OUT = 0.1
MAIN = "as it is"  # the pre-training without changes
STAGES = 4  # of a pre-training that figure 9 shows
BATCH: Mapping[Scale, int] = {"demo": 64, "paper": 256}  # of the presets of fine-tuning
PRETRAIN_BATCH: Mapping[Scale, int] = {"demo": 32, "paper": 1024}  # of the presets of pre-training


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Start of a fine-tuning run."""

    name: str
    starts: Mapping[int, Run | str]
    """By seed: a run, or what --init takes."""
    changes: tuple[str, ...] = ()
    """Options of `uniemox finetune`."""
    needs: tuple[Run, ...] = ()
    """What must be there besides the starts."""
    looks_at: int | None = None
    """Views of an image that it looks at, whatever the study's streams; None: what the study's streams say."""
    has_fusion: bool = False
    """Whether its start brings a Γ; where both streams are used and it does not, one starts anew."""
    is_random: bool = False
    """Whether it starts from random weights: in a demo it is then fine-tuned on as many images more as our pre-training
    sees."""
    lacks: str | None = None
    """What is not there."""
    gflop: float = TRAINED * VIT_L_GFLOP
    """Of an image in a training step, at the scale of the paper."""
    parameters_m: float = VIT_L_PARAMETERS_M
    """Millions, at the scale of the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Settings of a reproduction."""

    root: Path
    """Where everything is written."""
    scale: Scale
    targets: tuple[Target, ...]
    """The data sets on which methods are compared."""
    pretraining: DataSource
    """What is pre-trained on."""
    weights: Mapping[str, str]
    """By row of table III: a published checkpoint, or timm:NAME."""
    seeds: tuple[int, ...] = (0,)
    """Of fine-tuning; each gives a figure."""
    pretrain_seeds: int = 1
    """Pre-trainings of each kind, with seeds from 0; the seeds of fine-tuning start from them in turn."""
    teacher: str | None = None
    """Whose features L2 and L3 distil; None: CLIP at the scale of the paper, one that is fitted at that of the demo."""
    with_emotion: bool = False
    """Whether the texts that teachers and pre-training read end with the emotion, the label in words."""
    gpus: int = 1
    """Of a machine, at the scale of the paper."""
    pretrain_splits: tuple[str, ...] = ("train",)
    """What is pre-trained on; all: every split."""

    @property
    def is_demo(self) -> bool:
        """Small networks and budgets, for two cores."""
        return self.scale == "demo"

    @property
    def about_texts(self) -> str:
        """Return the share of labels that teacher and pre-training have read."""
        if self.with_emotion:
            return (
                "The texts that teacher and pre-training read end with the emotion, as the paper's in all tables but "
                "VII: they have seen the label of every training image in words, also where few labels are fine-tuned "
                "on. --no-with-emotion leaves it out."
            )
        return (
            "The texts that teacher and pre-training read do not name the emotion: the only labels are those that are "
            "fine-tuned on, and what chooses an epoch or a temperature is held out of these. The paper's texts end "
            "with the emotion: --with-emotion."
        )

    @property
    def about_pretraining(self) -> str:
        """Return the page's note on intervals and repeated pre-training."""
        if self.pretrain_seeds > 1:
            return f"Each pre-training was done with {self.pretrain_seeds} seeds, which the seeds of fine-tuning share."
        return (
            "Each pre-training was done once, with seed 0, so that intervals do not hold for pre-training again; "
            "--pretrain-seeds N does it N times."
        )

    def streams(self, target: Target) -> str:
        """Return the classifiers' views: the scene, and at the paper's scale the person if the label is theirs."""
        needs_person = self.pretraining.has_people if self.is_demo else target.data.labels.kind == "felt"
        return "both" if needs_person else "scene"

    def processes(self, images: int) -> int:
        """Return the GPUs of a run by its number of training images; small sets use one, so several run at a time."""
        return 1 if self.is_demo or images < LARGE_SET else self.gpus

    @property
    def _disk(self) -> tuple[str, ...]:
        """Options by which hundreds of large runs fit on a disk."""
        return () if self.is_demo else ("--save.no-keep-finished",)

    @property
    def epochs(self) -> tuple[int, int]:
        """Return the options of pre-training and fine-tuning."""
        if not self.is_demo:
            return PRETRAIN_EPOCHS, FINETUNE_EPOCHS
        return SCENE_EPOCHS if self.pretraining.is_synthetic else OWN_EPOCHS

    def fit_teacher(self) -> Run | None:
        """The teacher that the demo fits; None where there is one already."""
        if self.teacher is not None or not self.is_demo:
            return None
        images = self.pretraining.train
        epochs = max(1, round(TEACHER_STEPS / max(1, images * (1 - HELD_OUT) // 64)))
        words = ["teacher", "fit", "--data", self.pretraining.source, "--out", OUT, "--resume", "--epochs", str(epochs)]
        words += ["--image-size", TEACHER_PX, *([] if self.with_emotion else ["--without-emotion"])]
        data = self.pretraining
        run = plan_run(self.root, "teacher", words, makes="teacher.json", needs=data.needs, data=data.digests)
        return replace(run, images=2 * images * epochs, lacks=data.missing)

    def pretrain(self, name: str, changes: Sequence[str] = (), *, needs_teacher: bool = True, seed: int = 0) -> Run:
        """Our pre-training, with other settings than the preset's.

        changes: options of `uniemox pretrain`.  needs_teacher: False where no loss needs one.
        Without changes the run keeps the checkpoints of each quarter, which figure 9 shows.
        """
        data = self.pretraining
        needs, epochs, digests = [*data.needs], self.epochs[0], [*data.digests]
        words: list[str | Path] = ["pretrain", "--preset", self.scale, "--data", data.source, *data.options]
        words += [*data.people, "--split", *self.pretrain_splits, "--out", OUT, "--resume"]
        if needs_teacher:
            fitted = self.fit_teacher()
            needs += [fitted] if fitted is not None else []
            words += ["--teacher.source", f"fitted:{fitted.folder}" if fitted is not None else self.teacher or CLIP]
            words += ["--teacher.with-emotion" if self.with_emotion else "--teacher.no-with-emotion"]
            digests += digest_of_weights(self.teacher) if self.teacher else ()
        lacks = data.missing
        if self.is_demo:
            words += ["--schedule.epochs", str(epochs)]
        elif "--encoder.start" not in changes:
            start = self.weights.get("dBOT")
            words += ["--encoder.start", start or "dBOT.pth"]
            digests += digest_of_weights(start) if start else ()
            lacks = lacks or (None if start else "the weights that it starts from: --weights dBOT=FILE")
        if "--schedule.epochs" in changes:
            epochs = int(changes[list(changes).index("--schedule.epochs") + 1])
        words += _smaller_batch(self._pretraining_images, PRETRAIN_BATCH[self.scale])
        words += self._disk
        words += changes
        if not changes:
            steps = epochs * int(self._pretraining_images) // PRETRAIN_BATCH[self.scale]
            words += ["--save.keep-every", str(max(1, steps // STAGES))]
        if seed:
            words += ["--seed", str(seed)]
        name += f", seed {seed}" if self.pretrain_seeds > 1 else ""
        run = plan_run(self.root, f"pretrain {name}", words, makes=ENCODER, needs=needs, data=digests)
        images, gflop = epochs * self._pretraining_images, 0.0 if self.is_demo else PRETRAIN_GFLOP
        processes = self.processes(self._pretraining_images)
        parameters_m = 0.0 if self.is_demo else PRETRAIN_PARAMETERS_M
        return replace(run, images=images, gflop=gflop, parameters_m=parameters_m, processes=processes, lacks=lacks)

    @property
    def _pretraining_images(self) -> int:
        data = self.pretraining
        if self.pretrain_splits == ("train",) or not data.sizes:
            return data.train
        chosen = data.sizes if "all" in self.pretrain_splits else self.pretrain_splits
        return sum(data.sizes.get(split, 0) for split in chosen)

    def finetune(self, method: Method, target: Target, *, seed: int, fraction: float = 1.0) -> Run:
        """Fine-tuning on a data set, all methods alike."""
        data, init, streams = target.data, method.starts[seed], self.streams(target)
        epochs = self.epochs[1]
        if self.is_demo and method.is_random:
            epochs += round(self.epochs[0] * self.pretraining.train / max(1.0, data.train * fraction))
        words: list[str | Path] = ["finetune", "--preset", self.scale, "--data", data.source, *data.options]
        words += data.people if streams == "both" else ()
        words += ["--init", init.folder if isinstance(init, Run) else init, "--out", OUT, "--resume"]
        words += ["--seed", str(seed)]
        words += ["--schedule.epochs", str(epochs)] if self.is_demo else []
        if method.looks_at is None:  # else it is the method's own, as is how views are joined
            words += self._views_of(method, streams, init)
        words += ["--fraction", f"{fraction:g}"] if fraction < 1 else []
        words += _smaller_batch(data.train * fraction, BATCH[self.scale])
        words += self._disk
        words += method.changes
        needs = [*data.needs, *([init] if isinstance(init, Run) else []), *method.needs]
        name = f"finetune {method.name} on {data.name}, seed {seed}"
        files = [word for word in method.changes if word.endswith(".onnx")]
        if isinstance(init, str) and not any(str(run.folder) in init for run in method.needs):
            files += [init]  # what a run of the plan makes is in its folder's name
        digests = (*data.digests, *(digest for file in files for digest in digest_of_weights(file)))
        run = plan_run(self.root, name, words, makes=ONNX, needs=needs, data=digests)
        epochs = 1 if "probe" in method.changes else epochs
        images = round(epochs * data.train * fraction)
        views = method.looks_at or (2 if streams == "both" else 1)
        gflop = 0.0 if self.is_demo else method.gflop * views
        lacks = data.missing or method.lacks
        parameters_m = 0.0 if self.is_demo else method.parameters_m
        processes = self.processes(data.train)
        return replace(run, images=images, gflop=gflop, parameters_m=parameters_m, processes=processes, lacks=lacks)

    def _views_of(self, method: Method, streams: str, init: Run | str) -> list[str]:
        """Options that say what a method looks at, and how that is fused."""
        words = ["--network.streams", streams] if self.is_demo or streams == "both" else []
        if not self.is_demo and streams == "both" and isinstance(init, Run):
            words += ["--network.pool", "token"]  # what Γ was pre-trained on
        if streams == "both" and not method.has_fusion:
            words += DEMO_FUSION if self.is_demo else PAPER_FUSION
        return words

    def evaluate(self, model: Run, target: Target) -> Run:
        """Scores on images that were not trained on."""
        data = target.scored
        options = (*data.options, *(data.people if self.streams(target) == "both" else ()))
        is_seen = bool({target.split, "all"} & {*self.pretrain_splits}) and data.source == self.pretraining.source
        run = plan_evaluation(
            model,
            data=data.source,
            split=target.split,
            options=(*options, "--allow-seen") if is_seen else options,
            needs=data.needs,
            digests=data.digests,
        )
        return replace(run, images=target.scored_pictures, lacks=data.missing)

    def cell(self, method: Method, target: Target, *, fraction: float = 1.0, paper: float | None = None) -> Cell:
        """A method on a data set: fine-tuned and scored once a seed."""
        runs = tuple(
            self.evaluate(self.finetune(method, target, seed=seed, fraction=fraction), target) for seed in method.starts
        )
        return Cell(paper, runs, runs[0].missing or "")

    def pretrained(self, name: str = MAIN, changes: Sequence[str] = ()) -> Mapping[int, Run | str]:
        """Pre-trainings by seed of fine-tuning; the one without changes is shared by most tables."""
        return {
            seed: self.pretrain(name, changes, seed=place % self.pretrain_seeds)
            for place, seed in enumerate(self.seeds)
        }


def _smaller_batch(images: float, batch: int) -> list[str]:
    """A batch that so few images fill, with what is held out of them and what rounding by class takes."""
    fits = 0.75 * images
    return [] if fits >= batch or not images else ["--batch-size", str(2 ** max(1, int(math.log2(max(fits, 2)))))]
