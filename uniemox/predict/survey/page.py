"""The page of a survey: it stands alone and opens from a disk."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from uniemox import __version__
from uniemox.errors import MissingPackageError
from uniemox.io.html import UNKNOWN, Html, element, is_known, page, percent, scaled_image, scrolling, table
from uniemox.labels import AFFECT
from uniemox.predict.plot import LABEL_COLOURS
from uniemox.predict.survey.similarity import CELL_PX, FEWEST, draw_map, thumbnails
from uniemox.predict.survey.summary import DATE, FOLDER, Place, Summary, Tally

MAX_ROWS = 40  # of a table of groups; the rest is one row
FEW = 10  # images whose mean says little
SIDE_PX = 160
STYLE = """
main > h2 { margin-top: 2.6rem } table { font-size: .82rem } td, th { padding-right: .6rem }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: .85rem; margin: .4rem 0 }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: .15rem }
td, thead th { text-align: right } td.shade { padding: .25rem .5rem } td small { color: var(--soft) }
.row { display: flex; gap: .4rem; overflow-x: auto; margin: .3rem 0 .8rem }
.row figure { flex: 0 0 5.2rem; width: 5.2rem }
.row img { width: 5.2rem; height: 5.2rem; border-radius: .3rem }
.row figcaption { font-size: .72rem; line-height: 1.3; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis }
.map img { max-width: none }
"""


def survey_page(found: Summary, title: str, folder: Path) -> Html:
    """The whole page. Images are read again for it; one that is gone by now is left out.

    folder: of the page, from which thumbnails link to the images.
    """
    colours = dict(zip(found.answered.labels, cycle(LABEL_COLOURS), strict=False))
    parts = [
        element("style", Html(STYLE)),
        element("h1", title),
        *_head(found),
        *_groups(found),
        *_extremes(found, folder),
        *_map(found, colours),
        *_unfamiliar(found, folder),
        *_people(found),
    ]
    return page(title, parts)


def _head(found: Summary) -> Iterator[Html]:
    feels = "make people feel" if found.kind == "evoked" else "show people feeling"
    images, whole = found.whole.images, found.whole
    yield element(
        "p",
        f"What {images:,} images {feels}, by the model {found.answered.model} ({found.answered.label_set}), "
        f"uniemox {__version__}. These are a model's guesses about images, not facts about people: it is often wrong "
        "about one image, and means over many carry its leanings with them.",
    )
    facts = {"images": f"{images:,}", "could not be read": f"{found.failures:,}"}
    facts["unlike the training images"] = f"{whole.unfamiliar:,} ({percent(whole.unfamiliar / images)})"
    if found.people:
        facts["with people"] = percent(1 - found.people[0] / images)
    yield element("dl", *(element("div", element("dt", name), element("dd", fact)) for name, fact in facts.items()))


def _groups(found: Summary) -> Iterator[Html]:
    yield element("h2", "How much of each")
    yield element(
        "p",
        "Mean over the images, and half of its 95 % interval: how far it would move with other images of that kind. "
        "How far the model is wrong for all of them alike is not in it.",
        class_="note",
    )
    yield _tallies("all images", found, {"all": found.whole})
    titles = {FOLDER: "By folder", DATE: "By date of the photograph"}
    for name, tallies in found.groups.items():
        if len(tallies) > 1:
            yield element("h3", titles.get(name, f"By {name}"))
            yield _tallies(name, found, _largest(tallies) if name != DATE else tallies)


def _largest(tallies: dict[str, Tally]) -> dict[str, Tally]:
    """Most images first; those beyond the 40th in one row."""
    ordered = sorted(tallies.items(), key=lambda pair: -pair[1].images)
    rows = dict(ordered[:MAX_ROWS])
    if len(ordered) > MAX_ROWS:
        rest = Tally(ordered[0][1].columns)
        for _, tally in ordered[MAX_ROWS:]:
            rest.merge(tally)
        rows[f"{len(ordered) - MAX_ROWS} more"] = rest
    return rows


def _tallies(name: str, found: Summary, tallies: dict[str, Tally]) -> Html:
    headings = ["", "images", *found.columns, "unfamiliar"]
    head = element("thead", element("tr", *(element("th", heading, scope="col") for heading in headings)))
    rows = [_tally_row(key, tally, found) for key, tally in tallies.items()]
    return scrolling(name, element("table", head, element("tbody", *rows)))


def _tally_row(key: str, tally: Tally, found: Summary) -> Html:
    means, margins = tally.means, tally.margins
    cells = [element("th", key, scope="row"), element("td", f"{tally.images:,}{' (few)' * (tally.images < FEW)}")]
    for name, mean, margin in zip(found.columns, means, margins, strict=True):
        is_share = name not in AFFECT
        value, by = (f"{100 * mean:.0f} %", f"{100 * margin:.0f}") if is_share else (f"{mean:.1f}", f"{margin:.1f}")
        shade = 100 * mean if is_share else 0
        style = f"background:color-mix(in srgb, var(--accent) {min(shade, 60):.0f}%, transparent)"
        half = element("small", f" ± {by if is_known(margin) else UNKNOWN}")
        cells.append(element("td", value, half, class_="shade", style=style))
    cells.append(element("td", percent(tally.unfamiliar / tally.images)))
    return element("tr", *cells)


def _extremes(found: Summary, folder: Path) -> Iterator[Html]:
    yield element("h2", "The most and the least of each")
    for label in found.answered.labels:
        yield element("h3", label)
        in_percent = label not in AFFECT
        most = row_of_images(found.most[label], folder, in_percent=in_percent)
        rows = [element("div", element("p", "most", class_="note"), most)]
        if len(found.most[label]) < found.whole.images:
            least = row_of_images(found.least[label], folder, in_percent=in_percent)
            rows.append(element("div", element("p", "least", class_="note"), least))
        yield element("div", *rows, class_="pair")


def row_of_images(places: Sequence[Place], folder: Path, *, in_percent: bool = True) -> Html:
    """Images beside each other, each with the value that it is shown for and a link to its file."""
    figures = []
    for place, image in zip(places, thumbnails([place.path for place in places], SIDE_PX), strict=True):
        value = percent(place.value) if in_percent else f"{place.value:.1f}"
        name = os.path.basename(place.path)
        if image is not None:
            drawn = element("a", scaled_image(image, name, max_side_px=SIDE_PX), href=_link(place.path, folder))
            figures.append(element("figure", drawn, element("figcaption", value, Html("<br>"), name, title=place.path)))
    return element("div", *figures, class_="row")


def _link(path: str, folder: Path) -> str:
    """Return a link from a page in a folder to a file."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()


def _map(found: Summary, colours: dict[str, str]) -> Iterator[Html]:
    yield element("h2", "Images of one mood beside each other")
    if len(found.on_map) < FEWEST:
        yield element("p", f"A map needs at least {FEWEST} images.", class_="note")
        return
    try:
        drawn, cells = draw_map(found.on_map, colours)
    except MissingPackageError as error:
        yield element("p", str(error), class_="note")
        return
    count, images = len(found.on_map), found.whole.images
    chosen = f"{count} of {images:,} images, drawn at random" if count < images else f"All {images} images"
    yield element(
        "p", f"{chosen}; the frame is the most probable label. A name stands where the pointer rests.", class_="note"
    )
    keys = (element("span", element("i", style=f"background:{colour}"), label) for label, colour in colours.items())
    yield element("p", *keys, class_="key")
    areas = (
        element("area", shape="rect", coords=_corners(cell), title=f"{one.path}: {one.top}", alt="", href="#map")
        for one, cell in zip(found.on_map, cells, strict=True)
    )
    image = _with_areas(drawn)
    yield scrolling("map", element("figure", image, element("map", *areas, name="places"), class_="map", id="map"))


def _with_areas(drawn: Image.Image) -> Html:
    plain = scaled_image(drawn, "map of images", max_side_px=max(drawn.size))
    return Html(plain.replace("<img ", '<img usemap="#places" ', 1))


def _corners(cell: tuple[int, int]) -> str:
    x, y = (place * CELL_PX for place in cell)
    return f"{x},{y},{x + CELL_PX},{y + CELL_PX}"


def _unfamiliar(found: Summary, folder: Path) -> Iterator[Html]:
    if found.unfamiliar:
        yield element("h2", "Unlike the training images")
        yield element("p", "What is said of these is a guess. Least familiar first.", class_="note")
        yield row_of_images(found.unfamiliar, folder)


def _people(found: Summary) -> Iterator[Html]:
    if found.people:
        yield element("h2", "People")
        images = found.whole.images
        counts = [(str(number), found.people[number]) for number in range(4)]
        counts.append(("4 or more", sum(count for number, count in found.people.items() if number > 3)))
        yield table("people", ("people found", "images", "share"), _counts(counts, images))
    if found.answered.has_faces:
        yield element("h2", "What faces show")
        yield element("p", "To others; not what their owners feel. Most probable word of each face.", class_="note")
        words = [(word or "too small to tell", count) for word, count in found.shown.most_common()]
        yield table("faces", ("shown", "faces", "share"), _counts(words, max(found.shown.total(), 1)))


def _counts(counts: Iterable[tuple[str, int]], total: int) -> list[tuple[str, str, str]]:
    return [(name, f"{count:,}", percent(count / total)) for name, count in counts]
