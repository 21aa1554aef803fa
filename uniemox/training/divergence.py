"""Detection of a run that diverges."""

from collections import deque
from collections.abc import Mapping
from statistics import median

WINDOW = 20
"""Number of steps whose median is watched."""
# A loss has diverged if it is MAX_LOSS_RATIO times its lowest value, and has risen by MAX_RISE times its first value.
MAX_LOSS_RATIO = 2.0
MAX_RISE = 0.5
# Gradients have exploded if their norm is this many times the first one.
MAX_NORM_RATIO = 20.0
REMEDY = "the learning rate may be too high: try half of --optimizer.base-lr, or more --schedule.warmup-epochs"


class DivergenceWatch:
    """Watches every step of a run and warns once of each kind of problem."""

    def __init__(self) -> None:
        # Losses and gradient norms of the last steps.
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        # Median loss and norm of the first window.
        self._first: tuple[float, float] | None = None
        # Lowest median loss, and its step.
        self._lowest = (0.0, 0)
        self._warned: set[str] = set()

    def check(self, done: int, values: Mapping[str, float]) -> str | None:
        """Add a step, and return a warning if it is the first of its kind, else None.

        Args:
            done: Number of steps so far.
            values: The step's values: total or loss, and grad_norm.
        """
        total = values.get("total", values.get("loss"))
        if total is None or "grad_norm" not in values:
            return None
        self._window.append((total, values["grad_norm"]))
        if len(self._window) < WINDOW:
            return None
        loss, norm = map(median, zip(*self._window, strict=True))
        if self._first is None:
            self._first = (loss, norm)
            self._lowest = (loss, done)
        if loss < self._lowest[0]:
            self._lowest = (loss, done)

        lowest, step = self._lowest
        first_loss, first_norm = self._first
        # A loss near or below 0 easily exceeds twice its lowest value, so it must also rise by a share of the first.
        if loss > MAX_LOSS_RATIO * lowest and loss > lowest + MAX_RISE * abs(first_loss):
            kind = "loss"
            sentence = f"the loss was {lowest:.3g} at step {step:,} and is {loss:.3g} now; {REMEDY}"
        elif norm > MAX_NORM_RATIO * first_norm:
            kind = "grad_norm"
            sentence = (
                f"gradients were {first_norm:.3g} long at first and are {norm:.3g} now; {REMEDY}; or set "
                "--optimizer.max-grad-norm"
            )
        else:
            return None
        is_new = kind not in self._warned
        self._warned.add(kind)
        return sentence if is_new else None
