"""Settings for fast training on a device, with the same results up to rounding."""

import ctypes
import math
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers import DropPath
from timm.models.byobnet import RepVggBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from uniemox.errors import ConfigError
from uniemox.io.parallel import usable_cores
from uniemox.model.config import Precision
from uniemox.training.config import HardwareConfig
from uniemox.training.launch import cores_of_process, is_bound, local_processes, local_rank
from uniemox.training.processes import world_size
from uniemox.training.run_folder import stored_precision
from uniemox.training.sharding import is_sharded
from uniemox.views.loader import PREFETCH

RunConfig = TypeVar("RunConfig", bound=Any)
"""Settings of pre-training or fine-tuning."""
# Numbers of mallopt's options, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
MAX_INT = 2**31 - 1
MAX_WORKERS = 8
"""Default maximum of loading processes per training process."""
SHARED_MEMORY = Path("/dev/shm")
"""Folder through which loading processes pass batches, on Linux."""


def setup_device(config: HardwareConfig) -> torch.device:
    """Return the device of this process, make it torch's current one, and set the number of threads.

    On a GPU, float32 means float32 for convolutions too, not TF32.

    Raises:
        ConfigError: If the device is missing, or if the machine has fewer GPUs than processes.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError("hardware.device is cuda, but there is no CUDA device here; use cpu")
    if config.device == "cpu" or not has_gpu:
        return torch.device("cpu")

    count = torch.cuda.device_count()
    number = local_rank()
    # srun can show each process only its own GPU, which is then number 0 in every process.
    has_own_gpu = count == 1 and is_bound()
    if number >= count and not has_own_gpu:
        raise ConfigError(f"process {number} of this machine has no GPU: the machine has {count}; start {count}")
    device = torch.device("cuda", number if count > 1 else 0)
    # FSDP, NCCL and threads that pin memory use the current device; without this, all processes would use GPU 0.
    torch.cuda.set_device(device)
    # Torch's default is TF32 for convolutions but not for matrix products: an error of 3e-4 in float32 runs.
    torch.backends.cudnn.allow_tf32 = False
    return device


def count_workers(config: HardwareConfig, device: torch.device) -> int:
    """Return the number of loading processes per training process."""
    if config.workers is not None:
        return config.workers
    if device.type == "cpu":
        return 1
    return min(cores_of_process(usable_cores()), MAX_WORKERS)


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Refuse loaders that need more shared memory than there is; otherwise one would die of a bus error.

    Args:
        workers: Number of loading processes per training process.
        batch_bytes: Size of a process's batch of views.

    Raises:
        ConfigError: If the free shared memory is too small. The message names the option that raises a container's
            limit, and the setting that needs less memory.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return
    needed_bytes = workers * PREFETCH * batch_bytes * local_processes()
    free_bytes = shutil.disk_usage(SHARED_MEMORY).free
    if needed_bytes > free_bytes:
        raise ConfigError(
            f"{workers * local_processes()} loading processes need {needed_bytes / 1e9:.2g} GB of shared memory, but "
            f"{SHARED_MEMORY} has {free_bytes / 1e9:.2g} GB free. Start the container with "
            f"--shm-size={math.ceil(needed_bytes / 1e9) + 1}g, or give fewer --hardware.workers (now {workers})"
        )


def precision_of(config: HardwareConfig) -> Precision:
    """Return the requested precision, or else the one that is fast on this machine."""
    return config.precision or fast_precision()


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which matrix products and activations have a precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def with_precision(config: RunConfig, out: Path) -> RunConfig:
    """Return the settings of a run with a fixed precision, which stays the same wherever it is resumed.

    The requested precision comes first, then the one in the run's config.json, then the one that is fast here.

    Args:
        config: Settings of the run.
        out: Folder of the run.

    Raises:
        ConfigError: If config.json can't be read.
    """
    precision = config.hardware.precision or stored_precision(out) or fast_precision()
    return replace(config, hardware=replace(config.hardware, precision=precision))


def wrap(model: nn.Module, device: torch.device, *, compiled: bool) -> Any:
    """Wrap a model for training: in DistributedDataParallel if there are several processes, and compiled if set.

    A model sharded over the processes (FSDP2) is not wrapped.

    Args:
        model: The model, on its device.
        device: The model's device.
        compiled: Compile transformer blocks, or else the whole model, see `compile_blocks`.

    Returns:
        The module to call in a step.
    """
    runner: Any = model
    if world_size() > 1 and not is_sharded(model):
        device_ids = [device.index] if device.type == "cuda" else None
        runner = DistributedDataParallel(runner, device_ids=device_ids)
        if device.type == "cpu":
            runner.register_comm_hook(None, _average_each)
    if compiled and not compile_blocks(model):
        return torch.compile(runner)
    return runner


def compile_blocks(model: nn.Module) -> bool:
    """Let each transformer block be compiled at its first call.

    Equal blocks share one compilation. Blocks with drop path differ in their rates and can't share it.

    Returns:
        False if the model has no blocks, or blocks with drop path; nothing is changed then.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    parts = [part for block in blocks for part in block.modules()]
    has_drop_path = any(isinstance(part, DropPath) and part.drop_prob for part in parts)
    if not blocks or has_drop_path:
        return False
    for block in blocks:
        block.compile()
    return True


def _average_each(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average the gradient of each parameter over the processes, one parameter at a time.

    torch's buckets change after the first step of a process, which would change the last bits of their sums.
    """
    for gradient in bucket.gradients():
        dist.all_reduce(gradient.div_(world_size()))
    averaged: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    averaged.set_result(bucket.buffer())
    return averaged


def ready_to_train(model: nn.Module, device: torch.device) -> nn.Module:
    """Move the model to its device with timm's fastest attention for training: plain on the CPU, else fused.

    Convolutional networks use channels-last memory, except RepVGG on the CPU, where torch 2.15 then corrupts memory in
    the backward pass. On Linux freed memory is kept, see `keep_freed_memory`.
    """
    on_cpu = device.type == "cpu"
    module: Any
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not on_cpu
    if on_cpu:
        keep_freed_memory()
    # timm's own batch norms are subclasses.
    is_convolutional = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    has_repvgg = any(isinstance(module, RepVggBlock) for module in model.modules())
    if is_convolutional and not (on_cpu and has_repvgg):
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def keep_freed_memory() -> bool:
    """Let the C library keep memory that tensors free, for this whole process.

    By default glibc returns every large block to the kernel, which clears it page by page at the next step. That costs
    a fifth to a third of a training step on the CPU (docs/performance.md).

    Returns:
        True if glibc accepted the options; False on other systems, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, MAX_INT))


def fast_precision(device: str | None = None) -> Precision:
    """Return bfloat16 on a GPU or a processor with instructions for it (AVX-512, AMX, newer Arm), else float32.

    Without such instructions bfloat16 works too, but 60 times slower than float32 (an AMD EPYC with AVX2).

    Args:
        device: "cpu" or "cuda"; None: a GPU if there is one.
    """
    if device is None:
        is_gpu = torch.cuda.is_available()
    else:
        is_gpu = device == "cuda"
    # This function is private, but nothing else in torch tells which instructions its CPU kernels use.
    is_fast = is_gpu or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if is_fast else "float32"
