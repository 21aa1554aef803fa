"""Output of `uniemox predict`: rows or JSON lines on the screen, files of predictions, progress and failures."""

import json
import os.path
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from uniemox.cli.console import EXIT_INTERRUPTED, progress_bar, say, show_all, show_paths
from uniemox.cli.predict_summary import PredictionSummary
from uniemox.errors import ImageError, StoppedError
from uniemox.io.borders import shorten
from uniemox.io.walking import LeftOut
from uniemox.plurals import counted
from uniemox.predict.faces import summarise_faces
from uniemox.predict.film import Frame
from uniemox.predict.images import is_listed_name, list_images
from uniemox.predict.prediction import Failure, Person, Prediction
from uniemox.predict.schema import NO_LABEL, top_word

if TYPE_CHECKING:
    from uniemox.insight.survey.lines import NewAnswers
    from uniemox.predict.embedding_file import EmbeddingFile
    from uniemox.predict.writing import ResultFile

Source = TypeVar("Source", str, Frame)
# Images whose predictions are printed one by one; of more images, a summary is printed.
MAX_SHOWN = 20
# Frames of videos per printed table; more become several tables, to limit memory.
MAX_ROWS = 200
# Unreadable images that are listed by name.
MAX_LISTED = 20
# Probability without a counterpart from which a table shows it.
MIN_UNMAPPED = 0.1
# Maximum number of images that need no progress bar.
FEW = 8
UNFAMILIAR_NOTE = "(a guess: unlike the training images)"


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
        self._is_film = False
        self._rows: list[Prediction] = []
        self._summary = PredictionSummary()

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
        self._is_film = names is None
        # Rows of a video appear while it is read.
        is_quiet = are_few or (self._is_film and sys.stdout.isatty() and self.has_rows and self.file is None)
        try:
            with nullcontext() if is_quiet else progress_bar() as progress:
                # The paths on standard input can't be counted.
                if progress is not None and names is not None and "-" not in names:
                    Thread(target=self._count, args=(names,), daemon=True).start()
                for result in results:
                    self._add(result)
                    if progress is not None:
                        progress.show("images", self.done + self.skipped, self.total)
            self._print_predictions()
        except KeyboardInterrupt:
            self._print_predictions()
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
                self.first_failures.append(_one_line(result.error))
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
            self._summary.add(result)
            if self._is_film or len(self._rows) < MAX_SHOWN:
                self._rows.append(result)
            if len(self._rows) == MAX_ROWS:
                self._print_rows()

    def _draw(self, prediction: Prediction, folder: Path) -> None:
        """Write a copy of an image with its answer; report an image that has changed and can't be read again."""
        from uniemox.predict.plot import drawing_path, write_drawing

        try:
            drawing = prediction.plot()
        except ImageError as error:
            say(_one_line(f"not drawn: {error}"))
            return
        write_drawing(drawing_path(folder, Path(prediction.path or "image"), ".png"), drawing)

    def _print_predictions(self) -> None:
        """Print the rows, or the summary of many images."""
        if self._summary.images and self.done > MAX_SHOWN and not self._is_film:
            show_all(self._summary.parts())
        else:
            self._print_rows()

    def _print_rows(self) -> None:
        if self._rows:
            columns = _columns(self._rows[0])
            show_paths(list(columns), [[cell(result) for cell in columns.values()] for result in self._rows])
        self._rows = []


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


def _columns(first: Prediction) -> dict[str, Callable[[Prediction], str]]:
    """Return the columns of the table of predictions, by heading: most probable labels, likely set, people.

    Args:
        first: First prediction; the others have the same fields.
    """
    columns: dict[str, Callable[[Prediction], str]] = {
        "image": lambda prediction: _one_line(prediction.path or ""),
        f"{first.kind} ({first.label_set})": _top_labels,
    }
    if first.affect_from in ("ratings", "norms"):
        heading = "valence" if first.arousal is None else "valence, arousal"
        columns[heading] = lambda prediction: ", ".join(
            f"{value:.1f}" for value in (prediction.valence, prediction.arousal) if value is not None
        )
    if first.likely is not None:
        columns["likely"] = lambda prediction: ", ".join(prediction.likely or ())
    if first.persons is not None:
        columns["people"] = _people
    if first.faces is not None:
        columns["faces show"] = lambda prediction: summarise_faces(
            [face.expressions for face in prediction.faces or ()]
        )
    return columns


def _top_labels(result: Prediction) -> str:
    if result.has_no_counterpart:
        return f"{NO_LABEL} ({result.unmapped:.0%} has no counterpart)"
    if result.assigned_labels is not None:
        return "  ".join([_assigned(result)] + [UNFAMILIAR_NOTE] * result.is_unfamiliar)
    form = "{} {:.1f}" if "valence" in result.scene else "{} {:.0%}"
    parts = [form.format(*pair) for pair in result.top(3)]
    # The probabilities are shares of the rest.
    if result.unmapped is not None and result.unmapped >= MIN_UNMAPPED:
        parts.append(f"({result.unmapped:.0%} has no counterpart)")
    if result.is_unfamiliar:
        parts.append(UNFAMILIAR_NOTE)
    return "  ".join(parts)


def _assigned(result: Prediction) -> str:
    """Return the labels above their thresholds, with probabilities, of a model that gives several."""
    labels = result.assigned_labels or ()
    return "  ".join(f"{label} {result.scene[label]:.0%}" for label in labels) or f"{NO_LABEL} above its threshold"


def _people(result: Prediction) -> str:
    """Return the number of people and their felt emotions as text."""
    persons = result.persons or []
    felt = [_felt(person) for person in persons if person.emotions]
    if felt:
        return f"{len(persons)}: {', '.join(felt)}"
    return str(len(persons))


def _felt(person: Person) -> str:
    """Return a person's most probable emotion, or all that are above their thresholds."""
    if person.assigned_labels is None:
        return top_word(person.emotions)
    return "+".join(person.assigned_labels) or NO_LABEL


def _one_line(text: str) -> str:
    """Escape line breaks and terminal control characters in a name."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
