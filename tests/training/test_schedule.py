"""The learning rate is a function of the step alone: a line up, then half a cosine."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uniemox.errors import ConfigError
from uniemox.training.config import OptimizerConfig, ScheduleConfig
from uniemox.training.optimization import build_schedule, warmup_cosine

RATE = 0.5


def rates(config: ScheduleConfig, steps_per_epoch: int, at: list[int], *, scale: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr_scale": scale}], lr=RATE)
    schedule = build_schedule(optimizer, config, steps_per_epoch)
    lrs = []
    for step in at:
        schedule.step_update(step)
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


def plain(step: int, steps: int, warmup: int, least: float) -> float:
    """The formula, written down."""
    if step < warmup:
        return RATE * step / warmup
    return least + (RATE - least) * (1 + math.cos(math.pi * step / steps)) / 2


@given(st.integers(1, 9), st.floats(0.1, 9), st.floats(0, 1), st.floats(0, 0.4))
def test_rates_are_those_of_the_formula(per_epoch: int, epochs: float, warm: float, least: float) -> None:
    config = ScheduleConfig(epochs=epochs, warmup_epochs=warm * epochs, min_lr=least)
    steps = max(round(epochs * per_epoch), 1)
    warmup = min(round(warm * epochs * per_epoch), steps - 1)
    assert config.steps(per_epoch) == steps
    lrs = rates(config, per_epoch, list(range(steps)))
    assert lrs == pytest.approx([plain(step, steps, warmup, least) for step in range(steps)])


@given(st.permutations(range(12)))
def test_no_rate_depends_on_the_steps_before(order: list[int]) -> None:
    config = ScheduleConfig(epochs=3, warmup_epochs=1)
    expected = rates(config, 4, list(range(12)))
    assert rates(config, 4, order) == [expected[step] for step in order]


def test_a_warm_up_as_long_as_the_run_still_reaches_its_last_step() -> None:
    assert rates(ScheduleConfig(epochs=1, warmup_epochs=1), 4, [0, 1, 2, 3])[:3] == pytest.approx(
        [0, RATE / 3, RATE / 1.5]
    )
    # A single step has no warm-up.
    assert rates(ScheduleConfig(epochs=1, warmup_epochs=1), 1, [0]) == [RATE]
    assert ScheduleConfig(epochs=0.001, warmup_epochs=0).steps(2) == 1


def test_groups_get_their_share_of_the_rate() -> None:
    config = ScheduleConfig(epochs=2, warmup_epochs=1)
    full = rates(config, 3, list(range(6)))
    assert rates(config, 3, list(range(6)), scale=0.25) == pytest.approx([rate / 4 for rate in full])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "schedule.epochs must be above 0"),
        ({"epochs": float("nan")}, "schedule.epochs must be above 0"),
        ({"epochs": 10, "warmup_epochs": 11}, "warmup_epochs must lie between 0 and schedule.epochs, got 11 and"),
        ({"warmup_epochs": -1}, "warmup_epochs must lie between 0"),
        ({"min_lr": float("inf")}, "schedule.min_lr must be at least 0"),
    ],
)
def test_bad_lengths_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**values)


@pytest.mark.parametrize("values", [{"base_lr": 0}, {"weight_decay": -1}, {"betas": (0.9, 1)}, {"max_grad_norm": 0}])
def test_bad_optimisers_are_refused_by_field(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"optimizer.{next(iter(values))}"):
        OptimizerConfig(**values)


def test_the_rate_grows_with_the_batch() -> None:
    assert OptimizerConfig(base_lr=1e-3).lr(256) == 1e-3
    assert OptimizerConfig(base_lr=1e-3).lr(64) == pytest.approx(2.5e-4)


def test_the_cosine_after_a_warm_up_begins_at_its_top() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr_scale": 2.0}], lr=0.0)
    shares = []
    for steps in (40, 1):
        set_lr = warmup_cosine(optimizer, 0.5, steps=steps, warmup=0.1)
        for step in range(steps):
            set_lr(step)
            shares.append(optimizer.param_groups[0]["lr"])
    assert shares.pop() == 1
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert 0 < shares[-1] < 0.01
