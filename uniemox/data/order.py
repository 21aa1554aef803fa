"""In which order samples are seen: a function of seed and epoch alone, whatever the number of processes."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from uniemox.errors import ConfigError


class BatchOrder:
    """The batches of one process in one epoch, as lists of (epoch, index); a batch sampler for torch's DataLoader.

    samples: size of the data set.  batch_size: images of a batch over all processes; the last, short batch of an
    epoch is left out.  rank, processes: this process takes the rank-th part of every batch.
    start: batches of the epoch that were done before, to go on in its middle.
    Raises ConfigError if the data do not fill one batch, or processes do not divide it.
    """

    def __init__(
        self,
        samples: int,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        processes: int = 1,
        start: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % processes:
            raise ConfigError(f"{processes} processes can't share a batch of {batch_size} evenly")
        if samples < batch_size:
            raise ConfigError(f"{samples} samples do not fill a batch of {batch_size}; choose a smaller batch_size")
        if not 0 <= rank < processes or not 0 <= start <= samples // batch_size:
            raise ConfigError(f"there is no rank {rank} of {processes}, or no batch {start} of {samples // batch_size}")
        self.samples, self.batch_size, self.seed, self.epoch, self.start = samples, batch_size, seed, epoch, start
        self.part = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)

    def __len__(self) -> int:
        return self.samples // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.samples)
        for i in range(self.start, self.samples // self.batch_size):
            batch = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[self.part]]


class RunOrder:
    """The batches of one process in all steps of a run, epoch after epoch; a batch sampler too.

    batch_size: images of a step over all processes and batches.  accumulation: number of batches in a step; the
    step's images are the same whatever it is, and whatever the number of processes.
    start: steps that were done before.  steps: of the whole run.
    Raises ConfigError as BatchOrder, or if accumulation does not divide the batch.
    """

    def __init__(
        self,
        samples: int,
        *,
        batch_size: int,
        accumulation: int,
        seed: int,
        start: int,
        steps: int,
        rank: int,
        processes: int,
    ) -> None:
        if accumulation < 1 or batch_size % accumulation:
            raise ConfigError(f"accumulation must divide the batch of {batch_size} evenly, got {accumulation}")
        self.steps_per_epoch = steps_in_epoch(samples, batch_size)
        self.samples, self.accumulation, self.start, self.steps = samples, accumulation, start, steps
        self.part = {"batch_size": batch_size // accumulation, "seed": seed, "rank": rank, "processes": processes}
        BatchOrder(samples, epoch=0, **self.part)  # raises now rather than in a process that loads

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start
        while step < self.steps:
            epoch, done = divmod(step, self.steps_per_epoch)
            now = min(self.steps_per_epoch - done, self.steps - step)
            order = BatchOrder(self.samples, epoch=epoch, start=done * self.accumulation, **self.part)
            yield from islice(order, now * self.accumulation)
            step += now


def steps_in_epoch(samples: int, batch_size: int) -> int:
    """Whole batches in one pass over the data. Raises ConfigError if there is none."""
    if batch_size < 1 or samples < batch_size:
        raise ConfigError(f"{samples} samples do not fill a batch of {batch_size}; choose a smaller batch_size")
    return samples // batch_size
