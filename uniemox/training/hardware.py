"""How a model is made to train fast on a device, with the same results up to rounding."""

import ctypes
import platform
from typing import Any

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST_INT = 2**31 - 1


def ready_to_train(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device, with the attention that trains fastest there: plain on the CPU, fused elsewhere.

    The fused kernel's backward is slow on the CPU. Only timm's modules have the switch, others are left alone.
    On Linux freed memory is kept as well, see `keep_freed_memory`.
    """
    on_cpu = device.type == "cpu"
    module: Any
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not on_cpu
    if on_cpu:
        keep_freed_memory()
    return model.to(device)


def keep_freed_memory() -> bool:
    """Let the C library keep the memory that tensors free, for this whole process; whether it could.

    By default glibc hands every large block back and the kernel clears it anew at the next step, page by page, which
    costs a fifth to a third of a training step on the CPU (docs/performance.md). On other systems nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT))
