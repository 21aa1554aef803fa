"""Commands that write a page about a collection of images, and search one."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import (
    EXIT_UNREADABLE,
    Files,
    Flag,
    IndexFolder,
    JsonFlag,
    UsageError,
    say,
    shell_quoted,
    show_paths,
)
from uniemox.cli.predict import NO_MODEL, ModelOptions, check_names
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox.insight.search import Hit, Query, SearchResults

Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def survey(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    by: Names = ("folder", "date"),
    table: Files = None,
    labels: str | None = None,
    resume: Flag = False,
    index: IndexFolder = None,
    models: Annotated[ModelOptions, Parameter(name="*")] = NO_MODEL,
) -> None:
    """Write a self-contained HTML page about the emotions that a collection of images evokes.

    The page shows the share of each emotion by folder, date or any column. For each emotion it shows the images with
    the highest and the lowest probability. A map places them by valence and arousal. Further sections
    show people, faces, and unfamiliar images.
    Predictions are saved in OUT.jsonl as they are made. Those of one folder are shared with `uniemox search` and
    `uniemox tag`, in the index FOLDER/.uniemox/. Exits with 3 if an image could not be read.

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
        labels: Convert predictions to another label set, such as polarity. What has no counterpart in it is `none`.
        resume: Continue OUT.jsonl: skip images that it already contains.
        index: Folder for the index instead of FOLDER/.uniemox/.
    """
    check_names(images)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected a name that ends in .html")
    from uniemox.cli.predict_output import Output, named_images
    from uniemox.insight.survey.run import SurveySettings, run_survey

    output = Output(as_json=False, has_rows=False)
    settings = SurveySettings(out=out, by=by, table=table, labels=labels, resume=resume, index=index)
    summary = run_survey(
        models.opener(has_several=True),
        images,
        lambda: named_images(images),
        settings,
        watch=lambda answers: output.consume_new(answers, images, settings.lines),
        report=say,
    )
    images_text = counted(summary.whole.images, "image")
    say(f"wrote {out}: {images_text}; open it in a browser. Answers and features: {settings.lines}")
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
    index: IndexFolder = None,
    model: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Find images in a folder by similarity to other images, by emotion, or by mood.

    The first search predicts all images and saves the predictions in the index FOLDER/.uniemox/. Later searches,
    `uniemox tag` and `uniemox survey` predict only new and changed images. Conditions of --mood narrow the results of
    --like and --emotion. Images that are unlike the model's training images are left out, because their predictions
    are guesses. Exits with 3 if an image of the folder could not be read; it is named when it is first tried.

    For example:

    - uniemox search photos --like beach.jpg --out found.html
    - uniemox search photos --mood "valence>6 arousal<5 people>0"
    - uniemox search photos --emotion awe --count 5 --json

    Args:
        folder: Folder of images, including its subfolders.
        like: Find images similar to this image, or to the mean of the images in this folder. The images themselves are
            left out of the results, and counted. If the searched folder itself is given, none is left out, and its most
            typical images come first.
        emotion: Label of the model; images with the highest probability come first.
        mood: Conditions on valence, arousal (1 to 9), labels, familiarity (0 to 1), people or faces (numbers), such as
            "valence>6 arousal<5" or "awe>50% people=0". Without --like and --emotion, the first condition sorts the
            images: > puts the highest value first, < the lowest. The first condition on people, or on faces, makes
            another index.
        count: Maximum number of results, at least 1.
        unfamiliar: Also show images whose predictions are guesses, marked as such.
        out: Also write an .html page of the results.
        index: Folder for the index instead of FOLDER/.uniemox/, such as for a folder that can't be written.
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
    from uniemox.insight.index_file import index_folder, index_lines, open_for_index
    from uniemox.insight.search import Query, as_spelled, search_folder

    # A mistake is reported before anything is predicted.
    query = Query(like=like, emotion=emotion, mood=mood, count=count, unfamiliar=unfamiliar)
    predictor = open_for_index(folder, index, model, needs_people=query.needs_people, needs_faces=query.needs_faces)
    query = as_spelled(query, predictor)
    hint = f"grep '\"error\"' {shell_quoted(index_lines(predictor, folder, index))} lists them"
    output = Output(as_json=False, has_rows=False, failures_hint=hint)
    results = search_folder(
        predictor,
        folder,
        query,
        out=out,
        index_path=index,
        watch=lambda answers: output.consume_new(answers, [str(folder)], index_folder(folder, index)),
        report=say,
    )
    if out is not None:
        say(f"wrote {out}")
    _show(results, query, as_json=as_json)
    if results.unreadable:
        # Otherwise, this call has tried them, and said so.
        if not output.failures:
            output.say_unreadable(results.unreadable, results.unreadable + results.searched)
        sys.exit(EXIT_UNREADABLE)


def _show(results: "SearchResults", query: "Query", *, as_json: bool) -> None:
    """Print the matching images with all values that the query asks for, and how many were searched."""
    from uniemox.insight.search import matches_text

    if results.query_note:
        say(results.query_note)
    if results.guesses_note:
        say(f"{results.guesses_note}; --unfamiliar shows them")
    if as_json:
        for hit in results.hits:
            values = {name: round(value, 4) for name, value in ({"score": hit.score} | hit.values).items()}
            print(json.dumps({"path": hit.path, **values, "is_unfamiliar": hit.is_unfamiliar}))
        return
    headings = ("image", query.score_name, *query.value_names)
    show_paths(headings, [_cells(hit, query) for hit in results.hits])
    more = ""
    if len(results.hits) < results.matches:
        more = f"; --count {results.matches} shows all"
    say(f"{matches_text(results)} among {counted(results.searched, 'image')}{more}")


def _cells(hit: "Hit", query: "Query") -> list[str]:
    """Return the cells of a result: path, score, and the other values that the query asks for."""
    from uniemox.insight.search import value_text

    is_mood_alone = query.like is None and query.emotion is None
    score = value_text(query.score_name, hit.score) if is_mood_alone else f"{hit.score:.3f}"
    if hit.is_unfamiliar:
        score += " (a guess)"
    return [hit.path, score, *(value_text(name, hit.values[name]) for name in query.value_names)]
