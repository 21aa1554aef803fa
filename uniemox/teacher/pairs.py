"""Pairs of images and texts on which a teacher is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniemox.data.prompts import teacher_text
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError
from uniemox.teacher.config import FitConfig
from uniemox.teacher.sources import TimmImageTower
from uniemox.training.callback import Callback
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader
from uniemox.views.transfer import to_device
from uniemox.views.transforms import TrainViews, WholeViews

# Minimum number of images, of which two are held out.
MIN_IMAGES = 20
# Images per batch when encoding.
ENCODE_BATCH_SIZE = 64
# Side of the small tower's input.
SMALL_PX = 96
# Minimum area of a crop as a share of the image; a smaller crop may not match its text.
MIN_AREA = 0.6


@dataclass(frozen=True, slots=True)
class Pairs:
    """P images with their texts."""

    inputs: Tensor  # (V, P, 2, 3, S, S) uint8, V views of scene and person, or (1, P, D) features of a frozen tower
    texts: Sequence[tuple[str, ...]]  # P; distinct, at least one each


def texts_by_image(data: DataSet, with_emotion: bool) -> tuple[list[Sample], list[tuple[str, ...]]]:
    """Return the images that have texts, once each, and their distinct texts.

    Raises:
        DataError: If there are fewer than 20.
    """
    samples: dict[str, Sample] = {}
    texts: dict[str, dict[str, None]] = {}
    for sample in data.samples:
        if sample.text and sample.text.strip():
            samples.setdefault(sample.image_key, sample)
            texts.setdefault(sample.image_key, {})[teacher_text(sample, with_emotion)] = None
    if len(samples) < MIN_IMAGES:
        raise DataError(
            f"{data.name}: {len(samples)} of its images have a text, a teacher needs at least {MIN_IMAGES}; write "
            f"texts with: uniemox data describe {data.name}"
        )
    return list(samples.values()), [tuple(image_texts) for image_texts in texts.values()]


class PairReader:
    """Reads images with their texts into memory.

    Args:
        samples: P images.
        texts: P, the texts of each image.
        config: Settings of the fit.
        tower: Frozen tower whose features are read instead of pixels; None: there is none.
        device: Device of the tower.
        callback: Receiver of progress.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        texts: Sequence[tuple[str, ...]],
        config: FitConfig,
        *,
        tower: TimmImageTower | None,
        device: torch.device,
        callback: Callback,
    ) -> None:
        self.samples = samples
        self.texts = texts
        self.config = config
        self.tower = tower
        self.device = device
        self.callback = callback
        self.broken = BrokenCount(config.max_unreadable)
        """Counter of unreadable images, which are left out."""

    def read(self, rows: Sequence[int], crops: int, stage: str) -> Pairs:
        """Read all views of the readable ones of some images.

        Args:
            rows: Indices of the images.
            crops: V, number of random crops per image; view v is that of epoch v. 0: the whole image instead.
            stage: Name of the work, for the progress.

        Raises:
            DataError: If no image can be read, or too many can't.
        """
        dataset = self._dataset(rows, crops)
        texts = [self.texts[row] for row in rows]
        views = max(crops, 1)
        images = len(dataset)
        order = [
            [(view, i) for i in range(start, min(start + ENCODE_BATCH_SIZE, images))]
            for view in range(views)
            for start in range(0, images, ENCODE_BATCH_SIZE)
        ]
        row_of = {sample.key: i for i, sample in enumerate(dataset.samples)}
        inputs = torch.empty(0)
        is_read = torch.zeros(images, dtype=torch.bool)
        done = 0
        for keys, batch in zip(order, build_loader(dataset, order, self.config.workers), strict=True):
            self.broken.add(batch.broken)
            if batch.samples:
                encoded = self._encode(batch)  # (n, ...)
                # The first batch tells the shape.
                if not is_read.any():
                    inputs = encoded.new_zeros(views, images, *encoded.shape[1:])  # (V, P, ...)
                batch_rows = torch.tensor([row_of[sample.key] for sample in batch.samples])
                view = keys[0][0]
                inputs[view, batch_rows] = encoded
                is_read[batch_rows] = True
            done += len(keys)
            self.callback.progress(stage, done, views * images)
        if not is_read.any():
            raise DataError(f"none of {images} images can be read: {next(iter(self.broken.reasons.values()))}")
        # Nothing to leave out: no copy.
        if is_read.all():
            return Pairs(inputs, texts)
        return Pairs(inputs[:, is_read], [texts[i] for i in is_read.nonzero().flatten().tolist()])

    def _dataset(self, rows: Sequence[int], crops: int) -> ViewDataset:
        """Return the images with the views that `read` takes of them."""
        size = (self.config.image_size or SMALL_PX) if self.tower is None else max(self.tower.size)
        make_views: TrainViews | WholeViews = WholeViews(size)
        if crops:
            make_views = TrainViews(ViewConfig(size=size, min_area=MIN_AREA), self.config.seed)
        return ViewDataset([self.samples[row] for row in rows], make_views)

    def _encode(self, batch: ViewBatch) -> Tensor:
        """Return the pixels of both views, (n, 2, 3, S, S), or features of the frozen tower, (n, D), on the CPU."""
        if self.tower is None:
            return torch.stack([batch.scene, batch.person], dim=1)  # (n, 2, 3, S, S)
        return self.tower.image_features(to_device(batch.scene, self.device).float() / 255).cpu()  # (n, D)
