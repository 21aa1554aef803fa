"""Views for evaluation and prediction, bit-identical, with numpy and Pillow only."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.persons.box import Box, PersonCrop

Pixels = NDArray[np.uint8]
LONG = 2  # from this aspect ratio on, several squares of an image are predicted
MAX_SQUARES = 6


def hide(image: Image.Image, person: PersonCrop, full: tuple[int, int]) -> Image.Image:
    """Black out the person; returns the same image if no person was detected.

    person: in px of the full image.  full: its width and height; the image may be a smaller copy.
    """
    if person.source.startswith("whole_image"):
        return image
    pixels = np.array(image)
    for box in person.keep or (person.box,):
        pixels[pixels_of(box, image.size, full)] = 0
    return Image.fromarray(pixels)


def scene_view(image: Image.Image, size: int, crop_fraction: float) -> Pixels:
    """Resize the short side of an image, bicubic, and crop its centre.  Returns (3, size, size) uint8, RGB.

    crop_fraction: share of the short side that is kept, above 0 to 1.  Source: timm's transform for evaluation.
    """
    short = math.floor(size / crop_fraction)
    width, height = image.size
    resized = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    return to_planes(image.crop((left, top, left + size, top + size)))


def scene_box(full: tuple[int, int], size: int, crop_fraction: float) -> Box:
    """Return the part of an image that `scene_view` shows, px.  full: width and height of the image."""
    side = min(full) * size / math.floor(size / crop_fraction)
    left, top = (full[0] - side) / 2, (full[1] - side) / 2
    return Box(left, top, left + side, top + side)


def scene_parts(full: tuple[int, int]) -> list[Box]:
    """Return the parts of an image whose centres are predicted, px: the whole image, or squares along a long one.

    full: width and height.  An image of 2:1 and longer has as many squares as cover it, at most six.

    >>> [(part.x1, part.x2) for part in scene_parts((250, 100))]
    [(0, 100), (75, 175), (150, 250)]
    """
    width, height = full
    short, long = min(full), max(full)
    if long < LONG * short:
        return [Box(0, 0, width, height)]
    count = min(MAX_SQUARES, math.ceil(long / short))
    starts = [round(i * (long - short) / (count - 1)) for i in range(count)]
    if width >= height:
        return [Box(start, 0, start + short, height) for start in starts]
    return [Box(0, start, width, start + short) for start in starts]


def person_view(image: Image.Image, person: PersonCrop, full: tuple[int, int], size: int) -> Pixels:
    """Resize the person's part of an image, bicubic, without keeping the aspect.  Returns (3, size, size) uint8, RGB.

    person: in px of the full image; everything outside of `person.keep` is black.  full: as for `hide`.
    """
    source = black_outside(image, person.keep, full) if person.keep else image
    return to_planes(source.resize((size, size), Image.Resampling.BICUBIC, box=_scaled(person.box, image.size, full)))


def black_outside(image: Image.Image, boxes: Sequence[Box], full: tuple[int, int]) -> Image.Image:
    """Black out everything outside of the boxes, px of the full image.  full: as for `hide`."""
    pixels = np.asarray(image)
    kept = np.zeros_like(pixels)
    for box in boxes:
        place = pixels_of(box, image.size, full)
        kept[place] = pixels[place]
    return Image.fromarray(kept)


def to_planes(image: Image.Image) -> Pixels:
    """Return an RGB image as (3, H, W) uint8."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def whole_px(low: float, high: float, decoded: int, full: int) -> tuple[int, int]:
    """Round both ends of an interval along one side to whole px of the decoded image, at least one px apart.

    low, high: in px of the full image.  decoded, full: the side's length, px.
    """
    first = min(int(low * decoded / full + 0.5), decoded - 1)
    return first, min(max(int(high * decoded / full + 0.5), first + 1), decoded)


def pixels_of(box: Box, size: tuple[int, int], full: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a box of the full image, in a copy of this size."""
    x, y = whole_px(box.x1, box.x2, size[0], full[0]), whole_px(box.y1, box.y2, size[1], full[1])
    return slice(*y), slice(*x)


def scaled_px(box: Box, size: tuple[int, int], full: tuple[int, int]) -> tuple[int, int, int, int]:
    """Convert a box of the full image to whole px of a copy of this size."""
    x, y = size[0] / full[0], size[1] / full[1]
    return round(box.x1 * x), round(box.y1 * y), round(box.x2 * x), round(box.y2 * y)


def _scaled(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """Scale a box to px of a smaller copy; if the copy has the same size, the box is bit-identical."""
    if size == full:
        return box
    x, y = size[0] / full[0], size[1] / full[1]
    return Box(box.x1 * x, box.y1 * y, min(box.x2 * x, size[0]), min(box.y2 * y, size[1]))
