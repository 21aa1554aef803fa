"""Settings that all runs share."""

from dataclasses import dataclass
from typing import Literal, Protocol

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError
from uniemox.model.config import Precision
from uniemox.views.config import ViewConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Settings of AdamW."""

    base_lr: float = 1e-3
    """Maximum learning rate for a batch of 256; a run uses base_lr * batch_size / 256."""
    weight_decay: float = 0.05
    """Weight decay of matrices, 0 or more. Biases, norms and tokens have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates for the running means of the gradient and its square, 0 to below 1."""
    max_grad_norm: float | None = None
    """Clip the gradient of a step to this L2 norm, above 0. None: no clipping."""

    def __post_init__(self) -> None:
        check_numbers(self, "optimizer.", above={"base_lr": 0, "max_grad_norm": 0}, at_least={"weight_decay": 0})
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas must be two numbers from 0 to below 1, got {self.betas}")

    def lr(self, batch_size: int) -> float:
        """Return the maximum learning rate for a number of images per step (arXiv 1706.02677, section 2.1)."""
        return self.base_lr * batch_size / 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Length of a run and its learning-rate schedule."""

    epochs: float = 200.0
    """Number of passes over the training data; may be a fraction. A pass has complete batches alone: images that do
    not fill one are left out of this pass."""
    warmup_epochs: float = 40.0
    """Epochs in which the learning rate rises from 0 to its maximum. The cosine schedule starts at epoch 0, not at the
    end of warm-up, so the rate drops suddenly when warm-up ends: to about 90 % of the maximum if warm-up is a fifth of
    the run."""
    min_lr: float = 0.0
    """Learning rate at the end of the run, 0 or more; MAE uses 0."""

    def __post_init__(self) -> None:
        check_numbers(self, "schedule.", above={"epochs": 0}, at_least={"min_lr": 0})
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigError(
                f"schedule.warmup_epochs must lie between 0 and schedule.epochs, got {self.warmup_epochs} and "
                f"{self.epochs}; for a shorter run, also lower --schedule.warmup-epochs"
            )

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole run, at least 1."""
        return max(round(self.epochs * steps_per_epoch), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareConfig:
    """Hardware settings of a run. They change results by rounding only."""

    device: Literal["cpu", "cuda"] | None = None
    """Device to train on. None: a GPU if there is one."""
    precision: Precision | None = None
    """Precision of matrix products and activations; weights, losses and fusion stay float32. None: bfloat16 if this
    machine computes fast with it, else float32."""
    compile: bool = False
    """Use torch.compile: takes a minute at the beginning, then trains faster on a GPU."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, a third slower."""
    threads: int | None = None
    """CPU threads per process. None: all cores. Use 1 if other processes keep the cores busy."""
    workers: int | None = None
    """Image-loading processes per training process. None: 1 on the CPU; with GPUs an equal share of the cores, at most
    8."""

    def __post_init__(self) -> None:
        check_numbers(self, "hardware.", at_least={"threads": 1, "workers": 0})


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveConfig:
    """Settings for saving checkpoints."""

    every_steps: int = 500
    """Steps between checkpoints. One is always saved at the end, and when the run is asked to stop."""
    keep: int = 2
    """Number of recent checkpoints to keep, in addition to the best one."""
    keep_every: int = 0
    """Steps between checkpoints that are kept permanently, to show the course of a run (figure 9); 0: none."""
    keep_finished: bool = True
    """After the run, leave all checkpoints in place. False: leave only the final weights and those of keep_every."""
    tracker: Literal["wandb", "mlflow"] | None = None
    """Also log to Weights & Biases or MLflow, as configured on this machine. None: run files and TensorBoard only."""

    def __post_init__(self) -> None:
        check_numbers(self, "save.", at_least={"every_steps": 1, "keep": 1, "keep_every": 0})

    @property
    def due(self) -> tuple[int, ...]:
        """Intervals in steps; a checkpoint is due at the multiples of each."""
        if self.keep_every:
            return (self.every_steps, self.keep_every)
        return (self.every_steps,)


class TrainConfig(Protocol):
    """Settings of pre-training or fine-tuning that the trainer reads."""

    @property
    def view(self) -> ViewConfig:
        """Views of the images."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """AdamW."""

    @property
    def schedule(self) -> ScheduleConfig:
        """Length and learning rate."""

    @property
    def hardware(self) -> HardwareConfig:
        """Device, precision and processes."""

    @property
    def save(self) -> SaveConfig:
        """Checkpoints."""

    @property
    def layer_decay(self) -> float | None:
        """Factor of the learning rate from each layer to the one before it, above 0, at most 1; None: 1."""

    @property
    def batch_size(self) -> int:
        """Images per step, over all processes."""

    @property
    def accumulation(self) -> int:
        """Number of batches whose gradients are accumulated in one step."""

    @property
    def seed(self) -> int:
        """Random seed."""

    @property
    def max_unreadable(self) -> int:
        """Maximum number of unreadable images to skip."""


class SingleProcessConfig(Protocol):
    """Settings of a teacher or a person detector, trained in one process on the CPU."""

    @property
    def epochs(self) -> int:
        """Number of passes over the training data."""

    @property
    def batch_size(self) -> int:
        """Images per step."""

    @property
    def lr(self) -> float:
        """Maximum learning rate."""


def check_batches(config: TrainConfig) -> None:
    """Check batch size, accumulation, seed and the limit of unreadable images.

    Raises:
        ConfigError: If one is too low, or if accumulation does not divide the batch.
    """
    check_numbers(config, at_least={"batch_size": 1, "accumulation": 1, "seed": 0, "max_unreadable": 0})
    if config.batch_size % config.accumulation:
        raise ConfigError(f"accumulation {config.accumulation} must divide batch_size {config.batch_size} evenly")
