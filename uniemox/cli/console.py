"""The terminal: messages, tables, progress, and packages that a command needs."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from uniemox.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from uniemox.data.audit import Audit
    from uniemox.data.sample import DataSet
    from uniemox.evaluate.run import Evaluation
    from uniemox.evaluate.scores import GroupScores


class UsageError(ConfigError):
    """A command that can't be understood; it exits with 2."""


class SafeConsole(Console):
    """A terminal that file names can't control: their control characters are replaced."""

    def render_str(self, text: str, **style: Any) -> Text:
        """Override rich's width by that of the shown characters."""
        return super().render_str(printable(text), **style)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Override rich's printing; its own colours and cursor movements follow as control segments."""
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
    """Print a line to standard error, unchanged."""
    err.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say_parts(data: "DataSet") -> None:
    """Print the parts of a union, and how each one's labels were mapped."""
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
        """Show the progress of one kind of work; each has a bar until it is done.  values: shown beside its name."""
        if what not in self._by_name:
            self._by_name[what] = self.add_task(what, total=total)
        elif self._tasks[self._by_name[what]].finished and done != total:  # the same work again, as every epoch has
            self.reset(self._by_name[what], total=total)
        name = f"{what}: {values}" if values else what
        self.update(self._by_name[what], description=name, completed=done, total=total, visible=done != total)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Override rich's method."""
        super().update(task_id, **changes)
        self._log(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Override rich's method."""
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


TEXT_LENGTH = 300  # of a sample, shown


def data_tables(data: "DataSet", examples: int) -> Iterator[Table | str]:
    """Classes by split, what is known of how many samples, notes, and a few samples."""
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted({sample.split or "" for sample in data.samples}, key=lambda split: (order.get(split, 3), split))
    counts = Counter((sample.label, sample.split or "") for sample in data.samples)
    yield f"{data.name}: {len(data)} samples, {data.labels.name} ({data.labels.kind})"
    table = Table()
    for heading in ("label", *(split or "all" for split in splits)):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for i, label in enumerate(data.labels.labels):
        table.add_row(Text(label), *(str(counts[i, split]) for split in splits))
    if any(label is None for label, _ in counts):
        table.add_row("(no label)", *(str(counts[None, split]) for split in splits))
    yield table
    known = {
        "distribution": sum(sample.distribution is not None for sample in data.samples),
        "valence, arousal": sum(sample.valence is not None for sample in data.samples),
        "text": sum(sample.text is not None for sample in data.samples),
        "people looked for": sum(sample.persons is not None for sample in data.samples),
        "target person": sum(sample.target_box is not None for sample in data.samples),
        "domain": sum(sample.domain is not None for sample in data.samples),
    }
    yield "known of samples: " + (
        ", ".join(f"{name} {count}" for name, count in known.items() if count) or "labels only"
    )
    yield from (f"note: {note}" for note in data.notes)
    for sample in data.samples[:examples]:
        label = data.label_of(sample) or "(no label)"
        yield f"  {sample.image}  {label}" + (f"  {shorten(sample.text, TEXT_LENGTH)}" if sample.text else "")


def audit_tables(found: "Audit") -> Iterator[Table | str]:
    """Print the number of faults of each kind, with examples, and the drift."""
    from uniemox.data.audit import GROUPS

    yield f"{found.name}: {found.count} samples"
    table = Table()
    for heading in ("", "groups", "images", "for example"):
        table.add_column(heading, justify="right" if heading in ("groups", "images") else "left")
    for name in GROUPS:
        _add_row(table, found, name)
    yield table
    sizes = sorted((sum(row.values()), label) for label, row in found.classes.items())
    if sizes:
        (fewest, rarest), (most, commonest) = sizes[0], sizes[-1]
        yield f"classes: from {fewest} ({rarest}) to {most} ({commonest}) samples"
    for drift in found.drift:
        names = " and ".join(drift.splits)
        judged = "more than by chance" if drift.distance > drift.by_chance else "as by chance"
        yield f"colours of {names} differ by {drift.distance:.3f} (chance {drift.by_chance:.3f}): {judged}"
    yield f"{len(found.exclude)} samples should be excluded: --json lists them (for --exclude), --html shows them"


def _add_row(table: Table, found: "Audit", name: str) -> None:
    groups = getattr(found, name)
    first = groups[0].members[0] if groups else None
    example = Text("" if first is None else f"{first.sample.key} {groups[0].reason}")
    table.add_row(name.replace("_", " "), str(len(groups)), str(sum(len(g.members) for g in groups)), example)


TRUST = {
    "coverage": "likely sets for 90 % that hold the label",
    "set_size": "labels in such a set",
    "flagged": "flagged as unfamiliar",
}


def score_tables(found: "Evaluation") -> Iterator[Table | str]:
    """Every score with its interval, the confusion matrix, and groups."""
    values = asdict(found.scores)
    table = Table("score", "value", "95 % interval")
    for name, value, interval in _flat(values | dict(found.trust)):
        table.add_row(TRUST.get(name.replace(" ", "_"), name), value, interval)
    yield table
    if "confusion" in values:
        yield _confusion(values)
    if found.by is not None:
        yield _groups(found.by)
    yield f"{values['n']} samples"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, value and interval of every number."""
    for name, value in values.items():
        if name.endswith("interval") or name in ("n", "confusion", "labels"):
            continue
        if isinstance(value, dict):
            intervals = values.get(f"{name.removesuffix('_recall')}_interval", {})
            inner = value if name != "per_class_recall" else {f"recall of {k}": v for k, v in value.items()}
            bounds = {f"recall of {k}_interval": v for k, v in intervals.items()} if intervals else {}
            yield from _flat(inner | bounds, "" if name == "per_class_recall" else f"{name} ")
        else:
            low_high = values.get(f"{name}_interval")
            shown = "-" if value is None else f"{value:.4f}"
            yield f"{prefix}{name}".replace("_", " "), shown, "{:.4f} to {:.4f}".format(*low_high) if low_high else ""


def _confusion(values: dict[str, Any]) -> Table:
    table = Table("true \\ predicted", title="confusion")
    for label in values["labels"]:
        table.add_column(label[:4], justify="right")
    for label, row in zip(values["labels"], values["confusion"], strict=True):
        table.add_row(label, *(str(count) for count in row))
    return table


def _groups(by: "GroupScores") -> Table:
    from uniemox.evaluate.scores import headline_of

    worst = "" if by.worst is None else f"; worst: {by.worst}, {by.gap:.3f} from the best"
    table = Table("group", "n", by.measure, "95 % interval", title=f"by group{worst}")
    for name, scores in by.groups.items():
        value, interval = headline_of(scores)
        bounds = "{:.4f} to {:.4f}".format(*interval) if interval else ""
        table.add_row(Text(name), str(scores.n), "-" if value is None else f"{value:.4f}", bounds)
    return table
