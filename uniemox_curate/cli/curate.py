"""Build an emotion data set as Emo8 was built: collect, screen, annotate, agree, split, release."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from uniemox.cli import Files, Flag, JsonObject, config_of, need, options_of, progress_bar, say, shell_quoted, show_all
from uniemox.errors import ConfigError, DataError
from uniemox.plurals import counted
from uniemox_curate.cli.labels import (
    agree,
    export_answers,
    import_answers,
    invite,
    leave_out,
    release,
    serve,
    split,
    suggest,
)
from uniemox_curate.cli.tables import PACKAGES, Folder, opened, say_next, status_tables
from uniemox_curate.collect.config import INTERNAL, CollectConfig

if TYPE_CHECKING:
    from uniemox_curate.project import Project

COLLECT = options_of(CollectConfig(), without=INTERNAL)

curate = App(
    name="curate",
    help=(
        "Build an emotion data set as Emo8 was built: collect, screen, annotate, agree, split, release.\n\n"
        "A project is a folder; every step can be stopped and resumed, every decision can be undone. "
        "See `uniemox docs curate`, and begin with `uniemox curate demo`."
    ),
)


@curate.command
def init(folder: Folder, /, *, plan: Files = None, database: str | None = None) -> None:
    """Create a project.

    For example:

    - uniemox curate init mine
    - uniemox curate init mine --plan plan.json

    Args:
        plan: JSON file {"keywords": {label: [word, ...]}}, optionally with kind, styles, answers_per_picture,
            check_every and answer (questions to annotators). Default: Emo8's 8 labels with 10 words each (table I).
        database: SQLAlchemy URL, such as postgresql+psycopg://... Default: a file in the folder.
    """
    need(*PACKAGES, extra="curate")
    from uniemox_curate.plan import read_plan
    from uniemox_curate.project import create_project

    project = create_project(folder, None if plan is None else read_plan(plan), database=database)
    words = sum(map(len, project.plan.keywords.values()))
    print(f"began {folder}: {len(project.plan.labels)} labels, {counted(words, 'search word')}")
    say_next(project, folder)


@curate.command
def collect(
    folder: Folder,
    /,
    *,
    source: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    retry: Flag = False,
    as_json: JsonObject = False,
    options: Annotated[Any, Parameter(name="*")] = COLLECT(),  # noqa: B008
) -> None:
    """Search sources for images and download them; creates the project if there is none.

    Requests to one host never overlap; private networks are refused. Repeat the command to retry temporary failures.

    For example:

    - uniemox curate collect mine --source openverse --source commons --contact me@example.org
    - uniemox curate collect mine --source csv:addresses.csv
    - uniemox curate collect mine --source 'folder:photos?licence=CC-BY-4.0&author=Ada Example'

    Args:
        source: openverse, commons or bing. csv:TABLE: column address, optionally keyword, label, page, title, licence,
            licence_address, author. folder:PATH: LABEL/KEYWORD/IMAGE; 'folder:PATH?labels=none' has no labels;
            ?licence=LICENCE&author=NAME records the licence of all images of the folder, also of those that were
            collected before, and ?licence=unknown withdraws it. In a value, write %26 for &, %3F for ? and %25 for %.
            Default: continue pending downloads.
        retry: Try images again that failed for good.
    """
    need(*PACKAGES, "icrawler", extra="curate")
    from uniemox.data import parse_source
    from uniemox_curate.collect.folders import folder_changes, folder_licences, waits_for_folder
    from uniemox_curate.collect.run import failures, fetch, search
    from uniemox_curate.collect.sources import open_source
    from uniemox_curate.plan import paper_plan
    from uniemox_curate.project import create_project, is_project

    # A new project is only created after all sources were found.
    existing_project = opened(folder) if is_project(folder) or not source else None
    config = config_of(CollectConfig, options)
    plan = existing_project.plan if existing_project else paper_plan()
    sources = [open_source(name, plan, config) for name in source or ()]
    folders = [Path(parse_source(name)[1]) for name in source or () if name.startswith("folder:")]
    project = existing_project or create_project(folder, plan)
    with progress_bar() as progress:
        problems = search(project, sources, config, progress.show)
        counts = fetch(project, config, progress.show, folders=folders, retry=retry)
    for problem in problems:
        say(f"incomplete: {problem}")
    if folders:
        licences = ", ".join(f"{licence} {number}" for licence, number in folder_licences(project).items())
        say(f"licences of images from folders: {licences or 'no images'}")
        for line in folder_changes(project, folders):
            say(line)
    elif waits_for_folder(project):
        say("waiting images of a folder are only read if you name it again: --source folder:PATH")
    for reason, number in list(failures(project).items())[:8]:
        say(f"{number} x {reason}")
    _print_counts(project, folder, counts, as_json, problems=problems)


@curate.command
def screen(
    folder: Folder,
    /,
    *,
    against: list[str] | None = None,
    min_side: int | None = None,
    model: str | None = None,
    min_score: float | None = None,
    as_json: JsonObject = False,
) -> None:
    """Drop images that are broken, tiny, placeholders, duplicates, or in a test set. People review the rest.

    For example:

    - uniemox curate screen mine --against fi:photos/fi --against emoset:photos/emoset
    - uniemox curate screen mine --model runs/fi --min-score 0.02

    Args:
        against: KIND:PATH of a data set that must share no image with the new one. Later calls remember it;
            --empty-against forgets all of them.
        min_side: Minimum length of the shorter side, px. Default: the last value; at first 128.
        model: Classifier that sorts the grid by the probability of each image's label, lowest first. Later calls use
            its saved scores unless you give another model.
        min_score: Minimum probability, 0 to 1, that the model gives to an image's label; 0 drops none. Default: the
            last value; at first 0.
    """
    project = opened(folder)
    from uniemox.data import open_data
    from uniemox_curate.collect import screen as screening
    from uniemox_curate.scoring import scorer

    if min_score and model is None and project.store.setting("scored by") is None:
        raise ConfigError("--min-score needs the predictions of a --model")
    config = screening.remembered_config(project, min_side, min_score)
    score = None if model is None else scorer(model, project.plan.label_set)
    with progress_bar() as progress:
        counts = screening.screen(
            project,
            config,
            against=None if against is None else [open_data(name) for name in against],
            score=score,
            model=model or "",
            progress=progress.show,
        )
    _print_counts(project, folder, counts, as_json)


def _print_counts(project: "Project", folder: Path, counts: Mapping[str, int], as_json: bool, **more: Any) -> None:
    if as_json:
        print(json.dumps({**counts, **more}))
        return
    print(", ".join(f"{name} {number}" for name, number in counts.items()) or "no images")
    say_next(project, folder)


for command in (invite, leave_out, suggest, serve, agree, split, release):
    curate.command(command)
curate.command(export_answers, name="export")
curate.command(import_answers, name="import")


@curate.command
def takedown(folder: Folder, which: str, /, *, because: str) -> None:
    """Remove an image from the project and its releases; later collections skip it, unless you undo this.

    Each release is written again without the image. If one can't be, it stays as it was, and the command does
    everything else first and then fails.

    For example:

    - uniemox curate takedown mine https://example.org/photo.jpg --because "asked for by the author"
    - uniemox curate takedown mine 3f9c2a77d01b --because "shows a child"
    - uniemox curate takedown mine pictures/train/awe/3de66629c1b99cbb2b39.jpg --because "shows a child"

    Args:
        which: Address of the image or its page, path of the image in a release or in a folder that was collected, or at
            least 12 digits of its sha256.
        because: Reason, which is recorded.
    """
    project = opened(folder)
    from uniemox_curate.release.takedown import take_down

    done = take_down(project, which, because=because)
    images = counted(len(done.sha256), "image")
    if done.near_duplicates:
        images += f", {done.near_duplicates} of them nearly the same as the named one"
    print(f"removed {images}: {', '.join(digest[:12] for digest in done.sha256)}")
    for release_folder in done.releases:
        say(f"{release_folder} is without them")
    for release_folder in done.missing:
        say(f"{release_folder} no longer exists; if there are copies, remove the image from them by hand")
    if done.problems:
        raise DataError("; ".join(done.problems))


@curate.command
def undo(folder: Folder, batch: Annotated[int, Parameter(help="Number of the step.")], /) -> None:
    """Undo a step by its number, which `status` lists. You can also undo an undo.

    Example: uniemox curate undo mine 12
    """
    project = opened(folder)
    from uniemox_curate.decisions import undo as run
    from uniemox_curate.release.takedown import count_undeleted

    with project.store.write() as connection:
        number = run(connection, batch, actor="owner")
    print(f"undone; to reverse this: uniemox curate undo {shell_quoted(folder)} {number}")
    if undeleted := count_undeleted(project):
        images = counted(undeleted, "image that is taken down still has", "images that are taken down still have")
        raise DataError(f"{images} files; repeat uniemox curate takedown for {'it' if undeleted == 1 else 'them'}")
    say_next(project, folder)


@curate.command
def status(
    folder: Folder,
    /,
    *,
    html: Annotated[Files, Parameter(help="Write a page to this file.")] = None,
    as_json: JsonObject = False,
) -> None:
    """Show the progress of every step and the next command.

    Example: uniemox curate status mine --html mine.html
    """
    if html is not None and html.suffix != ".html":
        raise ConfigError(f"--html {html}: the page is a .html file")
    project = opened(folder)
    from uniemox_curate import status as project_status

    content = project_status.status(project, shell_quoted(folder))
    if html is not None:
        project_status.write_status_page(html, content, None, folder / "splits.png")
        say(f"wrote {html}")
    if as_json:
        print(json.dumps(content.to_json()))
    else:
        show_all(status_tables(content))


@curate.command
def demo(
    folder: Annotated[Path, Parameter(help="Folder to write to; must not hold a demo yet.")] = Path("curate-demo"),
    /,
    *,
    count: Annotated[int, Parameter(help="Number of images, at least 64.")] = 160,
    as_json: JsonObject = False,
) -> None:
    """Run all steps on synthetic images: a server on this machine, two simulated annotators, a release.

    Example: uniemox curate demo
    """
    need(*PACKAGES, "mlcroissant", extra="curate")
    if count < 64:
        raise ConfigError(f"--count must be at least 64, so that every split has every class, got {count}")
    from uniemox_curate.demo import demo as run

    with progress_bar() as progress:
        result = run(folder, count=count, progress=progress.show)
    if as_json:
        print(json.dumps(result))
        return
    for step, number in result["statistics"]["funnel"].items():
        print(f"{number:6}  {step}")
    print(f"page: {folder / 'status.html'}\nrelease: {folder / 'release'}")
    say(f"look around: uniemox curate serve {shell_quoted(folder / 'project')}")
