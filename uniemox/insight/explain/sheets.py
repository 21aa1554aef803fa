"""Sheets of heat maps, as in figure 8 of the paper: images with the maps of several models."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from uniemox.insight.explain.explanation import Explanation, coloured
from uniemox.io.fonts import fitted
from uniemox.io.html import jpeg_url, render
from uniemox.labels import AXES

CELL_PX = 256
GAP_PX = 8
LINE_PX = 22
FONT_PX = 14
# Width of a sheet up to which several images share a line.
MAX_WIDTH_PX = 1100
# Width of the colour scale, and in a narrow sheet.
KEY_PX = 160
MIN_KEY_PX = 60
INK = "#1b1f24"
PAPER = "#ffffff"
KEY = ("no support for the label", "most support", "not looked at: dimmed")


def draw_sheet(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
) -> Image.Image:
    """Draw all explanations as one image: each image next to its maps, several images per line if they fit.

    Args:
        rows: One per image, at least one, each with one explanation per model.
        columns: The models' names.
        names: Names of the images.
        faces: Drawings of facial expressions, shown instead of the images.
    """
    title, first_column = _first_column(rows, faces)
    group_px = (CELL_PX + GAP_PX) * (len(columns) + 1)
    across = max(1, min(len(rows), MAX_WIDTH_PX // group_px))
    groups = [
        [(_small(image), name), *((_small(explanation.overlay(CELL_PX)), caption(explanation)) for explanation in row)]
        for row, name, image in zip(rows, names, first_column, strict=True)
    ]
    starts = range(0, len(groups), across)
    lines = [[cell for group in groups[start : start + across] for cell in group] for start in starts]
    sheet = draw_grid([title, *columns] * across, lines, foot_px=LINE_PX + GAP_PX)
    _draw_key(sheet, sheet.height - LINE_PX - GAP_PX)
    return sheet


def draw_grid(
    headings: Sequence[str],
    rows: Sequence[Sequence[tuple[Image.Image, str]]],
    *,
    cell_px: int = CELL_PX,
    foot_px: int = 0,
) -> Image.Image:
    """Draw images under headings, each with its caption below.

    Args:
        headings: Text above each column.
        rows: Images of at most cell_px per side, with captions; "": no caption.
        cell_px: Width of a column.
        foot_px: Height of the free space below.
    """
    step = cell_px + GAP_PX
    top = LINE_PX + GAP_PX
    heights = [max(image.height + (LINE_PX if text else 0) for image, text in row) + GAP_PX for row in rows]
    sheet = Image.new("RGB", (step * len(headings) + GAP_PX, top + sum(heights) + foot_px), PAPER)

    def write(text: str, column: int, y: int) -> None:
        # Long file names differ at their ends.
        line, font = fitted(text, FONT_PX, cell_px, keep_end=True)
        ImageDraw.Draw(sheet).text((GAP_PX + column * step, y), line, fill=INK, font=font)

    for j, heading in enumerate(headings):
        write(heading, j, GAP_PX // 2)
    for row, height in zip(rows, heights, strict=True):
        for j, (image, text) in enumerate(row):
            sheet.paste(image, (GAP_PX + j * step, top))
            write(text, j, top + image.height + 2)
        top += height
    return sheet


def sheet_html(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
) -> str:
    """Return the sheet as a self-contained HTML page. Takes the arguments of `draw_sheet`."""
    title, first_column = _first_column(rows, faces)
    images = []
    for row, name, image in zip(rows, names, first_column, strict=True):
        figures = [(_url(_small(image, 2 * CELL_PX)), name if faces is None else f"{name}: {title}", title)]
        for model, explanation in zip(columns, row, strict=True):
            title_of_map = (
                f"{model.removesuffix(f' ({explanation.method})')} ({explanation.method}): {caption(explanation)}"
            )
            figures.append(
                (_url(explanation.overlay(2 * CELL_PX)), title_of_map, f"what speaks for {explanation.label}")
            )
        images.append(figures)
    return render(
        "uniemox/insight/explain/sheet.html",
        title="Which parts of the image speak for the answer",
        key=KEY,
        key_url=_url(_scale((KEY_PX, LINE_PX))),
        images=images,
    )


def caption(explanation: Explanation) -> str:
    """Return label and probability, or value, and notes: the answer is a guess, another method's map disagrees."""
    value = explanation.probability
    digits = f"{value:.1f}" if explanation.label in AXES else f"{value:.0%}"
    text = f"{explanation.label} {digits}"
    if explanation.is_unfamiliar:
        text += " (a guess)"
    if explanation.is_unlike:
        return f"{text}, methods disagree"
    return text


def _draw_key(sheet: Image.Image, top: int) -> None:
    """Draw the colour scale between the words for its ends; it is shorter in a narrow sheet, such as of one image."""
    before, font_before = fitted(KEY[0], FONT_PX, sheet.width // 2)
    x = round(font_before.getlength(before)) + 2 * GAP_PX
    after, font_after = fitted(f"{KEY[1]}; {KEY[2]}", FONT_PX, sheet.width - x - MIN_KEY_PX - 2 * GAP_PX)
    room = sheet.width - x - round(font_after.getlength(after)) - 2 * GAP_PX
    scale = _scale((min(KEY_PX, room), FONT_PX))
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, top), before, fill=INK, font=font_before)
    sheet.paste(scale, (x, top + 2))
    draw.text((x + scale.width + GAP_PX, top), after, fill=INK, font=font_after)


def _scale(size: tuple[int, int]) -> Image.Image:
    """Draw the colours from no evidence to the most.  size: width and height, px."""
    return coloured(np.linspace(0, 1, 32, dtype=np.float32)[None], size)


def _url(image: Image.Image) -> str:
    return jpeg_url(image, max_side_px=2 * CELL_PX, quality=88)


def _small(image: Image.Image, side: int = CELL_PX) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _first_column(
    rows: Sequence[Sequence[Explanation]], faces: Sequence[Image.Image] | None
) -> tuple[str, Sequence[Image.Image]]:
    """Return the heading and the images of the first column: drawings of faces, or else the images themselves."""
    if faces is None:
        return "image", [row[0].image for row in rows]
    return "what faces show", faces
