"""Settings of a pre-training run. Settings shared with other runs are defined in the packages that use them."""

from dataclasses import dataclass, field
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig, check_batches
from uniemox.views.config import ViewConfig

# With 2e-3 a small distilled encoder fell from 29.0 to 23.5 % accuracy (recipes/README.md).
MAX_START_LR = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Encoder to pre-train: a plain ViT of timm."""

    start: str | None = None
    """Initial weights: a published checkpoint, a run, or timm:NAME. None: random weights. A file with a decoder, such
    as MAE's and dBOT's, also gives the decoder its weights, where they fit (--fresh-decoder: random ones)."""
    name: str = "vit_large_patch16_224"
    """timm's name of the architecture. Used only with random weights (--encoder.start none)."""
    patch_size: int | None = None
    """Side of a patch in px, for random weights. None: as in the named architecture."""
    embed_dim: int | None = None
    """C2, number of channels, for random weights. None: as in the named architecture."""
    depth: int | None = None
    """Number of blocks, for random weights. None: as in the named architecture."""
    num_heads: int | None = None
    """Number of attention heads per block, for random weights. None: as in the named architecture."""

    @property
    def timm_options(self) -> dict[str, int]:
        """Options by which the network differs from the named architecture."""
        options = {name: getattr(self, name) for name in ("patch_size", "embed_dim", "depth", "num_heads")}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Teacher whose features losses L2 and L3 distil."""

    source: str = "clip:ViT-B-16-quickgelu@openai"
    """clip:NAME@WEIGHTS, fitted:FOLDER, stored:FILE, timm:NAME@FILE or onnx:FILE; the last two have no text encoder."""
    view: Literal["augmented", "whole", "whole_and_person"] = "augmented"
    """Teacher's input. augmented: the scene view of each step, the student's own; the paper does not say
    (docs/paper-vs-code.md). whole: the whole image, computed once. whole_and_person: mean
    of the features of whole image and person, computed once, as in `uniemox teacher fit`."""
    with_emotion: bool = True
    """Append the emotion to texts that are made from annotations (table VII of the paper compares both)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Settings of a pre-training run (arXiv 2409.18877, section III)."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    batch_size: int = 256
    """Images per step, over all processes."""
    accumulation: int = 1
    """Batches whose gradients are accumulated per step; must divide batch_size. The more batches, the fewer
    texts L2 compares with each image."""
    layer_decay: float | None = None
    """Factor by which the learning rate falls from each encoder layer to the one before it, more than 0, at most 1.
    Lower values keep more of the pre-trained weights. None: the same rate everywhere."""
    diagnose_every: int = 0
    """Steps between measurements of each loss's gradient norm at the encoder; 0: none. Shows if one loss dominates. A
    measurement costs a forward pass and a backward pass per loss."""
    fresh_decoder: bool = False
    """Start the decoder, and the layer before it that makes α and β, from random weights, even if the file of
    --encoder.start has them."""
    force_lr: bool = False
    """Allow a learning rate (base_lr * batch_size / 256) above 1e-3, which usually destroys pre-trained weights."""
    stop_on_divergence: bool = False
    """Stop, instead of only warning, if the gradient norm grows to 20 times its initial value, or the median loss of 20
    steps to twice its lowest value and by half of the first loss. Continue with --resume and a lower
    --optimizer.base-lr."""
    sharded: bool = False
    """Shard weights, gradients and optimiser state over the processes (FSDP2), for networks too large for one GPU,
    ViT-H and larger. Less memory, more communication, same result up to rounding."""
    seed: int = 0
    """Random seed for weights, order, crops and masks."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to skip before the run stops."""

    def __post_init__(self) -> None:
        check_batches(self)
        if self.diagnose_every < 0 or (self.diagnose_every and self.sharded):
            raise ConfigError(
                f"diagnose_every must be at least 0, and 0 with sharded, got {self.diagnose_every} and {self.sharded}"
            )
        lr = self.optimizer.lr(self.batch_size)
        if self.encoder.start is not None and lr > MAX_START_LR and not self.force_lr:
            raise ConfigError(
                f"optimizer.base_lr {self.optimizer.base_lr:g} times batch_size {self.batch_size} / 256 is a learning "
                f"rate of {lr:g}; above {MAX_START_LR:g} the weights {self.encoder.start} lose what they learned. "
                f"Give --optimizer.base-lr {MAX_START_LR * 256 / self.batch_size:.2g} or less, or --force-lr"
            )
