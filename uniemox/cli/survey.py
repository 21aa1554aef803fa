"""The command that writes a page about a collection of images."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Files, Flag, UsageError, say
from uniemox.cli.predict import NO_MODEL, ModelOptions, check_names

Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def survey(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    by: Names = ("folder", "date"),
    table: Files = None,
    labels: str | None = None,
    resume: Flag = False,
    models: Annotated[ModelOptions, Parameter(name="*")] = NO_MODEL,
) -> None:
    """Write a self-contained HTML page about the emotions that a collection of images evokes.

    The page shows the share of each emotion by folder, date or any column. For each emotion it shows the images with
    the highest and the lowest probability. A map places similar images together. Further sections show people, faces,
    and unfamiliar images.
    Predictions are saved in OUT.jsonl as they are made. Exits with 3 if an image could not be read.

    For example:

    - uniemox survey photos/ --out survey.html
    - uniemox survey photos/ --by folder city --table places.csv --out survey.html
    - uniemox survey photos/ --faces find --out survey.html --resume

    Args:
        images: Files, folders or patterns; - reads a list of paths from standard input.
        out: HTML file to write, such as survey.html.
        by: Groups to compare: folder, date (month or year in EXIF), or columns of --table.
        table: CSV file with a column named path (relative to the file's folder or the current one) and columns for
            --by.
        labels: Convert predictions to another label set, such as polarity.
        resume: Continue OUT.jsonl: skip images that it already contains.
    """
    check_names(images)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected a name that ends in .html")
    from uniemox.cli.predict_output import Output, named_images
    from uniemox.predict.survey.run import lines_of, take_survey
    from uniemox.predict.survey.summary import groupings_of

    groupings = groupings_of(by, table)
    output = Output(as_json=False, has_rows=False)
    result = take_survey(
        models.opener(on_cluster=False, has_several=True)(),
        named_images(images),
        out,
        groupings=groupings,
        title=f"Survey of {', '.join(images[:3])}{' …' * (len(images) > 3)}",
        labels=labels,
        resume=resume,
        watch=lambda answers: output.take(answers, images, lines_of(out)),
    )
    say(f"wrote {out}: {result.whole.images:,} images; open it in a browser. Answers and features: {lines_of(out)}")
    if output.failures:
        sys.exit(EXIT_UNREADABLE)
