"""Views for evaluation and prediction, bit-identical, with numpy and Pillow only."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.classifier_info import LongImages
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box, PersonCrop

Pixels = NDArray[np.uint8]
# Aspect ratios between which the weight of further squares grows from 0 to 1: the two at the ends, then those halfway
# between, then those halfway between all of them. At the upper ratio, the squares before them just cover the image.
# 16:9 is below the first, so that common photographs are seen once.
RAMPS = ((1.8, 2.4), (2.4, 3.0), (4.4, 5.0))
# Rule "squares": the smallest aspect ratio with more than one square, and the maximum number of squares.
OLD_LONG = 2
OLD_MAX_SQUARES = 6


def hide(sized: SizedImage, person: PersonCrop) -> Image.Image:
    """Black out the person; returns the same image if no person was detected.

    Args:
        sized: The image.
        person: The person, px of the full size.
    """
    if not person.shows_person:
        return sized.image
    pixels = np.array(sized.image)
    for box in person.keep or (person.box,):
        pixels[pixels_of(box, sized)] = 0
    return Image.fromarray(pixels)


def scene_view(image: Image.Image, size: int, crop_fraction: float) -> Pixels:
    """Resize the short side of an image, bicubic, and crop its centre.  Returns (3, size, size) uint8, RGB.

    Source: timm's transform for evaluation.

    Args:
        image: RGB.
        size: Side of the view, px.
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
    x, y = (round((side - size) / 2) for side in image.size)
    return to_planes(image.crop((x, y, x + size, y + size)))


def scene_box(full_size: tuple[int, int], size: int, crop_fraction: float) -> Box:
    """Return the part of an image that `scene_view` shows, px.  full_size: width and height of the image."""
    width, height = full_size
    side = min(full_size) * size / math.floor(size / crop_fraction)
    x = (width - side) / 2
    y = (height - side) / 2
    return Box(x, y, x + side, y + side)


def scene_parts(full_size: tuple[int, int], rule: LongImages = "blend") -> list[tuple[Box, float]]:
    """Return the parts of an image whose centres are predicted, px, with their weights, which add up to 1.

    Args:
        full_size: Width and height of the image, px.
        rule: Rule for long images, see `AnswerRules`. blend: the whole image; from 1.8:1 on also squares along it,
            whose weights grow with the aspect ratio, so that one px more never changes much. Beyond 9:1 there are gaps
            between the squares. squares: the whole image, or from 2:1 on as many squares of equal weight as cover it,
            at most six.

    >>> [(part.x1, part.x2, round(weight, 2)) for part, weight in scene_parts((210, 100))]
    [(55, 155, 0.5), (0, 100, 0.25), (110, 210, 0.25)]
    """
    width, height = full_size
    short = min(full_size)
    long = max(full_size)
    aspect = long / short
    positions = _square_positions(aspect) if rule == "blend" else _old_square_positions(aspect)
    if len(positions) == 1:
        return [(Box(0, 0, width, height), 1.0)]
    total = sum(weight for _, weight in positions)
    parts = []
    for position, weight in positions:
        start = round(position * (long - short))
        if width >= height:
            box = Box(start, 0, start + short, height)
        else:
            box = Box(0, start, width, start + short)
        parts.append((box, weight / total))
    return parts


def _square_positions(aspect: float) -> list[tuple[float, float]]:
    """Return the positions of the squares along an image, 0 to 1, with their weights, above 0; the middle is first."""
    positions = [(0.5, 1.0)]
    steps = 1
    for low, high in RAMPS:
        weight = min(1.0, (aspect - low) / (high - low))
        if weight <= 0:
            break
        # The first ramp adds both ends; every further one adds the middle between two neighbours.
        new = (0.0, 1.0) if steps == 1 else tuple((2 * i + 1) / (2 * steps) for i in range(steps))
        positions += [(position, weight) for position in new]
        steps *= 2
    return positions


def _old_square_positions(aspect: float) -> list[tuple[float, float]]:
    """Return the positions and weights by the older rule "squares"."""
    if aspect < OLD_LONG:
        return [(0.5, 1.0)]
    count = min(OLD_MAX_SQUARES, math.ceil(aspect))
    return [(i / (count - 1), 1.0) for i in range(count)]


def person_view(sized: SizedImage, person: PersonCrop, size: int) -> Pixels:
    """Resize the person's part of an image, bicubic, without keeping the aspect.  Returns (3, size, size) uint8, RGB.

    Args:
        sized: The image.
        person: The person, px of the full size; everything outside of `person.keep` is black.
        size: Side of the view, px.
    """
    source = black_outside(sized, person.keep) if person.keep else sized.image
    box = _scaled(person.box, sized)
    return to_planes(source.resize((size, size), Image.Resampling.BICUBIC, box=box))


def black_outside(sized: SizedImage, boxes: Sequence[Box]) -> Image.Image:
    """Black out everything outside of the boxes.

    Args:
        sized: The image.
        boxes: Boxes in px of the full size.
    """
    pixels = np.asarray(sized.image)
    visible = np.zeros_like(pixels)
    for box in boxes:
        region = pixels_of(box, sized)
        visible[region] = pixels[region]
    return Image.fromarray(visible)


def to_planes(image: Image.Image) -> Pixels:
    """Return an RGB image as (3, H, W) uint8."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def whole_px(low: float, high: float, decoded: int, full: int) -> tuple[int, int]:
    """Round both ends of an interval along one side to whole px of the decoded image, at least one px apart.

    Args:
        low: Lower end, px of the full image.
        high: Upper end, px of the full image.
        decoded: Length of the side in the decoded image, px.
        full: Length of the side in the full image, px.
    """
    first = min(int(low * decoded / full + 0.5), decoded - 1)
    return first, min(max(int(high * decoded / full + 0.5), first + 1), decoded)


def pixels_of(box: Box, sized: SizedImage) -> tuple[slice, slice]:
    """Return the rows and columns of the image that a box in px of the full size covers."""
    width, height = sized.image.size
    full_width, full_height = sized.full_size
    columns = whole_px(box.x1, box.x2, width, full_width)
    rows = whole_px(box.y1, box.y2, height, full_height)
    return slice(*rows), slice(*columns)


def crop(sized: SizedImage, box: Box) -> Image.Image:
    """Return the part of the image in a box in px of the full size, rounded to whole px; black beyond the image."""
    scale_x, scale_y = sized.scale
    corners = (round(box.x1 * scale_x), round(box.y1 * scale_y), round(box.x2 * scale_x), round(box.y2 * scale_y))
    return sized.image.crop(corners)


def _scaled(box: Box, sized: SizedImage) -> Box:
    """Scale a box to px of the image; if the image has the full size, the box is bit-identical."""
    width, height = sized.image.size
    if sized.image.size == sized.full_size:
        return box
    scale_x, scale_y = sized.scale
    return Box(box.x1 * scale_x, box.y1 * scale_y, min(box.x2 * scale_x, width), min(box.y2 * scale_y, height))
