"""Settings that all runs share."""

from dataclasses import dataclass
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.model.config import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW's settings."""

    base_lr: float = 1e-3
    """Highest learning rate for 256 images a step; that of a run is base_lr * batch_size / 256."""
    weight_decay: float = 0.05
    """Of matrices; biases, norms and tokens are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    max_grad_norm: float | None = None
    """L2 norm to which a step's gradient is clipped; None does not clip."""

    def __post_init__(self) -> None:
        if not 0 < self.base_lr < float("inf"):
            raise ConfigError(f"optimizer.base_lr must be above 0, got {self.base_lr}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"optimizer.weight_decay must be at least 0, got {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas must be two numbers from 0 to below 1, got {self.betas}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ConfigError(f"optimizer.max_grad_norm must be above 0, got {self.max_grad_norm}; none does not clip")

    def lr(self, batch_size: int) -> float:
        """The highest learning rate for a number of images per step (arXiv 1706.02677, section 2.1)."""
        return self.base_lr * batch_size / 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Length and shape of a run."""

    epochs: float = 200.0
    """Passes over the training data; a part of one is fine."""
    warmup_epochs: float = 40.0
    """Epochs in which the learning rate rises from 0 to its highest; the cosine counts from the first step."""
    min_lr: float = 0.0
    """The learning rate at the end; MAE's is 0."""

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise ConfigError(f"schedule.epochs must be above 0, got {self.epochs}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigError(
                f"schedule.warmup_epochs must lie between 0 and schedule.epochs, got {self.warmup_epochs} and "
                f"{self.epochs}"
            )
        if not 0 <= self.min_lr < float("inf"):
            raise ConfigError(f"schedule.min_lr must be at least 0, got {self.min_lr}")

    def steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run, at least one."""
        return max(round(self.epochs * steps_per_epoch), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareConfig:
    """Hardware settings of a run. They change results by rounding only."""

    device: Literal["cpu", "cuda"] | None = None
    """Where the model trains; None: a GPU if there is one."""
    precision: Precision | None = None
    """Of matrix products and activations; weights, losses and fusion stay in float32. None: bfloat16 where this machine
    is fast with it, float32 elsewhere."""
    compile: bool = False
    """torch.compile: a minute at the start, and faster on a GPU."""
    grad_checkpointing: bool = False
    """Compute activations a second time in the backward pass instead of keeping them: less memory, a third slower."""
    threads: int | None = None
    """Cores that one process computes on; None: torch's choice, all of them. Small networks are faster on one, beside a
    process that loads."""
    workers: int | None = None
    """Processes that load images, of each process that trains; None: one on the CPU; beside a GPU its share of
    the cores, up to 8."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"hardware.threads must be at least 1, got {self.threads}")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"hardware.workers must be at least 0, got {self.workers}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveConfig:
    """Settings for saving checkpoints."""

    every_steps: int = 500
    """Steps between checkpoints; there is always one at the end, and when the run is asked to stop."""
    keep: int = 2
    """So many of the newest checkpoints stay, and the best one."""
    keep_every: int = 0
    """Steps between checkpoints that stay for good, to see how a run went (figure 9); 0: none do."""
    keep_finished: bool = True
    """Keep the checkpoints when the run is finished; else those of keep_every alone stay, and the finished weights."""
    tracker: Literal["wandb", "mlflow"] | None = None
    """Log to Weights & Biases or to MLflow as well, as they are set up on this machine; None: to files of the run and
    TensorBoard's alone."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"save.{name} must be at least 1, got {getattr(self, name)}")
        if self.keep_every < 0:
            raise ConfigError(f"save.keep_every must be at least 0, got {self.keep_every}; 0 keeps none for good")

    @property
    def due(self) -> tuple[int, ...]:
        """A checkpoint is due at the multiples of each."""
        return (self.every_steps, *([self.keep_every] if self.keep_every else []))
