"""Commands that write a page about a collection of images, and search one."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from uniemox.cli.console import EXIT_UNREADABLE, Files, Flag, JsonFlag, UsageError, say, show_all
from uniemox.cli.predict import NO_MODEL, ModelOptions, check_names
from uniemox.io.image_border import shorten

if TYPE_CHECKING:
    from uniemox.predict.search import Hit

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
    from uniemox.predict.survey.page import write_survey_page
    from uniemox.predict.survey.run import answer_new, noted
    from uniemox.predict.survey.summary import groupings_of, summarise, unmatched_rows
    from uniemox.predict.writing import AnswerHeader, PathSet, ResultFile

    groupings = groupings_of(by, table)
    output = Output(as_json=False, has_rows=False)
    asked = PathSet()
    lines = out.with_name(out.name + ".jsonl")
    predictor = models.opener(has_several=True)()
    with ResultFile(lines, resume=resume, answered=AnswerHeader.of_question(predictor, labels, None)) as file:
        output.take(answer_new(predictor, noted(named_images(images), asked), file, labels), images, lines)
    result = summarise(lines, groupings, asked)
    if unmatched := unmatched_rows(groupings):
        say(unmatched)
    write_survey_page(result, f"Survey of {', '.join(map(shorten, images[:3]))}{' …' * (len(images) > 3)}", out)
    say(f"wrote {out}: {result.whole.images:,} images; open it in a browser. Answers and features: {lines}")
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def search(
    folder: Path,
    /,
    *others: Annotated[Path, Parameter(show=False)],
    like: Path | None = None,
    emotion: str | None = None,
    mood: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    count: int = 24,
    out: Path | None = None,
    model: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Find images in a folder by similarity to another image, by emotion, or by mood.

    The first search predicts all images and saves the predictions next to the folder, in FOLDER.uniemox.jsonl. Later
    searches only predict new images. Conditions of --mood narrow the results of --like and --emotion.

    For example:

    - uniemox search photos --like beach.jpg --out found.html
    - uniemox search photos --mood "valence>7 arousal<4"
    - uniemox search photos --emotion awe --count 5 --json

    Args:
        folder: Folder of images, including its subfolders.
        like: Find images similar to this image.
        emotion: Label of the model; images with the highest probability come first.
        mood: Conditions on valence, arousal (1 to 9) or labels (0 to 1), such as "valence>7 arousal<4".
        count: Maximum number of results, at least 1.
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
    from uniemox.io.html import percent
    from uniemox.predict.opening import load
    from uniemox.predict.search import INDEX, parse_mood, update_index, write_page
    from uniemox.predict.search import search as run

    parse_mood(mood)  # a mistake is reported before anything is predicted
    predictor = load(model, finder=None)
    output = Output(as_json=False, has_rows=False)
    lines = folder.absolute().with_name(folder.absolute().name + INDEX)
    if like is None:
        features = None
    else:
        features = predictor.embed(like)[0]
    index = update_index(predictor, folder, lambda answers: output.take(answers, [str(folder)], lines), say)
    matches = run(index, like=features, emotion=emotion, mood=mood, count=count)
    if out is not None:
        if like is None and emotion is not None:
            words = percent
        else:
            words = "{:.2f}".format
        write_page(matches, f"Found in {folder}", out, words)
        say(f"wrote {out}")
    _show(matches, len(index.paths), as_json=as_json)


def _show(hits: "Sequence[Hit]", count: int, *, as_json: bool) -> None:
    """Print the matching images, and how many were indexed."""
    if as_json:
        for hit in hits:
            values = {name: round(value, 4) for name, value in ({"score": hit.score} | hit.values).items()}
            print(json.dumps({"path": hit.path, **values}))
        return
    table = Table("image", "score")
    for hit in hits:
        table.add_row(Text(hit.path), f"{hit.score:.3f}")
    show_all([table])
    say(f"{len(hits)} of {count:,} images")
