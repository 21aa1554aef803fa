"""Settings of a fine-tuning run. Settings shared with other runs are defined in the packages that use them."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from uniemox.bounds import check_numbers
from uniemox.classifier_info import TASKS_WITH_SHARES, Task
from uniemox.errors import ConfigError
from uniemox.io.weight_names import CLIP
from uniemox.model.config import REGION_METHODS, AdaptedLayers, check_fusion, check_import_name, is_foreign
from uniemox.model.region_groups import PERSON_GROUPS, REGIONS_BY_DETECTOR, Group
from uniemox.network_spec import Streams
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig, check_batches
from uniemox.views.config import ViewConfig

Fit = Literal["full", "lora", "probe", "knn", "prototypes", "mean", "histogram"]
INIT_MISSING = (
    "--init is missing: give embedded (comes with uniemox), a run, a checkpoint, timm:NAME, or scratch:timm:NAME; only "
    "--method histogram, and preset best with method full, probe or knn, work without it"
)
# timm silently ignores some invalid parts.
RANDAUGMENT = r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Settings of the classifier's network."""

    streams: Streams = "scene"
    """Views that the network reads: scene, person, or both, fused. Region methods (--method) read what they need."""
    pool: Literal["own", "mean", "token"] = "own"
    """Pooling of a plain ViT's tokens. own: as in the method's own fine-tuning, the CLS token for
    MoCo v3, DINO and classifiers, the mean for others. mean: mean of the patch tokens through a new norm, for every
    method, as the paper's authors do. token: CLS token after the encoder's norm, the feature that the fusion was
    pre-trained on. Other networks, and those of timm, ignore this option."""
    fusion: str | None = None
    """With streams both: static, dynamic, attention, gated, scaled_attention, or mypackage.module:MyFusion.
    Default: the pre-trained fusion. If you give its name, its weights are kept; any other name creates a new fusion."""
    fusion_heads: int = 3
    """κ, number of heads of a new fusion, each with its own weights, at least 1. A pre-trained fusion keeps its own."""
    fused_width: int = 512
    """C3, number of channels of a new fusion, or of a region method, at least 1."""
    keep_norm_statistics: bool = False
    """Freeze the running means and variances of batch norms. Use it for small batches. Always on after --init embedded
    or small."""
    frozen_layers: int = 0
    """Number of encoder layers that are not trained, counted from the input in timm's groups; for a ViT: the patch
    embedding, then the blocks. 0: train all."""
    drop_path: float = 0.0
    """Stochastic depth: probability of skipping the last block in training; falls linearly to 0 at the first block."""
    dropout: float = 0.5
    """Dropout on region features in training, for region methods, 0 to below 1. Use 0 if the label depends on
    the combination of scene and person; a high value suits photographs."""
    frozen_encoder: bool = False
    """Region methods only: freeze the encoder and train the rest on features computed once, starting from a linear
    probe. Held-out images decide which of two learning rates and how many steps are used."""
    skip: bool = True
    """Region methods only: let the head also read features of whole views, unlike the papers. Off in preset paper."""
    objects: str = ""
    """Region methods except mdan and eap: ONNX file of YOLOX-nano, which detects objects and people in the scene.
    Empty: use a 4 x 4 grid instead. A detector turns off RandAugment, mixup, CutMix and erasing."""
    faces: str = ""
    """Methods stimuli and emoticon: ONNX file of YuNet-n, which detects faces in the person view. Empty: use the upper
    half of the person instead. A face detector turns off the same augmentations as --network.objects."""
    confounders: int = 0
    """Number of entries in the dictionary of CCIM (arXiv 2303.11921), a method that makes predictions depend less on
    the surroundings of a person. The paper takes 128 to 256. 0: no CCIM."""

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
    """RandAugment (arXiv 1909.13719) as a timm string; the default has magnitude 9, deviation 0.5. None: off."""
    mixup: float = 0.8
    """α of mixup's beta distribution (arXiv 1710.09412); 0: off. With cutmix on too, each batch gets one of them."""
    cutmix: float = 1.0
    """α of CutMix's beta distribution (arXiv 1905.04899), 0 or more; 0: off."""
    smoothing: float = 0.1
    """Label smoothing: share of the label that is spread over all classes, 0 to below 1."""
    erasing: float = 0.25
    """Random erasing (arXiv 1708.04896): probability of replacing a rectangle of 2 to 33 % of a view by noise."""
    altered: float = 0.0
    """Share of the training images that are shown grey, sepia, faded, tinted, dark, small, compressed, framed or
    turned, 0 to 1, see views/alterations.py. Use it for models that meet old photographs; 0: off."""

    def __post_init__(self) -> None:
        if self.randaugment is not None and not re.fullmatch(RANDAUGMENT, self.randaugment):
            raise ConfigError(
                "augment.randaugment must be None or a name such as rand-m9-mstd0.5-inc1, with parts m, n, p, mstd, "
                f"mmax, inc and their numbers, got {self.randaugment!r}"
            )
        numbers = ("mixup", "cutmix", "smoothing", "erasing", "altered")
        check_numbers(
            self,
            "augment.",
            at_least=dict.fromkeys(numbers, 0),
            below={"smoothing": 1},
            at_most={"erasing": 1, "altered": 1},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """Teacher of a fine-tuning run, and additional images without labels."""

    teacher: str = ""
    """Classifier to learn from, with the same labels: embedded, small, a run or its model.onnx. It must not have been
    trained on this run's held-out images; a run with the same data and seed is safe. Empty: no distillation."""
    data: str = ""
    """KIND:PATH of more training images. Their targets are the teacher's predictions; their labels are ignored."""
    weight: float = 0.5
    """Weight of the teacher's prediction in the target of a labelled image, 0 to 1; the label has the rest."""

    def __post_init__(self) -> None:
        check_numbers(self, "distillation.", at_least={"weight": 0}, at_most={"weight": 1})
        if self.data and not self.teacher:
            raise ConfigError("distillation.data needs a teacher; give --distillation.teacher, such as embedded")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Settings of method lora, which trains low-rank changes of a frozen ViT (arXiv 2106.09685)."""

    rank: int = 8
    """Rank of the change of a layer, at least 1. A layer with n inputs and m outputs gets rank * (n + m) weights."""
    layers: AdaptedLayers = "attention"
    """Linear layers that change. attention: projections to queries, keys and values, and of the output. all: also the
    MLP."""
    # A step of size η in B moves a weight by about η * sqrt(rank / (3 * inputs)): 0.06 η for rank 8 and 768 inputs.
    lr_scale: float = 10.0
    """Factor on the learning rate of the changes, above 0. They need a higher rate than weights themselves."""

    def __post_init__(self) -> None:
        check_numbers(self, "lora.", at_least={"rank": 1}, above={"lr_scale": 0})


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """Settings of a fine-tuning run (arXiv 2409.18877, section III-E)."""

    init: str = ""
    """Initial weights of the encoder: embedded or small, a run, a published checkpoint, timm:NAME, timm:NAME@FILE,
    timm:local-dir:FOLDER, clip:NAME@FILE or clip:local-dir:FOLDER. Prefix scratch: keeps the architecture and draws
    random weights. The features of several encoders, separated by commas, are concatenated."""
    method: str = "full"
    """full: train everything. lora: train low-rank changes of a frozen ViT. probe: logistic regression on frozen
    features. knn: 20 nearest images. prototypes: a CLIP's texts about each label, fitted to the images. mean: average
    several runs in init. histogram: logistic regression on colours, without init. Region methods: solver, stimuli,
    mdan, eap, rrla, emoticon, mypackage.module:MyMethod; see `uniemox docs methods`."""
    zero_shot: bool = False
    """With method prototypes: leave the texts' prototypes unchanged. Only the temperature is fitted."""
    task: Task = "label"
    """label: a class (equation 12). distribution: shares of votes (KL). affect: valence and arousal (MSE and CCC).
    multilabel: several labels, such as EMOTIC's categories (binary cross-entropy)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    view: ViewConfig = field(default_factory=lambda: ViewConfig(min_area=0.08))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.9, 0.999)))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=100, warmup_epochs=5, min_lr=1e-6))
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    layer_decay: float | None = None
    """Factor by which the learning rate falls from each layer to the one before it, more than 0, at most 1. Lower
    values keep more of the pre-trained weights. None: the same rate everywhere."""
    head_lr_scale: float = 1.0
    """Factor on the learning rate of everything after the encoder, above 0."""
    probe_first: bool = False
    """With methods full and lora: first fit the layers after the encoder by method probe (arXiv 2202.10054). Otherwise
    they start near zero."""
    ema_decay: float | None = None
    """Evaluate an exponential moving average of the weights, with this decay per step, between 0 and 1. None: off.
    The first steps have a lower decay (timm's warm-up): 0.99 after about 1,000 steps."""
    class_weighting: Literal["none", "balanced", "discrete"] = "none"
    """balanced: every class counts the same (methods full, probe and histogram). none: every image does. discrete: for
    task multilabel, where it replaces balanced: weight 1 / ln(1.2 + share of the images) for each label (EMOTIC)."""
    logit_adjustment: float = 0.0
    """τ of logit adjustment (arXiv 2007.07314, equation 9): subtract τ · log(class share in training) from each logit,
    so that rare classes are predicted more often. 0: off. Works only for linear heads with --task label."""
    fraction: float = 1.0
    """Use only this share of each class, of training and held-out images alike; more than 0, at most 1. For learning
    curves."""
    monitor: Literal["val", "holdout"] | None = None
    """Held-out images that choose the epoch and fit the temperature: split val, or part of train. None: val if the data
    have a test split too, else holdout. See --select for what each image is used for."""
    calibrate_on: Literal["votes", "labels"] = "votes"
    """For task distribution: target to which the temperature is fitted. votes: the shares of votes. labels: the label
    with most votes, so that a probability matches the accuracy."""
    holdout_fraction: float = 0.1
    """Share of each class of train to hold out, between 0 and 1."""
    select: Literal["best", "accuracy", "last"] = "best"
    """Epoch whose weights are saved. best: the one with the highest mean class recall on half of the monitor's images;
    the other half fits the temperature. accuracy: the one with the highest accuracy on all of them, as in the authors'
    code; they then also fit the temperature. last: the last one. In tasks distribution, affect and multilabel, -KL,
    concordance and mean average precision take the place of recall and accuracy."""
    batch_size: int = 256
    """Images per step, over all processes."""
    accumulation: int = 1
    """Number of batches whose gradients are accumulated in one step; must divide batch_size. Raise it to save
    memory."""
    seed: int = 0
    """Random seed for the head's weights, order, crops and augmentation."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to skip before the run stops."""

    @property
    def fit(self) -> Fit:
        """Name of the fitting procedure. A region method trains everything, or what follows a frozen encoder."""
        if self.region_method is not None:
            return "probe" if self.network.frozen_encoder else "full"
        return cast(Fit, self.method)

    @property
    def region_method(self) -> str | None:
        """Name of the method that relates regions of the image; None without one."""
        if self.method in get_args(Fit):
            return None
        return self.method

    def resolved(self) -> "FinetuneConfig":
        """Return these settings with the changes that method and task require, as the run records them.

        Detectors run on clean images, so a detector turns off augmentation that moves, mixes or erases pixels; crops
        and flips stay. EmotiCon reads the scene without the person. Task affect has no classes to balance, and task
        multilabel balances them by discrete weights.
        """
        config = self
        if self.task == "affect":
            config = replace(self, class_weighting="none")
        elif self.task == "multilabel" and self.class_weighting == "balanced":
            config = replace(self, class_weighting="discrete")
        if self.network.objects or self.network.faces:
            clean = replace(self.augment, randaugment=None, mixup=0.0, cutmix=0.0, erasing=0.0, altered=0.0)
            config = replace(config, augment=clean)
        hides_person = self.region_method is not None and _class_of(self.region_method).hides_person
        if hides_person:
            return replace(config, view=replace(config.view, hide_person=True))
        return config

    @property
    def own_packages(self) -> list[str]:
        """Names of the user's packages that the method and the fusion come from."""
        names = (self.method, self.network.fusion or "")
        return [name.partition(".")[0] for name in names if is_foreign(name)]

    @property
    def sees_person(self) -> bool:
        """True if the network reads the person view, or the scene without the person."""
        if self.region_method is None:
            return self.network.streams != "scene"
        method = _class_of(self.region_method)
        return method.hides_person or not set(PERSON_GROUPS).isdisjoint(method.groups)

    @property
    def reads_texts(self) -> bool:
        """True if training needs the annotations of the images."""
        return self.region_method is not None and _class_of(self.region_method).reads_texts

    @property
    def trains_in_steps(self) -> bool:
        """True if weights of the encoder are trained step by step; False if only the layers after it are fitted."""
        return self.fit in ("full", "lora")

    @property
    def chooses_epoch(self) -> bool:
        """True if held-out images decide which weights are saved; with method mean, those of the averaged runs."""
        return self.select != "last" and (self.fit in ("full", "lora", "mean") or self.region_method is not None)

    def __post_init__(self) -> None:
        check_import_name(self.method, (*get_args(Fit), *REGION_METHODS), "method")
        check_batches(self)
        check_numbers(
            self,
            above=dict.fromkeys(("head_lr_scale", "fraction", "holdout_fraction", "ema_decay"), 0),
            at_least={"logit_adjustment": 0},
            below={"holdout_fraction": 1, "ema_decay": 1},
            at_most={"fraction": 1},
        )
        for conflict in (self._method_conflict(), self._task_conflict(), self._region_conflict()):
            if conflict:
                raise ConfigError(conflict)

    def _method_conflict(self) -> str | None:
        """Describe a conflict of the method with other settings; None if there is none."""
        if self.method == "mean" and self.network.streams != "scene":
            return f"method mean averages heads on the scene: leave network.streams scene, got {self.network.streams!r}"
        if self.method != "lora" and self.lora != LoraConfig():
            return f"the settings of lora need method lora, got {self.method!r}: give --method lora, or leave them out"
        if self.method == "prototypes":
            return self._prototypes_conflict()
        if self.zero_shot:
            return f"zero_shot needs method prototypes, got {self.method!r}"
        if self.method == "histogram" and self.init:
            return (
                f"method histogram needs no initial weights: leave out --init, got {self.init!r}; method probe "
                "fits the same logistic regression on an encoder"
            )
        if self.method == "histogram" and self.network.streams == "both":
            return "method histogram reads one view: give --network.streams scene or person, got network.streams='both'"
        return None

    def _prototypes_conflict(self) -> str | None:
        """Describe a conflict of method prototypes with other settings; None if there is none."""
        if self.init and (not self.init.startswith(CLIP) or "," in self.init):
            return (
                "method prototypes needs a CLIP, which has texts: give --init clip:NAME@FILE or clip:local-dir:FOLDER, "
                f"got {self.init!r}"
            )
        if self.network.streams == "both":
            return "method prototypes reads one view: give --network.streams scene or person, got 'both'"
        if self.task not in TASKS_WITH_SHARES:
            return f"method prototypes predicts labels: give task label or distribution, got {self.task!r}"
        return None

    def _task_conflict(self) -> str | None:
        """Describe a conflict of the task with other settings; None if there is none."""
        if self.task == "affect" and (self.method == "knn" or self.region_method is not None):
            return f"method {self.method} predicts labels: give task label or distribution, got 'affect'"
        if self.class_weighting == "discrete" and self.task != "multilabel":
            return f"class_weighting discrete needs task multilabel, got task {self.task!r}; give balanced or none"
        if self.task == "multilabel" and self.method in ("knn", "mean"):
            return (
                f"method {self.method} gives one label: give method full, lora, probe or histogram with task multilabel"
            )
        if self.task == "multilabel" and self.region_method and not _class_of(self.region_method).takes_categories:
            return f"method {self.method} gives one label: give solver, rrla or emoticon with task multilabel"
        if self.logit_adjustment > 0 and (self.task != "label" or self.method == "knn"):
            return "logit_adjustment needs a linear head and task label: leave it 0 with method knn and other tasks"
        if self.calibrate_on == "labels" and self.task != "distribution":
            return f"calibrate_on labels needs task distribution, got task {self.task!r}; leave it out"
        if self.distillation.teacher and (not self.trains_in_steps or self.task != "label"):
            return (
                "distillation needs task label, and a method that trains in steps, such as full or lora; got "
                f"{self.method!r} and {self.task!r}"
            )
        return None

    def _region_conflict(self) -> str | None:
        """Describe a conflict of a region method's settings with others; None if there is none."""
        network = self.network
        options = [name for name in ("frozen_encoder", "objects", "faces") if getattr(network, name)]
        if options and self.region_method is None:
            hint = "; method probe always freezes the encoder" if options[0] == "frozen_encoder" else ""
            methods = ", ".join(REGION_METHODS)
            return f"network.{options[0]} needs a method of {methods}, got method {self.method!r}{hint}"
        groups = set[Group]()
        # The method's class needs torch, which is imported only if one of these options is set.
        if self.region_method is not None and options:
            groups.update(_class_of(self.region_method).groups)
        for name in options:
            if name in REGIONS_BY_DETECTOR and not REGIONS_BY_DETECTOR[name] & groups:
                return f"method {self.method} does not use what network.{name} detects; leave it out"
        if not network.confounders:
            return None
        has_other_fit = self.region_method is None and self.fit not in ("full", "probe")
        if has_other_fit or not self.sees_person or self.task == "affect":
            return (
                "network.confounders needs a network that reads the person: methods stimuli, rrla and emoticon, or "
                "full and probe with network.streams person or both, and task label or distribution; got method "
                f"{self.method!r}, streams {network.streams!r}, task {self.task!r}"
            )
        if self.logit_adjustment > 0:
            return "logit_adjustment needs a linear head, which network.confounders replaces; give one of the two"
        return None


def _class_of(method: str) -> Any:
    from uniemox.model.methods.relation import method_class  # noqa: PLC0415 - needs torch, which settings do not

    return method_class(method)
