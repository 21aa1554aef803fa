"""Terminal output: messages, tables, options that many commands share, and checks for required packages."""

import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from uniemox.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from uniemox.cli.progress import ProgressBar
    from uniemox.data.sample import DataSet

# Shells return 128 + 2 for a program that SIGINT (2) ended.
EXIT_INTERRUPTED = 130
# Some images could not be read; 1 is an error, 2 a command that can't be parsed.
EXIT_UNREADABLE = 3


class UsageError(ConfigError):
    """Raised for a command that can't be parsed; the program exits with 2."""


class SafeConsole(Console):
    """Terminal that replaces control characters of file names, so that names can't control it."""

    def render_str(self, text: str, **style: Any) -> Text:
        """Replace control characters, so that rich measures the width of the shown text."""
        return super().render_str(printable(text), **style)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Replace control characters in text; rich's own colours and cursor movements are separate control segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class Messages(SafeConsole):
    """Standard error. Messages that can't be written, as to a log on a full disk, are lost; the work goes on."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects, see `Console.print`."""
        with suppress(OSError):
            super().print(*objects, **options)


def printable(text: str) -> str:
    """Return the text without characters that control a terminal or change the writing direction; line breaks stay.

    >>> printable("a\\x1b[2J.jpg")
    'a\\ufffd[2J.jpg'
    """
    # Surrogates stay: they stand for the bytes of a name that is not UTF-8.
    return "".join(c if c.isprintable() or c in "\n\t" or 0xD800 <= ord(c) < 0xE000 else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """Escape line breaks and terminal control characters in a name."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


# A name such as [red].jpg or :smile:.jpg is printed literally.
PLAIN: dict[str, Any] = {"markup": False, "emoji": False}
out = SafeConsole(**PLAIN)
err = Messages(stderr=True, **PLAIN)


def _named_folder(_: Any, tokens: Sequence[Token]) -> Path:
    """Return the folder of an option; an empty name would be the current folder."""
    if not tokens[0].value:
        raise UsageError(f"{tokens[0].keyword}: the name is empty; name a folder, or leave the option out")
    return Path(tokens[0].value)


Files = Annotated[Path | None, Parameter(negative="")]
IndexFolder = Annotated[Path | None, Parameter(converter=_named_folder)]
Flag = Annotated[bool, Parameter(negative="")]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="")]
JsonObject = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object.")]


def show_all(parts: Iterable[Table | str]) -> None:
    """Print tables and lines to standard output; lines stay unchanged."""
    for part in parts:
        if isinstance(part, str):
            print(printable(part))
        else:
            out.print(part)


def show_paths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column has paths, which are never broken across lines.

    A terminal that is narrower than the table gets the other columns broken between words; a still narrower one gets
    each path in a line of its own, with the other cells below it. A log or a pipe gets the table in its full width.

    Args:
        headings: One per column.
        rows: Cells of each row, in one line each.
    """
    table = Table(*headings)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # Rich breaks the cells of the other columns first.
    table.columns[0].no_wrap = True
    columns = [list(map(printable, column)) for column in zip(headings, *rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    widths_of_words = [max(cell_len(word) for cell in column for word in cell.split(" ")) for column in columns]
    # Each column has a space on both sides and a line; the table begins with a line.
    lines_width = 3 * len(columns) + 1
    if not out.is_terminal:
        # The width of an output that is no terminal is only a guess.
        SafeConsole(file=out.file, width=max(out.width, sum(widths) + lines_width), **PLAIN).print(table)
    elif widths[0] + sum(widths_of_words[1:]) + lines_width <= out.width:
        out.print(table)
    else:
        for path, *cells in rows:
            print(printable(path))
            for heading, cell in zip(headings[1:], cells, strict=True):
                print(printable(f"    {heading}: {cell}"))


def say(line: str) -> None:
    """Print a line to standard error, unchanged."""
    err.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say_notes(data: "DataSet", *, sees_person: bool = False) -> None:
    """Print the parts of a union, how each one's labels were mapped, and the notes about the data.

    Args:
        data: The data set.
        sees_person: A network reads the person view; print a warning if the data have no person boxes.
    """
    # The notes of a union repeat its parts.
    for line in dict.fromkeys((*map(str, data.parts), *data.notes)):
        say(line)
    if sees_person and data.lacks_persons:
        from uniemox.data.sample import NO_PERSONS

        say(NO_PERSONS)


def refuse_other(path: Path | None, ending: str) -> None:
    """Raise ConfigError if an output file exists and has another ending: it may be an image, or other work."""
    if path is not None and path.suffix.lower() != ending and path.is_file():
        raise ConfigError(f"{path} is there already and is no {ending} file; choose another name")


def refuse_existing(*paths: Path, remedy: str = "") -> None:
    """Raise ConfigError if output files exist that take work to make again, such as models; names all of them.

    Args:
        paths: Files that a command writes.
        remedy: Another way out, such as "continue (--resume), ".
    """
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        names = " and ".join(existing)
        verb, them = ("is", "it") if len(existing) == 1 else ("are", "them")
        raise ConfigError(f"{names} {verb} there already; {remedy}delete {them}, or choose another name")


def shell_quoted(path: Path) -> str:
    """Quote a path in a command that people copy into a shell."""
    return shlex.quote(str(path))


def progress_bar() -> "ProgressBar":
    """Return a progress bar on standard error: count, speed and remaining time."""
    from uniemox.cli.progress import ProgressBar

    return ProgressBar(err, say)


def need(*packages: str, extra: str) -> None:
    """Raise MissingPackageError unless all packages are installed."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"this command needs {', '.join(missing)}; run: pip install 'uniemox[{extra}]'")
