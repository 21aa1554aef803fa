"""Settings that all runs share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from uniemox.errors import ConfigError
from uniemox.model.config import Precision


def check_numbers(
    config: Any, section: str = "", *, above: Mapping[str, float] = {}, at_least: Mapping[str, float] = {}
) -> None:
    """Raise ConfigError, with the field's name, for a number out of its range or not finite. None passes."""
    for words, limits in (("above", above), ("at least", at_least)):
        for name, limit in limits.items():
            value = getattr(config, name)
            if value is not None and not (limit <= value < math.inf and (words == "at least" or value != limit)):
                raise ConfigError(f"{section}{name} must be {words} {limit}, got {value}")


def check_batches(config: Any) -> None:
    """Raise ConfigError if a run can not divide its batch.  config: of pre-training or fine-tuning."""
    check_numbers(config, at_least={"batch_size": 1, "accumulation": 1, "seed": 0, "max_unreadable": 0})
    if config.batch_size % config.accumulation:
        raise ConfigError(f"accumulation {config.accumulation} must divide batch_size {config.batch_size} evenly")


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
        check_numbers(self, "optimizer.", above={"base_lr": 0}, at_least={"weight_decay": 0})
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
        check_numbers(self, "schedule.", above={"epochs": 0}, at_least={"min_lr": 0})
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigError(
                f"schedule.warmup_epochs must lie between 0 and schedule.epochs, got {self.warmup_epochs} and "
                f"{self.epochs}"
            )

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
        check_numbers(self, "hardware.", at_least={"threads": 1, "workers": 0})


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
        check_numbers(self, "save.", at_least={"every_steps": 1, "keep": 1, "keep_every": 0})

    @property
    def due(self) -> tuple[int, ...]:
        """A checkpoint is due at the multiples of each."""
        return (self.every_steps, *([self.keep_every] if self.keep_every else []))
