"""Progress on standard error: bars in a terminal, occasional lines in a log."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

# Interval between the lines of a log.
LINE_EVERY_S = 30


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
            # Without a terminal, rich would add an empty line to a log.
            disable=not _is_live(terminal),
        )
        self.say = say
        self.next_line = time.monotonic() + LINE_EVERY_S
        self._by_name: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int | None, values: str = "") -> None:
        """Show the progress of one kind of work, which has its own bar until it is done.

        Args:
            name: Name of the work, such as "images".
            done: Number of finished steps.
            total: Number of all steps; None if unknown.
            values: Text shown next to the name; a log shows the latest.
        """
        if name not in self._by_name:
            self._by_name[name] = self.add_task(name, total=total)
        elif self._tasks[self._by_name[name]].finished and done != total:
            # The same work begins again, as in every epoch.
            self.reset(self._by_name[name], total=total)
        if values and done == total:
            self.next_line = 0
        description = f"{name}: {values}" if values else name
        self.update(self._by_name[name], description=description, completed=done, total=total, visible=done != total)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Override rich's method: print a line if there is no terminal."""
        super().update(task_id, **changes)
        if not self.disable or time.monotonic() < self.next_line:
            return
        self.next_line = time.monotonic() + LINE_EVERY_S
        task = self._tasks[task_id]
        rate = _rate(task) and f", {_rate(task)}"
        remaining = f", about {duration(task.time_remaining)} to go" if task.time_remaining else ""
        self.say(f"{task.description}: {_count(task)}{rate}{remaining}")


def _is_live(terminal: Console) -> bool:
    """Return True if bars can be drawn again in place.

    Notebooks set FORCE_COLOR for the commands in their cells. Rich then takes the pipe to the notebook for a terminal,
    and the notebook would show each state of the bars.
    """
    return terminal.is_terminal and not terminal.is_jupyter and terminal.file.isatty()


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
