"""The command that shows what a collection of images evokes."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Files, UsageError, say
from uniemox.cli.predict import EXIT_INTERRUPTED, NO_MODEL, ModelOptions, check_names, unanswered
from uniemox.errors import DataError, StoppedError

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output

Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def survey(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    by: Names = ("folder", "date"),
    table: Files = None,
    labels: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    models: Annotated[ModelOptions, Parameter(name="*")] = NO_MODEL,
) -> None:
    """Show what a collection of images evokes on one page, which opens from a disk.

    How much of each emotion there is by folder, date or any column; the images with the most and the least of each; a
    map on which images of one mood stand together; what is unlike the training images; people and faces. Answers are
    kept in OUT.jsonl as they come. Exits with 3 if an image could not be read.

    Examples:

    uniemox survey photos/ --out survey.html

    uniemox survey photos/ --by folder city --table places.csv --out survey.html

    uniemox survey photos/ --faces find --out survey.html --resume

    Parameters
    ----------
    images
        Files, folders, patterns; - reads a list of paths from standard input.
    out
        The page, such as survey.html.
    by
        Groups that are compared: folder, date (of EXIF, by month or year), columns of --table.
    table
        A CSV file with a column path, from its folder or from here, and further columns.
    labels
        Answer in another label set, such as polarity.
    resume
        Go on with OUT.jsonl: images in it are not looked at again.
    """
    check_names(images)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected a name that ends in .html")
    from uniemox.io.files import write_text
    from uniemox.predict.survey.page import survey_page
    from uniemox.predict.survey.summary import summarise
    from uniemox.predict.survey.tallies import groupings_of

    groupings = groupings_of(by, table)
    lines = out.with_name(out.name + ".jsonl")
    output = _look(images, lines, models, labels, resume=resume)
    found = summarise(lines, groupings)
    title = f"Survey of {', '.join(images[:3])}{' …' * (len(images) > 3)}"
    try:
        write_text(out, survey_page(found, title))
    except OSError as error:
        raise DataError(f"{out} can't be written ({error.strerror}); choose another name") from error
    say(f"wrote {out}: {found.whole.images:,} images; open it in a browser. Answers and features are in {lines}")
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def _look(images: Sequence[str], lines: Path, models: ModelOptions, labels: str | None, *, resume: bool) -> "Output":
    """Ask about all images that are not in the lines yet. Raises StoppedError after Ctrl-C."""
    from uniemox.cli.predict_output import Output
    from uniemox.predict.images import list_images
    from uniemox.predict.survey.lines import SurveyFile
    from uniemox.predict.writing import AnswerHeader

    predictor = models.opener(on_cluster=False, has_several=True)()
    answered = AnswerHeader.of_question(predictor, labels, None)
    counting = None if "-" in images else partial(sum, (1 for _ in list_images(images)))
    with SurveyFile(lines, resume=resume, answered=answered) as file:
        output = Output(as_json=False, file=file, images=None)
        try:
            results = predictor.predict_each(unanswered(images, output), labels=labels, with_embedding=True)
            output.show_all(results, counting, are_few=False)
        except KeyboardInterrupt:
            kept = f"stopped after {output.done} images; they are in {lines}: continue with --resume"
            raise StoppedError(kept, EXIT_INTERRUPTED) from None
        finally:
            output.list_failures()
    return output
