"""Page of a survey: a self-contained HTML file with charts, a map of moods, and a gallery that can be filtered."""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageOps

from uniemox import __version__
from uniemox.errors import ImageError
from uniemox.insight.survey.charts import affect_rows, count_rows, emotion_rows, group_charts
from uniemox.insight.survey.gallery import GalleryImage, GallerySample, csv_lines, csv_url
from uniemox.insight.survey.moods import MoodMap
from uniemox.insight.survey.summary import Summary, SurveyImage
from uniemox.io.borders import image_border
from uniemox.io.decoding.pool import Decode
from uniemox.io.html import jpeg_url, percent, write_html
from uniemox.io.images import MinSides
from uniemox.labels import AFFECT, AXES
from uniemox.predict.images import ImageLike, map_images, name_of, read_any
from uniemox.predict.plot import LABEL_COLOURS

SIDE_PX = 160
# JPEG quality of thumbnails: with 1,000 of them, the page stays below 12 MB.
QUALITY = 70
# Side of an image on the map of moods.
MAP_SIDE_PX = 72
# Colour of images that no requested label fits.
NO_COLOUR = "#888888"
# Numbers of people that have a bar of their own.
MOST_PEOPLE = 3


def write_survey_page(summary: Summary, title: str, out: Path) -> None:
    """Write the page of a survey. Images are read again for it; a missing one is left out.

    Args:
        summary: Numbers of the survey.
        title: Title of the page.
        out: HTML file to write.

    Raises:
        DataError: If the file can't be written.
    """
    emotion_labels = [label for label in summary.columns if label not in AXES]
    colours = dict(zip(emotion_labels, cycle(LABEL_COLOURS), strict=False))
    # With few images, the rows of highest and lowest values would show the same ones.
    least = {label: images for label, images in summary.least.items() if len(images) < summary.whole.images}
    rows_of_images = [*summary.most.values(), *least.values(), summary.unfamiliar]
    paths = [image.path for images in rows_of_images for image in images]
    urls = _thumbnail_urls([*paths, *(image.path for image in summary.gallery.images)], SIDE_PX)

    def row(images: Iterable[SurveyImage], name: str = "") -> list[dict[str, str]]:
        format_value = "{:.1f}".format if name in AXES else percent
        return [
            _shown(image.path, out.parent, format_value(image.value), urls[image.path])
            for image in images
            if image.path in urls
        ]

    emotions, emotion_scale = emotion_rows(summary, colours)
    write_html(
        out,
        "uniemox/insight/survey/page.html",
        title=title,
        version=__version__,
        summary=summary,
        emotions=emotions,
        emotion_scale=emotion_scale,
        affect=affect_rows(summary),
        groups=group_charts(summary, colours),
        extremes=[
            (label, row(images, label), row(least.get(label, ()), label)) for label, images in summary.most.items()
        ],
        colours=colours,
        map=_map(summary.moods.map(), colours),
        unfamiliar=row(summary.unfamiliar),
        people=count_rows(_people_counts(summary), summary.whole.images),
        faces=count_rows(
            [(word or "too small to tell", count) for word, count in summary.shown.most_common()],
            summary.shown.total() or 1,
        ),
        gallery=_gallery(summary.gallery, urls, colours, out.parent),
    )


def _people_counts(summary: Summary) -> list[tuple[str, int]]:
    """Return the number of images by number of people; [] if no detector was run."""
    if not summary.people:
        return []
    more = sum(count for number, count in summary.people.items() if number > MOST_PEOPLE)
    counts = [(str(number), summary.people[number]) for number in range(MOST_PEOPLE + 1)]
    return [*counts, (f"{MOST_PEOPLE + 1} or more", more)]


def row_of_images(
    images: Iterable[SurveyImage], folder: Path, format_value: Callable[[float], str]
) -> list[dict[str, str]]:
    """Return one dict per image of `ui.gallery`: path, name, thumbnail, link to the file, formatted value.

    Args:
        images: Images of the row; unreadable ones are left out.
        folder: Folder of the page, to which the links are relative.
        format_value: Function that formats an image's value.
    """
    images = list(images)
    urls = _thumbnail_urls([image.path for image in images], SIDE_PX)
    return [
        _shown(image.path, folder, format_value(image.value), urls[image.path])
        for image in images
        if image.path in urls
    ]


def _shown(path: str, folder: Path, value: str, url: str) -> dict[str, str]:
    return {"path": path, "name": os.path.basename(path), "link": _link(path, folder), "value": value, "url": url}


def _link(path: str, folder: Path) -> str:
    """Return a link from a page in a folder to a file."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogateescape")
    # Windows has no relative path to a file on another drive.
    except ValueError:
        return Path(path).absolute().as_uri()


def _map(moods: MoodMap | None, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the map of moods with the image and the frame's colour of each cell; None without a map."""
    if moods is None:
        return None
    urls = _thumbnail_urls((cell.example.path for cell in moods.cells), MAP_SIDE_PX)
    cells = [
        {
            "cell": cell,
            "name": os.path.basename(cell.example.path),
            "url": urls.get(cell.example.path),
            "colour": colours.get(cell.example.top, NO_COLOUR),
        }
        for cell in moods.cells
    ]
    return {
        "moods": moods,
        "cells": cells,
        "quadrants": count_rows(moods.quadrants, sum(dict(moods.quadrants).values())),
    }


def _gallery(
    sample: GallerySample, urls: Mapping[str, str], colours: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """Return the tiles of the gallery, the values that its script needs, and its list as CSV."""
    images = [image for image in sample.images if image.path in urls]
    lines = csv_lines(sample.columns, [image.cells for image in images])
    tiles = []
    for image in images:
        tile: dict[str, Any] = dict(_shown(image.path, folder, _tile_value(image), urls[image.path]))
        tile["colour"] = colours.get(image.top, NO_COLOUR)
        tile["more"] = ["a guess"] if image.is_unfamiliar else []
        tiles.append(tile)
    return {
        "tiles": tiles,
        "total": sample.total,
        "script": {
            "header": lines[0],
            "images": [image.for_script | {"line": line} for image, line in zip(images, lines[1:], strict=True)],
        },
        "csv_url": csv_url(lines),
        "has_people": any(image.people is not None for image in images),
        "has_unfamiliar": any(image.is_unfamiliar for image in images),
        "has_dates": any(image.taken for image in images),
        "affect": [name for name in AFFECT if any(name in image.values for image in images)],
    }


def _tile_value(image: GalleryImage) -> str:
    """Return the most probable label and its probability; of a model of valence and arousal, both values."""
    if image.top in AXES:
        return ", ".join(f"{name} {image.values[name]:.1f}" for name in AFFECT if name in image.values)
    return f"{image.top} {percent(image.top_value)}"


def _thumbnail_urls(paths: Iterable[str], side_px: int) -> dict[str, str]:
    """Return the thumbnail of each image as a data URL; an image that can no longer be read has none."""
    distinct_paths = list(dict.fromkeys(paths))
    thumbnails = zip(distinct_paths, _thumbnails(distinct_paths, side_px), strict=True)
    return {
        path: jpeg_url(image, max_side_px=side_px, quality=QUALITY) for path, image in thumbnails if image is not None
    }


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
