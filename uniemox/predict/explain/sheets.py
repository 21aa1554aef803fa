"""Sheets of heat maps, as figure 8 of the paper: images with the maps of several models."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from uniemox.errors import ShapeError
from uniemox.io.fonts import fitted
from uniemox.io.html import jpeg_url, render
from uniemox.labels import AFFECT
from uniemox.predict.explain.explanation import Explanation, coloured

CELL_PX = 256
GAP_PX, LINE_PX, FONT_PX = 8, 22, 14
MAX_WIDTH_PX = 1100  # of a sheet where several images share a line
KEY_PX = 160
INK, PAPER = "#1b1f24", "#ffffff"
KEY = ("nothing speaks for the label", "most does", "not looked at: dimmed")


def draw_sheet(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
) -> Image.Image:
    """Draw all explanations as one image: each image next to its maps, several images a line where there is room.

    rows: for each image one explanation a model.  columns: the models' names.  names: of the images.  faces: drawings
    of what the faces show, in place of the images.
    Raises ShapeError if their numbers don't fit.
    """
    title, shown = _first_column(rows, columns, names, faces)
    group_px = (CELL_PX + GAP_PX) * (len(columns) + 1)
    across = max(1, min(len(rows), MAX_WIDTH_PX // group_px))
    lines = [_group(row, name, first) for row, name, first in zip(rows, names, shown, strict=True)]
    bands = [lines[start : start + across] for start in range(0, len(lines), across)]
    heights = [max(image.height for group in band for image, _ in group) + LINE_PX + GAP_PX for band in bands]
    foot_px = LINE_PX + GAP_PX
    sheet = Image.new("RGB", (across * group_px + GAP_PX, LINE_PX + GAP_PX + sum(heights) + foot_px), PAPER)
    for place in range(across):
        for j, heading in enumerate([title, *columns]):
            _write(sheet, (GAP_PX + place * group_px + j * (CELL_PX + GAP_PX), GAP_PX // 2), heading)
    top = LINE_PX + GAP_PX
    for band, height in zip(bands, heights, strict=True):
        for j, (image, text) in enumerate(cell for group in band for cell in group):
            left = GAP_PX + j * (CELL_PX + GAP_PX)
            sheet.paste(image, (left, top))
            _write(sheet, (left, top + image.height + 2), text)
        top += height
    _draw_key(sheet, top)
    return sheet


def sheet_html(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the sheet as an HTML page that needs no other file. Arguments and errors as `draw_sheet`."""
    title, shown = _first_column(rows, columns, names, faces)
    images = []
    for row, name, first in zip(rows, names, shown, strict=True):
        figures = [(_url(_small(first, 2 * CELL_PX)), name if faces is None else f"{name}: {title}", title)]
        figures += [
            (_url(one.overlay(2 * CELL_PX)), f"{_titled(model, one)}: {caption(one)}", f"what speaks for {one.label}")
            for model, one in zip(columns, row, strict=True)
        ]
        images.append(figures)
    return render(
        "predict/explain/sheet.html",
        title="Which parts of the image speak for the answer",
        key=KEY,
        key_url=_url(_scale((KEY_PX, LINE_PX))),
        images=images,
        notes=notes,
    )


def caption(explanation: Explanation) -> str:
    """Return label and probability, or value, and a note if another method's map disagrees."""
    value = explanation.probability
    text = f"{explanation.label} {value:.1f}" if explanation.label in AFFECT else f"{explanation.label} {value:.0%}"
    return f"{text}, methods disagree" if explanation.is_unlike else text


def _titled(column: str, explanation: Explanation) -> str:
    """Append the method to a column's name, unless it ends with it."""
    method = f" ({explanation.method})"
    return column if column.endswith(method) else column + method


def _group(row: Sequence[Explanation], name: str, first: Image.Image) -> list[tuple[Image.Image, str]]:
    """Return the cells of one image: drawings, and the captions below them."""
    return [(_small(first), name), *((_small(one.overlay(CELL_PX)), caption(one)) for one in row)]


def _write(sheet: Image.Image, at: tuple[int, int], text: str) -> None:
    """Write a text; a long one is cut at its start, because names differ at their ends."""
    line, font = fitted(text, FONT_PX, CELL_PX, keep_end=True)
    ImageDraw.Draw(sheet).text(at, line, fill=INK, font=font)


def _draw_key(sheet: Image.Image, top: int) -> None:
    """Draw the colours between the words for their ends; on a narrow sheet the words are cut."""
    first, font = fitted(KEY[0], FONT_PX, sheet.width // 2)
    scale, draw = _scale((KEY_PX, FONT_PX)), ImageDraw.Draw(sheet)
    draw.text((GAP_PX, top), first, fill=INK, font=font)
    left = round(font.getlength(first)) + 2 * GAP_PX
    sheet.paste(scale, (left, top + 2))
    left += scale.width + GAP_PX
    rest, font = fitted(f"{KEY[1]}; {KEY[2]}", FONT_PX, sheet.width - left - GAP_PX)
    draw.text((left, top), rest, fill=INK, font=font)


def _scale(size: tuple[int, int]) -> Image.Image:
    """Draw the colours from no heat to the most; size: width and height, px."""
    return coloured(np.linspace(0, 1, 32, dtype=np.float32)[None], size)


def _url(image: Image.Image) -> str:
    return jpeg_url(image, max_side_px=2 * CELL_PX, quality=88)


def _small(image: Image.Image, side: int = CELL_PX) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _first_column(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None,
) -> tuple[str, Sequence[Image.Image]]:
    """Return title and images of the first column. Raises ShapeError if the arguments' numbers don't fit."""
    if not rows or not columns or len(rows) != len(names) or any(len(row) != len(columns) for row in rows):
        raise ShapeError(
            f"a sheet needs at least one image and model, a name for each image and an explanation for each model; "
            f"got {len(rows)} rows of {[len(row) for row in rows][:5]}, {len(columns)} models and {len(names)} names"
        )
    if faces is None:
        return "image", [row[0].image for row in rows]
    if len(faces) != len(rows):
        raise ShapeError(f"{len(faces)} images with faces do not fit {len(rows)} rows; give one a row")
    return "what faces show", faces
