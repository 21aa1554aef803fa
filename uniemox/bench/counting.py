"""Multiply-adds of a network, the matrix-multiplication peak of a machine, the memory of this process."""

import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

PEAK_SIZES = (1024, 2048, 4096)  # sides of the square matrices; the best one counts
PEAK_SIZES_GPU = (4096, 8192)
SOAK_FROM = 2000  # items, until memory is measured first


def multiply_adds(call: Callable[[], object]) -> int:
    """Multiply-adds of all matrix products, attention and convolutions in a call; norms and the like not counted.

    Only shapes run through the call, nothing is computed.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def matmul_peak(device: torch.device, dtype: torch.dtype, *, repeats: int = 8) -> float:
    """FLOP/s of the fastest large square matrix product here, multiplication and addition counted separately."""
    best = 0.0
    for size in PEAK_SIZES if device.type == "cpu" else PEAK_SIZES_GPU:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = min(timed(partial(torch.matmul, a, b), device) for _ in range(repeats))
        best = max(best, 2 * size**3 / seconds)
    return best


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; the CPU needs no waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameter_count(module: nn.Module) -> int:
    """All parameters, frozen ones included, buffers not."""
    return sum(parameter.numel() for parameter in module.parameters())


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"


def memory_growth_mb(work: Iterable[int], total: int) -> float | None:
    """MB that this process gains between the 2,000th of its items, or half of fewer, and the last.

    work: the number of items of each part, when it is done.  total: items in all.  None where the system does not tell.
    """
    before, done = None, 0
    for count in work:
        done += count
        if before is None and done >= min(SOAK_FROM, max(1, total // 2)):
            before = memory_mb()
    after = memory_mb()
    return None if before is None or after is None else after - before


def memory_mb() -> float | None:
    """Memory of this process that is in use now; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 2**10
