"""All settings of a fine-tuning run; what is set where it is read is only put together here."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from uniemox.classifier_info import Streams
from uniemox.errors import ConfigError
from uniemox.model.config import REGION_METHODS, check_fusion, check_name, is_foreign
from uniemox.training.config import (
    HardwareConfig,
    OptimizerConfig,
    SaveConfig,
    ScheduleConfig,
    check_batches,
    check_numbers,
)
from uniemox.views.config import ViewConfig

Fit = Literal["full", "probe", "knn", "mean", "histogram"]
Task = Literal["label", "distribution", "affect"]
INIT_MISSING = (
    "--init is missing: give embedded (comes with uniemox), a run, a checkpoint, timm:NAME, or scratch:timm:NAME; only "
    "--method histogram needs none"
)
RANDAUGMENT = r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*"  # timm passes over some parts that it can't read


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The classifier's network."""

    streams: Streams = "scene"
    """What it looks at: the scene, the person, or both, fused. Methods from solver on look at what they need."""
    pool: Literal["mean", "token"] = "mean"
    """Feature of a plain ViT: the mean of its patch tokens through a new norm (the paper), or its normed CLS token,
    which is what the fusion was pre-trained on. Other networks have their own feature."""
    fusion: str | None = None
    """With both streams: static, dynamic, attention, gated, scaled_attention, or mypackage.module:MyFusion. None, or
    the name of the run's own fusion: as the run was pre-trained."""
    fusion_heads: int = 3
    """κ, of a fusion that starts anew."""
    fused_width: int = 512
    """C3, of a fusion that starts anew; channels of methods from solver on."""
    keep_norm_statistics: bool = False
    """Leave the means and variances of batch norms as they are: for small batches, or networks whose norms were folded
    into their convolutions; always so after --init embedded or small."""
    frozen_layers: int = 0
    """The encoder's first layers, as layer-wise decay counts them, that stay as they are."""
    drop_path: float = 0.0
    """Share of the images for which the last block is skipped in training; it falls linearly to the first block."""
    dropout: float = 0.5
    """Share of the features of regions that is left out in training, with methods from solver on, 0 to below 1: much
    for photographs, none for what has to be learned from scene and person together."""
    frozen_encoder: bool = False
    """With methods from solver on: leave the encoder as it is and fit what follows, on features computed once. It
    starts as the linear probe of the whole views; held-out images choose among two learning rates and ten moments."""
    skip: bool = True
    """With methods from solver on: let the head also read the features of whole views, which the papers do not. With a
    frozen encoder the method then starts as a linear probe. Preset paper has none."""
    objects: str = ""
    """ONNX file of YOLOX-nano, for methods from solver on: it finds objects and people in the scene view, and goes into
    the model's file. Empty: the cells of a 4 x 4 grid stand for them. Methods mdan and eap use none.
    With a detector RandAugment, mixup, CutMix and erasing are off, because boxes are those of clean images."""
    faces: str = ""
    """ONNX file of YuNet-n, likewise for faces in the person view. Empty: its upper half stands for the face."""
    confounders: int = 0
    """Surroundings in the dictionary of CCIM (arXiv 2303.11921), which frees what a person feels from where they are;
    the paper takes 128 to 256. 0: none."""

    def __post_init__(self) -> None:
        if self.fusion is not None:
            check_fusion(self.fusion, self.fused_width, self.fusion_heads)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"network.dropout must be at least 0 and below 1, got {self.dropout}")
        if self.confounders < 0 or self.confounders == 1:
            raise ConfigError(f"network.confounders must be 0, or at least 2, got {self.confounders}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of images and targets in training."""

    randaugment: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment (arXiv 1909.13719) by timm's name: magnitude 9 with deviation 0.5, stronger with it; None: none."""
    mixup: float = 0.8
    """α of mixup's beta distribution (arXiv 1710.09412); 0: none. With cutmix on too, a batch gets one of the two."""
    cutmix: float = 1.0
    """α of cutmix's beta distribution (arXiv 1905.04899); 0: none."""
    smoothing: float = 0.1
    """Share of a label that is spread over all classes, 0 to below 1."""
    erasing: float = 0.25
    """Share of the views in which a rectangle of 2 to 33 % is replaced by noise (arXiv 1708.04896), 0 to 1."""

    def __post_init__(self) -> None:
        if self.randaugment is not None and not re.fullmatch(RANDAUGMENT, self.randaugment):
            raise ConfigError(
                "augment.randaugment must be None or a name such as rand-m9-mstd0.5-inc1, with parts m, n, p, mstd, "
                f"mmax, inc and their numbers, got {self.randaugment!r}"
            )
        check_numbers(self, "augment.", at_least={"mixup": 0, "cutmix": 0})
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"augment.smoothing must be at least 0 and below 1, got {self.smoothing}")
        if not 0 <= self.erasing <= 1:
            raise ConfigError(f"augment.erasing must lie between 0 and 1, got {self.erasing}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """Teacher of a fine-tuning run, and its further images."""

    teacher: str = ""
    """A classifier of the same labels whose answers are learned beside the labels: embedded, small, a run or its
    model.onnx. It must not have been trained on images that this run holds out: give a run of the same data and seed.
    Empty: the labels alone."""
    data: str = ""
    """KIND:PATH of further images, which are trained on with the teacher's answers; their labels are not read."""
    weight: float = 0.5
    """Share of the teacher's answer in the target of an image that has a label."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"distillation.weight must lie between 0 and 1, got {self.weight}")
        if self.data and not self.teacher:
            raise ConfigError("distillation.data needs a teacher; give --distillation.teacher, such as embedded")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """A fine-tuning run (arXiv 2409.18877, section III-E)."""

    init: str = ""
    """Where the encoder comes from: embedded or small, a run, a published checkpoint, timm:NAME, timm:NAME@FILE,
    timm:local-dir:FOLDER as the Hugging Face hub has it, or scratch: before any of these, which keeps the network and
    draws its weights anew. Several, with commas between them, stand side by side."""
    method: str = "full"
    """How it learns. full: train the whole network. probe: logistic regression on the frozen encoder (with both
    streams: projection, fusion and head). knn: the 20 nearest training images. mean: the mean of the calibrated logits
    of several runs in init, of the same data and division. histogram: logistic regression on colours, without init.
    solver, stimuli, mdan, eap, rrla, emoticon, or mypackage.module:MyMethod: relate regions, see `uniemox docs
    methods`."""
    task: Task = "label"
    """What is learned: a label (equation 12), a distribution of votes (KL), or valence and arousal (MSE with CCC)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    view: ViewConfig = field(default_factory=lambda: ViewConfig(min_area=0.08))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.9, 0.999)))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=100, warmup_epochs=5, min_lr=1e-6))
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    layer_decay: float | None = None
    """Learning rate of a layer over that of the layer above it; None: the same everywhere."""
    head_lr_scale: float = 1.0
    """By which the learning rate of all that follows the encoder is multiplied."""
    probe_first: bool = False
    """With method full: start what follows the encoder as method probe fits it, instead of near zero
    (arXiv 2202.10054)."""
    ema_decay: float | None = None
    """Keep a running mean of the weights with this decay a step and evaluate that; None: the weights themselves."""
    class_weighting: Literal["none", "balanced"] = "none"
    """Whether images of rare classes count more, so that all classes count the same; of methods full,
    probe and histogram."""
    logit_adjustment: float = 0.0
    """τ: at the end τ · log(share of the class among the training images) is taken from each logit, so that rare
    classes are named more often (arXiv 2007.07314, equation 9); 0: as trained. Of a linear head on labels."""
    fraction: float = 1.0
    """Part of every class that is used (figure 7): to train on, and to choose the epoch and fit the temperature."""
    monitor: Literal["val", "holdout"] | None = None
    """Which images are held out of training to choose the epoch and to fit the temperature: the split val, or a part
    of train. None: val where the data have a test split too, else holdout. If an epoch is chosen, one half of them
    chooses and the other calibrates."""
    calibrate_on: Literal["votes", "labels"] = "votes"
    """Of task distribution, what its probabilities mean: the share of the votes, or how often the label is right, where
    held-out samples have one."""
    holdout_fraction: float = 0.1
    """Part of every class of train that is held out."""
    select: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best on the monitor's images, or the last."""
    batch_size: int = 256
    """Images of a step, over all processes."""
    accumulation: int = 1
    """Batches whose gradients make a step."""
    seed: int = 0
    """Random seed for the head's weights, order, crops and augmentation."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to skip before the run stops."""

    @property
    def fit(self) -> Fit:
        """Return how the network is fitted; a region method trains all of it, or the part after a frozen encoder."""
        if self.region_method is not None:
            return "probe" if self.network.frozen_encoder else "full"
        return cast(Fit, self.method)

    @property
    def region_method(self) -> str | None:
        """Name of the method that relates regions of the image; None without one."""
        return None if self.method in get_args(Fit) else self.method

    def resolved(self) -> "FinetuneConfig":
        """Return these settings with what the method implies, as a run records them.

        Detectors look at clean images: augmentation that moves, mixes or erases pixels is off where there are any, and
        crops and flips stay. EmotiCon reads the scene without the person.
        """
        config = self
        if self.network.objects or self.network.faces:
            clean = replace(self.augment, randaugment=None, mixup=0.0, cutmix=0.0, erasing=0.0)
            config = replace(config, augment=clean)
        hides_person = self.region_method is not None and _class_of(self.region_method).hides_person
        return replace(config, view=replace(config.view, hide_person=True)) if hides_person else config

    @property
    def own_packages(self) -> list[str]:
        """Packages of the user's own that its method and fusion come from."""
        names = (self.method, self.network.fusion or "")
        return [name.partition(".")[0] for name in names if is_foreign(name)]

    @property
    def reads_texts(self) -> bool:
        """True if training needs the annotations of the images."""
        return self.region_method is not None and _class_of(self.region_method).reads_texts

    @property
    def trains_in_steps(self) -> bool:
        """True if the whole network is trained step by step; else what follows the encoder is fitted."""
        return self.fit == "full"

    @property
    def chooses_epoch(self) -> bool:
        """True if held-out images decide which weights are kept; with method mean, those of the runs it averages."""
        return self.select == "best" and (self.fit in ("full", "mean") or self.region_method is not None)

    def __post_init__(self) -> None:
        check_name(self.method, (*get_args(Fit), *REGION_METHODS), "method")
        check_batches(self)
        check_numbers(self, above={"head_lr_scale": 0}, at_least={"logit_adjustment": 0})
        if not 0 < self.fraction <= 1 or not 0 < self.holdout_fraction < 1:
            raise ConfigError(
                f"fraction must be above 0 and at most 1, holdout_fraction between 0 and 1, got {self.fraction} and "
                f"{self.holdout_fraction}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie between 0 and 1, got {self.ema_decay}; none turns it off")
        for refused in (self._wrong_method(), self._wrong_task(), self._wrong_regions()):
            if refused:
                raise ConfigError(refused)

    def _wrong_method(self) -> str | None:
        """Return the conflict of the method with other settings, if there is one."""
        if self.method == "mean" and self.network.streams != "scene":
            return f"method mean joins heads on the scene, network.streams is {self.network.streams!r}"
        if self.method == "histogram" and self.init:
            return (
                f"method histogram starts from nothing: leave out init (--init), got {self.init!r}; probe fits the "
                "same logistic regression on an encoder"
            )
        if self.method == "histogram" and self.network.streams == "both":
            return (
                "method histogram looks at one view: give --network.streams scene or person, got network.streams='both'"
            )
        return None

    def _wrong_task(self) -> str | None:
        """Return the conflict of the task with other settings, if there is one."""
        if self.task == "affect" and (self.method == "knn" or self.class_weighting == "balanced"):
            return "task affect has no classes: it goes with method full, probe or histogram, and class_weighting none"
        if self.task == "affect" and self.region_method is not None:
            return f"method {self.method} predicts labels: give task label or distribution, got 'affect'"
        if self.logit_adjustment > 0 and (self.task != "label" or self.method == "knn"):
            return "logit_adjustment is of a linear head on labels: leave it 0 with method knn and with other tasks"
        if self.calibrate_on == "labels" and self.task != "distribution":
            return f"calibrate_on labels is of task distribution, got task {self.task!r}; leave it out"
        if self.distillation.teacher and (not self.trains_in_steps or self.task != "label"):
            return (
                f"distillation goes with method full, or others that train all of the network, and task label; got "
                f"{self.method!r} and {self.task!r}"
            )
        return None

    def _wrong_regions(self) -> str | None:
        """Return the conflict of a region method's settings with others, if there is one."""
        network = self.network
        given = [name for name in ("frozen_encoder", "objects", "faces") if getattr(network, name)]
        if given and self.region_method is None:
            return f"network.{given[0]} goes with methods {', '.join(REGION_METHODS)}, got method {self.method!r}" + (
                "; method probe leaves the encoder as it is" if given[0] == "frozen_encoder" else ""
            )
        if not network.confounders:
            return None
        if self.region_method is not None:
            sees_person = bool({"person", "body", "face"} & {*_class_of(self.region_method).groups})
        else:
            sees_person = self.fit in ("full", "probe") and network.streams != "scene"
        if not sees_person or self.task == "affect":
            return (
                "network.confounders frees what a person feels from their surroundings: it goes with methods stimuli, "
                "rrla and emoticon, or full and probe with network.streams person or both; got method "
                f"{self.method!r}, streams {network.streams!r}, task {self.task!r}"
            )
        if self.logit_adjustment > 0:
            return "logit_adjustment is of a linear head; network.confounders makes another, give one of both"
        return None


def _class_of(method: str) -> Any:
    from uniemox.model.methods.relation import method_class  # noqa: PLC0415 - needs torch, which settings do not

    return method_class(method)
