"""Training processes: how they start, communicate, and share a large model."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from uniemox.errors import ConfigError

T = TypeVar("T")

# A SLURM job takes one port of these, so that jobs on one machine do not meet each other.
PORTS = range(20_000, 40_000)
REQUIRED_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Launch:
    """Rank of this process, number of processes, and address at which the first process listens."""

    rank: int
    world_size: int
    address: str  # host name or IP address
    port: int


def is_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if torchrun started this process; torch then reads everything else from the environment."""
    return "TORCHELASTIC_RUN_ID" in environment


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that the environment describes; None for a single process.

    A batch script without srun is a single process, even if its job has more tasks. RANK and WORLD_SIZE need
    MASTER_ADDR and MASTER_PORT. In a SLURM step (srun) these default to the first machine of the node list and a port
    derived from the job's number.

    Raises:
        ConfigError: If variables are missing, are not numbers, or contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in REQUIRED_VARIABLES if not environment.get(name)]
        if missing and environment.get("WORLD_SIZE") != "1":
            raise ConfigError(
                f"{' and '.join(name for name in REQUIRED_VARIABLES if name not in missing)} are set, but not "
                f"{', '.join(missing)}; start the processes with torchrun or srun, or set all of "
                f"{', '.join(REQUIRED_VARIABLES)}"
            )
        rank = _number(environment, "RANK", "0")
        world_size = _number(environment, "WORLD_SIZE")
        address = environment.get("MASTER_ADDR", "")
        port = _number(environment, "MASTER_PORT", "0")
    elif "SLURM_STEP_NUM_TASKS" in environment:
        rank = _number(environment, "SLURM_PROCID")
        world_size = _number(environment, "SLURM_STEP_NUM_TASKS")
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
        address = environment.get("MASTER_ADDR") or first_node(nodes)
        # All processes of a step derive the same port; other steps of the job, and its neighbours, get others.
        number = 31 * _number(environment, "SLURM_JOB_ID", "0") + _number(environment, "SLURM_STEP_ID", "0")
        port = _number(environment, "MASTER_PORT", str(PORTS[number % len(PORTS)]))
    else:
        return None
    if not 0 <= rank < world_size:
        raise ConfigError(f"this is process {rank} of {world_size}; numbers begin at 0 and end before {world_size}")
    if world_size == 1:
        return None
    return Launch(rank, world_size, address, port)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if this process prints messages, also before the processes have joined."""
    if is_torchrun(environment):
        return environment.get("RANK", "0") == "0"
    launch = find_launch(environment)
    return launch is None or launch.rank == 0


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process on its machine."""
    default = "0"
    if "SLURM_STEP_NUM_TASKS" in environment:
        default = environment.get("SLURM_LOCALID", "0")
    return _number(environment, "LOCAL_RANK", default)


def local_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes of this launch on this machine, which share its cores and memory."""
    if "LOCAL_WORLD_SIZE" in environment:
        return max(_number(environment, "LOCAL_WORLD_SIZE"), 1)
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return 1
    # The value looks like "8(x2)" or "8,4".
    first = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return int(first[0]) if first else 1


def cores_of_process(usable: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of cores for this process and its loading processes, at least 1.

    Args:
        usable: Number of cores that this process may use.
        environment: Environment variables.
    """
    cores = usable // local_processes(environment)
    if "SLURM_STEP_NUM_TASKS" in environment:
        requested = environment.get("SLURM_CPUS_PER_TASK", "")
        if requested.isdecimal():
            cores = min(usable, int(requested))
    return max(cores, 1)


def is_bound(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if srun started this process, not torchrun: its GPUs may be its own (--gpus-per-task)."""
    return "SLURM_STEP_NUM_TASKS" in environment and "LOCAL_RANK" not in environment


def job_of(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of this process's job: --rdzv-id, or a new one per call with --standalone; or None."""
    # torchrun sets "none" if it has neither option.
    name = environment.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if torchrun or SLURM restarted the processes after one of them died."""
    launchers = ("TORCHELASTIC", "SLURM")
    return any(_number(environment, f"{launcher}_RESTART_COUNT", "0") > 0 for launcher in launchers)


def first_node(nodes: str) -> str:
    """Return the first machine of a list in SLURM's notation.

    Raises:
        ConfigError: If the list is empty.

    >>> first_node("gpu[03-07,11],cpu1"), first_node("tux-2"), first_node("r1,r2")
    ('gpu03', 'tux-2', 'r1')
    """
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise ConfigError(f"SLURM's list of machines is {nodes!r}; set MASTER_ADDR to the first one's address")
    return match[1] + (match[2] or "")


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name) or default
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}; expected a number from 0")
    return int(text)


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


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard a model over all processes, in place, one transformer block at a time.

    Each process then holds one part of every tensor, and gathers a block's weights to compute the block. Results are
    those of DistributedDataParallel, up to rounding. Every process must call the model.
    """
    # Losses change nothing in place, so the warning is harmless; tests compare with DistributedDataParallel.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world_size(),))
    for module in [part for part in model.modules() if isinstance(part, Block)]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Return True if the model is sharded."""
    return isinstance(model, FSDPModule)


def local_parameters(model: nn.Module) -> list[Tensor]:
    """Return the parameters; of sharded ones only the part on this process."""
    parameters = model.parameters()
    return [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in parameters]


def gather_shards(x: Tensor) -> Tensor:
    """Gather a tensor if it is sharded; all processes must call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def copy_to_host(value: Any) -> Any:
    """Copy the tensors in dicts and lists to the CPU of the first process, gathering sharded ones one at a time.

    All processes must call it; the others get None in place of tensors. So no GPU ever holds more than one whole
    tensor, even if the model is too large for it.
    """
    if isinstance(value, Tensor):
        gathered = gather_shards(value.detach())
        if rank() == 0:
            return gathered.to("cpu", copy=True)
        return None
    if isinstance(value, Mapping):
        return {key: copy_to_host(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copy_to_host(part) for part in value]
    return value


def shard_like(values: Mapping[Any, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """Shard whole tensors by name in the same way as the tensors of the same name in `like`."""
    return {name: _shard_value(value, like.get(name)) for name, value in values.items()}


def shard_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard an optimiser's state: whole tensors with the shape of their parameter are sharded like the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: _shard_value(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def _shard_value(value: Any, like: Any) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Every process has read the whole tensor, so none has to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
