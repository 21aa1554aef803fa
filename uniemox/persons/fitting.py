"""Resizing of images to a network's input, and the way back for boxes."""

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
    """squash: resize both sides to the input's; corner, centre: letterbox to the top left or the centre."""
    order: Literal["RGB", "BGR"]
    """Order of channels that the network was trained with."""
    fill: int = 0
    """Grey level, 0 to 255, of the letterbox."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean that is subtracted from values of 0 to 255, in the network's own order of channels."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Standard deviation by which the differences are divided."""
    averaged: bool = False
    """True if the training images were reduced by Pillow (bicubic), False for OpenCV (bilinear)."""


class Placement(NamedTuple):
    """Placement of an image in the input: px of the input = px of the image * scale + offset."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def back(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Convert boxes in px of the input (M, 4) to px of the image (M, 4)."""
        offset = np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y])
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return (boxes - offset) / scale


def sample_bilinear(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image as OpenCV's bilinear resizing does: interpolate the four nearest px, without averaging.

    The networks were trained with this resizing, on COCO images of at most twice their input size. With Pillow's
    bilinear resizing, which averages, they find fewer people. Larger images are first averaged down by a whole factor
    against aliasing.
    """
    factor = (max(1, image.width // width), max(1, image.height // height))
    if factor != (1, 1):
        image = image.reduce(factor)
    extent = (0, 0, *image.size)
    return image.transform((width, height), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)


def fit_image(image: Image.Image, size: Size, preparation: Preparation) -> tuple[Image.Image, Placement]:
    """Resize one image to the network's size, and return it with its placement."""
    height, width = size
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if preparation.fit == "squash":
        inner_width = width
        inner_height = height
    else:
        ratio = min(width / rgb.width, height / rgb.height)
        inner_width = max(1, int(rgb.width * ratio))
        inner_height = max(1, int(rgb.height * ratio))
    if preparation.averaged:
        resized = rgb.resize((inner_width, inner_height), Image.Resampling.BICUBIC)
    else:
        resized = sample_bilinear(rgb, inner_width, inner_height)
    x = y = 0
    if preparation.fit == "centre":
        x = (width - inner_width) // 2
        y = (height - inner_height) // 2
    placement = Placement(inner_width / rgb.width, inner_height / rgb.height, x, y)
    if resized.size == (width, height):
        return resized, placement
    canvas = Image.new("RGB", (width, height), (preparation.fill,) * 3)
    canvas.paste(resized, (x, y))
    return canvas, placement


def fit_images(
    images: Sequence[Image.Image], size: Size, preparation: Preparation
) -> tuple[NDArray[np.float32], list[Placement]]:
    """Prepare images for a network, (N, 3, H, W) of size (H, W), and return the placement of each."""
    fitted = [fit_image(image, size, preparation) for image in images]
    pixels = np.empty((len(images), 3, *size), np.float32)
    for planes, (image, _) in zip(pixels, fitted, strict=True):
        for plane, name, mean, std in zip(planes, preparation.order, preparation.mean, preparation.std, strict=True):
            # In place, without a second copy of the batch.
            np.subtract(np.asarray(image.getchannel(name)), np.float32(mean), out=plane)
            if std != 1:
                np.divide(plane, np.float32(std), out=plane)
    return pixels, [placement for _, placement in fitted]
