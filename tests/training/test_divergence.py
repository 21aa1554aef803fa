"""DivergenceWatch warns early of runs that diverge, and of no others."""

import math
import random

from uniemox.training.divergence import WINDOW, DivergenceWatch


def warnings_of(losses: list[float], norms: list[float] | None = None) -> list[tuple[int, str]]:
    watch = DivergenceWatch()
    norms = norms or [1.0] * len(losses)
    results = [
        (step, watch.check(step, {"loss": loss, "grad_norm": norm}))
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1)
    ]
    return [(step, sentence) for step, sentence in results if sentence]


def falling(steps: int, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [2.1 * math.exp(-step / 200) + 0.3 + draw.gauss(0, 0.15) for step in range(steps)]


# A loss near 0 may rise a little.
def test_falling_or_flat_loss_gives_no_warning() -> None:
    for seed in range(20):
        assert warnings_of(falling(1000, seed)) == []
    assert warnings_of([8.0] * 300) == []
    assert warnings_of([0.9 * 0.97**step for step in range(500)] + [0.01] * 100) == []


def test_rising_loss_is_warned_once_with_remedy() -> None:
    losses = falling(300) + [0.7 + 0.05 * step for step in range(200)]
    [(step, sentence)] = warnings_of(losses)
    assert 300 < step < 300 + 40 + WINDOW
    assert "--optimizer.base-lr" in sentence
    assert "--schedule.warmup-epochs" in sentence


def test_single_bad_step_gives_no_warning() -> None:
    losses = falling(400)
    losses[350] = 1e6
    assert warnings_of(losses) == []


def test_growing_gradients_give_a_warning() -> None:
    [(step, sentence)] = warnings_of([1.0] * 200, [0.5] * 100 + [50.0] * 100)
    assert 100 < step <= 100 + WINDOW
    assert "--optimizer.max-grad-norm" in sentence


def test_total_counts_if_there_are_several_losses() -> None:
    watch = DivergenceWatch()
    losses = [1.0] * 100 + [9.0] * 100
    warnings = [watch.check(step, {"total": loss, "loss": 1.0, "grad_norm": 1.0}) for step, loss in enumerate(losses)]
    assert len(list(filter(None, warnings))) == 1


def test_values_without_a_loss_give_no_warning() -> None:
    assert DivergenceWatch().check(1, {"lr": 0.1}) is None
