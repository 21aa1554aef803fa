"""What `uniemox predict` does with films."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uniemox.cli.console import UsageError, say
from uniemox.errors import ConfigError, DataError

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output
    from uniemox.predict.film import Frame
    from uniemox.predict.writing import ResultFile


def seconds_of(every: str) -> float:
    """Of --every. Raises UsageError."""
    from uniemox.predict.film import parse_time

    try:
        return parse_time(every)
    except ConfigError as error:
        raise UsageError(f"--every: {error}") from None


def unseen(names: Sequence[str], every_s: float, output: "Output") -> "Iterator[Frame]":
    """The moments of films that are not in the file yet."""
    from uniemox.predict.film import read_film

    for name in names:
        for frame in read_film(name, every_s):
            if frame.image is not None and output.file is not None and output.file.has(frame.path):
                output.skipped += 1
            else:
                yield frame


def write_timeline(file: "ResultFile | None", out: Path | None) -> None:
    """Draw all films in a file of answers, if it is asked for. Raises DataError if the image can't be written."""
    if file is None or out is None:
        return
    from uniemox.predict.timeline import draw_timelines

    drawn = draw_timelines(file.lines)
    if drawn is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(out, "PNG")
    except OSError as error:
        raise DataError(f"{out} can't be written ({error.strerror}); choose another name") from error
    say(f"wrote {out}")
