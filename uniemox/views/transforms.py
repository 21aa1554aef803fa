"""From a sample to its scene view and its person view: one decode, the same flip.

Training views are random resized crops (as in MAE, arXiv 2111.06377), resampled bicubically with antialiasing on 8-bit
values. This agrees with Pillow's to a level or two and takes a fraction of the time. Views for evaluation are those of
`predict/views.py`.
"""

import math
import random
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from uniemox.classifier_info import PersonPolicy
from uniemox.data.sample import Sample, decode_sample
from uniemox.errors import BoxError
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box, PersonCrop, Source, choose_person
from uniemox.predict.views import black_outside, crop, hide, person_view, pixels_of, scene_box, scene_parts, scene_view
from uniemox.views.config import ViewConfig
from uniemox.views.decoding import decode_tensor, to_tensor
from uniemox.views.patches import mask_noise

# Minimum and maximum of width / height of a random crop.
ASPECT = (3 / 4, 4 / 3)
# Attempts at a random crop before the largest centre crop is taken, as in torchvision.
TRIES = 10


@dataclass(frozen=True, slots=True)
class Views:
    """The two views of a sample."""

    scene: Tensor  # (3, S, S) uint8, RGB
    person: Tensor  # (3, S, S) uint8, RGB
    person_source: Source
    crop: Box  # part of the upright image that the scene view shows
    flip: bool  # of both views
    noise: Tensor | None = None  # (2, L) draws of the masks of both, in pre-training


@dataclass(frozen=True, slots=True)
class TrainViews:
    """Views for training. Each draw depends only on seed, epoch and the sample's key, so any can be repeated alone."""

    config: ViewConfig
    seed: int
    patches: int = 0
    """L, number of patches whose masks are drawn too, in pre-training; 0: no masks."""

    def __call__(self, sample: Sample, epoch: int) -> Views:
        """Return the views of a sample in an epoch.

        Raises:
            ImageError or BoxError: With the image's name.
        """
        generator = random.Random(f"{self.seed}/{epoch}/{sample.key}".encode("utf-8", "surrogatepass"))
        size = self.config.size
        crops = _RandomCrops(sample, self.config, generator)
        if self.config.hide_person or self.config.person == "persons_only":
            sized = decode_sample(sample, crops.draw)
            pixels = to_tensor(sized.image)  # (1, 3, H, W)
        else:
            pixels, sized = decode_tensor(sample, crops.draw)
        scene_pixels = to_tensor(hide(sized, crops.person)) if self.config.hide_person else pixels
        person_pixels = to_tensor(black_outside(sized, crops.person.keep)) if crops.person.keep else pixels
        scene = _resize(scene_pixels, pixels_of(crops.scene, sized), size)  # (3, S, S)
        person = _resize(person_pixels, pixels_of(crops.person.box, sized), size)  # (3, S, S)
        if crops.is_flipped:
            scene = scene.flip(-1)
            person = person.flip(-1)
        noise = None
        if self.patches:
            draw_noise = partial(mask_noise, [sample.key], self.patches, seed=self.seed, epoch=epoch)
            noise = torch.cat([draw_noise(stream="scene"), draw_noise(stream="person")])  # (2, L)
        return Views(scene, person, crops.person.source, crops.scene, crops.is_flipped, noise)


class _RandomCrops:
    """Random crops of a sample's image. The decoder draws them as soon as the file's header tells the image's size.

    They are drawn before the pixels are decoded, because these may then be as small as the smaller crop allows.
    The attributes exist from then on.
    """

    scene: Box
    person: PersonCrop
    is_flipped: bool

    def __init__(self, sample: Sample, config: ViewConfig, generator: random.Random) -> None:
        self._sample = sample
        self._config = config
        self._generator = generator

    def draw(self, width: int, height: int) -> float:
        """Draw the crops of an image, px, and return how many times smaller it may be decoded."""
        config = self._config
        self.scene = random_crop(width, height, config.min_area, self._generator)
        self.is_flipped = self._generator.random() < 0.5
        self.person = _choose_person(self._sample, (width, height), config.person)
        if config.person == "second_crop":
            self.person = self.person._replace(box=random_crop(width, height, config.min_area, self._generator))
        sides = [side for x1, y1, x2, y2 in (self.scene, self.person.box) for side in (x2 - x1, y2 - y1)]
        return min(sides) / config.size


@dataclass(frozen=True, slots=True)
class EvalViews:
    """Views for evaluation: timm's for the scene (resize, centre crop); the person as a square; no flip."""

    config: ViewConfig
    square: int | None = None
    """Number of the square along a long image that the scene shows, see `scene_parts`; None: the middle of the image.
    The view of a number that an image does not have is that of its last square."""

    def __call__(self, sample: Sample, epoch: int = 0) -> Views:
        """Return a sample's views, the same in every epoch.

        Raises:
            ImageError or BoxError: With the image's name.
        """
        size = self.config.size
        crop_fraction = self.config.crop_fraction
        sized = decode_sample(sample)
        full_size = sized.full_size
        person_crop = _choose_person(sample, full_size, self.config.person)
        scene_image = hide(sized, person_crop) if self.config.hide_person else sized.image
        if self.square is not None:
            parts = scene_parts(full_size)
            part, _ = parts[min(self.square, len(parts) - 1)]
            scene_image = crop(SizedImage(scene_image, full_size), part)
        scene = torch.from_numpy(scene_view(scene_image, size, crop_fraction))  # (3, S, S)
        person = torch.from_numpy(person_view(sized, person_crop, size))  # (3, S, S)
        return Views(scene, person, person_crop.source, scene_box(full_size, size, crop_fraction), False)


@dataclass(frozen=True, slots=True)
class WholeViews:
    """Whole image and person, both resized to a square, no flip: input of a teacher that runs once per image.

    Args:
        size: Side in px.
    """

    size: int

    def __call__(self, sample: Sample, epoch: int = 0) -> Views:
        """Return a sample's views, the same in every epoch.

        Raises:
            ImageError or BoxError: With the image's name.
        """
        pixels, sized = decode_tensor(sample)
        person_crop = _choose_person(sample, sized.full_size, "largest")
        image_box = Box(0, 0, *sized.full_size)
        scene = _resize(pixels, pixels_of(image_box, sized), self.size)  # (3, S, S)
        person = _resize(pixels, pixels_of(person_crop.box, sized), self.size)  # (3, S, S)
        return Views(scene, person, person_crop.source, image_box, False)


def random_crop(width: int, height: int, min_area: float, draw: random.Random) -> Box:
    """Draw a random part of an image, with an aspect between 3:4 and 4:3, in whole px (arXiv 1409.4842, section 6).

    If no attempt fits, the result is the largest centre crop.

    Args:
        width: Width of the image in px.
        height: Height of the image in px.
        min_area: Minimum share of the image's area; the maximum is 1.
        draw: Generator of the random numbers.
    """
    # Logarithms make an aspect and its inverse equally probable.
    low, high = (math.log(ratio) for ratio in ASPECT)
    for _ in range(TRIES):
        area = draw.uniform(min_area, 1) * width * height
        aspect = math.exp(draw.uniform(low, high))
        crop_width = round(math.sqrt(area * aspect))
        crop_height = round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            x = draw.randint(0, width - crop_width)
            y = draw.randint(0, height - crop_height)
            return Box(x, y, x + crop_width, y + crop_height)
    crop_width = min(width, max(1, round(height * ASPECT[1])))
    crop_height = min(height, max(1, round(width / ASPECT[0])))
    x = (width - crop_width) // 2
    y = (height - crop_height) // 2
    return Box(x, y, x + crop_width, y + crop_height)


def _choose_person(sample: Sample, size: tuple[int, int], policy: PersonPolicy) -> PersonCrop:
    """Choose the part of a sample's image that the person view shows.

    Raises:
        BoxError: With the image's name.
    """
    try:
        return choose_person(sample.persons, sample.target_box, size, policy)
    except BoxError as error:
        raise BoxError(f"{sample.image}: {error}") from error


def _resize(pixels: Tensor, region: tuple[slice, slice], size: int) -> Tensor:
    """Resize a part of an image to a square.

    Args:
        pixels: (1, 3, H, W).
        region: Rows and columns of the part.
        size: S, side of the result in px.

    Returns:
        (3, S, S).
    """
    rows, columns = region
    return F.interpolate(pixels[:, :, rows, columns], (size, size), mode="bicubic", antialias=True)[0]
