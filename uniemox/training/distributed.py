"""One process or many (torchrun), by the same calls: without a process group each is the identity."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

MAX_WAIT = timedelta(hours=24)
"""Of processes for the first, which hashes all images, asks the teacher about them and scores; 10 minutes else."""


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes that torchrun started, for as long as it lasts; alone if there are none."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=MAX_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process on its machine, which is also its GPU's; torchrun says it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


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


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient; the argument is left alone."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, in their order, without gradient; processes may have different numbers of rows.

    x: (N, C).  Returns (sum of all N, C).
    """
    if world_size() == 1:
        return x
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    longest = max(int(count) for count in counts)
    padded = torch.cat([x.detach(), x.new_zeros(longest - len(x), *x.shape[1:])])  # (longest, C)
    rows = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(rows, padded.contiguous())
    return torch.cat([part[: int(count)] for part, count in zip(rows, counts, strict=True)])
