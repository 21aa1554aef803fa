"""Commands that write a page about a collection of images, and search one."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from uniemox.cli.console import EXIT_UNREADABLE, Files, Flag, JsonFlag, UsageError, say, show_all
from uniemox.cli.predict import NO_MODEL, ModelOptions, check_names

if TYPE_CHECKING:
    from uniemox.insight.search import SearchResults

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
            --by. Rows that match no image are counted.
        labels: Convert predictions to another label set, such as polarity.
        resume: Continue OUT.jsonl: skip images that it already contains.
    """
    check_names(images)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected a name that ends in .html")
    from uniemox.cli.predict_output import Output, named_images
    from uniemox.insight.survey.run import SurveySettings, run_survey

    output = Output(as_json=False, has_rows=False)
    settings = SurveySettings(out=out, by=by, table=table, labels=labels, resume=resume)
    summary = run_survey(
        models.opener(has_several=True),
        images,
        lambda: named_images(images),
        settings,
        watch=lambda answers: output.consume(answers, images, settings.lines),
        report=say,
    )
    count = summary.whole.images
    say(f"wrote {out}: {count:,} images; open it in a browser. Answers and features: {settings.lines}")
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def search(
    folder: Path,
    /,
    *others: Annotated[Path, Parameter(show=False)],
    like: str | None = None,
    emotion: str | None = None,
    mood: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    count: int = 24,
    unfamiliar: Flag = False,
    out: Path | None = None,
    model: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Find images in a folder by similarity to other images, by emotion, or by mood.

    The first search predicts all images and saves the predictions next to the folder, in FOLDER.uniemox.jsonl. Later
    searches only predict new images. Conditions of --mood narrow the results of --like and --emotion. Images that are
    unlike the model's training images are left out, because their predictions are guesses.

    For example:

    - uniemox search photos --like beach.jpg --out found.html
    - uniemox search photos --mood "valence>7 arousal<4 people>0"
    - uniemox search photos --emotion awe --count 5 --json

    Args:
        folder: Folder of images, including its subfolders.
        like: Find images similar to this image, or to the mean of the images in this folder. The images themselves are
            no results.
        emotion: Label of the model; images with the highest probability come first.
        mood: Conditions on valence, arousal (1 to 9), labels, familiarity (0 to 1), people or faces (numbers), such as
            "valence>7 arousal<4". For faces, another index is made.
        count: Maximum number of results, at least 1.
        unfamiliar: Also show images whose predictions are guesses, marked as such.
        out: Also write an .html page of the results.
        model: Model as for `uniemox predict`. Default: the package's own.
        as_json: Print one JSON object per result.
    """
    if others:
        raise UsageError(f"give one folder and one image; {others[0]} is extra (does a pattern match several files?)")
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected a name that ends in .html")
    if (like and emotion) or not (like or emotion or mood.strip()):
        raise UsageError("give a criterion: --like or --emotion (not both), or --mood")
    from uniemox.cli.predict_output import Output
    from uniemox.insight.index import index_files
    from uniemox.insight.search import Query, search_folder
    from uniemox.predict.opening import load

    # A mistake is reported before anything is predicted.
    query = Query(like=like, emotion=emotion, mood=mood, count=count, unfamiliar=unfamiliar)
    lines, _ = index_files(folder, has_faces=query.needs_faces)
    predictor = load(model, faces="find" if query.needs_faces else None)
    output = Output(as_json=False, has_rows=False)
    results = search_folder(
        predictor,
        folder,
        query,
        out=out,
        watch=lambda answers: output.consume(answers, [str(folder)], lines),
        report=say,
    )
    if out is not None:
        say(f"wrote {out}")
    _show(results, query.score_name, as_json=as_json)


def _show(results: "SearchResults", score_name: str, *, as_json: bool) -> None:
    """Print the matching images, and how many were searched."""
    if results.guesses:
        say(f"{results.guesses:,} further images match, but their predictions are guesses; --unfamiliar shows them")
    if as_json:
        for hit in results.hits:
            values = {name: round(value, 4) for name, value in ({"score": hit.score} | hit.values).items()}
            print(json.dumps({"path": hit.path, **values, "is_unfamiliar": hit.is_unfamiliar}))
        return
    table = Table("image", score_name)
    for hit in results.hits:
        table.add_row(Text(hit.path), f"{hit.score:.3f}{' (a guess)' * hit.is_unfamiliar}")
    show_all([table])
    say(f"{len(results.hits)} of {results.searched:,} images")
