"""Worker processes end with the process that started them."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drawn import sample_of
from uniemox.data.hashes import image_hashes
from uniemox.data.processes import CHUNK, map_batches
from uniemox.errors import DetectorError
from uniemox.io.parallel import PoolConfig

PARENT = """
import os, time
from uniemox.data.processes import worker_pool
pool = worker_pool(2)
pids = {pool.submit(os.getpid).result() for _ in range(20)}
pool.submit(time.sleep, 600)
print(*pids, flush=True)
time.sleep(600)
"""


def output_of(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.thorough
@pytest.mark.portable
def test_workers_start_by_fork_on_linux_unless_the_program_says_how() -> None:
    code = "import multiprocessing; {}; from uniemox.data.processes import worker_context as w, worker_pool; "
    code += "pool = worker_pool(1); print(w().get_start_method(), pool.submit(abs, -1).result())"
    default = "fork" if sys.platform == "linux" else multiprocessing.get_start_method()
    assert output_of(code.format("pass")) == [default, "1"]
    for method in multiprocessing.get_all_start_methods():
        assert output_of(code.format(f"multiprocessing.set_start_method('{method}')")) == [method, "1"]


@pytest.mark.portable
def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    began = time.monotonic()
    while any(is_there(worker) for worker in workers):
        assert time.monotonic() - began < 30, "a worker outlives its parent"
        time.sleep(0.05)


def _doubles() -> Callable[[int], int]:
    return lambda number: 2 * number


def _fails() -> Callable[[int], int]:
    raise DetectorError("no such detector")


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_answered_in_order_and_errors_are_raised(workers: int) -> None:
    pool = PoolConfig(workers=workers)
    assert list(map_batches(_doubles, range(50), pool)) == [2 * number for number in range(50)]
    assert list(map_batches(_doubles, [], pool)) == []
    with pytest.raises(DetectorError, match="no such detector"):
        list(map_batches(_fails, range(5), pool))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """One that nobody has waited for yet is gone all the same."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    assert image_hashes([]) == []
    assert image_hashes([sample_of(tmp_path)]) == [""]  # a folder
    (tmp_path / "a.jpg").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"")
    samples = [sample_of(tmp_path / name) for name in ("a.jpg", "none.jpg", "b.jpg", "a.jpg")]
    digest, empty = (hashlib.sha256(data).hexdigest() for data in (b"one", b""))
    reports: list[tuple[str, int, int | None]] = []
    assert image_hashes(samples, lambda *now: reports.append(now)) == [digest, "", empty, digest]
    assert reports[-1] == ("hashing images", 4, 4)


def test_many_images_are_hashed_by_several_processes_in_order(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    samples = [sample_of(tmp_path / f"{i % 7}.jpg") for i in range(3 * CHUNK + 5)]
    reports: list[tuple[str, int, int | None]] = []
    expected = [hashlib.sha256(bytes([i % 7])).hexdigest() for i in range(len(samples))]
    assert image_hashes(samples, lambda *now: reports.append(now)) == expected
    assert reports == sorted(reports)
    assert reports[-1] == ("hashing images", len(samples), len(samples))
