"""How long a run is, and its learning rate: linear warm-up, then a cosine that runs from the first step to the last.

As timm's scheduler has it without `warmup_prefix`: after a warm-up of w of T steps the rate follows the cosine's
value at w, below its highest, where MAE begins the half cosine at its top. With w/T of 1/5 that is 0.90 of it, with
1/20 it is 0.99.
"""

import math
from dataclasses import dataclass

import torch
from timm.scheduler import CosineLRScheduler

from uniemox.errors import ConfigError


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


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """timm's schedule over steps; `step_update(n)` sets the rates for the step after n steps, a function of n alone.

    Parameter groups with an lr_scale get so much of the learning rate.
    """
    steps = config.steps(steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=steps,
        lr_min=config.min_lr,
        warmup_t=min(round(config.warmup_epochs * steps_per_epoch), steps - 1),
        t_in_epochs=False,
    )


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate in a step: a linear warm-up, then half a cosine down to 0.

    warmup: share of the steps.  Unlike `build_schedule`, the cosine begins at its top, after the warm-up.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
