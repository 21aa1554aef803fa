"""Images and what is said of each, in memory."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniemox.data.prompts import text_of
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader

FEWEST = 20  # images, so that two are held out
LOOK_AT = 64  # images at a time
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Pairs:
    """P images and what is said of each."""

    inputs: Tensor  # (V, P, 2, 3, S, S) uint8, scene and person, or (1, P, D) float32 features of a frozen tower
    texts: Sequence[tuple[str, ...]]  # P; distinct, at least one each


def texts_by_image(data: DataSet, with_emotion: bool) -> tuple[list[Sample], list[tuple[str, ...]]]:
    """Images that have texts, once each, and their texts."""
    samples: dict[str, Sample] = {}
    texts: dict[str, dict[str, None]] = {}
    for sample in data.samples:
        if sample.text and sample.text.strip():
            samples.setdefault(sample.image_key, sample)
            texts.setdefault(sample.image_key, {})[text_of(sample, with_emotion)] = None
    if len(samples) < FEWEST:
        raise DataError(
            f"{data.name}: {len(samples)} of its images have a text, a teacher needs at least {FEWEST}; write texts "
            f"with: uniemox data describe {data.name}"
        )
    return list(samples.values()), [tuple(several) for several in texts.values()]


def look_at_pairs(
    dataset: ViewDataset,
    texts: Sequence[tuple[str, ...]],
    *,
    views: int,
    look: Callable[[ViewBatch], Tensor],
    workers: int,
    broken: BrokenCount,
    on_progress: Callable[[int, int], None],
) -> Pairs:
    """All views of all images that can be read, in memory, as `look` gives them, (n, ...) of a batch of n."""
    images = len(dataset)
    places = [
        [(view, i) for i in range(start, min(start + LOOK_AT, images))]
        for view in range(views)
        for start in range(0, images, LOOK_AT)
    ]
    row_of = {sample.key: i for i, sample in enumerate(dataset.samples)}
    inputs, is_read = torch.empty(0), torch.zeros(images, dtype=torch.bool)
    done = 0
    for place, batch in zip(places, build_loader(dataset, places, workers), strict=True):
        broken.add(batch.broken)
        if batch.samples:
            seen = look(batch)
            if not is_read.any():
                inputs = seen.new_zeros(views, images, *seen.shape[1:])  # (V, P, ...)
            rows = torch.tensor([row_of[sample.key] for sample in batch.samples])
            inputs[place[0][0], rows] = seen
            is_read[rows] = True
        done += len(place)
        on_progress(done, views * images)
    if not is_read.any():
        raise DataError(f"none of {images} images can be read: {next(iter(broken.found.values()))}")
    if is_read.all():
        return Pairs(inputs, texts)
    return Pairs(inputs[:, is_read], [texts[i] for i in is_read.nonzero().flatten().tolist()])


def both_views(batch: ViewBatch) -> Tensor:
    """Scene and person of a batch: (N, 2, 3, S, S) uint8."""
    return torch.stack([batch.scene, batch.person], dim=1)


def sentences_of(texts: Sequence[str]) -> frozenset[str]:
    """An image's texts, and every sentence of them."""
    return frozenset([*texts, *(sentence for text in texts for sentence in SENTENCE_END.split(text.strip()))])
