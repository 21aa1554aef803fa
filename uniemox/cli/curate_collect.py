"""Commands that begin a data set: plan, collection, screening."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import Files, JsonFlag, need, progress_bar, say
from uniemox.cli.curate_tables import PACKAGES
from uniemox.errors import ConfigError

if TYPE_CHECKING:
    from uniemox.curate.collect.fetch import FetchConfig
    from uniemox.curate.collect.politeness import PolitenessConfig
    from uniemox.curate.collect.sources.candidate import ImageSource
    from uniemox.curate.plan import CollectionPlan


def init(folder: Path, /, *, plan: Files = None, database: str | None = None) -> None:
    """Begin a project.

    Examples:

    uniemox curate init mine

    uniemox curate init mine --plan plan.json

    Parameters
    ----------
    folder
        Of the project.
    plan
        A JSON file {"keywords": {label: [word, ...]}}, optionally with kind, styles, answers_per_picture, check_every
        and answer (what annotators are asked); if not given, the 8 x 10 words of Emo8 (table I).
    database
        An address of SQLAlchemy, such as postgresql+psycopg://...; a file in the folder if not given.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.plan import read_plan
    from uniemox.curate.project import create_project

    project = create_project(folder, None if plan is None else read_plan(plan), database=database)
    words = sum(map(len, project.plan.keywords.values()))
    print(f"began {folder}: {len(project.plan.labels)} labels, {words} search words")
    say(f"next: uniemox curate collect {folder} --source openverse")


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How sources are asked, and what is taken."""

    rate: float | None = None
    """Requests to one host a second; 2 if not given."""
    max_kb: int | None = None
    """Larger files are not taken; 20480 if not given."""
    contact: str = ""
    """A mail or web address that is told to the servers; Wikimedia asks for one."""
    licence: str | None = None
    """Of Bing: creativecommons, publicdomain, noncommercial or commercial."""

    def configs(self) -> "tuple[FetchConfig, PolitenessConfig]":
        """What is fetched, and how politely."""
        from uniemox.curate.collect.fetch import FetchConfig
        from uniemox.curate.collect.politeness import PolitenessConfig

        files, politeness = FetchConfig(contact=self.contact), PolitenessConfig()
        files = files if self.max_kb is None else replace(files, max_bytes=self.max_kb * 1024)
        return files, politeness if self.rate is None else replace(politeness, per_host_per_s=self.rate)


def collect(
    folder: Path,
    /,
    *,
    source: list[str] | None = None,
    per_keyword: int = 165,
    as_json: JsonFlag = False,
    fetching: Annotated[FetchOptions, Parameter(name="*")] = FetchOptions(),
) -> None:
    """Ask sources for images and fetch them; begins the project if there is none.

    Hosts get one request at a time, private networks none; what could not be reached is tried by the next call.

    Examples:

    uniemox curate collect mine --source openverse --source commons --contact me@example.org

    uniemox curate collect mine --source folder:photos

    uniemox curate collect mine --source csv:addresses.csv

    uniemox curate collect mine

    Parameters
    ----------
    folder
        Of the project.
    source
        openverse, commons, bing, csv:TABLE (columns address, and keyword, label, page, title, licence, licence_address,
        author where known) or folder:PATH (LABEL/KEYWORD/IMAGE, the keyword optional; 'folder:PATH?labels=none' takes
        all images without a label); none fetches what is still waiting.
    per_keyword
        Results of a search; 165 for each of Emo8's 80 words make its 13,200 images.
    as_json
        Print counts as JSON.
    """
    need(*PACKAGES, "icrawler", extra="curate")
    if per_keyword < 1:
        raise ConfigError(f"--per-keyword must be at least 1, got {per_keyword}")
    from uniemox.curate.collect.run import failures, fetch, search
    from uniemox.curate.plan import paper_plan
    from uniemox.curate.project import create_project, is_project, open_project

    known = open_project(folder) if is_project(folder) or not source else None
    files, politeness = fetching.configs()
    plan = known.plan if known else paper_plan()
    sources = [_source(name, plan, files, politeness, fetching.licence) for name in source or ()]
    project = known or create_project(folder, plan)  # none for a source that is not there
    with progress_bar() as progress:
        problems = search(project, sources, per_keyword, progress.show)
        counts = fetch(project, files, politeness, progress.show)
    for problem in problems:
        say(f"not asked to the end: {problem}")
    for reason, number in list(failures(project).items())[:8]:
        say(f"{number} x {reason}")
    if as_json:
        print(json.dumps({**counts, "problems": problems}))
        return
    print(", ".join(f"{name} {number}" for name, number in counts.items()))
    say(f"next: uniemox curate screen {folder}")


def screen(
    folder: Path,
    /,
    *,
    against: list[str] | None = None,
    min_side: int | None = None,
    model: str | None = None,
    min_score: float | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Leave out what is broken, tiny, a placeholder, twice there, or in a test set; people then drop the rest.

    Examples:

    uniemox curate screen mine --against fi:photos/fi --against emoset:photos/emoset

    uniemox curate screen mine --model runs/fi --min-score 0.02

    Parameters
    ----------
    folder
        Of the project.
    against
        KIND:PATH of a data set that must share no image with the new one; it is remembered.
    min_side
        Images with a shorter side are left out, px; if not given, the one used last, at first 128.
    model
        A classifier; the grid begins with the images that fit their label least. Its scores are kept until another
        one is named.
    min_score
        Share that the model must give to an image's label, or it is left out; 0 leaves none out. If not given, the
        one used last, at first 0.
    as_json
        Print counts as JSON.
    """
    need(*PACKAGES, extra="curate")
    from uniemox.curate.collect.scoring import scorer
    from uniemox.curate.collect.screen import remembered_config
    from uniemox.curate.collect.screen import screen as run
    from uniemox.curate.project import open_project
    from uniemox.data.source import open_data

    project = open_project(folder)
    if min_score and model is None and project.store.setting("scored by") is None:
        raise ConfigError("--min-score needs the shares of a --model")
    config = remembered_config(project, min_side, min_score)
    score = None if model is None else scorer(model, project.plan.label_set)
    with progress_bar() as progress:
        others = [open_data(name) for name in against or ()]
        counts = run(project, config, against=others, score=score, model=model or "", progress=progress.show)
    if as_json:
        print(json.dumps(counts))
        return
    print(", ".join(f"{name} {number}" for name, number in counts.items()) or "no images")
    say(f"next: uniemox curate invite {folder} NAME, then uniemox curate serve {folder}")


def _source(
    name: str, plan: "CollectionPlan", fetching: "FetchConfig", politeness: "PolitenessConfig", licence: str | None
) -> "ImageSource":
    """The source of a name. Raises ConfigError for one that is not known."""
    from uniemox.curate.collect.sources import bing, commons, files, openverse
    from uniemox.curate.collect.sources.candidate import PagedSearch
    from uniemox.data.source import parse_source

    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        _, folder, options = parse_source(name)
        if options not in ({}, {"labels": "none"}):
            raise ConfigError(f"{name!r}: the only option of a folder is ?labels=none")
        return files.LocalFolder(Path(folder), plan, with_labels=not options)
    if kind == "csv" and path:
        return files.AddressTable(Path(path), plan)
    if name == "openverse":
        return openverse.Openverse(PagedSearch(fetching, politeness, pause_s=openverse.PAUSE_S))
    if name == "commons":
        return commons.Commons(PagedSearch(fetching, politeness, pause_s=commons.PAUSE_S))
    if name == "bing":
        return bing.Bing(PagedSearch(fetching, politeness, pause_s=bing.PAUSE_S), licence=licence)
    raise ConfigError(f"{name!r} is no source; there are openverse, commons, bing, csv:TABLE and folder:PATH")
