"""Views for evaluation and prediction, bit-identical, with numpy and Pillow only."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.classifier_info import LongImages
from uniemox.persons.box import Box, PersonCrop

Pixels = NDArray[np.uint8]
# Aspect ratios between which the weight of further squares grows from 0 to 1: the two at the ends, then those halfway
# between, then those halfway between all of them. At the upper ratio, the squares before them just cover the image.
# 16:9 is below the first, so that common photographs are seen once.
RAMPS = ((1.8, 2.4), (2.4, 3.0), (4.4, 5.0))
# of rule "squares"
OLD_LONG = 2
OLD_MAX_SQUARES = 6


def hide(image: Image.Image, person: PersonCrop, full: tuple[int, int]) -> Image.Image:
    """Black out the person; returns the same image if no person was detected.

    Args:
        person: In px of the full image.
        full: Its width and height; the image may be a smaller copy.
    """
    if person.source.startswith("whole_image"):
        return image
    pixels = np.array(image)
    for box in person.keep or (person.box,):
        pixels[pixels_of(box, image.size, full)] = 0
    return Image.fromarray(pixels)


def scene_view(image: Image.Image, size: int, crop_fraction: float) -> Pixels:
    """Resize the short side of an image, bicubic, and crop its centre.  Returns (3, size, size) uint8, RGB.

    Source: timm's transform for evaluation.

    Args:
        crop_fraction: Share of the short side that is kept, above 0 to 1.
    """
    short = math.floor(size / crop_fraction)
    width, height = image.size
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    return to_planes(image.crop((left, top, left + size, top + size)))


def scene_box(full: tuple[int, int], size: int, crop_fraction: float) -> Box:
    """Return the part of an image that `scene_view` shows, px.  full: width and height of the image."""
    side = min(full) * size / math.floor(size / crop_fraction)
    left, top = (full[0] - side) / 2, (full[1] - side) / 2
    return Box(left, top, left + side, top + side)


def scene_parts(full: tuple[int, int], rule: LongImages = "blend") -> list[tuple[Box, float]]:
    """Return the parts of an image whose centres are predicted, px, with their weights, which add up to 1.

    Args:
        full: width and height of the image.
        rule: see `AnswerRules`. blend: the whole image; from 1.8:1 on also squares along it, whose weights grow with
            the aspect ratio, so that a px more never changes much. Beyond 9:1 there are gaps between the squares.
            squares: the whole image, or from 2:1 on as many squares of equal weight as cover it, at most six.

    >>> [(part.x1, part.x2, round(weight, 2)) for part, weight in scene_parts((210, 100))]
    [(55, 155, 0.5), (0, 100, 0.25), (110, 210, 0.25)]
    """
    width, height = full
    short = min(full)
    long = max(full)
    if rule == "blend":
        places = _places(long / short)
    else:
        places = _old_places(long / short)
    if len(places) == 1:
        return [(Box(0, 0, width, height), 1.0)]
    total = sum(weight for _, weight in places)
    parts = []
    for place, weight in places:
        start = round(place * (long - short))
        if width >= height:
            box = Box(start, 0, start + short, height)
        else:
            box = Box(0, start, width, start + short)
        parts.append((box, weight / total))
    return parts


def _places(aspect: float) -> list[tuple[float, float]]:
    """Return the places of the squares along an image, 0 to 1, and their weights, above 0; the middle is first."""
    places = [(0.5, 1.0)]
    steps = 1
    for low, high in RAMPS:
        weight = min(1.0, (aspect - low) / (high - low))
        if weight <= 0:
            break
        # The first ramp adds both ends; every further one adds the middle between two neighbours.
        new = (0.0, 1.0) if steps == 1 else tuple((2 * i + 1) / (2 * steps) for i in range(steps))
        places += [(place, weight) for place in new]
        steps *= 2
    return places


def _old_places(aspect: float) -> list[tuple[float, float]]:
    """Return the same by the rule of files of version 0.2."""
    if aspect < OLD_LONG:
        return [(0.5, 1.0)]
    count = min(OLD_MAX_SQUARES, math.ceil(aspect))
    return [(i / (count - 1), 1.0) for i in range(count)]


def person_view(image: Image.Image, person: PersonCrop, full: tuple[int, int], size: int) -> Pixels:
    """Resize the person's part of an image, bicubic, without keeping the aspect.  Returns (3, size, size) uint8, RGB.

    Args:
        person: In px of the full image; everything outside of `person.keep` is black.
        full: As for `hide`.
    """
    if person.keep:
        source = black_outside(image, person.keep, full)
    else:
        source = image
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

    Args:
        low: In px of the full image.
        high: In px of the full image.
        decoded: The side's length, px.
        full: The side's length, px.
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
