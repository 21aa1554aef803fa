"""Processes of torchrun, srun and plain variables; contradicting variables are refused."""

import multiprocessing
import os
from datetime import timedelta
from multiprocessing.connection import Connection

import pytest
import torch

from uniemox.errors import ConfigError
from uniemox.training import processes as distributed
from uniemox.training.launch import (
    Launch,
    cores_of_process,
    find_launch,
    first_node,
    is_bound,
    is_first,
    is_restart,
    job_of,
    local_processes,
    local_rank,
)
from uniemox.training.processes import process_group, rank, sum_over_processes, world_size

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
SLURM |= {"SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[03-04]"}
PLAIN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "9"}


def test_single_processes_have_no_launch() -> None:
    assert find_launch({}) is None
    assert find_launch({"WORLD_SIZE": "1"}) is None
    assert find_launch(PLAIN | {"WORLD_SIZE": "1", "RANK": "0"}) is None
    batch_script = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    # A batch script is one process, however many tasks its job has.
    assert find_launch(batch_script) is None
    assert find_launch(SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


def test_slurm_step_gives_rank_address_and_port() -> None:
    launch = find_launch(SLURM)
    assert launch == Launch(3, 4, "gpu03", 20_000 + 7 * 31)
    # Two steps of a job use different ports.
    assert find_launch(SLURM | {"SLURM_STEP_ID": "1"}) != launch
    assert find_launch(SLURM | {"MASTER_ADDR": "x", "MASTER_PORT": "1"}) == Launch(3, 4, "x", 1)
    assert (local_rank(SLURM), local_rank(SLURM | {"LOCAL_RANK": "0"}), local_rank({})) == (1, 0, 0)
    assert is_bound(SLURM)
    assert not is_bound({"LOCAL_RANK": "1"})


def test_only_rank_0_is_first() -> None:
    assert is_first({})
    assert [is_first(SLURM | {"SLURM_PROCID": str(number)}) for number in range(3)] == [True, False, False]
    assert [is_first({"TORCHELASTIC_RUN_ID": "x", "RANK": str(number)}) for number in range(2)] == [True, False]


def test_plain_variables_give_the_launch() -> None:
    assert find_launch(PLAIN) == Launch(1, 2, "a", 9)
    assert find_launch(PLAIN | SLURM) == Launch(1, 2, "a", 9)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE are set, but not MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0"}, "RANK are set, but not WORLD_SIZE"),
        (PLAIN | {"RANK": "2"}, "this is process 2 of 2"),
        (PLAIN | {"RANK": "one"}, "RANK is 'one'; expected a number"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
    ],
)
def test_contradicting_variables_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_launch(environment)


@pytest.mark.parametrize(
    ("environment", "processes", "cores"),
    [
        ({}, 1, 16),
        ({"LOCAL_WORLD_SIZE": "8"}, 8, 2),
        ({"LOCAL_WORLD_SIZE": "32"}, 32, 1),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}, 8, 2),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "12"}, 4, 12),
        # A batch script has this variable too.
        ({"SLURM_CPUS_PER_TASK": "12"}, 1, 16),
    ],
)
def test_processes_of_a_machine_share_its_cores(environment: dict[str, str], processes: int, cores: int) -> None:
    assert local_processes(environment) == processes
    assert cores_of_process(16, environment) == cores


def test_first_node_of_slurm_lists() -> None:
    assert [first_node(nodes) for nodes in ("n1", "n[1,3]", "n[001-128],m", "a-b,c")] == ["n1", "n1", "n001", "a-b"]


def test_missing_processes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "JOIN_WAIT", timedelta(seconds=1))
    for name in os.environ:
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    for name, value in {**PLAIN, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match=r"process 0 of 2 did not meet the others"),
        process_group(torch.device("cpu")),
    ):
        pass
    assert world_size() == 1


def sum_ranks(environment: dict[str, str], answer: Connection) -> None:
    """One of several processes, with nothing but these variables."""
    os.environ.clear()
    os.environ.update(environment)
    with process_group(torch.device("cpu")):
        answer.send((rank(), world_size(), sum_over_processes(torch.tensor(rank() + 1)).item()))


def test_two_tasks_of_srun_work_together() -> None:
    """srun starts the same command for both, with nothing but SLURM's variables."""
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    slurm |= {"SLURM_STEP_NODELIST": "localhost"}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "MASTER"))
    }
    context = multiprocessing.get_context("forkserver")
    answers = []
    for i in range(2):
        answer, end = context.Pipe(duplex=False)
        context.Process(target=sum_ranks, args=(environment | slurm | {"SLURM_PROCID": str(i)}, end)).start()
        end.close()
        answers.append(answer)
    assert all(answer.poll(120) for answer in answers)
    assert [answer.recv() for answer in answers] == [(0, 2, 3), (1, 2, 3)]


def test_job_names_and_restarts_are_detected() -> None:
    assert job_of({}) is None
    # torchrun sets this if the job has no name.
    assert job_of({"TORCHELASTIC_RUN_ID": "none"}) is None
    # One SLURM job may start several runs.
    assert job_of(SLURM) is None
    assert job_of({"TORCHELASTIC_RUN_ID": "x"} | SLURM) == "x"
    assert not is_restart({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": ""})
    assert is_restart({"TORCHELASTIC_RESTART_COUNT": "1"})
    assert is_restart({"SLURM_RESTART_COUNT": "2"})
