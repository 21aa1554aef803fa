"""All settings of a pre-training run; what is set where it is read is only put together here."""

from dataclasses import dataclass, field
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig, check_batches
from uniemox.views.config import ViewConfig

MAX_START_LR = 1e-3  # with 2e-3 a small distilled start fell from 29.0 to 23.5 % (docs/training.md)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The network that is pre-trained: a plain ViT of timm."""

    start: str | None = None
    """Where its weights come from: a published checkpoint, a run, or timm:NAME; None: random ones."""
    name: str = "vit_large_patch16_224"
    """timm's name of the architecture, for random weights; a start brings its own."""
    patch_size: int | None = None
    """Side of a patch in px, for random weights; None: that of the name. So are the next three."""
    embed_dim: int | None = None
    """C2, channels."""
    depth: int | None = None
    """Blocks."""
    num_heads: int | None = None
    """Attention heads of a block."""

    @property
    def timm_options(self) -> dict[str, int]:
        """Options that differ from the named architecture."""
        options = {name: getattr(self, name) for name in ("patch_size", "embed_dim", "depth", "num_heads")}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Teacher whose features L2 and L3 distil."""

    source: str = "clip:ViT-B-16-quickgelu@openai"
    """clip:NAME@WEIGHTS, fitted:FOLDER, stored:FILE, timm:NAME@FILE or onnx:FILE (the last two have no text side)."""
    view: Literal["augmented", "whole", "whole_and_person"] = "augmented"
    """What it sees: the scene view of every step (the paper); or once, kept in the run, each whole image, or the mean
    of its features of whole image and person, as a teacher of `uniemox teacher fit` is fitted."""
    with_emotion: bool = True
    """Texts made of annotations end with the emotion (table VII of the paper compares)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """A pre-training run (arXiv 2409.18877, section III)."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    batch_size: int = 256
    """Images of a step, over all processes."""
    accumulation: int = 1
    """Batches whose gradients make a step; L2 then compares with fewer texts at a time."""
    layer_decay: float | None = None
    """Learning rate of a layer of the encoder over that of the layer above it; None: the same everywhere. Below 1 it
    keeps more of a published start."""
    diagnose_every: int = 0
    """Steps between measurements of each loss's gradient norm at the encoder, for the log; 0: none. Shows whether one
    loss drowns the others. A measurement costs a forward pass, and a backward pass per loss."""
    force_lr: bool = False
    """Allow a learning rate above 1e-3 (base_lr * batch_size / 256) on a pre-trained start, which usually loses most of
    what the start has learned."""
    stop_on_divergence: bool = False
    """Stop when the loss has doubled or gradients are 20 times as long as at first, in place of a warning. --resume
    with a lower --optimizer.base-lr continues from the last checkpoint."""
    sharded: bool = False
    """Divide weights, gradients and moments over the processes (FSDP2), for networks that one GPU can't hold, ViT-H and
    larger: less memory, more traffic, the same result up to rounding."""
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
                f"rate of {lr:g}; above {MAX_START_LR:g} the start {self.encoder.start} loses what it has learned. "
                f"Give --optimizer.base-lr {MAX_START_LR * 256 / self.batch_size:.2g} or less, or --force-lr"
            )
