"""What all commands share: where they print, progress, optional packages."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from uniemox.errors import MissingPackageError

out, err = Console(), Console(stderr=True)

Files = Annotated[Path | None, Parameter(negative="")]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="")]


def show_all(parts: Iterable[Table | str]) -> None:
    """Tables and lines on standard output; lines as they are."""
    for part in parts:
        if isinstance(part, str):
            print(part)
        else:
            out.print(part)


def say(line: str) -> None:
    """A line on standard error, as it is."""
    err.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A progress bar on standard error, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False)


def need(*packages: str, extra: str) -> None:
    """Raise MissingPackageError unless all packages are installed."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"this command needs {', '.join(missing)}; run: pip install 'uniemox[{extra}]'")
