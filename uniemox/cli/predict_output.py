"""What `uniemox predict` shows and writes, one answer after the other."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from uniemox.cli.console import out, progress_bar, say
from uniemox.errors import DataError
from uniemox.predict.faces import summarise_faces
from uniemox.predict.prediction import Failure, Prediction

if TYPE_CHECKING:
    from uniemox.predict.writing import EmbeddingFile, ResultFile

ROWS = 200  # of a table; then the next one begins, so that no list is too long for the memory
MAX_LISTED = 20
UNLIKE = "(a guess: unlike the training images)"


class Output:
    """Shows answers as rows or JSON lines, writes them to a file, and keeps count.

    file, embeddings: None: none is asked for.  images: folder for drawn ones; None: none.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        file: "ResultFile | None",
        images: Path | None,
        embeddings: "EmbeddingFile | None" = None,
    ) -> None:
        self.as_json, self.file, self.images, self.embeddings = as_json, file, images, embeddings
        self.done = self.skipped = self.failures = 0
        self.first_failures: list[str] = []
        self._rows: list[Prediction] = []

    def show_all(
        self, results: Iterable[Prediction | Failure], count: Callable[[], int] | None, *, are_few: bool
    ) -> None:
        """Take all answers; with progress, if they are not few and nothing else moves on the terminal.

        count: says how many images there are, in a thread of its own; None: nobody can know.
        """
        is_quiet = are_few or (sys.stdout.isatty() and self.file is None)
        progress = None if is_quiet else progress_bar()
        with progress or nullcontext():
            watch = None if progress is None else _Watch(progress, count)
            for result in results:
                self._add(result)
                if watch is not None:
                    watch.update(self.done + self.skipped)
        self._print_rows()

    def list_failures(self) -> None:
        """The first images that could not be read, and how many there are, on standard error."""
        for line in self.first_failures:
            say(line)
        if self.failures > len(self.first_failures):
            say(f"and {self.failures - len(self.first_failures)} more")
        if self.failures and self.failures + self.done > 1:
            say(f"{self.failures} of {self.done} images could not be read")

    def _add(self, result: Prediction | Failure) -> None:
        self.done += 1
        if isinstance(result, Failure):
            self.failures += 1
            if len(self.first_failures) < MAX_LISTED:
                self.first_failures.append(_one_line(result.error))
        else:
            if self.images is not None:
                _save_image(result, self.images)
            if self.embeddings is not None:
                self.embeddings.write(result)
        if self.file is not None:
            self.file.write(result)
        if self.as_json:
            print(json.dumps(result.to_dict()))
        elif self.file is None and isinstance(result, Prediction):
            self._rows.append(result)
            if len(self._rows) == ROWS:
                self._print_rows()

    def _print_rows(self) -> None:
        if self._rows:
            out.print(_table(self._rows))
        self._rows = []


def _table(results: list[Prediction]) -> Table:
    """A row an image: its highest labels, the likely ones, the people."""
    first = results[0]
    has_likely, has_persons = first.likely is not None, first.persons is not None
    has_faces = first.faces is not None
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column(f"{first.kind} ({first.label_set})")
    has_affect = first.affect_from in ("ratings", "norms")
    named = "valence, arousal" if first.arousal is not None else "valence"
    shown = {named: has_affect, "likely": has_likely, "people": has_persons, "faces show": has_faces}
    for heading in (heading for heading, is_shown in shown.items() if is_shown):
        table.add_column(heading)
    for result in results:
        is_affect = "valence" in result.scene
        top = [f"{label} {value:.1f}" if is_affect else f"{label} {value:.0%}" for label, value in result.top(3)]
        if result.is_unfamiliar:
            top.append(UNLIKE)
        cells = [_one_line(result.path or ""), "  ".join(top)]
        told = [f"{value:.1f}" for value in (result.valence, result.arousal) if value is not None]
        cells += [", ".join(told)] if has_affect else []
        cells += [", ".join(result.likely or ())] if has_likely else []
        cells += [_people(result)] if has_persons else []
        cells += [summarise_faces([face.expressions for face in result.faces or ()])] if has_faces else []
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _people(result: Prediction) -> str:
    """How many there are, and what they feel."""
    persons = result.persons or []
    felt = [max(person.emotions.items(), key=lambda pair: pair[1])[0] for person in persons if person.emotions]
    return f"{len(persons)}: {', '.join(felt)}" if felt else str(len(persons))


def _one_line(text: str) -> str:
    """Names of files may hold line breaks and signs that steer a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _save_image(result: Prediction, folder: Path) -> None:
    """photos/a.jpg becomes FOLDER/photos/a.jpg.png. Raises DataError if that can't be written."""
    whole = Path(result.path or "image")
    path = folder.joinpath(*(part for part in whole.parts if part not in (whole.anchor, "..")))
    path = path.with_name(path.name + ".png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        result.plot().save(path)
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another folder") from error


class _Watch:
    """Progress, and a thread that counts the images meanwhile."""

    def __init__(self, progress: Progress, count: Callable[[], int] | None) -> None:
        self.progress = progress
        self.task = progress.add_task("images", total=None)
        if count is not None:
            Thread(target=self._count, args=(count,), daemon=True).start()

    def update(self, done: int) -> None:
        """done: in this run and in earlier ones."""
        self.progress.update(self.task, completed=done)

    def _count(self, count: Callable[[], int]) -> None:
        self.progress.update(self.task, total=count())
