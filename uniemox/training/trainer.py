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
from uniemox.training.hardware import check_shared_memory, count_workers
from uniemox.training.journal import ActivationCount, Callback, DivergenceWatch, Journal, RunPlan, memory_estimate
from uniemox.training.optimization import build_optimizer, build_schedule
from uniemox.training.processes import gather_numbers, is_sharded, rank, wait_for_all, world_size
from uniemox.training.state import Checkpoints, ResumePoint, step_of
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader

B = TypeVar("B")
PROBED_IMAGES = (2, 4)  # batches whose memory is measured; L2 compares at least two images
NOTHING_SAVED = -1  # step of the newest checkpoint if there is none


@dataclass(frozen=True, slots=True)
class Step(Generic[B]):
    """The current step."""

    done: int
    """Number of steps before it."""
    batches: Sequence[B]
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
        config: Any,
        out: Path,
        model: nn.Module,
        callback: Callback,
        *,
        samples: int,
        head_lr_scale: float | None = None,
        every_epoch: bool = False,
    ) -> "Trainer":
        """Return the trainer of a run, with its optimizer.

        Args:
            config: Of pre-training or fine-tuning.
            samples: Training images.
            head_lr_scale: As for `build_optimizer`.
            every_epoch: Save after each as well.
        """
        adam = config.optimizer
        optimizer = build_optimizer(
            model,
            lr=adam.lr(config.batch_size),
            weight_decay=adam.weight_decay,
            betas=adam.betas,
            layer_decay=config.layer_decay,
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

    def resume(self) -> ResumePoint:
        """Load the newest checkpoint of the first process into model and optimizer, if there is one.

        Raises:
            CheckpointError: If it can't be read, or if this process does not see it.
        """
        saved = self.checkpoints.saved()
        newest = step_of(saved[-1]) if saved else NOTHING_SAVED
        # On a slow network file system, processes may list different files at the same moment.
        [first] = gather_numbers(newest)[0]
        if first == NOTHING_SAVED:
            return ResumePoint(0)
        return self.checkpoints.load(self.checkpoints.folder_of(first), self.model, self.optimizer)

    def plan_small_run(self, what: str, config: Any, *, samples: int) -> RunPlan:
        """Resume, and return the plan of a run in one process on the CPU.

        Args:
            config: Of a teacher or a person detector.
            samples: Number of training images.
        """
        return RunPlan(
            what=what,
            steps=config.epochs * steps_in_epoch(samples, config.batch_size),
            done=self.resume().step,
            batch_size=config.batch_size,
            samples=samples,
            parameters=trained_parameters(self.model),
            memory_bytes=memory_estimate(self.model),
        )

    def steps(
        self, plan: RunPlan, loader: Iterable[B], save: Callable[[int, Journal], object] | None = None
    ) -> Generator[Step[B]]:
        """Yield the remaining steps of the plan; each is timed, logged and saved when the next one is requested.

        Also logs images_per_s, wait_s for the loader, and with_person, the share of images with a person in the person
        view.
        Close it (contextlib.closing), so that signal handlers are restored after an error in a step.

        Args:
            loader: Batches from the plan's first step on.
            save: Called with the number of steps done; None: save a checkpoint.

        Raises:
            StoppedError: After SIGTERM or Ctrl-C, when all is saved.
            DivergedError: Without a checkpoint, if the run diverges and the plan says to stop; and errors of the
                loader.
        """
        self.callback.start(plan)
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
                waited = time.perf_counter() - started
                self.set_lr(step.done)
                with _eager_if(_lacks_images(step.batches, plan)):
                    yield step
                assert step.values, "a step must report its values"
                rate = plan.batch_size / (time.perf_counter() - started)
                values = step.values | {"images_per_s": rate, "wait_s": waited} | _with_person(step.batches)
                journal.write(done, values)
                self.callback.step(done, values)
                if trouble := watch.look(done, values):
                    self.callback.warn(done, trouble)
                    if plan.stops_on_divergence:
                        raise _diverged(done, saved, trouble)
                is_stopped = is_stop_requested(stop)
                if is_stopped or done == plan.steps or any(done % steps == 0 for steps in self.save_every):
                    (save or self._save)(done, journal)
                    saved = done
                if is_stopped and done < plan.steps:
                    raise StoppedError(
                        f"stopped after step {done:,} of {plan.steps:,}, which is saved in {self.out}; the same "
                        "command with --resume continues",
                        exit_code=128 + (stop.signal or signal.SIGTERM),
                    )
        wait_for_all()

    def _save(self, done: int, _: Journal) -> None:
        self.checkpoints.save(ResumePoint(done), self.model, self.optimizer)


def is_stop_requested(stop: StopRequest) -> bool:
    """Return True if any process was asked to stop; all processes get the same answer."""
    asked = any(number for [number] in gather_numbers(stop.signal or 0))
    if asked and stop.signal is None:
        stop.signal = signal.SIGTERM
    return asked


def _lacks_images(batches: Sequence[object], plan: RunPlan) -> bool:
    """Return True if a batch of this process is smaller than the others, because an image could not be read."""
    expected = plan.batch_size // plan.accumulation // plan.processes
    return any(isinstance(batch, ViewBatch) and len(batch.samples) < expected for batch in batches)


@contextmanager
def _eager_if(is_odd: bool) -> Iterator[None]:
    """Don't compile inside the context: graphs are compiled for one size of batch, and another one takes minutes."""
    if not is_odd:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _with_person(batches: Sequence[object]) -> dict[str, float]:
    sources = [source for batch in batches if isinstance(batch, ViewBatch) for source in batch.person_sources]
    persons = sum(not source.startswith("whole_image") for source in sources)
    if sources:
        return {"with_person": persons / len(sources)}
    return {}


def _diverged(done: int, saved: int, trouble: str) -> DivergedError:
    return DivergedError(
        f"stopped after step {done:,}: {trouble}. The last checkpoint is of step {saved:,}: the same command with "
        "--resume and a lower --optimizer.base-lr continues from there; one with --no-stop-on-divergence never stops"
    )


def load_batches(
    config: Any, views: ViewDataset, plan: RunPlan, broken: BrokenCount | None = None
) -> Iterator[ViewBatch]:
    """Load the remaining batches of the plan, for this process.

    Args:
        config: Of pre-training or fine-tuning.
        broken: Counts unreadable images; None: a new count.

    Raises:
        DataError: For too many unreadable images.
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
    batches = iter(build_loader(views, order, plan.workers))  # forks its processes before trackers start threads
    return (broken or BrokenCount(config.max_unreadable)).readable(batches)


def measure_plan(
    config: Any,
    trainer: Trainer,
    probe: Callable[[Tensor], object],
    *,
    samples: int,
    has_ema: bool = False,
    **more: Any,
) -> RunPlan:
    """Return the plan of a run; memory is measured on two and on four grey images.

    Args:
        config: Of pre-training or fine-tuning.
        probe: Passes (N, 3, S, S) uint8 through the model.
        samples: Number of training images.
        more: Further fields of the plan.
    """
    model = trainer.model
    device = next(model.parameters()).device
    images = config.batch_size / config.accumulation / world_size()  # per batch of one process
    workers = count_workers(config.hardware, device)
    check_shared_memory(workers, int(2 * images * view_bytes(config.view.size)))
    steps = config.schedule.steps(steps_in_epoch(samples, config.batch_size))
    return RunPlan(
        steps=steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        samples=samples,
        parameters=trained_parameters(model),
        memory_bytes=memory_estimate(model, activation_bytes(model, probe, config.view.size, images)),
        disk_bytes=trainer.checkpoints.need_space(model, steps=steps, has_ema=has_ema),
        device=str(device),
        processes=world_size(),
        is_sharded=is_sharded(model),
        workers=workers,
        cores=usable_cores(),
        **more,
    )


def activation_bytes(model: nn.Module, probe: Callable[[Tensor], object], size: int, images: float) -> int:
    """Estimate what autograd stores for the backward pass of a batch, in bytes.

    It grows linearly with the images. Its fixed part, such as copies of the weights in bfloat16, counts once.

    Args:
        probe: Passes (N, 3, S, S) uint8 through the model.
        size: S, px.
        images: Of the batch.
    """
    few, more = (_stored_bytes(model, probe, size, count) for count in PROBED_IMAGES)
    first, second = PROBED_IMAGES
    per_image = (more - few) / (second - first)
    return int(few + per_image * (images - first))


def _stored_bytes(model: nn.Module, probe: Callable[[Tensor], object], size: int, count: int) -> int:
    """Count the bytes that autograd stores for grey images."""
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    with torch.compiler.set_stance("force_eager"), ActivationCount(model) as stored:
        probe(pixels)
    return stored.bytes


def view_bytes(size: int) -> int:
    """Return the bytes of one view, (3, S, S) uint8.  size: S, px."""
    return 3 * size**2


def trained_parameters(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
