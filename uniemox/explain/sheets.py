"""Explanations side by side, as figure 8 of the paper: a row an image, a column a model; drawn with Pillow alone."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from uniemox.errors import ImageError, ShapeError
from uniemox.explain.explanation import Explanation
from uniemox.labels import AFFECT

CELL_PX = 256
GAP_PX, LINE_PX, FONT_PX = 8, 22, 14
INK, PAPER = "#1b1f24", "#ffffff"
STYLE = (
    "body{font:15px system-ui,sans-serif;margin:1.5rem;color:#1b1f24;background:#fff}table{border-collapse:collapse}"
    "td,th{padding:.4rem;text-align:left;vertical-align:top;font-weight:600}td{font-weight:400}"
    "img{max-width:320px;width:100%;height:auto;display:block}"
)


def draw_sheet(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
) -> Image.Image:
    """All explanations as one image, each image itself in the first column.

    rows: of each image, one explanation a model.  columns: the models' names.  names: of the images.  faces: each image
    with what its faces show, which the first column has then.
    Raises ShapeError if these don't belong together.
    """
    title, shown = _first_column(rows, columns, names, faces)
    step_x, step_y = CELL_PX + GAP_PX, CELL_PX + 2 * LINE_PX
    sheet = Image.new("RGB", (step_x * (len(columns) + 1) + GAP_PX, step_y * len(rows) + LINE_PX + GAP_PX), PAPER)
    draw, font = ImageDraw.Draw(sheet), load_font()
    for j, heading in enumerate([title, *columns]):
        draw.text((GAP_PX + j * step_x, GAP_PX // 2), fitting(heading, font, CELL_PX), fill=INK, font=font)
    for i, (row, name, first) in enumerate(zip(rows, names, shown, strict=True)):
        top = LINE_PX + GAP_PX + i * step_y
        cells = [(first, name), *((one.overlay(CELL_PX), caption(one)) for one in row)]
        for j, (image, text) in enumerate(cells):
            left = GAP_PX + j * step_x
            small = _small(image)
            sheet.paste(small, (left + (CELL_PX - small.width) // 2, top + (CELL_PX - small.height) // 2))
            draw.text((left, top + CELL_PX + 2), fitting(text, font, CELL_PX), fill=INK, font=font)
    return sheet


def sheet_html(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The same as a page that needs no other file; all names are escaped.

    notes: lines below the table.  Raises ShapeError as `draw_sheet`.
    """
    title, shown = _first_column(rows, columns, names, faces)
    head = "".join(f"<th scope=col>{html.escape(heading)}</th>" for heading in (title, *columns))
    body = []
    for row, name, first in zip(rows, names, shown, strict=True):
        cells = [_cell(_small(first, 2 * CELL_PX), name, "the image")]
        cells += [
            _cell(one.overlay(2 * CELL_PX), f"{caption(one)} ({one.method})", f"what speaks for {one.label}")
            for one in row
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Which parts of the image speak for the answer</title><style>{STYLE}</style>"
        f"<h1>Which parts of the image speak for the answer</h1><p>From dark, nothing, to bright yellow, most. What "
        f"a model does not look at is dimmed.</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        f"</table>{below}</html>\n"
    )


def caption(explanation: Explanation) -> str:
    """Label and probability; the value itself for valence and arousal."""
    value = explanation.probability
    return f"{explanation.label} {value:.1f}" if explanation.label in AFFECT else f"{explanation.label} {value:.0%}"


def _cell(image: Image.Image, text: str, alt: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    shown = html.escape(text)
    return f'<td><img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">{shown}</td>'


def _small(image: Image.Image, side: int = CELL_PX) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def load_font() -> ImageFont.FreeTypeFont:
    """Pillow's own. Raises ImageError if it has none."""
    font = ImageFont.load_default(FONT_PX)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImageError("this Pillow was built without FreeType, so it can't draw words; install another one")
    return font


def fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of a text as fits on one line, width in px; the end of a long one, where names differ."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def _first_column(
    rows: Sequence[Sequence[Explanation]],
    columns: Sequence[str],
    names: Sequence[str],
    faces: Sequence[Image.Image] | None,
) -> tuple[str, Sequence[Image.Image]]:
    """Title and images of the first column. Raises ShapeError if the arguments don't belong together."""
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
