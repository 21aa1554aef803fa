"""The training loop: when it saves, stops, warns and logs."""

import os
import signal
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.tree import says
from tests.drawn import Stored
from uniemox.data.sample import Broken, Sample
from uniemox.errors import DataError, DivergedError, StoppedError
from uniemox.training.callback import Callback, RunPlan
from uniemox.training.journal import read_metrics
from uniemox.training.memory import ActivationCount, memory_estimate
from uniemox.training.state import Checkpoints
from uniemox.training.trainer import Trainer
from uniemox.views.loader import BrokenCount, ViewBatch

NONE = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
SAMPLE = Sample(key="a.jpg", image=Stored(b""))


def plan(steps: int, done: int = 0, accumulation: int = 1) -> RunPlan:
    return RunPlan(
        title="a run",
        steps=steps,
        done=done,
        batch_size=8,
        accumulation=accumulation,
        samples=16,
        parameters=1_500_000,
        memory_bytes=2_000_000_000,
    )


def batches(count: int, **fields: object) -> list[ViewBatch]:
    return [ViewBatch(**{"scene": NONE, "person": NONE, "samples": (SAMPLE,), "person_sources": ()} | fields)] * count


def trainer(folder: Path, callback: Callback, *, save_every: tuple[int, ...] = (3,)) -> Trainer:
    model = torch.nn.Linear(1, 1)
    return Trainer(
        out=folder,
        model=model,
        optimizer=torch.optim.SGD(model.parameters()),
        set_lr=lambda done: None,
        checkpoints=Checkpoints(folder, 1),
        callback=callback,
        save_every=save_every,
    )


class RecordingCallback(Callback):
    """A callback that records the steps that are reported."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def step(self, done: int, values: Mapping[str, float]) -> None:
        assert values["loss"] == done / 2
        assert values["images_per_s"] > 0
        assert values["wait_s"] >= 0
        self.steps.append(done)


def run(
    folder: Path,
    plan: RunPlan,
    *,
    stop_at: int = -1,
    broken: int = 0,
    limit: int = 0,
    is_empty: bool = False,
    **options: Any,
) -> tuple[list[int], list[int], list[int]]:
    """Saves, what the callback saw, and the sizes of the steps' lists of batches."""
    saved = []
    sizes = []
    callback = RecordingCallback()
    faults = tuple(Broken(f"{i}.jpg", f"{i}.jpg: cut off") for i in range(broken))
    count = (plan.steps - plan.done) * plan.accumulation
    loader = batches(count, broken=faults, samples=() if is_empty else (SAMPLE,))
    readable = BrokenCount(limit).readable(loader)
    steps = trainer(folder, callback, **options).steps(plan, readable, lambda done, _: saved.append(done))
    try:
        with closing(steps):
            for step in steps:
                sizes.append(len(step.batches))
                if step.done == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                step.report({"loss": (step.done + 1) / 2})
    except StoppedError as error:
        assert error.exit_code == 143
        assert f"stopped after step {stop_at + 1} of {plan.steps}" in str(error)
        saved.append(-1)
    return saved, callback.steps, sizes


def test_saves_at_multiples_and_at_the_end(tmp_path: Path) -> None:
    saved, reported, sizes = run(tmp_path, plan(8, accumulation=2))
    assert saved == [3, 6, 8]
    assert reported == list(range(1, 9))
    assert sizes == [2] * 8
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(i, i / 2) for i in range(1, 9)]


def test_error_in_a_step_restores_signal_handlers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with closing(trainer(tmp_path, Callback()).steps(plan(2), batches(2))) as steps:
            for _ in steps:
                assert signal.getsignal(signal.SIGTERM) != before
                raise DataError("wrong")

    with pytest.raises(DataError, match="wrong"):
        fail()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_share_of_images_with_a_person_is_logged(tmp_path: Path) -> None:
    sources = ("target", "whole_image_nobody_found", "largest", "whole_image_nobody_looked")
    loader = batches(1, samples=(SAMPLE,) * 4, person_sources=sources)
    for step in trainer(tmp_path, Callback()).steps(plan(1), loader):
        step.report({"loss": 1.0})
    assert read_metrics(tmp_path)[0]["with_person"] == 0.5


def test_each_interval_is_saved(tmp_path: Path) -> None:
    assert run(tmp_path, plan(12), save_every=(4, 5))[0] == [4, 5, 8, 10, 12]


def test_resume_continues_from_last_saved_step(tmp_path: Path) -> None:
    assert run(tmp_path, plan(8, done=5))[:2] == ([6, 8], [6, 7, 8])
    assert run(tmp_path, plan(8, done=8)) == ([], [], [])


def test_signal_stops_after_the_step_and_a_save(tmp_path: Path) -> None:
    assert run(tmp_path, plan(8), stop_at=3) == ([3, 4, -1], [1, 2, 3, 4], [1] * 4)
    # The interval and the signal share one save.
    assert run(tmp_path, plan(8), stop_at=2)[0] == [3, -1]
    # After a signal in the last step the run ends as usual.
    assert run(tmp_path, plan(2), stop_at=1)[:2] == ([2], [1, 2])


def test_too_many_unreadable_images_stop_before_the_step(tmp_path: Path) -> None:
    # The same images count once, not in each epoch.
    assert run(tmp_path, plan(2), broken=2, limit=2)[1] == [1, 2]
    with pytest.raises(DataError, match=says("3 images can't be read, more than the 2", "2.jpg: cut off")):
        run(tmp_path, plan(2), broken=3, limit=2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(DataError, match=says("none of 2 images of a batch can be read: 1.jpg: cut off")):
        run(tmp_path, plan(2), broken=2, limit=9, is_empty=True)


@pytest.mark.parametrize("stops", [True, False])
def test_a_run_that_diverges_stops_or_warns(tmp_path: Path, stops: bool) -> None:
    """When it stops, what diverged is not saved: the last checkpoint is one of before."""
    saved = []
    warned = []
    callback = Callback()
    callback.warn = lambda done, trouble: warned.append((done, trouble))
    losses = [1.0] * 30 + [9.0] * 30
    diverging = replace(plan(60), stops_on_divergence=stops)
    steps = trainer(tmp_path, callback, save_every=(20,)).steps(
        diverging, batches(60), lambda done, _: saved.append(done)
    )
    ends = pytest.raises(DivergedError, match=says("last checkpoint is of step 20", "--optimizer.base-lr"))
    with ends if stops else nullcontext(), closing(steps):
        for step in steps:
            step.report({"loss": losses[step.done], "grad_norm": 1.0})
    assert saved == ([20] if stops else [20, 40, 60])
    assert len(warned) == 1
    assert 30 < warned[0][0] < 60
    assert "the loss was 1 at step" in warned[0][1]


def test_plan_lists_steps_parameters_and_memory() -> None:
    assert str(plan(1000)) == (
        "a run: 1,000 steps of 8 images (16 samples, 500.0 epochs), 1.5 million parameters, about 2.0 GB, on 1 x cpu"
    )
    assert str(plan(1000, 10)).endswith("; 10 steps are done")


def test_memory_is_sixteen_bytes_a_trained_parameter_and_the_activations() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.Tanh())
    with ActivationCount(model) as activations:
        model(torch.ones(2, 4))
    # The layer's input and tanh's output in float32.
    assert activations.bytes == 4 * (2 * 4 + 2 * 8)
    assert memory_estimate(model, activations.bytes) == 16 * 32 + activations.bytes
    model[0].requires_grad_(False)
    assert memory_estimate(model, 0) == 4 * 32
