"""One process or many, by the same calls: without a process group each is the identity."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from uniemox.errors import ConfigError
from uniemox.training.launch import Launch, find_launch, is_torchrun, local_rank

JOIN_WAIT = timedelta(minutes=10)
MAX_WAIT = timedelta(hours=24)
"""Of processes for the first, which hashes all images, asks the teacher about them and scores; 10 minutes else."""


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes, for as long as it lasts; alone if there are none. See `find_launch`.

    Raises ConfigError if the environment contradicts itself, or the others do not come within ten minutes.
    """
    if dist.is_initialized():
        yield
        return
    # What the host must know, such as how many images the others have, goes over gloo: no GPU is waited for.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if is_torchrun():
        dist.init_process_group(backend, timeout=MAX_WAIT)
    elif launch := find_launch():
        _join(launch, backend)
    else:
        yield
        return
    try:
        yield
    finally:
        dist.destroy_process_group()


def _join(launch: Launch, backend: str) -> None:
    """Meet at the first process, which must be there soon; later waits may be long."""
    is_first = launch.rank == 0
    try:
        store = dist.TCPStore(launch.address, launch.port, launch.world_size, is_first, timeout=JOIN_WAIT)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {launch.rank} of {launch.world_size} did not meet the others at {launch.address}:{launch.port} "
            f"within {JOIN_WAIT.total_seconds():.0f} s ({str(error).splitlines()[0]}); are all of them started, and "
            "can they reach that address? MASTER_ADDR and MASTER_PORT name another"
        ) from error
    dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.world_size, timeout=MAX_WAIT)


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let one process of each machine go before the others, so that they find what it has downloaded."""
    is_first_here = local_rank() == 0
    if not is_first_here:
        wait_for_all()
    yield
    if is_first_here:
        wait_for_all()


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient; the argument is left alone."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def gather_numbers(*numbers: int) -> list[list[int]]:
    """The numbers of every process, of each as many, in the processes' order. No GPU is waited for."""
    if world_size() == 1:
        return [list(numbers)]
    found = [torch.zeros(len(numbers), dtype=torch.long) for _ in range(world_size())]
    dist.all_gather(found, torch.tensor(numbers))
    return [one.tolist() for one in found]


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, in their order, without gradient; processes may have different numbers of rows.

    x: (N, C).  Returns (sum of all N, C).
    """
    if world_size() == 1:
        return x
    counts = [count for [count] in gather_numbers(len(x))]
    longest = max(counts)
    padded = torch.cat([x.detach(), x.new_zeros(longest - len(x), *x.shape[1:])])  # (longest, C)
    rows = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(rows, padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])
