"""In which order samples are seen: a function of seed and epoch alone, whatever the number of processes."""

from collections.abc import Iterator

import numpy as np

from uniemox.errors import ConfigError


class BatchOrder:
    """The batches of one process in one epoch, as lists of (epoch, index); a batch sampler for torch's DataLoader.

    samples: size of the data set.  batch_size: pictures of a batch over all processes; the last, short batch of an
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
        if not 0 <= rank < processes or not 0 <= start <= samples // batch_size:
            raise ConfigError(f"there is no rank {rank} of {processes}, or no batch {start} of {samples // batch_size}")
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
