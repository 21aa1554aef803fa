"""Commands that build a data set."""

import json
from pathlib import Path

from cyclopts import App

from uniemox.cli.console import Files, JsonFlag, need, progress_bar, say, show_all
from uniemox.cli.curate_answers import export_answers, import_answers, suggest
from uniemox.cli.curate_collect import collect, init, screen
from uniemox.cli.curate_labels import agree, invite, leave_out, release, serve, split
from uniemox.cli.curate_tables import PACKAGES, status_tables
from uniemox.errors import ConfigError, DataError

curate = App(
    name="curate",
    help=(
        "Build an emotion data set as Emo8 was built: collect, screen, annotate, agree, split, release.\n\n"
        "A project is a folder; every step can be stopped and resumed, every decision can be undone. "
        "See `uniemox docs curate`, and begin with `uniemox curate demo`."
    ),
)
for command in (init, collect, screen, invite, leave_out, suggest, serve, agree, split, release):
    curate.command(command)
curate.command(export_answers, name="export")
curate.command(import_answers, name="import")


@curate.command
def takedown(folder: Path, which: str, /, *, because: str) -> None:
    """Remove an image from the project and its releases; it is not collected again.

    Fails, once all else is done, if a release could not be written again.

    Examples:

    uniemox curate takedown mine https://example.org/photo.jpg --because "asked for by the author"

    uniemox curate takedown mine 3f9c2a77d01b --because "shows a child"

    Parameters
    ----------
    folder
        Of the project.
    which
        The address of the image or its page, or at least 12 digits of its sha256.
    because
        Why; it is written down.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.project import open_project
    from uniemox.curate.release.takedown import take_down

    done = take_down(open_project(folder), which, because=because)
    print(f"removed {len(done.sha256)} images: {', '.join(digest[:12] for digest in done.sha256)}")
    for place in done.releases:
        say(f"{place} is without them")
    for place in done.gone:
        say(f"{place} is not there any more; where copies of it are, remove them by hand")
    if done.problems:
        raise DataError("; ".join(done.problems))


@curate.command
def undo(folder: Path, batch: int, /) -> None:
    """Take a step back by its number; `status` lists them. What undid something can be undone too.

    Examples:

    uniemox curate undo mine 12

    Parameters
    ----------
    folder
        Of the project.
    batch
        The number.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.project import open_project
    from uniemox.curate.release.takedown import take_back

    number = take_back(open_project(folder), batch, actor="owner")
    print(f"undone; undo {number} to have it back")


@curate.command
def status(folder: Path, /, *, html: Files = None, as_json: JsonFlag = False) -> None:
    """Show how far every step is, and what to do next.

    Examples:

    uniemox curate status mine

    uniemox curate status mine --html mine.html

    Parameters
    ----------
    folder
        Of the project.
    html
        Write a page to this file.
    as_json
        Print one JSON object.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.project import open_project
    from uniemox.curate.status import status as found_by
    from uniemox.curate.status_page import write_status_page

    found = found_by(open_project(folder))
    if html is not None:
        write_status_page(html, found, None, folder / "splits.png")
        say(f"wrote {html}")
    if as_json:
        print(json.dumps(found))
        return
    show_all(status_tables(found))


@curate.command
def demo(folder: Path = Path("curate-demo"), /, *, count: int = 160, as_json: JsonFlag = False) -> None:
    """Go the whole way on synthetic images: a server on this machine, two annotators that are programs, a release.

    Examples:

    uniemox curate demo

    Parameters
    ----------
    folder
        To write to; must not hold a demo yet.
    count
        Images.
    as_json
        Print the figures of the release as JSON.
    """
    need(*PACKAGES, "mlcroissant", extra="curate")
    if count < 64:
        raise ConfigError(f"--count must be at least 64, so that every split has every class, got {count}")
    from uniemox.curate.demo import demo as run

    with progress_bar() as progress:
        made = run(folder, count=count, progress=progress.show)
    if as_json:
        print(json.dumps(made))
        return
    for step, number in made["statistics"]["funnel"].items():
        print(f"{number:6}  {step}")
    print(f"page: {folder / 'status.html'}\nrelease: {folder / 'release'}")
    say(f"look around: uniemox curate serve {folder / 'project'}")
