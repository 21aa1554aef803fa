"""Drawings of predictions, with Pillow only: boxes around people and faces, and a bar per label; writes files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from uniemox.errors import ImageError
from uniemox.io.files import write_file
from uniemox.io.fonts import fitted, font_of
from uniemox.io.images import encode_image
from uniemox.labels import AFFECT
from uniemox.labels.rating_scale import share_of_scale
from uniemox.persons.box import Box
from uniemox.predict.images import ImageLike, read_any

if TYPE_CHECKING:
    from uniemox.predict.prediction import Prediction

MAX_SIDE_PX = 960
MIN_WIDTH_PX = 240
# Px of an image's longer side per px of letter height below it.
LETTERS = 22
INK = "#1b1f24"
PAPER = "#ffffff"
QUIET = "#d9dee4"
BAR = "#2f6f9f"
PALE = "#a9c6db"
LABEL_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"),
    *("#1b6ca8", "#8c2d04"),
)
PERSON_COLOUR = "#ffb000"
FACE_COLOUR = "#5fd3bc"
Labelled = Sequence[tuple[Box, Mapping[str, float] | None]]
"""Boxes in px of the image, with the probabilities for each box if there are any."""


def plot_answer(answer: "Prediction") -> Image.Image:
    """Draw the image, at most 960 px long, with boxes, and below it a bar for each label.

    Raises:
        ImageError: If the image can't be read again.
    """
    image, scale = _read(answer.source)
    _draw_boxes(image, [(person.box, person.emotions) for person in answer.persons or ()], scale, PERSON_COLOUR)
    _draw_boxes(image, [(face.box, face.expressions) for face in answer.faces or ()], scale, FACE_COLOUR)
    return stacked([image, _bars(answer, max(image.width, MIN_WIDTH_PX))])


def plot_faces(source: ImageLike | None, faces: Labelled, caption: str, side_px: int) -> Image.Image:
    """Draw the image with a box around each face, and the caption below in large letters.

    Args:
        source: The image, or a source from which it can be read.
        faces: Boxes of the faces, with their expressions.
        caption: Text below the image.
        side_px: Longer side of the drawn image.

    Raises:
        ImageError: If the image can't be read again.
    """
    image, scale = _read(source, side_px)
    letters = side_px // LETTERS
    _draw_boxes(image, faces, scale, FACE_COLOUR)
    foot = Image.new("RGB", (image.width, 2 * letters), PAPER)
    text, font = fitted(caption, letters, foot.width)
    ImageDraw.Draw(foot).text((0, letters // 3), text, fill=INK, font=font)
    return stacked([image, foot])


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Paste images one below the other, each in the middle."""
    page = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), PAPER)
    y = 0
    for part in parts:
        page.paste(part, ((page.width - part.width) // 2, y))
        y += part.height
    return page


def _read(source: ImageLike | None, side_px: int | None = None) -> tuple[Image.Image, float]:
    """Return the image in the drawn size, and its scale.  side_px: longer side; None: unchanged, up to 960 px."""
    if source is None:
        raise ImageError("this prediction no longer has its image")
    image, _ = read_any(source)
    scale = min((side_px or MAX_SIDE_PX) / max(image.size), max(1.0, MIN_WIDTH_PX / image.width))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC), scale


def _draw_boxes(image: Image.Image, boxes: Labelled, scale: float, colour: str) -> None:
    """Draw boxes, each with its most probable label above it."""
    draw = ImageDraw.Draw(image)
    for box, shares in boxes:
        corners = [value * scale for value in box]
        draw.rectangle(corners, outline=colour, width=3)
        if shares:
            label, p = max(shares.items(), key=lambda pair: pair[1])
            text, font = fitted(f"{label} {p:.0%}", 14, image.width)
            width = font.getlength(text) + 8
            # The label stays inside of the image, also for a box at its edge.
            x = max(0.0, min(corners[0], image.width - width))
            y = max(0.0, corners[1] - 20)
            draw.rectangle((x, y, x + width, y + 20), fill=colour)
            draw.text((x + 4, y + 2), text, fill=INK, font=font)


def _bars(answer: "Prediction", width: int) -> Image.Image:
    """Draw a bar for each label, or for valence and arousal; likely or assigned labels have darker bars."""
    letters = 15
    row = 26
    edge = 12
    # One more than labels, because `none` may be among them.
    bars = answer.top(len(answer.scene) + 1)
    chosen = answer.likely if answer.assigned_labels is None else answer.assigned_labels
    is_affect = AFFECT[0] in answer.scene
    title = f"{' and '.join(answer.scene)}, 1 to 9" if is_affect else f"{answer.kind} ({answer.model})"
    if answer.is_unfamiliar:
        title = f"a guess, unlike the training images: {title}"
    panel = Image.new("RGB", (width, row * (len(bars) + 1) + 2 * edge), PAPER)
    draw = ImageDraw.Draw(panel)
    text, font = fitted(title, letters, width - 2 * edge)
    draw.text((edge, edge), text, fill=INK, font=font)
    names = [fitted(label, letters, width * 0.45) for label, _ in bars]
    digits = font_of(letters)
    first = edge + max(font.getlength(name) for name, font in names) + 8
    last = width - edge - digits.getlength("100%") - 8
    for i, ((label, value), (name, font)) in enumerate(zip(bars, names, strict=True), 1):
        y = edge + i * row
        share = share_of_scale(value) if is_affect else value
        draw.text((edge, y), name, fill=INK, font=font)
        draw.rectangle((first, y + 3, last, y + row - 8), fill=QUIET)
        fill = BAR if chosen is None or label in chosen else PALE
        end = first + (last - first) * min(max(share, 0.0), 1.0)
        draw.rectangle((first, y + 3, end, y + row - 8), fill=fill)
        draw.text((last + 8, y), f"{value:.1f}" if is_affect else f"{value:.0%}", fill=INK, font=digits)
    return panel


def drawing_path(folder: Path, image: Path, ending: str) -> Path:
    """Return the file in a folder for the drawing of an image, a different one for each relative path.

    >>> drawing_path(Path("maps"), Path("../photos/1.jpg"), ".fi (1).png").as_posix()
    'maps/%2E%2E/photos/1.jpg.fi (1).png'
    """
    # "%" is escaped first, so that a folder named "%2E%2E" differs from "..".
    names = [part.replace("%", "%25") for part in image.parts if part != image.anchor]
    parts = ["%2E%2E" if name == ".." else name for name in names]
    return folder.joinpath(*parts[:-1], parts[-1] + ending.replace("/", "-"))


def write_drawing(path: Path, drawing: Image.Image | str) -> None:
    """Write an image as a PNG, or an HTML page, atomically.

    Raises:
        DataError: If the file can't be written.
    """
    write_file(path, drawing if isinstance(drawing, str) else encode_image(drawing, "PNG"))
