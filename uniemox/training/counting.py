"""Multiply-adds of a network, peak matrix-multiplication speed of a machine, memory of this process."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# Sides of the square matrices that are multiplied; the fastest product counts.
PEAK_SIZES = (1024, 2048, 4096)
PEAK_SIZES_GPU = (4096, 8192)
# Caches and worker processes fill up during the first items; memory is measured after them.
MAX_SOAK_ITEMS = 2000


def multiply_adds(call: Callable[[], object]) -> int:
    """Count the multiply-adds of all matrix products, attention and convolutions in a call, without norms and the like.

    Only shapes pass through the call; nothing is computed.
    """
    counter = FlopCounterMode(display=False)
    with _countable(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), counter:
        call()
    return counter.get_total_flops() // 2


@contextmanager
def _countable() -> Iterator[None]:
    """Let torch compute attention and transformer layers with operations that its counter knows.

    It does not know the fused layer that CLIP uses in evaluation, nor, before torch 2.12, fused attention on the CPU.
    """
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)


def matmul_peak(device: torch.device, dtype: torch.dtype, *, repeats: int = 8) -> float:
    """Return the FLOP/s of the fastest large square matrix product; multiplication and addition count separately."""
    sizes = PEAK_SIZES if device.type == "cpu" else PEAK_SIZES_GPU
    fastest = 0.0
    for size in sizes:
        first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = min(timed(partial(torch.matmul, first, second), device) for _ in range(repeats))
        fastest = max(fastest, 2 * size**3 / seconds)
    return fastest


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, including the device's work."""
    module = torch.get_device_module(device)
    module.synchronize(device)
    start = time.perf_counter()
    call()
    module.synchronize(device)
    return time.perf_counter() - start


def tensor_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def parameter_count(module: nn.Module) -> int:
    """Return the number of parameters, including frozen ones, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or "cpu"


def memory_growth_mb(work: Iterable[int], total: int) -> float | None:
    """Return by how many MB this process grows from item `soak_start(total)` to the last.

    Args:
        work: Yields the number of items of each finished part.
        total: Number of all items.

    Returns:
        Growth in MB; None if the system does not report memory.
    """
    before = None
    done = 0
    for count in work:
        done += count
        if before is None and done >= soak_start(total):
            before = memory_mb()
    after = memory_mb()
    if before is None or after is None:
        return None
    return after - before


def soak_start(total: int) -> int:
    """Return the number of the item from which growth of memory counts: 2,000, or half of all if that is less."""
    return min(MAX_SOAK_ITEMS, max(1, total // 2))


def memory_mb() -> float | None:
    """Return the memory that this process uses now, in MB; None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 2**10
