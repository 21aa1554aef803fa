"""Batches of views from samples, in any number of worker processes; unreadable images are listed and left out."""

import ctypes
import gc
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from uniemox.data.processes import loader_context
from uniemox.data.sample import Broken, Sample
from uniemox.errors import BoxError, DataError, ImageError
from uniemox.io.borders import image_border
from uniemox.persons.box import Box
from uniemox.plurals import counted
from uniemox.views.transforms import Views

# Batches that each loading process keeps ready.
PREFETCH = 4
# From Linux's prctl.h: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
Batch = TypeVar("Batch", bound=Any)


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """N readable samples, and the unreadable ones."""

    scene: Tensor  # (N, 3, S, S) uint8
    person: Tensor  # (N, 3, S, S) uint8
    samples: tuple[Sample, ...]  # N
    person_sources: tuple[str, ...]  # N
    broken: tuple[Broken, ...] = ()
    noise: Tensor | None = None  # (2, N, L) draws of the masks of scene and person, in pre-training
    crops: tuple[Box, ...] = ()  # N, part of each upright image that the scene view shows

    def pin_memory(self) -> "ViewBatch":
        """Copy to pinned memory, which a GPU reads while it computes; torch's loader calls it if there is a GPU."""
        noise = None if self.noise is None else self.noise.pin_memory()
        return replace(self, scene=self.scene.pin_memory(), person=self.person.pin_memory(), noise=noise)


class PackedSamples(Sequence[Sample]):
    """Samples in one block of memory, unpacked on access.

    Loading processes share the block. A list of objects would be copied page by page as references are counted.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        packed = [pickle.dumps(sample, pickle.HIGHEST_PROTOCOL) for sample in samples]
        self.ends = np.cumsum([len(content) for content in packed], dtype=np.int64)
        self.data = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        # Only what __init__ has written is unpickled.
        return pickle.loads(self.data[start : self.ends[index]].data)  # noqa: S301


class ViewDataset(Dataset[tuple[Sample, Views] | Broken]):
    """Samples as views; a key of an item is (epoch, index of the sample).

    Args:
        samples: Samples with an image each.
        make_views: Returns the views of a sample in an epoch.
    """

    def __init__(self, samples: Sequence[Sample], make_views: Callable[[Sample, int], Views]) -> None:
        self.samples = PackedSamples(samples)
        self.make_views = make_views

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Sample, Views] | Broken:
        epoch, index = key
        sample = self.samples[index]
        try:
            with image_border(str(sample.image)):
                return sample, self.make_views(sample, epoch)
        except (ImageError, BoxError) as error:
            return Broken(sample.key, str(error))


@dataclass(slots=True)
class BrokenCount:
    """Counter of unreadable images, which stops if there are too many.

    Args:
        max_unreadable: Number of unreadable images to leave out; 0 stops at the first.
    """

    max_unreadable: int
    reasons: dict[str, str] = field(default_factory=dict)
    """Reason for each unreadable image, by its key."""

    def add(self, broken: Sequence[Broken]) -> None:
        """Count images; one that is unreadable again, in a later epoch, counts once.

        Raises:
            DataError: With the last few names and reasons, if there are too many.
        """
        self.reasons.update(broken)
        if len(self.reasons) > self.max_unreadable:
            last = "; ".join(list(self.reasons.values())[-3:])
            raise DataError(
                f"{counted(len(self.reasons), 'image')} can't be read, more than the {self.max_unreadable} that may be "
                f"left out: {last}. uniemox data check lists all of them, and --exclude leaves them out"
            )

    def readable(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches of samples after counting their `broken` ones.

        Raises:
            DataError: If there are too many unreadable images, or if a batch has no readable one.
        """
        for batch in batches:
            self.add(batch.broken)
            if not batch.samples:
                raise DataError(f"none of {len(batch.broken)} images of a batch can be read: {batch.broken[-1].reason}")
            yield batch


def collate(items: Sequence[tuple[Sample, Views] | Broken]) -> ViewBatch:
    """Make one batch of all items; unreadable ones are only listed."""
    readable = [item for item in items if not isinstance(item, Broken)]
    views = [view for _, view in readable]
    noise = [view.noise for view in views if view.noise is not None]  # (2, L) each
    return ViewBatch(
        scene=_stack([view.scene for view in views]),
        person=_stack([view.person for view in views]),
        samples=tuple(sample for sample, _ in readable),
        person_sources=tuple(view.person_source for view in views),
        broken=tuple(item for item in items if isinstance(item, Broken)),
        noise=torch.stack(noise, dim=1) if noise else None,  # (2, N, L)
        crops=tuple(view.crop for view in views),
    )


def _stack(views: list[Tensor]) -> Tensor:
    """Stack to (N, 3, S, S); a loading process stacks directly into shared memory."""
    if views:
        return default_collate(views)
    return torch.empty(0, 3, 0, 0, dtype=torch.uint8)


def build_loader(dataset: ViewDataset, order: Iterable[list[tuple[int, int]]], workers: int) -> DataLoader[ViewBatch]:
    """Build a loader of batches in the given order, such as RunOrder's.

    Args:
        dataset: Views of samples.
        order: Keys (epoch, index) of the items of each batch.
        workers: Number of processes that decode; 0 decodes in this one. Batches do not depend on it.
    """
    # torch's types do not cover a collation to another type.
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=PREFETCH if workers else None,
        persistent_workers=False,
        worker_init_fn=start_worker,
        multiprocessing_context=loader_context() if workers else None,
    )


def load_batches(
    samples: Sequence[Sample], make_views: Callable[[Sample, int], Views], size: int, epoch: int = 0, workers: int = 0
) -> Iterable[ViewBatch]:
    """Load batches of samples, in order.

    Args:
        samples: Samples with an image each.
        make_views: Returns the views of a sample in an epoch.
        size: Number of samples per batch; the last batch may have fewer.
        epoch: Epoch that make_views is called with.
        workers: Number of processes that decode, see `build_loader`.
    """
    order = [
        [(epoch, i) for i in range(start, min(start + size, len(samples)))] for start in range(0, len(samples), size)
    ]
    return build_loader(ViewDataset(samples, make_views), order, workers)


def start_worker(_: int) -> None:
    """Let a loading process end with the run, and leave signals to the parent."""
    # Signals reach all processes of a group; the parent handles them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A killed run leaves no worker behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The collector skips objects from before the fork, so their memory stays shared.
    gc.freeze()
