"""Which processes train together: those that torchrun, srun, or whoever sets RANK and WORLD_SIZE has started."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from uniemox.errors import ConfigError

PORTS = range(20_000, 40_000)  # of jobs of SLURM, each with its own
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Launch:
    """What one process knows of the others."""

    rank: int
    world_size: int
    address: str
    """Host name or IP address of the first process."""
    port: int


def is_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process; it tells torch all else."""
    return "TORCHELASTIC_RUN_ID" in environment


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """The launch that the environment tells of; None for a process that is alone.

    RANK and WORLD_SIZE come with MASTER_ADDR and MASTER_PORT. Of a step of SLURM (srun) with several tasks the first
    machine of its list and a port made of its number are taken where MASTER_ADDR and MASTER_PORT don't say others. A
    batch script of several tasks that calls us without srun is one process, and alone.
    Raises ConfigError for a part of the variables, or values that contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in NEEDED if not environment.get(name)]
        if missing and environment.get("WORLD_SIZE") != "1":
            raise ConfigError(
                f"{' and '.join(name for name in NEEDED if name not in missing)} are set, but not "
                f"{', '.join(missing)}; start the processes with torchrun or srun, or set all of {', '.join(NEEDED)}"
            )
        rank, world_size = _number(environment, "RANK", "0"), _number(environment, "WORLD_SIZE")
        address, port = environment.get("MASTER_ADDR", ""), _number(environment, "MASTER_PORT", "0")
    elif "SLURM_STEP_NUM_TASKS" in environment:
        rank, world_size = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
        address = environment.get("MASTER_ADDR") or first_node(nodes)
        number = 31 * _number(environment, "SLURM_JOB_ID", "0") + _number(environment, "SLURM_STEP_ID", "0")
        port = _number(environment, "MASTER_PORT", str(PORTS[number % len(PORTS)]))
    else:
        return None
    if not 0 <= rank < world_size:
        raise ConfigError(f"this is process {rank} of {world_size}; numbers begin at 0 and end before {world_size}")
    return None if world_size == 1 else Launch(rank, world_size, address, port)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that speaks, also before and after the processes are together."""
    if is_torchrun(environment):
        return environment.get("RANK", "0") == "0"
    launch = find_launch(environment)
    return launch is None or launch.rank == 0


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process on its machine."""
    default = environment.get("SLURM_LOCALID", "0") if "SLURM_STEP_NUM_TASKS" in environment else "0"
    return _number(environment, "LOCAL_RANK", default)


def local_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Processes of this launch on this machine, which share its cores and memory; 1 for one that is alone."""
    if "LOCAL_WORLD_SIZE" in environment:
        return max(_number(environment, "LOCAL_WORLD_SIZE"), 1)
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return 1
    first = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))  # of "8(x2)" or "8,4"
    return int(first[0]) if first else 1


def cores_of_process(usable: int, environment: Mapping[str, str] = os.environ) -> int:
    """Cores for this process and those that load for it, at least 1.  usable: cores that it may use."""
    own = environment.get("SLURM_CPUS_PER_TASK", "") if "SLURM_STEP_NUM_TASKS" in environment else ""
    return max(min(usable, int(own)) if own.isdecimal() else usable // local_processes(environment), 1)


def is_bound(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM shows each process GPUs of its own (srun --gpus-per-task), so that each counts from 0."""
    return "SLURM_STEP_NUM_TASKS" in environment and "LOCAL_RANK" not in environment


def job_of(environment: Mapping[str, str] = os.environ) -> str | None:
    """What torchrun calls the job that this process is of; None where nobody named it.

    That is --rdzv-id, or a new name for each call with --standalone; "none" is what it says without either.
    """
    name = environment.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM has started the processes again after one of them died."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(_number(environment, name, "0") > 0 for name in counts)


def first_node(nodes: str) -> str:
    """The first machine of a list as SLURM writes it. Raises ConfigError for an empty one.

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
