"""Worker processes end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import os, time
from uniemox.data.processes import worker_pool
pool = worker_pool(2)
pids = {pool.submit(os.getpid).result() for _ in range(20)}
pool.submit(time.sleep, 600)
print(*pids, flush=True)
time.sleep(600)
"""


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
