"""SIGTERM and Ctrl-C ask a run to stop after the step that it is in, so that it can save."""

import signal
from types import FrameType, TracebackType

from uniemox.training.distributed import gather_numbers

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Within it a first SIGTERM or Ctrl-C is noted; the second one acts at once, as without it."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, signal.Handlers | None] = {}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def is_requested(self) -> bool:
        """Whether any process was asked to stop; all of them get the same answer."""
        asked = any(number for [number] in gather_numbers(self.signal or 0))
        if asked and self.signal is None:
            self.signal = signal.SIGTERM
        return asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
