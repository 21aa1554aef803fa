"""Commands about answers: what annotators are shown beside an image, and answers as files."""

from pathlib import Path

from uniemox.cli.console import need, progress_bar, say
from uniemox.cli.curate_tables import PACKAGES
from uniemox.errors import ConfigError


def suggest(folder: Path, /, *, model: str = "embedded", off: bool = False) -> None:
    """Show annotators what a model says of each image, or no longer (--off).

    It draws answers towards the model's; each answer keeps what was suggested, and the release says how many had one.

    Examples:

    uniemox curate suggest mine --model runs/fi

    uniemox curate suggest mine --off

    Parameters
    ----------
    folder
        Of the project.
    model
        As for `uniemox predict`, with labels of the project.
    off
        Show nothing any more.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.suggesting import forget
    from uniemox.curate.annotate.suggesting import suggest as run
    from uniemox.curate.project import open_project

    project = open_project(folder)
    if off:
        forget(project)
        print("annotators see no suggestions any more")
        return
    with progress_bar() as progress:
        count = run(project, model, progress.show)
    print(f"annotators see what {model} says of {count} images; --off ends it")


def export_answers(folder: Path, out: Path, /) -> None:
    """Write all answers that there are now, also while annotators are at work: as a table, or for Label Studio.

    The names of annotators and their comments are in it; a release has neither.

    Examples:

    uniemox curate export mine answers.csv

    uniemox curate export mine tasks.json

    Parameters
    ----------
    folder
        Of the project.
    out
        The file: .csv, or .json for Label Studio.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.answer_files import write_csv, write_label_studio
    from uniemox.curate.project import open_project

    if out.suffix not in (".csv", ".json"):
        raise ConfigError(f"{out}: give answers.csv, or tasks.json for Label Studio")
    write = write_csv if out.suffix == ".csv" else write_label_studio
    print(f"wrote {out}: {write(open_project(folder), out)} answers")


def import_answers(folder: Path, tasks: Path, /) -> None:
    """Take answers that were given in Label Studio, to images that the project has.

    Examples:

    uniemox curate import mine export.json

    Parameters
    ----------
    folder
        Of the project.
    tasks
        What Label Studio exports as JSON. An image is known by data.sha256, else by its file's name.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.answer_files import import_label_studio
    from uniemox.curate.project import open_project

    found = import_label_studio(open_project(folder), tasks)
    if found.unknown:
        say(f"{found.unknown} tasks are of images that the project does not have")
    if found.unfit:
        say(f"{found.unfit} annotations choose no label of the project, or hold what no page could have sent")
    print(f"took {found.new} answers; {found.answers - found.new} were there already")
    say("uniemox curate status lists who gave them; uniemox curate leave-out counts somebody's answers no more")
