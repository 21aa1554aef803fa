"""Progress on standard error: bars in a terminal, occasional lines in a log."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY_S = 30  # seconds between lines in a log


class ProgressBar(Progress):
    """Progress bars with count, speed and remaining time. In a log, where rich shows nothing, they become lines.

    Args:
        say: Function that prints a line of a log.
    """

    def __init__(self, terminal: Console, say: Callable[[str], None]) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _Words(_count), _Words(_rate), TimeRemainingColumn())
        super().__init__(
            *columns,
            console=terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not terminal.is_terminal,  # otherwise rich adds an empty line to a log
        )
        self.say = say
        self.next_line = time.monotonic() + LINE_EVERY_S
        self._by_name: dict[str, TaskID] = {}

    def show(self, what: str, done: int, total: int | None, values: str = "") -> None:
        """Show the progress of one kind of work, which has its own bar until it is done.

        Args:
            values: Text shown next to the name; a log shows the latest.
        """
        if what not in self._by_name:
            self._by_name[what] = self.add_task(what, total=total)
        elif self._tasks[self._by_name[what]].finished and done != total:  # the same work again, as in every epoch
            self.reset(self._by_name[what], total=total)
        if values and done == total:
            self.next_line = 0
        name = f"{what}: {values}" if values else what
        self.update(self._by_name[what], description=name, completed=done, total=total, visible=done != total)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Override rich's method: print a line if there is no terminal."""
        super().update(task_id, **changes)
        if self.console.is_terminal or time.monotonic() < self.next_line:
            return
        self.next_line = time.monotonic() + LINE_EVERY_S
        task = self._tasks[task_id]
        rate = _rate(task) and f", {_rate(task)}"
        if task.time_remaining:
            left = f", about {duration(task.time_remaining)} to go"
        else:
            left = ""
        self.say(f"{task.description}: {_count(task)}{rate}{left}")


def duration(seconds: float) -> str:
    """Return a duration as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class _Words(ProgressColumn):
    """Text of a task, such as its count or its remaining time."""

    def __init__(self, words: Callable[[Task], str]) -> None:
        super().__init__()
        self.words = words

    def render(self, task: Task) -> Text:
        return Text(self.words(task))


def _count(task: Task) -> str:
    return f"{int(task.completed):,}" + ("" if task.total is None else f"/{int(task.total):,}")


def _rate(task: Task) -> str:
    return f"{task.speed:.1f}/s" if task.speed else ""
