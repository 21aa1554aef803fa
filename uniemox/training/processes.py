"""Training processes: how they join and exchange values."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from uniemox.errors import ConfigError
from uniemox.training.launch import Launch, find_launch, is_torchrun, local_rank

T = TypeVar("T")

JOIN_WAIT = timedelta(minutes=10)
MAX_WAIT = timedelta(hours=24)
"""Longest wait for the first process, which hashes images, runs the teacher and scores; default 10 minutes."""
MAX_GPU_WAIT = timedelta(minutes=20)
"""Longest wait of a GPU for the others within a step; longer means that a process has died or hangs."""


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes while the context lasts; does nothing for a single process. See `find_launch`.

    Raises:
        ConfigError: If the environment contradicts itself, or the others do not join within ten minutes.
    """
    # Numbers that the host needs, such as the others' image counts, use gloo, which does not wait for a GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    launch = None if dist.is_initialized() or is_torchrun() else find_launch()
    if dist.is_initialized() or not (is_torchrun() or launch):
        yield
        return
    if launch:
        _join(launch, backend)
    else:
        dist.init_process_group(backend, timeout=MAX_WAIT)
    if device.type == "cuda":
        limit_waits(device, MAX_GPU_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _join(launch: Launch, backend: str) -> None:
    """Meet at the first process, which must start soon; later waits may be long."""
    try:
        store = dist.TCPStore(launch.address, launch.port, launch.world_size, launch.rank == 0, timeout=JOIN_WAIT)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {launch.rank} of {launch.world_size} did not meet the others at {launch.address}:{launch.port} "
            f"within {JOIN_WAIT.total_seconds():.0f} s ({str(error).splitlines()[0]}); are all of them started, and "
            "can they reach that address? Set another with MASTER_ADDR and MASTER_PORT"
        ) from error
    dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.world_size, timeout=MAX_WAIT)


def limit_waits(device: torch.device, limit: timedelta) -> None:
    """Limit how long an exchange between devices of this type may take; exchanges of other types keep their limit."""
    # Private, but torch's public functions change the limits of all device types at once.
    dist.distributed_c10d._get_default_group()._get_backend(device)._set_default_timeout(limit)


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Wait until every process gets here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let one process of each machine run before the others, so that the others find its downloads."""
    is_first_here = local_rank() == 0
    if not is_first_here:
        wait_for_all()
    yield
    if is_first_here:
        wait_for_all()


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradient; the argument stays unchanged."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def gather_numbers(*numbers: int) -> list[list[int]]:
    """Gather the numbers of every process, equally many each, in the processes' order, without a GPU wait."""
    if world_size() == 1:
        return [list(numbers)]
    tensors = [torch.zeros(len(numbers), dtype=torch.long) for _ in range(world_size())]
    dist.all_gather(tensors, torch.tensor(numbers))
    return [tensor.tolist() for tensor in tensors]


def from_first(value: T) -> T:
    """Return the first process's value, which can be pickled, on all processes."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_values(value: T) -> list[T]:
    """Return the value of every process, which can be pickled, in the processes' order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(x: Tensor) -> Tensor:
    """Gather the rows of all processes, in their order, without gradient; the number of rows may differ.

    Args:
        x: (N, C).

    Returns:
        (sum of all N, C).
    """
    if world_size() == 1:
        return x
    counts = [count for [count] in gather_numbers(len(x))]
    longest = max(counts)
    # all_gather needs the same shape on every process.
    padded = torch.cat([x.detach(), x.new_zeros(longest - len(x), *x.shape[1:])])  # (longest, C)
    rows = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(rows, padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])
