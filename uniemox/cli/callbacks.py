"""Progress of a run on standard error: a live line in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from uniemox.cli.console import duration, err, progress_bar, say
from uniemox.training.journal import RunPlan
from uniemox.training.processes import rank

EVERY_S = 30  # between lines where there is no terminal
SAID_AFTER = 5  # steps, by which the time that a run takes is known
QUIET = ("lr", "epoch", "images_per_s", "wait_s", "with_person", "clipped", "fused_cosine", "offset_share")
NORM_OF_LOSS = "grad_norm_"  # begins the names of gradient norms of single losses, in the log alone, as QUIET's are


class ConsoleCallback:
    """A training callback that prints, in the first process only."""

    def __init__(self) -> None:
        self.bar = progress_bar()
        self.plan: RunPlan | None = None
        self.started, self.said = 0.0, time.perf_counter()

    def __enter__(self) -> "ConsoleCallback":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def progress(self, what: str, done: int, total: int | None) -> None:
        """A bar of its own, or a line now and then."""
        if rank() == 0:
            self.bar.start()
            self.bar.show(what, done, total)

    def start(self, plan: RunPlan) -> None:
        """Show the cost of the run."""
        self.plan, self.started = plan, time.perf_counter()
        if rank() == 0:
            say(str(plan))

    def warn(self, done: int, trouble: str) -> None:
        """The sentence."""
        if rank() == 0:
            say(f"step {done:,}: {trouble}")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Show the progress, every loss by name, and after a few steps the remaining time."""
        if rank() != 0 or self.plan is None:
            return
        now = time.perf_counter()
        logged = {name for name in values if name in QUIET or name.startswith(NORM_OF_LOSS)}
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items() if name not in logged)
        speed = f"{values['images_per_s']:.0f} images/s, waiting {values['wait_s'] * 1000:.0f} ms"
        left = (now - self.started) / (done - self.plan.done) * (self.plan.steps - done)
        if done - self.plan.done == SAID_AFTER or done == self.plan.steps == self.plan.done + 1:
            say(f"about {duration(left)} to go, {speed}")
        if err.is_terminal:
            self.bar.start()
            self.bar.show(self.plan.what, done, self.plan.steps, f"{shown}  {speed}")
        line = f"step {done:,} of {self.plan.steps:,}, {duration(left)} to go: {shown}  {speed}"
        self._say_now_and_then(line, is_last=done == self.plan.steps)

    def _say_now_and_then(self, line: str, *, is_last: bool) -> None:
        """Print progress where there is no terminal for a bar."""
        now = time.perf_counter()
        if not err.is_terminal and (now - self.said > EVERY_S or is_last):
            self.said = now
            say(line)
