"""Page of a survey: a self-contained HTML file, with a map on which similar images are neighbours."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from uniemox import __version__
from uniemox.errors import ImageError, MissingPackageError
from uniemox.insight.survey.summary import DATE, Place, Summary, Tally
from uniemox.io.decoding.pool import Decode
from uniemox.io.html import jpeg_url, percent, write_html
from uniemox.io.image_border import image_border
from uniemox.io.images import MinSides
from uniemox.labels import AFFECT
from uniemox.predict.images import ImageLike, map_images, name_of, read_any
from uniemox.predict.plot import LABEL_COLOURS

MAX_ROWS = 40  # per table of groups; all further groups share one row
SIDE_PX = 160
FEWEST = 12  # images for a map
CELL_PX = 44
EDGE_PX = 3


def write_survey_page(summary: Summary, title: str, out: Path) -> None:
    """Write the page. Images are read again for it; a missing one is left out.

    Raises:
        DataError: If it can't be written.
    """

    def row(places: Iterable[Place], name: str = "") -> list[dict[str, str]]:
        return row_of_images(places, out.parent, "{:.1f}".format if name in AFFECT else percent)

    colours = dict(zip(summary.answered.labels, cycle(LABEL_COLOURS), strict=False))
    groups = {name: tallies for name, tallies in summary.groups.items() if len(tallies) > 1}
    has_least = {label: len(places) < summary.whole.images for label, places in summary.most.items()}
    write_html(
        out,
        "insight/survey/page.html",
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
        map=_map(summary.on_map, colours),
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

    Args:
        folder: Contains the page; links to the images are relative to it.
        words: Formats a value.
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
        for place, image in zip(places, _thumbnails([place.path for place in places], SIDE_PX), strict=True)
        if image is not None
    ]


def _link(path: str, folder: Path) -> str:
    """Return a link from a page in a folder to a file."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
    except ValueError:  # the file is on another drive
        return Path(path).absolute().as_uri()


def _map(images: Sequence[Place], colours: Mapping[str, str]) -> dict[str, Any]:
    """Return the map and each image's corners on it; or a note why there is none.

    Args:
        colours: Of the frames, by most probable label.
    """
    if len(images) < FEWEST:
        return {"note": f"A map needs at least {FEWEST} images."}
    try:
        cells = arrange(np.stack([image.features for image in images]))
    except MissingPackageError as error:
        return {"note": str(error)}
    columns, rows = (max(place) + 1 for place in zip(*cells, strict=True))
    page = Image.new("RGB", (columns * CELL_PX, rows * CELL_PX), "white")
    gone = Image.new("RGB", (CELL_PX, CELL_PX), "#888888")
    small = _thumbnails([image.path for image in images], CELL_PX)
    for image, thumbnail, (column, row) in zip(images, small, cells, strict=True):
        tile = ImageOps.expand(thumbnail or gone, EDGE_PX, colours[image.top]).resize((CELL_PX, CELL_PX))
        page.paste(tile, (column * CELL_PX, row * CELL_PX))
    corners = [(x * CELL_PX, y * CELL_PX, (x + 1) * CELL_PX, (y + 1) * CELL_PX) for x, y in cells]
    return {"note": "", "corners": corners, "url": jpeg_url(page, max_side_px=max(page.size))}


def arrange(features: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Assign each image a cell (column, row) of a grid: t-SNE (van der Maaten and Hinton 2008), then the assignment to
    cells with the smallest total displacement. Deterministic on one machine.

    Args:
        features: (N, D).

    Raises:
        MissingPackageError: Without scikit-learn.
    """
    try:
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - an extra
        from sklearn.manifold import TSNE  # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("a map needs scikit-learn; run: pip install 'uniemox[data]'") from None

    count = len(features)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tsne = TSNE(perplexity=min(30, (count - 1) / 3), metric="cosine", init="random", random_state=0)
    drawn = tsne.fit_transform(features)
    drawn = (drawn - drawn.min(0)) / np.maximum(np.ptp(drawn, axis=0), 1e-9)
    cells = np.array([(column, row) for row in range(rows) for column in range(columns)])
    at = (cells + 0.5) / (columns, rows)
    _, chosen = linear_sum_assignment(((drawn[:, None] - at[None]) ** 2).sum(-1))
    return [(int(column), int(row)) for column, row in cells[chosen]]


def _thumbnails(paths: Iterable[str], side_px: int) -> Iterable[Image.Image | None]:
    """Yield the centre square of each image, RGB; None for an image that can no longer be read."""

    def small(source: ImageLike, decode: Decode) -> Image.Image | None:
        try:
            with image_border(name_of(source)):
                image, _ = read_any(source, MinSides(short_px=side_px), decode_file=decode)
                return ImageOps.fit(image, (side_px, side_px))
        except ImageError:
            return None

    return map_images(paths, small, 16, None)
