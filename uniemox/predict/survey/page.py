"""Page of a survey: a self-contained HTML file."""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

from uniemox import __version__
from uniemox.errors import MissingPackageError
from uniemox.io.html import jpeg_url, percent, write_html
from uniemox.labels import AFFECT
from uniemox.predict.plot import LABEL_COLOURS
from uniemox.predict.survey.similarity import CELL_PX, FEWEST, draw_map, thumbnails
from uniemox.predict.survey.summary import DATE, Place, Summary, Tally

MAX_ROWS = 40  # per table of groups; all further groups share one row
SIDE_PX = 160


def write_survey_page(summary: Summary, title: str, out: Path) -> None:
    """Write the page. Images are read again for it; a missing one is left out.

    Raises DataError if it can't be written.
    """

    def row(places: Iterable[Place], name: str = "") -> list[dict[str, str]]:
        return row_of_images(places, out.parent, "{:.1f}".format if name in AFFECT else percent)

    colours = dict(zip(summary.answered.labels, cycle(LABEL_COLOURS), strict=False))
    groups = {name: tallies for name, tallies in summary.groups.items() if len(tallies) > 1}
    has_least = {label: len(places) < summary.whole.images for label, places in summary.most.items()}
    write_html(
        out,
        "predict/survey/page.html",
        title=title,
        version=__version__,
        found=summary,
        affect=AFFECT,
        groups={name: tallies if name == DATE else _largest(tallies) for name, tallies in groups.items()},
        extremes=[
            (label, row(summary.most[label], label), row(summary.least[label], label) if has_least[label] else ())
            for label in summary.answered.labels
        ],
        colours=colours,
        map=_map(summary, colours),
        unfamiliar=row(summary.unfamiliar),
        people=[
            *((str(number), summary.people[number]) for number in range(4)),
            ("4 or more", sum(count for number, count in summary.people.items() if number > 3)),
        ],
    )


def _largest(tallies: dict[str, Tally]) -> dict[str, Tally]:
    """Sort groups by number of images; those after the 40th share one row."""
    ordered = sorted(tallies.items(), key=lambda pair: -pair[1].images)
    rows = dict(ordered[:MAX_ROWS])
    if len(ordered) > MAX_ROWS:
        rest = Tally(ordered[0][1].columns)
        for _, tally in ordered[MAX_ROWS:]:
            rest.merge(tally)
        rows[f"{len(ordered) - MAX_ROWS} more"] = rest
    return rows


def row_of_images(places: Iterable[Place], folder: Path, words: Callable[[float], str]) -> list[dict[str, str]]:
    """Return one dict per image of a row in row.html: path, name, thumbnail, link to the file, formatted value.

    folder: contains the page; links to the images are relative to it.  words: formats a value.
    """
    places = list(places)
    return [
        {
            "path": place.path,
            "name": os.path.basename(place.path),
            "link": _link(place.path, folder),
            "value": words(place.value),
            "url": jpeg_url(image, max_side_px=SIDE_PX),
        }
        for place, image in zip(places, thumbnails([place.path for place in places], SIDE_PX), strict=True)
        if image is not None
    ]


def _link(path: str, folder: Path) -> str:
    """Return a link from a page in a folder to a file."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
    except ValueError:  # the file is on another drive
        return Path(path).absolute().as_uri()


def _map(summary: Summary, colours: Mapping[str, str]) -> dict[str, Any]:
    """Return the map and each image's corners on it; or a note why there is none."""
    if len(summary.on_map) < FEWEST:
        return {"note": f"A map needs at least {FEWEST} images."}
    try:
        drawn, cells = draw_map(summary.on_map, colours)
    except MissingPackageError as error:
        return {"note": str(error)}
    corners = [(x * CELL_PX, y * CELL_PX, (x + 1) * CELL_PX, (y + 1) * CELL_PX) for x, y in cells]
    return {"note": "", "corners": corners, "url": jpeg_url(drawn, max_side_px=max(drawn.size))}
