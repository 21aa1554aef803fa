"""Alterations that photographs undergo before a model sees them, for training and for measuring robustness.

Old photographs have no colour or have faded; others are dark, small, strongly compressed, framed, or lie on a side.
Every function takes an RGB image and returns one of the same size; the default strength is the one that
`recipes/robustness.py` measures.
"""

import random
from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Alteration = Callable[[Image.Image], Image.Image]
# Red, green and blue of a sepia print's highlights.
SEPIA_TONE = (1.0, 0.87, 0.69)
# Height of a caption bar as a share of the image's height.
CAPTION_SHARE = 0.15

# Share of each kind among the altered images of training. Half of them have no colour: in an archive, most old
# photographs are grey or sepia, and these change a colour model's answer more than all other kinds do.
TRAINING_SHARES = {
    "grey": 0.3,
    "sepia": 0.2,
    "faded": 0.1,
    "tinted": 0.1,
    "dark": 0.08,
    "small": 0.06,
    "compressed": 0.06,
    "framed": 0.06,
    "turned": 0.04,
}


def grey(image: Image.Image, contrast: float = 1.0) -> Image.Image:
    """Remove the colour.  contrast: factor on the distance from the mean grey, above 0."""
    return ImageEnhance.Contrast(ImageOps.grayscale(image).convert("RGB")).enhance(contrast)


def sepia(image: Image.Image, strength: float = 1.0, contrast: float = 1.0) -> Image.Image:
    """Replace the colour by brown tones.  strength: 0 (grey) to 1 (sepia); more is browner."""
    tone = tuple(1 - strength * (1 - value) for value in SEPIA_TONE)
    return _scaled(grey(image, contrast), tone)


def faded(image: Image.Image, strength: float = 0.5) -> Image.Image:
    """Lift the shadows, and weaken contrast and colour.  strength: 0 (unchanged) to 1 (nothing left)."""
    pale = ImageEnhance.Color(image).enhance(1 - strength)
    # The yellowish white of old paper.
    paper = Image.new("RGB", image.size, (225, 215, 195))
    return Image.blend(pale, paper, strength * 0.7)


def tinted(image: Image.Image, tone: tuple[float, float, float] = (1.0, 0.85, 0.7)) -> Image.Image:
    """Give the whole image a colour cast.  tone: factors on red, green and blue, 0 to 1."""
    return _scaled(image, tone)


def dark(image: Image.Image, brightness: float = 0.5) -> Image.Image:
    """Scale the brightness.  brightness: factor, above 0; 1 changes nothing."""
    return ImageEnhance.Brightness(image).enhance(brightness)


def small(image: Image.Image, share: float = 64 / 224) -> Image.Image:
    """Scale down and up again.  share: side of the small image as a share of the original, above 0, at most 1."""
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def compressed(image: Image.Image, quality: int = 10) -> Image.Image:
    """Compress as JPEG.  quality: Pillow's, 1 (worst) to 95."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def framed(image: Image.Image, share: float = 0.1, colour: int = 255) -> Image.Image:
    """Put the image on a sheet of paper.  share: border on each side, 0 to below 0.5.  colour: grey value, 0 to 255."""
    width, height = image.size
    border_x = round(width * share)
    border_y = round(height * share)
    sheet = Image.new("RGB", image.size, (colour,) * 3)
    inner = image.resize((max(1, width - 2 * border_x), max(1, height - 2 * border_y)), Image.Resampling.BICUBIC)
    sheet.paste(inner, (border_x, border_y))
    return sheet


def captioned(image: Image.Image, share: float = CAPTION_SHARE, colour: int = 255) -> Image.Image:
    """Put a bar with lines like text below the image.  share: height of the bar, 0 to below 1."""
    width, height = image.size
    bar = max(1, round(height * share))
    sheet = Image.new("RGB", image.size, (colour,) * 3)
    sheet.paste(image.resize((width, max(1, height - bar)), Image.Resampling.BICUBIC), (0, 0))
    # Two lines of text, which are dark bars on a light sheet or light ones on a dark sheet.
    line = Image.new("RGB", (max(1, round(width * 0.7)), max(1, bar // 6)), (255 - colour,) * 3)
    for offset in (0.25, 0.6):
        sheet.paste(line, (round(width * 0.1), height - bar + round(bar * offset)))
    return sheet


def turned(image: Image.Image, quarters: int = 1) -> Image.Image:
    """Turn by quarters, anticlockwise; the content of an image that is not square is stretched to the former size."""
    return Image.fromarray(np.rot90(np.asarray(image), quarters)).resize(image.size, Image.Resampling.BICUBIC)


def mirrored(image: Image.Image) -> Image.Image:
    """Swap left and right."""
    return ImageOps.mirror(image)


def draw_alteration(draw: random.Random) -> Alteration:
    """Draw an alteration for one training image, with a random strength."""
    kind = draw.choices(list(TRAINING_SHARES), list(TRAINING_SHARES.values()))[0]
    contrast = draw.uniform(0.6, 1.4)
    match kind:
        case "grey":
            return partial(grey, contrast=contrast)
        case "sepia":
            return partial(sepia, strength=draw.uniform(0.3, 1.2), contrast=contrast)
        case "faded":
            return partial(faded, strength=draw.uniform(0.2, 0.8))
        case "tinted":
            return partial(tinted, tone=(draw.uniform(0.6, 1), draw.uniform(0.6, 1), draw.uniform(0.6, 1)))
        case "dark":
            return partial(dark, brightness=draw.uniform(0.25, 0.8))
        case "small":
            return partial(small, share=draw.uniform(0.2, 0.6))
        case "compressed":
            return partial(compressed, quality=draw.randint(5, 30))
        case "framed":
            frame = captioned if draw.random() < 0.5 else framed
            return partial(frame, share=draw.uniform(0.03, 0.2), colour=draw.choice((0, 255, 240)))
    return partial(turned, quarters=draw.choice((1, 2, 3)))


def _scaled(image: Image.Image, factors: tuple[float, ...]) -> Image.Image:
    """Multiply red, green and blue by factors of at least 0."""
    table = [min(255, round(value * factor)) for factor in factors for value in range(256)]
    return image.point(table)
