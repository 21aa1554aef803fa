"""Benchmark of loading samples: one decode, two views, one process; from files and from shards."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet, Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.errors import DataError, ImageError
from uniemox.io.images import open_image, upright_size
from uniemox.persons.box import Box, Detection
from uniemox.training.counting import memory_growth_mb
from uniemox.training.hardware import keep_freed_memory
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, load_batches
from uniemox.views.patches import normalise
from uniemox.views.transforms import TrainViews

# Short side of the images in the shards.
SHORT_SIDE_PX = 256
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class DataBench:
    """Result of the measurement."""

    samples_per_s: float  # from files, best of the passes
    shards_samples_per_s: float  # from shards of images with a short side of 256 px
    samples: int  # in a pass
    passes: int
    memory_growth_mb: float | None
    """MB gained between sample 2,000, or the middle of fewer than 4,000, and the last; None if not measured."""


def bench_data(
    data: DataSet, *, passes: int = 3, soak: int = 0, on_progress: Callable[[int], None] = lambda _: None
) -> DataBench:
    """Load a data set several times, one sample after the other, with one thread.

    Each sample is read, decoded once, cropped to two views and, in batches, normalised. If no detector was run on an
    image, its centre, half as wide and seven eighths as high, counts as the person, as in the plain reference
    implementation.

    Args:
        passes: Number of passes over the data; the fastest counts.
        soak: Number of further samples for measuring the growth of memory; 0: do not measure it.
        on_progress: Called with the number of samples loaded.

    Raises:
        DataError: If an image can't be read.
    """
    # Training does the same.
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        samples = [with_person(sample) for sample in data.samples]
        done = 0

        def count(loaded: int) -> None:
            nonlocal done
            done += loaded
            on_progress(done)

        with tempfile.TemporaryDirectory() as folder:
            config = ShardConfig(short_side_px=SHORT_SIDE_PX)
            write_shards(replace(data, samples=samples), Path(folder), config)
            shards = read_shards(folder).samples
            files, packed = (
                max(_pass(subset, epoch, count) for epoch in range(passes)) for subset in (samples, shards)
            )
            growth = _soak(samples, soak, count) if soak else None
        return DataBench(files, packed, len(samples), passes, growth)
    finally:
        torch.set_num_threads(threads)


def with_person(sample: Sample) -> Sample:
    """Return a sample with the centre of its image as a person, if no detector was run on it.

    Raises:
        DataError: If the image can't be read.
    """
    if sample.persons is not None or sample.target_box is not None:
        return sample
    try:
        width, height = upright_size(open_image(sample.image.read(), str(sample.image)))
    except (ImageError, OSError) as error:
        raise DataError(f"speed is measured on images that can be read: {error}") from error
    middle = Box(width // 4, height // 8, 3 * width // 4, height)
    return replace(sample, persons=(Detection(middle, 1.0),))


def _pass(samples: Sequence[Sample], epoch: int, count: Callable[[int], None]) -> float:
    """Return the samples per second of one pass."""
    start = time.perf_counter()
    for batch in load_views(samples, epoch, count):
        for views in (batch.scene, batch.person):
            normalise(views, torch.device("cpu"))
    return len(samples) / (time.perf_counter() - start)


def load_views(samples: Sequence[Sample], epoch: int, count: Callable[[int], None]) -> Iterator[ViewBatch]:
    """Yield batches of training views, and call `count` with the number of samples of each.

    Raises:
        DataError: If an image can't be read.
    """
    for batch in load_batches(samples, TrainViews(ViewConfig(), seed=0), BATCH_SIZE, epoch):
        if batch.broken:
            raise DataError(f"speed is measured on images that can be read: {batch.broken[0].reason}")
        yield batch
        count(len(batch.samples))


def _soak(samples: Sequence[Sample], soak: int, count: Callable[[int], None]) -> float | None:
    """Return the growth of this process's memory in MB. Every sample is a new object for one of the same images."""
    copies = [replace(samples[i % len(samples)], key=f"{i}") for i in range(soak)]
    return memory_growth_mb((len(batch.samples) for batch in load_views(copies, 0, count)), soak)
