"""A prediction as an image: boxes around people, and bars; drawn with Pillow alone."""

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from uniemox.errors import ImageError
from uniemox.io.fonts import fitted, font_of
from uniemox.labels import AFFECT
from uniemox.predict.faces import summarise_faces
from uniemox.predict.images import read_any

if TYPE_CHECKING:
    from uniemox.predict.prediction import Face, Person, Prediction

MAX_SIDE_PX = 960
SMALLEST_PX = 240
LETTERS = 22  # px of an image's longer side for a px of letters below it
INK, PAPER, QUIET, BAR, PALE = "#1b1f24", "#ffffff", "#d9dee4", "#2f6f9f", "#a9c6db"
LABEL_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"),
    *("#1b6ca8", "#8c2d04"),
)
BOX, FACE = "#ffb000", "#5fd3bc"  # of people, of faces


def plot_prediction(prediction: "Prediction") -> Image.Image:
    """The image, at most 960 px long, with a box around everybody found and a bar for every label below it.

    Raises ImageError if the image can't be had again.
    """
    image, scale = _image_of(prediction)
    _draw_people(image, prediction.persons or [], scale)
    _draw_faces(image, prediction.faces or [], scale)
    panel = _bars(prediction, max(image.width, SMALLEST_PX))
    page = Image.new("RGB", (panel.width, image.height + panel.height), PAPER)
    page.paste(image, ((panel.width - image.width) // 2, 0))
    page.paste(panel, (0, image.height))
    return page


def plot_faces(prediction: "Prediction", side_px: int) -> Image.Image:
    """The image with a box around every face and what it shows; below, in large letters, what all of them show.

    side_px: longer side of the image.  Raises ImageError if the image can't be had again.
    """
    image, scale = _image_of(prediction, side_px)
    faces, letters = prediction.faces or [], side_px // LETTERS
    _draw_faces(image, faces, scale)
    page = Image.new("RGB", (image.width, image.height + 2 * letters), PAPER)
    page.paste(image, (0, 0))
    text, font = fitted(summarise_faces([face.expressions for face in faces]), letters, page.width)
    ImageDraw.Draw(page).text((0, image.height + letters // 3), text, fill=INK, font=font)
    return page


def _image_of(prediction: "Prediction", side_px: int | None = None) -> tuple[Image.Image, float]:
    """The image in the size in which it is shown, and its scale.  side_px: longer side; None: its own, up to 960 px."""
    if prediction.source is None:
        raise ImageError("this prediction does not know its image any more")
    image, _ = read_any(prediction.source)
    scale = min((side_px or MAX_SIDE_PX) / max(image.size), max(1.0, SMALLEST_PX / image.width))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC), scale


def _draw_people(image: Image.Image, persons: "list[Person]", scale: float) -> None:
    """Boxes, with what each person feels where that is known."""
    for person in persons:
        _draw_box(image, [value * scale for value in person.box], person.emotions, BOX)


def _draw_faces(image: Image.Image, faces: "list[Face]", scale: float) -> None:
    """Boxes, with what each face shows where that can be told."""
    for face in faces:
        _draw_box(image, [value * scale for value in face.box], face.expressions, FACE)


def _draw_box(image: Image.Image, box: list[float], shares: dict[str, float] | None, colour: str) -> None:
    """A box with the most probable word above it."""
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, outline=colour, width=3)
    if shares:
        label, p = max(shares.items(), key=lambda pair: pair[1])
        text, font = fitted(f"{label} {p:.0%}", 14, image.width)
        at = (max(0.0, min(box[0], image.width - font.getlength(text) - 8)), max(0.0, box[1] - 20))
        draw.rectangle((*at, at[0] + font.getlength(text) + 8, at[1] + 20), fill=colour)
        draw.text((at[0] + 4, at[1] + 2), text, fill=INK, font=font)


def _bars(prediction: "Prediction", width: int) -> Image.Image:
    """A bar for every label, highest first; where likely labels were asked for, the others' are pale."""
    letters, row, edge = 15, 26, 12
    pairs = prediction.top(len(prediction.scene))
    is_affect = set(prediction.scene) == set(AFFECT)
    title = "valence and arousal, 1 to 9" if is_affect else f"{prediction.kind} ({prediction.model})"
    if prediction.is_unfamiliar:
        title = f"a guess, unlike the training images: {title}"
    panel = Image.new("RGB", (width, row * (len(pairs) + 1) + 2 * edge), PAPER)
    draw = ImageDraw.Draw(panel)
    text, font = fitted(title, letters, width - 2 * edge)
    draw.text((edge, edge), text, fill=INK, font=font)
    names = [fitted(label, letters, width * 0.45) for label, _ in pairs]
    words = max(font.getlength(name) for name, font in names)
    digits = font_of(letters)
    first, last = edge + words + 8, width - edge - digits.getlength("100%") - 8
    for i, ((label, value), (name, font)) in enumerate(zip(pairs, names, strict=True), 1):
        y, share = edge + i * row, (value - 1) / 8 if is_affect else value
        draw.text((edge, y), name, fill=INK, font=font)
        draw.rectangle((first, y + 3, last, y + row - 8), fill=QUIET)
        fill = BAR if prediction.likely is None or label in prediction.likely else PALE
        draw.rectangle((first, y + 3, first + (last - first) * min(max(share, 0.0), 1.0), y + row - 8), fill=fill)
        draw.text((last + 8, y), f"{value:.1f}" if is_affect else f"{value:.0%}", fill=INK, font=digits)
    return panel
