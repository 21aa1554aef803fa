"""The loop that pre-training and fine-tuning share: batches, steps, saving, stopping."""

import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import torch

from uniemox.errors import DataError, StoppedError
from uniemox.training.callbacks import Callback, RunPlan
from uniemox.training.journal import Journal
from uniemox.training.stopping import StopRequest
from uniemox.views.loader import BrokenCount, ViewBatch


def run_steps(
    loader: Iterable[ViewBatch],
    do_step: Callable[[int, list[ViewBatch]], Mapping[str, float]],
    save: Callable[[int], None],
    *,
    plan: RunPlan,
    save_every: Sequence[int],
    max_unreadable: int,
    journal: Journal,
    watcher: Callback,
) -> None:
    """Every step that the plan has left.

    do_step: given the steps that are done and the batches of the next; returns what to write down.
    save: given the steps that are done; called at the multiples of each number of `save_every`, at the end, and when
    the run is asked to stop.
    max_unreadable: pictures that may be left out because they can't be read.
    Raises StoppedError after SIGTERM or Ctrl-C, when all is saved; DataError for too many broken pictures.
    """
    stream, broken, device = iter(loader), BrokenCount(max_unreadable), torch.device(plan.device)
    with StopRequest() as stop:
        for done in range(plan.done, plan.steps):
            started = time.perf_counter()
            batches = list(islice(stream, plan.accumulation))
            waited = time.perf_counter() - started
            for batch in batches:
                broken.add(batch.broken)
                if not batch.samples:
                    raise DataError(
                        f"none of {len(batch.broken)} pictures of a batch can be read: {batch.broken[-1].reason}"
                    )
            values = dict(do_step(done, batches))
            seconds = time.perf_counter() - started
            values |= {"images_per_s": plan.batch_size / seconds, "wait_s": waited}
            journal.write(done + 1, values)
            watcher.step(done + 1, values)
            is_stopped = stop.is_made(device)
            is_due = any((done + 1) % steps == 0 for steps in save_every)
            if is_stopped or is_due or done + 1 == plan.steps:
                save(done + 1)
            if is_stopped and done + 1 < plan.steps:
                raise StoppedError(
                    f"stopped after step {done + 1:,} of {plan.steps:,}, which is saved in {journal.run}; the same "
                    "command with --resume continues",
                    exit_code=128 + (stop.signal or signal.SIGTERM),
                )
