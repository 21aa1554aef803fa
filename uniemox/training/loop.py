"""The training loop: a generator of steps that times, logs, saves and stops them."""

import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Protocol, TypeVar

from uniemox.data.sample import Broken
from uniemox.errors import DataError, DivergedError, StoppedError
from uniemox.io.stopping import StopRequest
from uniemox.training.journal import Callback, DivergenceWatch, Journal, RunPlan
from uniemox.training.processes import gather_numbers, wait_for_all
from uniemox.views.loader import BrokenCount


def is_stop_requested(stop: StopRequest) -> bool:
    """Return True if any process was asked to stop; all processes get the same answer."""
    asked = any(number for [number] in gather_numbers(stop.signal or 0))
    if asked and stop.signal is None:
        stop.signal = signal.SIGTERM
    return asked


class Batch(Protocol):
    """A batch from a loader."""

    @property
    def samples(self) -> Sequence[object]:
        """Those that could be read."""

    @property
    def broken(self) -> Sequence[Broken]:
        """Those that could not."""

    @property
    def person_sources(self) -> Sequence[str]:
        """Source of each sample's person view; empty if there are no person views."""


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class Step(Generic[B]):
    """One step that is to be done now."""

    done: int
    """Steps before it."""
    batches: Sequence[B]
    values: dict[str, float] = field(default_factory=dict)
    """Losses and more, by name, for the log."""

    def report(self, values: Mapping[str, float]) -> None:
        """Record the step's values; the loop raises an AssertionError if a step reports none."""
        self.values.update(values)


def training_steps(
    loader: Iterable[B],
    *,
    plan: RunPlan,
    save: Callable[[int], object],
    wait_until_saved: Callable[[], object],
    save_every: Sequence[int],
    broken: BrokenCount,
    journal: Journal,
    callback: Callback,
) -> Generator[Step[B]]:
    """Every step that the plan has left; each is timed, logged and saved when the next one is asked for.

    save: given the steps that are done; called at the multiples of each number of `save_every`, at the end, and when
    the run is asked to stop.  wait_until_saved: called however the steps end.
    What is logged beside a step's own values: images_per_s, wait_s for the loader, and with_person, the share of its
    images whose person view is a person and not the whole image.
    broken: counts the images that are skipped because they can't be read; it stops the run if they are too many.
    Raises StoppedError after SIGTERM or Ctrl-C, when all is saved; DataError for too many unreadable images;
    DivergedError, without a checkpoint, when the run seems to go wrong and the plan says to stop (DivergenceWatch).
    Close it (contextlib.closing), so that an error in a step gives the signals back.
    """
    stream, watch, saved = iter(loader), DivergenceWatch(), plan.done
    with StopRequest() as stop, ExitStack() as at_end:
        at_end.callback(wait_until_saved)
        for done in range(plan.done, plan.steps):
            started = time.perf_counter()
            batches = list(islice(stream, plan.accumulation))
            waited = time.perf_counter() - started
            for batch in batches:
                broken.add(batch.broken)
                if not batch.samples:
                    raise DataError(
                        f"none of {len(batch.broken)} images of a batch can be read: {batch.broken[-1].reason}"
                    )
            step = Step(done, batches)
            yield step
            assert step.values, "a step reports what it gave"
            seconds = time.perf_counter() - started
            values = step.values | {"images_per_s": plan.batch_size / seconds, "wait_s": waited}
            if sources := [source for batch in batches for source in batch.person_sources]:
                values["with_person"] = sum(not source.startswith("whole_image") for source in sources) / len(sources)
            journal.write(done + 1, values)
            callback.step(done + 1, values)
            if trouble := watch.look(done + 1, values):
                callback.warn(done + 1, trouble)
                if plan.stops_on_divergence:
                    raise _diverged(done + 1, saved, trouble)
            is_stopped = is_stop_requested(stop)
            is_due = any((done + 1) % steps == 0 for steps in save_every)
            if is_stopped or is_due or done + 1 == plan.steps:
                save(done + 1)
                saved = done + 1
            if is_stopped and done + 1 < plan.steps:
                raise StoppedError(
                    f"stopped after step {done + 1:,} of {plan.steps:,}, which is saved in {journal.run}; the same "
                    "command with --resume continues",
                    exit_code=128 + (stop.signal or signal.SIGTERM),
                )
    wait_for_all()


def _diverged(done: int, saved: int, trouble: str) -> DivergedError:
    return DivergedError(
        f"stopped after step {done:,}: {trouble}. The last checkpoint is of step {saved:,}: the same command with "
        "--resume and a lower --optimizer.base-lr continues from there; one with --no-stop-on-divergence never stops"
    )
