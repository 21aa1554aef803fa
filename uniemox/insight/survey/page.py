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
from uniemox.insight.survey.summary import DATE, Summary, SurveyImage, Tally
from uniemox.io.decoding.pool import Decode
from uniemox.io.html import jpeg_url, percent, write_html
from uniemox.io.image_border import image_border
from uniemox.io.images import MinSides
from uniemox.labels import AFFECT
from uniemox.predict.images import ImageLike, map_images, name_of, read_any
from uniemox.predict.plot import LABEL_COLOURS

# Rows of a table of groups; all further groups share one row.
MAX_ROWS = 40
SIDE_PX = 160
MIN_ON_MAP = 12  # images that a map needs
CELL_PX = 44
EDGE_PX = 3


def write_survey_page(summary: Summary, title: str, out: Path) -> None:
    """Write the page of a survey. Images are read again for it; a missing one is left out.

    Args:
        summary: Numbers of the survey.
        title: Title of the page.
        out: HTML file to write.

    Raises:
        DataError: If the file can't be written.
    """

    def row(images: Iterable[SurveyImage], name: str = "") -> list[dict[str, str]]:
        return row_of_images(images, out.parent, "{:.1f}".format if name in AFFECT else percent)

    colours = dict(zip(summary.answered.labels, cycle(LABEL_COLOURS), strict=False))
    groups = {name: tallies for name, tallies in summary.groups.items() if len(tallies) > 1}
    # With few images, the rows of highest and lowest values would show the same ones.
    shows_lowest = {label: len(images) < summary.whole.images for label, images in summary.most.items()}
    write_html(
        out,
        "uniemox/insight/survey/page.html",
        title=title,
        version=__version__,
        found=summary,
        affect=AFFECT,
        groups={name: tallies if name == DATE else _largest_groups(tallies) for name, tallies in groups.items()},
        extremes=[
            (label, row(summary.most[label], label), row(summary.least[label], label) if shows_lowest[label] else ())
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


def _largest_groups(tallies: dict[str, Tally]) -> dict[str, Tally]:
    """Sort groups by number of images; those after the 40th share one row."""
    ordered = sorted(tallies.items(), key=lambda pair: -pair[1].images)
    rows = dict(ordered[:MAX_ROWS])
    if len(ordered) > MAX_ROWS:
        others = Tally(ordered[0][1].columns)
        for _, tally in ordered[MAX_ROWS:]:
            others.merge(tally)
        rows[f"{len(ordered) - MAX_ROWS} more"] = others
    return rows


def row_of_images(
    images: Iterable[SurveyImage], folder: Path, format_value: Callable[[float], str]
) -> list[dict[str, str]]:
    """Return one dict per image of a row in row.html: path, name, thumbnail, link to the file, formatted value.

    Args:
        images: Images of the row; unreadable ones are left out.
        folder: Folder of the page, to which the links are relative.
        format_value: Function that formats an image's value.
    """
    images = list(images)
    thumbnails = _thumbnails([image.path for image in images], SIDE_PX)
    return [
        {
            "path": image.path,
            "name": os.path.basename(image.path),
            "link": _link(image.path, folder),
            "value": format_value(image.value),
            "url": jpeg_url(thumbnail, max_side_px=SIDE_PX),
        }
        for image, thumbnail in zip(images, thumbnails, strict=True)
        if thumbnail is not None
    ]


def _link(path: str, folder: Path) -> str:
    """Return a link from a page in a folder to a file."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
    # Windows has no relative path to a file on another drive.
    except ValueError:
        return Path(path).absolute().as_uri()


def _map(images: Sequence[SurveyImage], colours: Mapping[str, str]) -> dict[str, Any]:
    """Return the map and each image's corners on it; or a note why there is no map.

    Args:
        images: Images on the map.
        colours: Colours of the frames, by most probable label.
    """
    if len(images) < MIN_ON_MAP:
        return {"note": f"A map needs at least {MIN_ON_MAP} images."}
    try:
        cells = arrange(np.stack([image.features for image in images]))
    except MissingPackageError as error:
        return {"note": str(error)}
    columns = max(column for column, _ in cells) + 1
    rows = max(row for _, row in cells) + 1
    page = Image.new("RGB", (columns * CELL_PX, rows * CELL_PX), "white")
    missing = Image.new("RGB", (CELL_PX, CELL_PX), "#888888")
    thumbnails = _thumbnails([image.path for image in images], CELL_PX)
    for image, thumbnail, (column, row) in zip(images, thumbnails, cells, strict=True):
        tile = ImageOps.expand(thumbnail or missing, EDGE_PX, colours[image.top]).resize((CELL_PX, CELL_PX))
        page.paste(tile, (column * CELL_PX, row * CELL_PX))
    corners = [(x * CELL_PX, y * CELL_PX, (x + 1) * CELL_PX, (y + 1) * CELL_PX) for x, y in cells]
    return {"note": "", "corners": corners, "url": jpeg_url(page, max_side_px=max(page.size))}


def arrange(features: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Assign each image a cell (column, row) of a grid, so that similar images are neighbours.

    t-SNE (van der Maaten and Hinton 2008) places the images, then they are assigned to the cells with the smallest
    total squared displacement. The result is deterministic on one machine.

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
    points = tsne.fit_transform(features)
    points = (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-9)
    cells = np.array([(column, row) for row in range(rows) for column in range(columns)])
    centres = (cells + 0.5) / (columns, rows)
    _, chosen = linear_sum_assignment(((points[:, None] - centres[None]) ** 2).sum(-1))
    return [(int(column), int(row)) for column, row in cells[chosen]]


def _thumbnails(paths: Iterable[str], side_px: int) -> Iterable[Image.Image | None]:
    """Yield the centre square of each image, RGB; None for an image that can no longer be read."""

    def read_thumbnail(source: ImageLike, decode: Decode) -> Image.Image | None:
        try:
            with image_border(name_of(source)):
                image, _ = read_any(source, MinSides(short_px=side_px), decode_file=decode)
                return ImageOps.fit(image, (side_px, side_px))
        except ImageError:
            return None

    return map_images(paths, read_thumbnail, 16, None)
