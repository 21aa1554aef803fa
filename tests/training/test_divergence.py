"""Runs that go wrong are told early, others are left in peace."""

import math
import random

from uniemox.training.journal import WINDOW, DivergenceWatch


def told(losses: list[float], norms: list[float] | None = None) -> list[tuple[int, str]]:
    watch = DivergenceWatch()
    norms = norms or [1.0] * len(losses)
    found = [
        (step, watch.look(step, {"loss": loss, "grad_norm": norm}))
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1)
    ]
    return [(step, sentence) for step, sentence in found if sentence]


def falling(steps: int, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [2.1 * math.exp(-step / 200) + 0.3 + draw.gauss(0, 0.15) for step in range(steps)]


def test_a_run_that_learns_is_left_in_peace() -> None:
    for seed in range(20):
        assert told(falling(1000, seed)) == []
    assert told([8.0] * 300) == []
    assert told([0.9 * 0.97**step for step in range(500)] + [0.01] * 100) == []  # next to nothing, and a little more


def test_a_loss_that_rises_again_is_told_once_with_what_to_change() -> None:
    losses = falling(300) + [0.7 + 0.05 * step for step in range(200)]
    [(step, sentence)] = told(losses)
    assert 300 < step < 300 + 40 + WINDOW
    assert "--optimizer.base-lr" in sentence
    assert "--schedule.warmup-epochs" in sentence


def test_one_bad_step_is_no_trouble() -> None:
    losses = falling(400)
    losses[350] = 1e6
    assert told(losses) == []


def test_gradients_that_grow_are_told() -> None:
    [(step, sentence)] = told([1.0] * 200, [0.5] * 100 + [50.0] * 100)
    assert 100 < step <= 100 + WINDOW
    assert "--optimizer.max-grad-norm" in sentence


def test_of_several_losses_the_total_counts() -> None:
    watch = DivergenceWatch()
    losses = [1.0] * 100 + [9.0] * 100
    told = [watch.look(step, {"total": loss, "loss": 1.0, "grad_norm": 1.0}) for step, loss in enumerate(losses)]
    assert len(list(filter(None, told))) == 1


def test_values_without_a_loss_are_no_matter() -> None:
    assert DivergenceWatch().look(1, {"lr": 0.1}) is None
