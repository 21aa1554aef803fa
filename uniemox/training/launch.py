"""Launch of training processes by torchrun or SLURM, as their environment variables describe it; imports no torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from uniemox.errors import ConfigError

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
