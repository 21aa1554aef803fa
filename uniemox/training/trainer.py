"""The steps of every run: resume, plan, order of the images, learning rate, journal and checkpoints."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.io.parallel import usable_cores
from uniemox.training.hardware import check_shared_memory, count_workers
from uniemox.training.journal import ActivationCount, Callback, Journal, RunPlan, memory_estimate
from uniemox.training.loop import Batch, Step, training_steps
from uniemox.training.optimization import warmup_cosine
from uniemox.training.processes import is_sharded, rank, world_size
from uniemox.training.state import Checkpoints, Progress
from uniemox.views.loader import BrokenCount

SAVE_EVERY = 500  # steps
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """A model in training, and everything about its steps that does not depend on its loss."""

    out: Path
    """The run's folder."""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    set_lr: Callable[[int], object]
    """Set the learning rates of the step that follows n steps."""
    broken: BrokenCount
    callback: Callback
    save_every: Sequence[int] = (SAVE_EVERY,)
    tracker: Literal["wandb", "mlflow"] | None = None

    def resume(self) -> Progress | None:
        """Load the newest checkpoint into model and optimizer; None if there is none."""
        saved = self.checkpoints.found()
        return self.checkpoints.load(saved[-1], self.model, self.optimizer) if saved else None

    def steps(
        self, plan: RunPlan, loader: Iterable[B], save: Callable[[int, Journal], object] | None = None
    ) -> Generator[Step[B]]:
        """Yield the steps that the plan has left; each reports its values. Raises as `training_steps`.

        loader: batches from the plan's first step on.  save: called with the steps done; None saves a checkpoint.
        Close it (contextlib.closing).
        """
        self.callback.start(plan)
        keep = save or self._save
        with Journal(self.out, plan.done, is_written=rank() == 0, tracker=self.tracker) as journal:
            steps = training_steps(
                loader,
                plan=plan,
                save=lambda done: keep(done, journal),
                wait_until_saved=self.checkpoints.wait,
                save_every=self.save_every,
                broken=self.broken,
                journal=journal,
                callback=self.callback,
            )
            with closing(steps):
                for step in steps:
                    self.set_lr(step.done)
                    yield step

    def _save(self, done: int, _: Journal) -> None:
        self.checkpoints.save(Progress(done, None, {}), self.model, self.optimizer)


def run_order(config: Any, plan: RunPlan) -> RunOrder:
    """Return the order of the images that the plan has left, for this process.

    config: of pre-training or fine-tuning.
    """
    return RunOrder(
        plan.samples,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        seed=config.seed,
        start=plan.done,
        steps=plan.steps,
        rank=rank(),
        processes=world_size(),
    )


def measure_plan(
    what: str,
    config: Any,
    trainer: Trainer,
    probe: Callable[[Tensor], object],
    *,
    samples: int,
    done: int,
    **more: Any,
) -> RunPlan:
    """Return the plan of a run; memory is measured on two grey images.

    what: is done: "fine-tuning".  config: of pre-training or fine-tuning.  probe: pass (2, 3, S, S) uint8 through the
    model.  samples: training images.  done: steps before.  more: further fields of the plan.
    """
    model = trainer.model
    device = next(model.parameters()).device
    pixels = torch.zeros(2, 3, config.view.size, config.view.size, dtype=torch.uint8)
    with torch.compiler.set_stance("force_eager"), ActivationCount(model) as kept:
        probe(pixels)
    images = config.batch_size / config.accumulation / world_size()  # of a batch of one process
    workers = count_workers(config.hardware, device)
    check_shared_memory(workers, int(images * pixels[0].numel() * 2))
    return RunPlan(
        what=what,
        steps=config.schedule.steps(steps_in_epoch(samples, config.batch_size)),
        done=done,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        samples=samples,
        parameters=trained_parameters(model),
        memory_bytes=memory_estimate(model, int(kept.bytes * images / 2)),
        device=str(device),
        processes=world_size(),
        is_sharded=is_sharded(model),
        workers=workers,
        cores=usable_cores(),
        **more,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleRun:
    """A run in one process on the CPU, with a fixed number of steps."""

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    what: str
    """Is done: "fitting"."""
    total: int
    """Steps of the whole run."""
    batch_size: int
    samples: int
    lr: float
    """The highest; groups get their "lr_scale" of it."""
    warmup: float
    """Share of the steps in which it rises."""
    broken: BrokenCount
    callback: Callback

    def steps(self, load_from: Callable[[int], Iterable[B]]) -> Generator[Step[B]]:
        """Yield the steps that are left after the newest checkpoint; each reports its values.

        load_from: batches from a step on.  Close it (contextlib.closing). Raises as `training_steps`.
        """
        trainer = Trainer(
            out=self.folder,
            model=self.model,
            optimizer=self.optimizer,
            checkpoints=Checkpoints(self.folder, keep=1),
            set_lr=self._set_lr,
            broken=self.broken,
            callback=self.callback,
        )
        progress = trainer.resume()
        start = 0 if progress is None else progress.step
        plan = RunPlan(
            what=self.what,
            steps=self.total,
            done=start,
            batch_size=self.batch_size,
            accumulation=1,
            samples=self.samples,
            parameters=trained_parameters(self.model),
            memory_bytes=memory_estimate(self.model, 0),
            device="cpu",
            processes=1,
        )
        return trainer.steps(plan, load_from(start))

    def _set_lr(self, done: int) -> None:
        lr = self.lr * warmup_cosine(done, self.total, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]


def trained_parameters(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
