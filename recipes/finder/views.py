"""Training images of the person finder: crops, mosaics of four images, and where people are in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from uniemox.data.processes import loader_context
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import ImageError
from uniemox.persons.box import Box
from uniemox.views.loader import PackedSamples, start_worker

MOSAIC = 0.5  # share of the views that are four images
WHOLE = 0.5  # share of the other views that are not cropped
MIN_SIDE = 0.5  # of a crop, share of the image's
MIN_SEEN = 0.4  # share of a person's box; who is cut off by more is neither found nor missed
SPLIT = (0.3, 0.7)  # where the four images of a mosaic meet, share of the side
MIN_PX = 8.0  # both sides of a person's box together have twice that; smaller ones are neither found nor missed
LIGHT = 0.3  # brightness and contrast change by so much at the most
GREY = 0.05  # share of the views without colour


class FinderView(NamedTuple):
    """One training image."""

    pixels: NDArray[np.uint8]  # (S, S, 3)
    boxes: NDArray[np.float32]  # (M, 4) px
    confidences: NDArray[np.float32]  # (M,): how sure the labels are; 0: neither found nor missed


@dataclass(frozen=True, slots=True)
class FinderViews(Dataset[FinderView | Broken]):
    """Samples with their people as training images; an item is asked for by (epoch, index, side in px).

    Args:
        min_confidence: Boxes that are less confident are neither found nor missed.
    """

    samples: Sequence[Sample]
    seed: int
    min_confidence: float

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int, int]) -> FinderView | Broken:
        epoch, index, size = place
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch, index]))
        sample = self.samples[index]
        if rng.random() < MOSAIC:
            view = self._mosaic(sample, size, rng)
        else:
            view = self._one(sample, size, size, rng)
        if isinstance(view, Broken):
            return view
        return FinderView(vary_light(view.pixels, rng), view.boxes, view.confidences)

    def _one(self, sample: Sample, width: int, height: int, rng: np.random.Generator) -> FinderView | Broken:
        """An image or a crop of it, mirrored or not, squashed to that size."""
        try:
            image, full = decode_sample(sample, lambda w, h: min(w / width, h / height) * MIN_SIDE)
        except ImageError as error:
            return Broken(sample.key, str(error))
        if rng.random() < WHOLE:
            region = Box(0, 0, *full)
        else:
            region = draw_crop(full, rng)
        found = np.array([[*box, confidence] for box, confidence in sample.persons or ()], np.float32).reshape(-1, 5)
        boxes, confidences = place_people(found, region, width, height, self.min_confidence)
        scale = image.width / full[0], image.height / full[1]
        part = (region.x1 * scale[0], region.y1 * scale[1], region.x2 * scale[0], region.y2 * scale[1])
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=part))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        return FinderView(pixels, boxes, confidences)

    def _mosaic(self, sample: Sample, size: int, rng: np.random.Generator) -> FinderView | Broken:
        """The image and three others, drawn at random, around a point."""
        others = [self.samples[int(i)] for i in rng.integers(len(self.samples), size=3)]
        x, y = (round(float(at) * size) for at in rng.uniform(*SPLIT, size=2))
        pixels = np.empty((size, size, 3), np.uint8)
        boxes = []
        confidences = []
        corners = ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))
        for one, (x1, y1, x2, y2) in zip([sample, *others], corners, strict=True):
            view = self._one(one, x2 - x1, y2 - y1, rng)
            if isinstance(view, Broken):
                return view
            pixels[y1:y2, x1:x2] = view.pixels
            boxes.append(view.boxes + np.array([x1, y1, x1, y1], np.float32))
            confidences.append(view.confidences)
        return FinderView(pixels, np.concatenate(boxes), np.concatenate(confidences))


def draw_crop(full: tuple[int, int], rng: np.random.Generator) -> Box:
    """A part of an image, each side drawn for itself: at least half of it.  full: width and height, px."""
    width, height = (side * float(rng.uniform(MIN_SIDE, 1)) for side in full)
    x, y = (float(rng.uniform(0, side - part)) for side, part in zip(full, (width, height), strict=True))
    return Box(x, y, x + width, y + height)


def place_people(
    found: NDArray[np.float32], region: Box, width: int, height: int, min_confidence: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """People of an image in a view of a part of it.

    Who lies outside is left out.

    Args:
        found: (M, 5), box in px of the image and confidence.
        region: The part.
        width: Of the view, px.
        height: Of the view, px.

    Returns:
        Boxes (K, 4) in px of the view, clipped, and confidences (K,), 0 for those who are not to be learned: less
        confident than `min_confidence`, cut off, or too small.
    """
    scale = np.array([width / (region.x2 - region.x1), height / (region.y2 - region.y1)] * 2, np.float32)
    moved = (found[:, :4] - np.array([region.x1, region.y1] * 2, np.float32)) * scale
    limit = np.array([width, height] * 2, np.float32)
    boxes = moved.clip(0, limit)
    extents = boxes[:, 2:] - boxes[:, :2]
    before = moved[:, 2:] - moved[:, :2]
    is_seen = (extents >= 1).all(axis=1)
    seen = extents.prod(axis=1) / np.maximum(before.prod(axis=1), 1e-6)
    is_learned = (seen >= MIN_SEEN) & (extents.sum(axis=1) >= 2 * MIN_PX) & (found[:, 4] >= min_confidence)
    return boxes[is_seen], np.where(is_learned, found[:, 4], 0)[is_seen]


def vary_light(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image (S, S, 3) brighter or darker, with more or less contrast, sometimes grey."""
    contrast, brightness = 1 + rng.uniform(-LIGHT, LIGHT, size=2)
    levels = (np.arange(256) - 128) * contrast + 128 * brightness
    varied = levels.clip(0, 255).astype(np.uint8)[pixels]
    if rng.random() < GREY:
        varied = np.repeat((varied @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None], 3, axis=2)
    return varied


@dataclass(frozen=True, slots=True)
class FinderBatch:
    """The views of a batch, and the samples that could not be read."""

    samples: list[FinderView]
    broken: tuple[Broken, ...]


def finder_loader(views: FinderViews, batches: Sequence[list[tuple[int, int, int]]], workers: int) -> Any:
    """Batches of views.  workers: processes that decode; 0 decodes in this one."""
    return DataLoader(
        views,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=start_worker,
        multiprocessing_context=loader_context() if workers else None,
    )


def _collate(items: Sequence[FinderView | Broken]) -> FinderBatch:
    broken = tuple(one for one in items if isinstance(one, Broken))
    return FinderBatch([one for one in items if isinstance(one, FinderView)], broken)


def packed(views: FinderViews) -> FinderViews:
    """The same, with the samples in one block of memory that processes share."""
    return replace(views, samples=PackedSamples(views.samples))
