"""Order of the samples in training: it depends only on seed and epoch, not on the number of processes."""

from collections.abc import Iterator

import numpy as np

from uniemox.errors import ConfigError
from uniemox.plurals import counted


class RunOrder:
    """Batches of one process in all steps of a run, epoch after epoch, as lists of (epoch, index).

    Use it as batch sampler of torch's DataLoader. Samples that do not fill a step at the end of an epoch are left out.

    Args:
        samples: Number of samples in the data set.
        batch_size: Images per step over all processes and batches.
        steps: Number of steps in the run.
        start: Steps already done, to resume in the middle of an epoch.
        accumulation: Batches per step. Neither accumulation nor the number of processes changes the images of a step.
        rank: Number of this process, from 0; it takes the rank-th part of every batch.
        processes: Number of processes that share every batch.

    Raises:
        ConfigError: If the data do not fill a step, or accumulation or processes do not divide it.
    """

    def __init__(
        self,
        samples: int,
        *,
        batch_size: int,
        seed: int,
        steps: int,
        start: int = 0,
        accumulation: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.steps_per_epoch = steps_in_epoch(samples, batch_size)
        if accumulation < 1 or batch_size % accumulation:
            raise ConfigError(f"accumulation must divide the batch of {batch_size} evenly, got {accumulation}")
        self.size = batch_size // accumulation
        if self.size % processes:
            raise ConfigError(f"{processes} processes can't share a batch of {self.size} evenly")
        self.samples = samples
        self.seed = seed
        self.start = start
        self.steps = steps
        self.accumulation = accumulation
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank_slice = slice(self.rank * self.size // self.processes, (self.rank + 1) * self.size // self.processes)
        shuffled_epoch = -1
        for number in range(self.start * self.accumulation, self.steps * self.accumulation):
            epoch, i = divmod(number, self.steps_per_epoch * self.accumulation)
            if epoch != shuffled_epoch:
                # A generator of its own for each epoch: a resumed run needs no draws of earlier epochs.
                order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.samples)
                shuffled_epoch = epoch
            batch = order[i * self.size : (i + 1) * self.size]
            yield [(epoch, int(index)) for index in batch[rank_slice]]


def steps_in_epoch(samples: int, batch_size: int) -> int:
    """Return the number of complete batches in one pass over the data.

    Raises:
        ConfigError: If there is no complete batch.
    """
    if batch_size < 1 or samples < batch_size:
        # The largest power of two that the data fill.
        fitting = 2 ** max(0, samples.bit_length() - 1)
        raise ConfigError(
            f"{counted(samples, 'sample does', 'samples do')} not fill a batch of {batch_size}; "
            f"give a smaller one, such as --batch-size {fitting}"
        )
    return samples // batch_size
