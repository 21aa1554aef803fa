"""Commands from images to labels, and from labels to a data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say, show_all
from uniemox.cli.curate_tables import PACKAGES, agreement_tables

RuleName = Literal["both", "majority", "soft"]


def invite(folder: Path, name: str, /, *, address: str = "http://127.0.0.1:8790") -> None:
    """Print a link by which somebody can annotate. It is shown once; a new one for the same name replaces it.

    Examples:

    uniemox curate invite mine Ada

    Parameters
    ----------
    folder
        Of the project.
    name
        Of the annotator.
    address
        Where `serve` can be reached.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.access import invite as make
    from uniemox.curate.project import open_project

    print(f"{address.rstrip('/')}/join#{make(open_project(folder), name)}")


def leave_out(folder: Path, name: str, /) -> None:
    """Count an annotator's answers no more, for example who failed the attention checks; `undo` takes it back.

    Examples:

    uniemox curate leave-out mine Ada

    Parameters
    ----------
    folder
        Of the project.
    name
        Of the annotator.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.project import open_project
    from uniemox.curate.store import leave_out as write_down

    project = open_project(folder)
    with project.store.write() as connection:
        number = write_down(connection, name, actor="owner")
    print(f"answers of {name} are left out; undo {number} to have them back")


def serve(folder: Path, /, *, host: str = "127.0.0.1", port: int = 8790, address: str | None = None) -> None:
    """Serve the pages: annotators answer, the owner screens, judges and sees how far everything is.

    Prints a link for the owner. Only this machine can reach it by default; no image leaves it but to those invited.

    Examples:

    uniemox curate serve mine

    uniemox curate serve mine --address https://curate.example.org

    Parameters
    ----------
    folder
        Of the project.
    host
        Where to listen.
    port
        0 takes a free one.
    address
        Where people open the pages, if a proxy with https stands before this server.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.access import OWNER
    from uniemox.curate.annotate.access import invite as make
    from uniemox.curate.annotate.serving import address_of, listen
    from uniemox.curate.annotate.serving import serve as run
    from uniemox.curate.project import open_project

    project = open_project(folder)
    sock = listen(host, port)
    base = (address or address_of(sock)).rstrip("/")
    token = make(project, OWNER, "owner")
    print(f"owner: {base}/join#{token}", flush=True)
    say(f"serving {base}; Ctrl-C ends it, and nothing is lost")
    run(project, sock, address)


def agree(folder: Path, /, *, rule: RuleName | None = None, as_json: JsonFlag = False) -> None:
    """Say how far annotators agree: percentage, Cohen's kappa, Krippendorff's alpha, each with a 95 % interval.

    Examples:

    uniemox curate agree mine

    uniemox curate agree mine --rule majority --json

    Parameters
    ----------
    folder
        Of the project.
    rule
        Which images would be kept: both (all annotators name the label that was searched, the paper's rule), majority,
        or soft (under the label that most name, with shares); if not given, that of the last split or release, at
        first both.
    as_json
        Print one JSON object.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.figures import agree as run
    from uniemox.curate.annotate.verdicts import remembered_rule, verdicts
    from uniemox.curate.project import open_project

    project = open_project(folder)
    rule = rule or remembered_rule(project)
    found, kept = run(project), verdicts(project, rule=rule)
    if as_json:
        reasons = _count([one.reason for one in kept.values()])
        labels = _count([one.label for one in kept.values() if one.label is not None])
        print(json.dumps({**found.as_dict(), "rule": rule, "kept": labels, "reasons": reasons}))
        return
    show_all(agreement_tables(found, kept))
    say(f"kept by the rule {rule}")
    say(f"next: uniemox curate split {folder}; disputed images are judged on the page of uniemox curate serve")


def split(
    folder: Path,
    /,
    *,
    ratio: str = "80/10/10",
    schemes: int = 100,
    seed: int = 0,
    rule: RuleName | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Divide what is kept into train, val and test: of many schemes the one whose colours agree best (figure 6).

    Near duplicates, an author's images and those of one page stay together.

    Examples:

    uniemox curate split mine

    uniemox curate split mine --ratio 70/10/20 --schemes 1 --seed 3

    Parameters
    ----------
    folder
        Of the project; gets splits.json and splits.png.
    ratio
        Shares of train, val and test.
    schemes
        Draw so many.
    seed
        Of the first one.
    rule
        As for `agree`; it is remembered.
    as_json
        Print sizes and hash as JSON.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.annotate.verdicts import remembered_rule, verdicts
    from uniemox.curate.project import open_project
    from uniemox.curate.release.splitting import split as run
    from uniemox.data.splits import parse_ratio

    project = open_project(folder)
    rule = rule or remembered_rule(project)
    drawn = run(project, verdicts(project, rule=rule), parse_ratio(ratio), seed=seed, schemes=schemes)
    project.store.set("rule", rule)
    for label, names in drawn.lacking.items():
        say(f"{label} has no image in {' and '.join(names)}: collect more images of it, or leave it out of the plan")
    if as_json:
        found = {"sizes": drawn.sizes, "how": drawn.how, "sha256": drawn.sha256, "lacking": drawn.lacking}
        print(json.dumps(found))
        return
    print(f"{', '.join(f'{name} {size}' for name, size in sorted(drawn.sizes.items()))} ({drawn.how})")
    say(f"next: uniemox curate release {folder} FOLDER --name NAME")


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """What a release says of itself, and what its files say."""

    version: str = "1.0.0"
    """Version of the data set, three numbers."""
    licence: str = ""
    """Licence of labels and texts; images keep their own. Refused where that of some images is not known."""
    only_licensed: Annotated[bool, Parameter(negative="")] = False
    """Leave out images whose licence is not known."""
    address: str = ""
    """Address where it will be found."""
    citation: str = ""
    """Text by which it is to be cited."""
    metadata: Literal["remove", "keep"] = "remove"
    """Metadata in the images' files, such as place, time and names: remove, without loss to the images, or keep."""


def release(
    folder: Path,
    out: Path,
    /,
    *,
    name: str,
    rule: RuleName | None = None,
    as_json: JsonFlag = False,
    about: Annotated[ReleaseOptions, Parameter(name="*")] = ReleaseOptions(),
) -> None:
    """Write the data set: class folders, datasheet, Croissant, licences, statistics, checksums, Label Studio tasks.

    Examples:

    uniemox curate release mine mine-1.0 --name "My Emo8" --licence CC-BY-4.0

    uniemox data show emo8:mine-1.0/pictures

    Parameters
    ----------
    folder
        Of the project.
    out
        A folder that is empty, or that a release was written to.
    name
        Of the data set.
    rule
        As for `agree`; it is remembered.
    as_json
        Print the figures as JSON.
    """
    need(*PACKAGES, "mlcroissant", extra="curate")
    from uniemox.curate.annotate.verdicts import remembered_rule
    from uniemox.curate.project import open_project
    from uniemox.curate.release.run import ReleaseConfig
    from uniemox.curate.release.run import release as run

    project = open_project(folder)
    config = ReleaseConfig(name=name, rule=rule or remembered_rule(project), **vars(about))
    with progress_bar() as progress:
        made = run(project, out, config, progress.show)
    project.store.set("rule", config.rule)
    if made["without split"]:
        say(f"{made['without split']} kept images have no split and were left out; run uniemox curate split again")
    if made["unlicensed"]:
        say(f"{made['unlicensed']} images of unknown licence were left out")
    if as_json:
        print(json.dumps(made))
        return
    left = made["statistics"]["metadata"]["still there"]
    if left:
        say(f"metadata is still in the files of {left} images of other formats than JPEG, PNG and WebP")
    print(f"wrote {out}: {made['pictures']} images")


def _count(words: list[Any]) -> dict[str, int]:
    return {word: words.count(word) for word in sorted(set(words))}
