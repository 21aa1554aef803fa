"""Output of `uniemox predict`: rows or JSON lines on the screen, files of predictions, progress and failures."""

import json
import os.path
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from uniemox.cli.console import EXIT_INTERRUPTED, one_line, progress_bar, say
from uniemox.cli.prediction_rows import PredictionRows
from uniemox.errors import ImageError, StoppedError
from uniemox.io.borders import shorten
from uniemox.io.walking import LeftOut
from uniemox.plurals import counted
from uniemox.predict.film import Frame
from uniemox.predict.images import is_listed_name, list_images
from uniemox.predict.prediction import Failure, Prediction

if TYPE_CHECKING:
    from uniemox.insight.survey.lines import NewAnswers
    from uniemox.predict.embedding_file import EmbeddingFile
    from uniemox.predict.writing import ResultFile

Source = TypeVar("Source", str, Frame)
# Unreadable images that are listed by name.
MAX_LISTED = 20
# Maximum number of images that need no progress bar.
FEW = 8


class Output:
    """Prints predictions as rows or JSON lines, writes them to files, and counts them.

    Args:
        as_json: Print JSON lines.
        has_rows: Otherwise print a row per image, or a summary of more than 20 images, unless predictions go to a file.
        images: Folder for drawn images; None: draw none.
        failures_hint: Words that say how to list the unreadable images. Those that an earlier call has named are then
            counted, but not named again.
    """

    def __init__(
        self, *, as_json: bool, has_rows: bool = True, images: Path | None = None, failures_hint: str = ""
    ) -> None:
        self.as_json = as_json
        self.has_rows = has_rows
        self.images = images
        self.failures_hint = failures_hint
        self.file: ResultFile | None = None
        self.embeddings: EmbeddingFile | None = None
        self.done = self.skipped = self.failures = 0
        self.unmapped = 0
        self.guesses = 0
        self.first_failures: list[str] = []
        self._failed_again: Container[str | None] = ()
        self.total: int | None = None
        self._rows = PredictionRows()

    def unanswered(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the images and frames that are not yet in the output file."""
        for source in sources:
            if self.file is not None and self.file.has(source if isinstance(source, str) else source.path):
                self.skipped += 1
            else:
                yield source

    def consume(
        self, results: Iterable[Prediction | Failure], names: Sequence[str] | None, lines: Path | None = None
    ) -> None:
        """Consume all results: print and write them, show progress if there are many, and report failures.

        Args:
            names: Requested images; None: videos, whose frames can't be counted.
            lines: File of the answers, if another object writes it.

        Raises:
            StoppedError: After Ctrl-C.
        """
        are_few = (
            names is not None and len(names) <= FEW and not any(name == "-" or os.path.isdir(name) for name in names)
        )
        self._rows = PredictionRows(is_film=names is None)
        # A progress bar would stand between the rows of a video.
        has_rows_of_film = names is None and sys.stdout.isatty() and self.has_rows and self.file is None
        is_quiet = are_few or has_rows_of_film
        try:
            with nullcontext() if is_quiet else progress_bar() as progress:
                # The paths on standard input can't be counted.
                if progress is not None and names is not None and "-" not in names:
                    Thread(target=self._count, args=(names,), daemon=True).start()
                for result in results:
                    self._add(result)
                    if progress is not None:
                        progress.show("images", self.done + self.skipped, self.total)
            self._rows.print_rest(self.done)
        except KeyboardInterrupt:
            self._rows.print_rest(self.done)
            if self.file is not None:
                lines = self.file.lines
            hint = ""
            if lines:
                hint = f"; they are in {lines}; to continue, repeat it (predict, survey: add --resume)"
            raise StoppedError(f"stopped after {counted(self.done, 'image')}{hint}", EXIT_INTERRUPTED) from None
        finally:
            self._list_failures()
            self._report_unmapped()
            self._report_guesses()

    def consume_new(self, answers: "NewAnswers", names: Sequence[str], lines: Path) -> None:
        """Consume the predictions of the images that a file lacks, and count the others as done before.

        Args:
            names: Requested images.
            lines: See `consume`.

        Raises:
            StoppedError: After Ctrl-C.
        """

        if self.failures_hint:
            self._failed_again = answers.failed_again

        def counting() -> Iterator[Prediction | Failure]:
            for result in answers:
                self.skipped = answers.skipped
                yield result
            # Images that need no prediction may be the last ones, or all.
            self.skipped = answers.skipped

        self.consume(counting(), names, lines)

    def _report_unmapped(self) -> None:
        """Say how many answers no label of the requested set describes."""
        if self.unmapped:
            say(
                f"{self.unmapped} of {counted(self.done, 'image')}: more than half of the probability is of labels "
                "without a counterpart (see unmapped), so they count as none of these labels"
            )

    def _report_guesses(self) -> None:
        """Say how many predictions in the file are guesses; rows and summaries on the screen mark them."""
        if self.guesses and self.file is not None:
            images = counted(self.done, "image")
            if self.skipped:
                images += " of this call"
            say(
                f"{self.guesses:,} of {images}: unlike the training images, so their answers are guesses "
                "(is_unfamiliar)"
            )

    def _list_failures(self) -> None:
        for line in self.first_failures:
            say(line)
        unlisted = self.failures - len(self.first_failures)
        if unlisted and not self.failures_hint:
            say(f"and {unlisted} more")
        if self.failures and self.failures + self.done > 1:
            # The skipped images were read before.
            self.say_unreadable(self.failures, self.done + self.skipped)

    def say_unreadable(self, failures: int, images: int) -> None:
        """Say how many images could not be read, and how to list them if some were not named.

        Args:
            failures: Number of unreadable images.
            images: Number of all images.
        """
        hint = ""
        if self.failures_hint and failures > len(self.first_failures):
            hint = f"; {self.failures_hint}"
        say(f"{failures:,} of {counted(images, 'image')} could not be read{hint}")

    def _count(self, names: Sequence[str]) -> None:
        self.total = sum(1 for _ in list_images(names))

    def _add(self, result: Prediction | Failure) -> None:
        self.done += 1
        if isinstance(result, Failure):
            self.failures += 1
            if len(self.first_failures) < MAX_LISTED and result.path not in self._failed_again:
                self.first_failures.append(one_line(result.error))
        else:
            self.unmapped += result.has_no_counterpart
            self.guesses += result.is_unfamiliar
            if self.images is not None:
                self._draw(result, self.images)
            if self.embeddings is not None:
                self.embeddings.write(result)
        if self.file is not None:
            self.file.write(result)
        if self.as_json:
            print(json.dumps(result.to_dict()))
        elif self.has_rows and self.file is None and isinstance(result, Prediction):
            self._rows.add(result)

    def _draw(self, prediction: Prediction, folder: Path) -> None:
        """Write a copy of an image with its answer; report an image that has changed and can't be read again."""
        from uniemox.predict.plot import drawing_path, write_drawing

        try:
            drawing = prediction.plot()
        except ImageError as error:
            say(one_line(f"not drawn: {error}"))
            return
        write_drawing(drawing_path(folder, Path(prediction.path or "image"), ".png"), drawing)


def named_images(names: Sequence[str]) -> Iterator[str]:
    """Yield the images that `names` refer to; "-" reads a list from standard input.

    Prints how many images in folders of thumbnails or deleted files were left out, and which links were not followed.

    Raises:
        ImageError: If there is no image.
    """
    name = None
    skipped = LeftOut()
    for name in list_images(names, sys.stdin, skipped):
        yield name
    for note in skipped.notes(is_listed_name):
        say(note)
    if name is None:
        sources = ", ".join("the list on standard input" if name == "-" else shorten(name) for name in names)
        raise ImageError(f"there is no image in {sources}")
