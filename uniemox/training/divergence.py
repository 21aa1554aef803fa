"""Tells early that a run goes wrong: its loss rises again, or its gradients grow."""

from collections import deque
from collections.abc import Mapping
from statistics import median

WINDOW = 20  # steps of whose values the middle one counts
RISE, PART = 2.0, 0.5  # times the lowest, and by so much of what it was at first
GROWTH = 20.0  # of gradients, times what they were


class DivergenceWatch:
    """Looks at every step of a run, and tells each kind of trouble once."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._first: tuple[float, float] | None = None  # middle loss and norm of the first window
        self._lowest = (0.0, 0)  # middle loss, and the step
        self._told: set[str] = set()

    def look(self, done: int, values: Mapping[str, float]) -> str | None:
        """A sentence to be shown, or None.  done: steps so far.  values: of the step: total or loss, and grad_norm."""
        total = values.get("total", values.get("loss"))
        if total is None or "grad_norm" not in values:
            return None
        self._losses.append(total)
        self._norms.append(values["grad_norm"])
        if len(self._losses) < WINDOW:
            return None
        loss, norm = median(self._losses), median(self._norms)
        if self._first is None:
            self._first, self._lowest = (loss, norm), (loss, done)
        if loss < self._lowest[0]:
            self._lowest = loss, done
        lowest, step = self._lowest
        remedy = "the learning rate may be too high: try half of --optimizer.base-lr, or more --schedule.warmup-epochs"
        if loss > RISE * lowest and loss > lowest + PART * abs(self._first[0]):
            return self._once("loss", f"the loss was {lowest:.3g} at step {step:,} and is {loss:.3g} now; {remedy}")
        if norm > GROWTH * self._first[1]:
            sentence = f"gradients were {self._first[1]:.3g} long at first and are {norm:.3g} now; {remedy}"
            return self._once("grad_norm", f"{sentence}; or set --optimizer.max-grad-norm")
        return None

    def _once(self, kind: str, sentence: str) -> str | None:
        if kind in self._told:
            return None
        self._told.add(kind)
        return sentence
