"""Checks of a machine before a long run, each with advice: `uniemox doctor`."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from uniemox.bench.all_reduce import all_reduce_gb_s
from uniemox.bench.data import bench_data
from uniemox.data.synthetic_scenes import synthetic
from uniemox.io.parallel import usable_cores
from uniemox.pretrain.presets import paper
from uniemox.training.hardware import MAX_WORKERS, SHARED_MEMORY, fast_precision
from uniemox.views.loader import PREFETCH

with suppress(ImportError):  # Windows
    import resource

State = Literal["ok", "warning", "not checked"]
Result = tuple[State, str, str]  # state, finding, advice
PACKAGES = ("timm", "open_clip_torch", "tensorboard", "onnxruntime", "scikit-learn")
# Training speed of one GPU, see docs/scaling.md.
GPU_IMAGES_PER_S = 1000
MIN_FILES = 4096
MIN_DISK_GB = 100
MIN_DISK_MB_S = 200
MIN_LINK_GB_S = 20
WRITTEN_MB = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    name: str
    state: State
    found: str
    remedy: str = ""  # advice; empty if nothing has to be done


def examine(gpus: int, folder: Path) -> Iterator[Finding]:
    """Check this machine for a run on a number of GPUs that writes to a folder; yield findings as they come.

    Takes about a minute. Never raises: a check that fails is a finding too.
    """
    checks: dict[str, Callable[[], Result]] = {
        "python and packages": _packages,
        "GPUs": lambda: _gpus(gpus),
        "bfloat16": _bfloat16,
        "torch.compile": _compile,
        "all-reduce": lambda: _all_reduce(gpus),
        "shared memory": lambda: _shared_memory(gpus),
        "open files": _open_files,
        "disk": lambda: _disk(folder),
        "loading": lambda: _loading(gpus),
    }
    for name, check in checks.items():
        try:
            yield Finding(name, *check())
        except Exception as error:  # noqa: BLE001 - any failure on this machine is a finding
            yield Finding(name, "warning", f"failed: {type(error).__name__}: {error}", "mend this before a long run")


def _verdict(observed: str, is_enough: bool, remedy: str) -> Result:
    if is_enough:
        return ("ok", observed, "")
    return ("warning", observed, remedy)


def _packages() -> Result:
    missing = [name for name in PACKAGES if not _version(name)]
    facts = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()} {platform.machine()}"
    is_enough = sys.version_info >= (3, 11) and not missing
    return _verdict(facts, is_enough, f"install uniemox[train] (missing: {missing})")


def _gpus(wanted: int) -> Result:
    if not torch.cuda.is_available():
        return "not checked", f"torch sees none (built for CUDA {torch.version.cuda})", "run it on a node"
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
    memory = min(torch.cuda.mem_get_info(i)[0] for i in range(count)) / 1e9
    facts = f"{count} of {wanted}: {', '.join(names)}, {memory:.0f} GB free, CUDA {torch.version.cuda}"
    return _verdict(facts, count >= wanted, "ask the scheduler for more, or look at CUDA_VISIBLE_DEVICES")


def _bfloat16() -> Result:
    if not torch.cuda.is_available():
        return "not checked", f"no GPU; the CPU is fast with {fast_precision('cpu')}", ""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "ok", "the GPU computes it", ""
    return "warning", "the GPU does not compute it", "give --hardware.precision float32"


def _compile() -> Result:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(64, 64, device=device)
    start = time.perf_counter()
    difference = (torch.compile(lambda y: torch.relu(y @ y) + 1)(x) - (torch.relu(x @ x) + 1)).abs().max()
    facts = f"a small function on {device} in {time.perf_counter() - start:.0f} s"
    if difference > 1e-2:
        return "warning", f"{facts}, off by {difference:.2g}", "give --hardware.no-compile"
    return "ok", facts, ""


def _all_reduce(gpus: int) -> Result:
    count = min(gpus, torch.cuda.device_count())
    if count < 2:
        return "not checked", "needs two GPUs", ""
    speed = all_reduce_gb_s(count, "nccl")
    facts = f"{speed:.1f} GB/s between {count} GPUs (NCCL {'.'.join(map(str, torch.cuda.nccl.version()))})"
    return _verdict(facts, speed >= MIN_LINK_GB_S, "NCCL_DEBUG=INFO shows which way it goes; NVLink reaches 100")


def _shared_memory(gpus: int) -> Result:
    if not SHARED_MEMORY.is_dir():
        return "not checked", f"there is no {SHARED_MEMORY}", ""
    config = paper()
    free = shutil.disk_usage(SHARED_MEMORY).free
    workers = max(1, min(MAX_WORKERS, usable_cores() // gpus))
    # Each worker prefetches batches of two views with three bytes a pixel.
    need = workers * PREFETCH * config.batch_size * 2 * 3 * config.view.size**2
    facts = f"{free / 1e9:.1f} GB free in {SHARED_MEMORY}; preset paper needs {need / 1e9:.1f} GB"
    return _verdict(facts, free >= need, f"docker run --shm-size={need // 10**9 + 2}g, or fewer --hardware.workers")


def _open_files() -> Result:
    if sys.platform == "win32":
        return "not checked", "this system has no such limit", ""
    # A limit of -1 means that there is none.
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = f"{limit} at most" if limit >= 0 else "no limit"
    return _verdict(facts, not 0 <= limit < MIN_FILES, f"ulimit -n {16 * MIN_FILES}")


def _disk(folder: Path) -> Result:
    directory = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(directory).free / 1e9
    block = os.urandom(2**20)
    file = directory / f".uniemox-doctor-{os.getpid()}"
    try:
        start = time.perf_counter()
        with file.open("wb") as written:
            for _ in range(WRITTEN_MB):
                written.write(block)
            written.flush()
            os.fsync(written.fileno())
        # The blocks are MiB, the speed is in MB/s.
        speed = WRITTEN_MB * 1.048576 / (time.perf_counter() - start)
    finally:
        file.unlink(missing_ok=True)
    facts = f"{free:,.0f} GB free in {directory}, written at {speed:,.0f} MB/s"
    is_enough = free >= MIN_DISK_GB and speed >= MIN_DISK_MB_S
    return _verdict(facts, is_enough, f"give an --out with {MIN_DISK_GB} GB and {MIN_DISK_MB_S} MB/s or more")


def _loading(gpus: int) -> Result:
    speeds = bench_data(synthetic(32), passes=1)
    cores = usable_cores()
    possible = speeds.shards_samples_per_s * cores
    wanted = gpus * GPU_IMAGES_PER_S
    facts = f"{speeds.shards_samples_per_s:,.0f} images/s a core from shards, {possible:,.0f} on {cores} cores"
    remedy = f"{gpus} GPUs may want {wanted:,}: ask for more cores, or expect GPUs to wait"
    return _verdict(facts, possible >= wanted, remedy)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
