"""Fit an image into a network's input, and map boxes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Size = tuple[int, int]
"""Height and width in px."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Preparation of images for a network."""

    fit: Literal["squash", "corner", "centre"]
    """squash: both sides to the input's, corner, centre: letterboxed to the top left or the middle."""
    order: Literal["RGB", "BGR"]
    """Channels as the network was trained with them."""
    fill: int = 0
    """Grey level 0 to 255 of what a letterboxed image leaves free."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Taken off values of 0 to 255, in the network's own order of channels."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """What is left is divided by it."""
    averaged: bool = False
    """Whether the network was trained on images that Pillow shrank (bicubic), not OpenCV (bilinear)."""


class Placement(NamedTuple):
    """Placement of an image in the input: px of the input = px of the image * scale + offset."""

    scale_x: float
    scale_y: float
    left: float
    top: float

    def back(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Boxes in px of the input (M, 4) as boxes in px of the image (M, 4)."""
        offset = np.array([self.left, self.top, self.left, self.top])
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return (boxes - offset) / scale


def sample_bilinear(image: Image.Image, width: int, height: int) -> Image.Image:
    """An image in another size, as OpenCV's bilinear resizing makes it: between the four nearest px, no average.

    The networks were trained so, on COCO's images of up to twice their input; Pillow's own bilinear averages, and
    they find fewer people. Larger images are averaged down by a whole factor first, or fine patterns would alias.
    """
    factor = (max(1, image.width // width), max(1, image.height // height))
    if factor != (1, 1):
        image = image.reduce(factor)
    whole = (0, 0, *image.size)
    return image.transform((width, height), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)


def fit_image(image: Image.Image, size: Size, how: Preparation) -> tuple[Image.Image, Placement]:
    """One image in the network's size, and its place there."""
    height, width = size
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if how.fit == "squash":
        inner_width, inner_height = width, height
    else:
        ratio = min(width / rgb.width, height / rgb.height)
        inner_width, inner_height = max(1, int(rgb.width * ratio)), max(1, int(rgb.height * ratio))
    if how.averaged:
        resized = rgb.resize((inner_width, inner_height), Image.Resampling.BICUBIC)
    else:
        resized = sample_bilinear(rgb, inner_width, inner_height)
    left, top = ((width - inner_width) // 2, (height - inner_height) // 2) if how.fit == "centre" else (0, 0)
    placement = Placement(inner_width / rgb.width, inner_height / rgb.height, left, top)
    if resized.size == (width, height):
        return resized, placement
    canvas = Image.new("RGB", (width, height), (how.fill,) * 3)
    canvas.paste(resized, (left, top))
    return canvas, placement


def fit_images(
    images: Sequence[Image.Image], size: Size, how: Preparation
) -> tuple[NDArray[np.float32], list[Placement]]:
    """Images as a network takes them, (N, 3, H, W) of size (H, W), and the place of each there."""
    fitted = [fit_image(image, size, how) for image in images]
    pixels = np.empty((len(images), 3, *size), np.float32)
    for planes, (image, _) in zip(pixels, fitted, strict=True):
        for plane, name, mean, std in zip(planes, how.order, how.mean, how.std, strict=True):
            np.subtract(np.asarray(image.getchannel(name)), np.float32(mean), out=plane)
            if std != 1:
                np.divide(plane, np.float32(std), out=plane)
    return pixels, [placement for _, placement in fitted]
