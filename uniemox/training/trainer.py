"""The loop of training steps, with resuming, plan, image order, learning rate, journal, checkpoints and stopping."""

import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.errors import DivergedError, StoppedError
from uniemox.io.parallel import usable_cores
from uniemox.io.stopping import StopRequest
from uniemox.persons.box import is_of_person
from uniemox.training.callback import Callback, RunPlan
from uniemox.training.config import SingleProcessConfig, TrainConfig
from uniemox.training.divergence import DivergenceWatch
from uniemox.training.hardware import check_shared_memory, count_workers
from uniemox.training.journal import Journal
from uniemox.training.memory import activation_bytes, memory_estimate, trained_parameters, view_bytes
from uniemox.training.optimization import build_optimizer, build_schedule, warmup_cosine
from uniemox.training.processes import gather_numbers, rank, wait_for_all, world_size
from uniemox.training.sharding import is_sharded
from uniemox.training.state import Checkpoints, ResumePoint, step_of
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader

Batch = TypeVar("Batch")
# Processes exchange this number if there is no checkpoint.
NO_CHECKPOINT = -1


@dataclass(frozen=True, slots=True)
class Step(Generic[Batch]):
    """The current step."""

    done: int
    """Number of steps before it."""
    batches: Sequence[Batch]
    values: dict[str, float] = field(default_factory=dict)
    """Losses and other values by name, for the log. Each step must report some."""

    def report(self, values: Mapping[str, float]) -> None:
        """Record the step's values."""
        self.values.update(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """A model in training, with everything about its steps that does not depend on its loss."""

    out: Path
    """Folder of the run."""
    model: Any
    """torch module, on its device."""
    optimizer: torch.optim.Optimizer
    set_lr: Callable[[int], object]
    """Function that sets the learning rates of the step after n steps."""
    checkpoints: Checkpoints
    callback: Callback
    save_every: Sequence[int] = (500,)
    """Intervals in steps; a checkpoint is due at the multiples of each, and at the end."""
    tracker: Literal["wandb", "mlflow"] | None = None

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        out: Path,
        model: nn.Module,
        callback: Callback,
        *,
        samples: int,
        encoder_lr_scale: float = 1.0,
        head_lr_scale: float | None = None,
        every_epoch: bool = False,
    ) -> "Trainer":
        """Return the trainer of a run, with its optimizer.

        Args:
            config: Settings of the run.
            out: Folder of the run.
            model: The model, on its device.
            callback: Receives the progress of the run.
            samples: Number of training images.
            encoder_lr_scale: As for `build_optimizer`.
            head_lr_scale: As for `build_optimizer`.
            every_epoch: Also save a checkpoint after every epoch.
        """
        adam = config.optimizer
        optimizer = build_optimizer(
            model,
            lr=adam.lr(config.batch_size),
            weight_decay=adam.weight_decay,
            betas=adam.betas,
            layer_decay=config.layer_decay,
            encoder_lr_scale=encoder_lr_scale,
            head_lr_scale=head_lr_scale,
        )
        steps_per_epoch = steps_in_epoch(samples, config.batch_size)
        schedule = build_schedule(optimizer, config.schedule, steps_per_epoch)
        return cls(
            out=out,
            model=model,
            optimizer=optimizer,
            set_lr=schedule.step_update,
            checkpoints=Checkpoints(out, config.save.keep, config.save.keep_every),
            callback=callback,
            save_every=(*config.save.due, steps_per_epoch) if every_epoch else config.save.due,
            tracker=config.save.tracker,
        )

    @classmethod
    def of_single_process(
        cls,
        config: SingleProcessConfig,
        out: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        callback: Callback,
        *,
        samples: int,
        warmup: float,
    ) -> "Trainer":
        """Return the trainer of a run in one process on the CPU.

        Args:
            config: Settings of the run.
            out: Folder of the run.
            model: The model.
            optimizer: From `build_grouped_optimizer`.
            callback: Receives the progress of the run.
            samples: Number of training images.
            warmup: Share of the steps in which the learning rate rises, 0 to 1.
        """
        steps = config.epochs * steps_in_epoch(samples, config.batch_size)
        return cls(
            out=out,
            model=model,
            optimizer=optimizer,
            set_lr=warmup_cosine(optimizer, config.lr, steps=steps, warmup=warmup),
            checkpoints=Checkpoints(out, keep=1),
            callback=callback,
        )

    def resume(self) -> ResumePoint:
        """Load the newest checkpoint of the first process into model and optimizer, if there is one.

        Raises:
            CheckpointError: If it can't be read, or if this process does not see it.
        """
        saved = self.checkpoints.saved()
        newest = step_of(saved[-1]) if saved else NO_CHECKPOINT
        # On a slow network file system, processes may list different files at the same moment.
        [newest_of_first] = gather_numbers(newest)[0]
        if newest_of_first == NO_CHECKPOINT:
            return ResumePoint(0)
        return self.checkpoints.load(self.checkpoints.folder_of(newest_of_first), self.model, self.optimizer)

    def resume_single_process(self, title: str, config: SingleProcessConfig, *, samples: int) -> RunPlan:
        """Resume, and return the plan of a run in one process on the CPU.

        Args:
            title: Name of the run in messages.
            config: Settings of the run.
            samples: Number of training images.
        """
        return RunPlan(
            title=title,
            steps=config.epochs * steps_in_epoch(samples, config.batch_size),
            done=self.resume().step,
            batch_size=config.batch_size,
            samples=samples,
            parameters=trained_parameters(self.model),
            memory_bytes=memory_estimate(self.model),
        )

    def steps(
        self, plan: RunPlan, loader: Iterable[Batch], save: Callable[[int, Journal], object] | None = None
    ) -> Generator[Step[Batch]]:
        """Yield the remaining steps of the plan; each is timed, logged and saved when the next one is requested.

        Also logs images_per_s, wait_s for the loader, and with_person, the share of images with a person in the person
        view. Close the generator (contextlib.closing), so that signal handlers are restored after an error in a step.

        Args:
            plan: Plan of the run.
            loader: Batches from the plan's first remaining step on.
            save: Called with the number of steps done and the journal; None: save a checkpoint.

        Raises:
            StoppedError: After SIGTERM or Ctrl-C, when all is saved.
            DivergedError: If the run diverges and the plan says to stop; no checkpoint is saved then.
            DataError: If the loader finds too many unreadable images.
        """
        self.callback.start(plan)
        save = save or self._save
        stream = iter(loader)
        watch = DivergenceWatch()
        saved = plan.done
        with Journal(self.out, plan.done, self.tracker) as journal, StopRequest() as stop, ExitStack() as at_end:
            at_end.callback(self.checkpoints.wait)
            if isinstance(stream, Generator):
                # The loading processes end now, not seconds later, when the interpreter waits for them.
                at_end.callback(stream.close)
            for done in range(plan.done + 1, plan.steps + 1):
                started = time.perf_counter()
                step = Step(done - 1, list(islice(stream, plan.accumulation)))
                wait_s = time.perf_counter() - started
                self.set_lr(step.done)
                with _eager_if(_lacks_images(step.batches, plan)):
                    yield step
                assert step.values, "a step must report its values"
                images_per_s = plan.batch_size / (time.perf_counter() - started)
                values = step.values | {"images_per_s": images_per_s, "wait_s": wait_s} | _person_share(step.batches)
                journal.write(done, values)
                self.callback.step(done, values)

                if trouble := watch.check(done, values):
                    self.callback.warn(done, trouble)
                    if plan.stops_on_divergence:
                        raise _diverged(done, saved, trouble)

                is_stopped = is_stop_requested(stop)
                if is_stopped or self._is_save_due(done, plan):
                    save(done, journal)
                    saved = done
                if is_stopped and done < plan.steps:
                    raise self._stopped(done, plan, stop)
        wait_for_all()

    def _is_save_due(self, done: int, plan: RunPlan) -> bool:
        return done == plan.steps or any(done % steps == 0 for steps in self.save_every)

    def _save(self, done: int, _: Journal) -> None:
        self.checkpoints.save(ResumePoint(done), self.model, self.optimizer)

    def _stopped(self, done: int, plan: RunPlan, stop: StopRequest) -> StoppedError:
        return StoppedError(
            f"stopped after step {done:,} of {plan.steps:,}, which is saved in {self.out}; the same "
            "command with --resume continues",
            # Shells report a process that a signal ended with 128 plus the signal's number.
            exit_code=128 + (stop.signal or signal.SIGTERM),
        )


def is_stop_requested(stop: StopRequest) -> bool:
    """Return True if any process was asked to stop; all processes get the same answer."""
    is_requested = any(number for [number] in gather_numbers(stop.signal or 0))
    if is_requested and stop.signal is None:
        stop.signal = signal.SIGTERM
    return is_requested


def _lacks_images(batches: Sequence[object], plan: RunPlan) -> bool:
    """Return True if a batch of this process is smaller than the others, because an image could not be read."""
    expected = plan.batch_size // plan.accumulation // plan.processes
    return any(isinstance(batch, ViewBatch) and len(batch.samples) < expected for batch in batches)


@contextmanager
def _eager_if(is_odd_size: bool) -> Iterator[None]:
    """Don't compile inside the context: graphs are compiled for one size of batch, and another one takes minutes."""
    if not is_odd_size:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _person_share(batches: Sequence[object]) -> dict[str, float]:
    """Return "with_person", the share of images whose person view shows a person; {} without images."""
    sources = [source for batch in batches if isinstance(batch, ViewBatch) for source in batch.person_sources]
    if not sources:
        return {}
    persons = sum(is_of_person(source) for source in sources)
    return {"with_person": persons / len(sources)}


def _diverged(done: int, saved: int, trouble: str) -> DivergedError:
    return DivergedError(
        f"stopped after step {done:,}: {trouble}. The last checkpoint is of step {saved:,}: the same command with "
        "--resume and a lower --optimizer.base-lr continues from there; one with --no-stop-on-divergence never stops"
    )


def training_batches(
    config: TrainConfig, views: ViewDataset, plan: RunPlan, broken: BrokenCount | None = None
) -> Iterator[ViewBatch]:
    """Load the remaining batches of the plan, for this process.

    Args:
        config: Settings of the run.
        views: Views of the training images.
        plan: Plan of the run.
        broken: Counts unreadable images; None: a new count.

    Raises:
        DataError: If more images are unreadable than allowed.
    """
    order = RunOrder(
        plan.samples,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        seed=config.seed,
        start=plan.done,
        steps=plan.steps,
        rank=rank(),
        processes=world_size(),
    )
    # Trackers start threads, so the loader must fork its processes now.
    batches = iter(build_loader(views, order, plan.workers))
    return (broken or BrokenCount(config.max_unreadable)).readable(batches)


def measure_plan(
    config: TrainConfig,
    trainer: Trainer,
    forward_pixels: Callable[[Tensor], object],
    *,
    samples: int,
    title: str,
    done: int,
    has_ema: bool = False,
    stops_on_divergence: bool = False,
) -> RunPlan:
    """Return the plan of a run; memory is measured on two and on four grey images.

    Args:
        config: Settings of the run.
        trainer: Trainer of the run.
        forward_pixels: Function that passes (N, 3, S, S) uint8 through the model.
        samples: Number of training images.
        title: Name of the run's stage.
        done: Number of steps that are done.
        has_ema: Checkpoints also store a moving average of the weights (EMA).
        stops_on_divergence: The run stops when its loss diverges.
    """
    model = trainer.model
    device = next(model.parameters()).device
    images_per_batch = config.batch_size / config.accumulation / world_size()
    workers = count_workers(config.hardware, device)
    # Scene and person.
    batch_bytes = int(2 * images_per_batch * view_bytes(config.view.size))
    check_shared_memory(workers, batch_bytes)
    steps = config.schedule.steps(steps_in_epoch(samples, config.batch_size))
    activations = activation_bytes(model, forward_pixels, config.view.size, images_per_batch)
    return RunPlan(
        title=title,
        done=done,
        steps=steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        samples=samples,
        parameters=trained_parameters(model),
        memory_bytes=memory_estimate(model, activations),
        disk_bytes=trainer.checkpoints.need_space(model, steps=steps, has_ema=has_ema),
        device=str(device),
        processes=world_size(),
        is_sharded=is_sharded(model),
        workers=workers,
        cores=usable_cores(),
        stops_on_divergence=stops_on_divergence,
    )
