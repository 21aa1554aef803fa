"""Progress of a run on standard error."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from uniemox.cli.console import progress_bar, say
from uniemox.cli.progress import duration
from uniemox.training.callback import Callback, RunPlan
from uniemox.training.processes import rank

# The remaining time is estimated after a few steps.
ESTIMATE_AFTER_STEPS = 5
# Values that only the log shows, not the line next to the bar.
LOG_ONLY = ("lr", "epoch", "images_per_s", "wait_s", "with_person", "clipped", "fused_cosine", "offset_share")
# Prefix of the gradient norms of single losses, which only the log shows too.
LOSS_NORM_PREFIX = "grad_norm_"


class ConsoleCallback(AbstractContextManager["ConsoleCallback"], Callback):
    """Training callback that prints to standard error, in the first process only."""

    def __init__(self) -> None:
        self.bar = progress_bar()
        self.plan: RunPlan | None = None
        self.started = 0.0

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def progress(self, work: str, done: int, total: int | None, values: str = "") -> None:
        """Show progress as a separate bar, or as lines in a log."""
        if rank() == 0:
            self.bar.start()
            self.bar.show(work, done, total, values)

    def start(self, plan: RunPlan) -> None:
        """Print the cost of the run."""
        self.plan = plan
        self.started = time.perf_counter()
        if rank() == 0:
            say(str(plan))

    def note(self, line: str) -> None:
        """Print the line."""
        if rank() == 0:
            say(line)

    def warn(self, done: int, trouble: str) -> None:
        """Print the warning."""
        if rank() == 0:
            say(f"step {done:,}: {trouble}")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Show the progress and every loss by name; after a few steps, print the remaining time."""
        if rank() != 0 or self.plan is None:
            return
        log_only = {name for name in values if name in LOG_ONLY or name.startswith(LOSS_NORM_PREFIX)}
        losses = "  ".join(f"{name} {value:.3f}" for name, value in values.items() if name not in log_only)
        speed = f"{values['images_per_s']:.0f} images/s, waiting {values['wait_s'] * 1000:.0f} ms"
        if done - self.plan.done == ESTIMATE_AFTER_STEPS or done == self.plan.steps == self.plan.done + 1:
            remaining_s = (time.perf_counter() - self.started) / (done - self.plan.done) * (self.plan.steps - done)
            say(f"about {duration(remaining_s)} to go, {speed}")
        self.progress(self.plan.title, done, self.plan.steps, f"{losses}  {speed}")
