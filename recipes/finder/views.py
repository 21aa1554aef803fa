"""Training images of the person finder: crops and mosaics of four images, with the boxes of their people."""

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

# Share of the views that combine four images.
MOSAIC_FRACTION = 0.5
# Share of the other views that are not cropped.
UNCROPPED_FRACTION = 0.5
# Minimum side of a crop, as a share of the image's side.
MIN_SIDE = 0.5
# Visible share of a person's box; people cut off by more count as neither found nor missed.
MIN_VISIBLE = 0.4
# Range of the point where the four images of a mosaic meet, as a share of the side.
MOSAIC_CENTRE = (0.3, 0.7)
# Minimum mean of both sides of a person's box, px; smaller people count as neither found nor missed.
MIN_PX = 8.0
# Maximum relative change of brightness and contrast.
MAX_LIGHT_CHANGE = 0.3
# Share of the views without colour.
GREY_FRACTION = 0.05


class FinderView(NamedTuple):
    """One training image."""

    pixels: NDArray[np.uint8]  # (S, S, 3)
    boxes: NDArray[np.float32]  # (M, 4) px
    confidences: NDArray[np.float32]  # (M,): confidence of the labels; 0: neither found nor missed


@dataclass(frozen=True, slots=True)
class FinderViews(Dataset[FinderView | Broken]):
    """Samples with their people as training images; the key of an item is (epoch, index, side in px).

    Args:
        samples: Samples whose people are known.
        seed: Random seed of the views.
        min_confidence: Boxes that are less confident count as neither found nor missed.
    """

    samples: Sequence[Sample]
    seed: int
    min_confidence: float

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: tuple[int, int, int]) -> FinderView | Broken:
        epoch, index, size = position
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch, index]))
        sample = self.samples[index]
        if rng.random() < MOSAIC_FRACTION:
            view = self._mosaic(sample, size, rng)
        else:
            view = self._single(sample, size, size, rng)
        if isinstance(view, Broken):
            return view
        return FinderView(vary_light(view.pixels, rng), view.boxes, view.confidences)

    def _single(self, sample: Sample, width: int, height: int, rng: np.random.Generator) -> FinderView | Broken:
        """Return an image or a crop of it, mirrored or not, squashed to a size."""
        try:
            image, full = decode_sample(sample, lambda w, h: min(w / width, h / height) * MIN_SIDE)
        except ImageError as error:
            return Broken(sample.key, str(error))
        if rng.random() < UNCROPPED_FRACTION:
            region = Box(0, 0, *full)
        else:
            region = draw_crop(full, rng)
        detections = np.array([[*box, confidence] for box, confidence in sample.persons or ()], np.float32).reshape(
            -1, 5
        )
        boxes, confidences = place_people(detections, region, width, height, self.min_confidence)
        scale = image.width / full[0], image.height / full[1]
        part = (region.x1 * scale[0], region.y1 * scale[1], region.x2 * scale[0], region.y2 * scale[1])
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=part))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        return FinderView(pixels, boxes, confidences)

    def _mosaic(self, sample: Sample, size: int, rng: np.random.Generator) -> FinderView | Broken:
        """Return the image and three others, drawn at random, around a point."""
        others = [self.samples[int(i)] for i in rng.integers(len(self.samples), size=3)]
        x, y = (round(float(fraction) * size) for fraction in rng.uniform(*MOSAIC_CENTRE, size=2))
        pixels = np.empty((size, size, 3), np.uint8)
        boxes = []
        confidences = []
        corners = ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))
        for item, (x1, y1, x2, y2) in zip([sample, *others], corners, strict=True):
            view = self._single(item, x2 - x1, y2 - y1, rng)
            if isinstance(view, Broken):
                return view
            pixels[y1:y2, x1:x2] = view.pixels
            boxes.append(view.boxes + np.array([x1, y1, x1, y1], np.float32))
            confidences.append(view.confidences)
        return FinderView(pixels, np.concatenate(boxes), np.concatenate(confidences))


def draw_crop(full: tuple[int, int], rng: np.random.Generator) -> Box:
    """Draw a part of an image; each side is drawn separately and is at least half of the image's.

    Args:
        full: Width and height of the image, px.
        rng: Random generator.
    """
    width, height = (side * float(rng.uniform(MIN_SIDE, 1)) for side in full)
    x, y = (float(rng.uniform(0, side - part)) for side, part in zip(full, (width, height), strict=True))
    return Box(x, y, x + width, y + height)


def place_people(
    detections: NDArray[np.float32], region: Box, width: int, height: int, min_confidence: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the people of an image in a view of a part of it. People outside the part are left out.

    Args:
        detections: Boxes in px of the image, and confidences, (M, 5).
        region: The part.
        width: Width of the view, px.
        height: Height of the view, px.
        min_confidence: Minimum confidence of people to learn.

    Returns:
        Boxes (K, 4) in px of the view, clipped, and confidences (K,), 0 for those who are not to be learned: less
        confident than `min_confidence`, cut off, or too small.
    """
    scale = np.array([width / (region.x2 - region.x1), height / (region.y2 - region.y1)] * 2, np.float32)
    unclipped = (detections[:, :4] - np.array([region.x1, region.y1] * 2, np.float32)) * scale
    limit = np.array([width, height] * 2, np.float32)
    boxes = unclipped.clip(0, limit)
    extents = boxes[:, 2:] - boxes[:, :2]
    full_extents = unclipped[:, 2:] - unclipped[:, :2]
    is_inside = (extents >= 1).all(axis=1)
    visible_fraction = extents.prod(axis=1) / np.maximum(full_extents.prod(axis=1), 1e-6)
    is_learned = (
        (visible_fraction >= MIN_VISIBLE) & (extents.sum(axis=1) >= 2 * MIN_PX) & (detections[:, 4] >= min_confidence)
    )
    return boxes[is_inside], np.where(is_learned, detections[:, 4], 0)[is_inside]


def vary_light(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness and contrast of an image (S, S, 3), and sometimes make it grey."""
    contrast, brightness = 1 + rng.uniform(-MAX_LIGHT_CHANGE, MAX_LIGHT_CHANGE, size=2)
    levels = (np.arange(256) - 128) * contrast + 128 * brightness
    varied = levels.clip(0, 255).astype(np.uint8)[pixels]
    if rng.random() < GREY_FRACTION:
        varied = np.repeat((varied @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None], 3, axis=2)
    return varied


@dataclass(frozen=True, slots=True)
class FinderBatch:
    """The views of a batch, and the samples that could not be read."""

    samples: list[FinderView]
    broken: tuple[Broken, ...]


def finder_loader(views: FinderViews, batches: Sequence[list[tuple[int, int, int]]], workers: int) -> Any:
    """Return a loader of batches of views.

    Args:
        views: The views.
        batches: Keys of the views of each batch.
        workers: Number of processes that decode; 0 decodes in this one.
    """
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
    broken = tuple(item for item in items if isinstance(item, Broken))
    return FinderBatch([item for item in items if isinstance(item, FinderView)], broken)


def pack_samples(views: FinderViews) -> FinderViews:
    """Return the views with the samples in one block of memory that processes share."""
    return replace(views, samples=PackedSamples(views.samples))
