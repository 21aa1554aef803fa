"""What all commands share: where they print, progress, optional packages."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from uniemox.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet


class UsageError(ConfigError):
    """A command that can't be understood; it exits with 2."""


class SafeConsole(Console):
    """A terminal that names of files can't steer: a sign stands for each of their control characters."""

    def render_str(self, text: str, **style: Any) -> Text:
        """As rich has it; here the width is that of what will be shown."""
        return super().render_str(printable(text), **style)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich has it; its own colours and movements come later, or as control segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def printable(text: str) -> str:
    """Text without signs that steer a terminal or turn the direction of writing; line breaks and tabs stay.

    >>> printable("a\\x1b[2J.jpg")
    'a\\ufffd[2J.jpg'
    """
    return "".join(c if c.isprintable() or c in "\n\t" or 0xD800 <= ord(c) < 0xE000 else "\ufffd" for c in text)


PLAIN: dict[str, Any] = {"markup": False, "emoji": False}  # [red] and :smile: in a name are that name
out, err = SafeConsole(**PLAIN), SafeConsole(stderr=True, **PLAIN)

Files = Annotated[Path | None, Parameter(negative="")]
EXIT_UNREADABLE = 3  # some images could not be read; 1 is an error, 2 a command that can't be understood
LINE_EVERY_S = 30  # of progress, where a log is written instead of a terminal
JsonFlag = Annotated[bool, Parameter(name="--json", negative="")]


def show_all(parts: Iterable[Table | str]) -> None:
    """Tables and lines on standard output; lines as they are."""
    for part in parts:
        if isinstance(part, str):
            print(printable(part))
        else:
            out.print(part)


def say(line: str) -> None:
    """A line on standard error, as it is."""
    err.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say_parts(data: "DataSet") -> None:
    """Of several data sets opened as one: each, and what became of its labels."""
    for part in data.parts:
        say(str(part))


def duration(seconds: float) -> str:
    """Words for a time."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class ProgressBar(Progress):
    """A bar in a terminal; in a log, where rich shows nothing, a line now and then."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _Count(), _Rate(), TimeRemainingColumn())
        super().__init__(
            *columns,
            console=err,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not err.is_terminal,  # else rich ends with an empty line in a log
        )
        self.next_line = time.monotonic() + LINE_EVERY_S
        self._by_name: dict[str, TaskID] = {}

    def show(self, what: str, done: int, total: int | None, values: str = "") -> None:
        """How far a kind of work is; each has a bar until it is done.  values: shown beside its name."""
        if what not in self._by_name:
            self._by_name[what] = self.add_task(what, total=total)
        elif self._tasks[self._by_name[what]].finished and done != total:  # the same work again, as every epoch has
            self.reset(self._by_name[what], total=total)
        name = f"{what}: {values}" if values else what
        self.update(self._by_name[what], description=name, completed=done, total=total, visible=done != total)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich has it."""
        super().update(task_id, **changes)
        self._log(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich has it."""
        super().advance(task_id, advance)
        self._log(task_id)

    def _log(self, task_id: TaskID) -> None:
        if self.console.is_terminal or time.monotonic() < self.next_line:
            return
        self.next_line = time.monotonic() + LINE_EVERY_S
        task = self._tasks[task_id]
        rate = _rate(task) and f", {_rate(task)}"
        left = "" if task.time_remaining is None else f", about {duration(task.time_remaining)} to go"
        say(f"{task.description}: {_count(task)}{rate}{left}")


def progress_bar() -> ProgressBar:
    """Progress on standard error: how many of how many, how many a second, and the time left."""
    return ProgressBar()


class _Count(ProgressColumn):
    """Things done, of how many as soon as they are counted."""

    def render(self, task: Task) -> Text:
        """The numbers."""
        return Text(_count(task))


class _Rate(ProgressColumn):
    """Things a second."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        return Text(_rate(task))


def _count(task: Task) -> str:
    return f"{int(task.completed):,}" + ("" if task.total is None else f"/{int(task.total):,}")


def _rate(task: Task) -> str:
    return f"{task.speed:.1f}/s" if task.speed else ""


def need(*packages: str, extra: str) -> None:
    """Raise MissingPackageError unless all packages are installed."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"this command needs {', '.join(missing)}; run: pip install 'uniemox[{extra}]'")
