"""How long a run is, and its learning rate: linear warm-up, then a cosine that runs from the first step to the last.

As timm's scheduler has it without `warmup_prefix`: after a warm-up of w of T steps the rate follows the cosine's
value at w, below its highest, where MAE begins the half cosine at its top. With w/T of 1/5 that is 0.90 of it, with
1/20 it is 0.99.
"""

import math

import torch
from timm.scheduler import CosineLRScheduler

from uniemox.training.config import ScheduleConfig


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """timm's schedule over steps; `step_update(n)` sets the rates for the step after n steps, a function of n alone.

    Parameter groups with an lr_scale get so much of the learning rate.
    """
    steps = config.steps(steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(steps, 2),  # a single step has the highest rate either way, and timm warns of a cycle of one
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
