"""Processes of a process, as Linux tells them."""

import time
from collections.abc import Callable
from pathlib import Path


def children_of(pid: int) -> set[int]:
    """Ids of the processes that it has started and that have not ended."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if int(words[1]) == pid and words[0] != "Z":
            found.add(int(status.parent.name))
    return found


def peak_mib(pid: int) -> float:
    """The most memory that a process has had."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def is_there(pid: int) -> bool:
    """Whether a process of that id runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(is_true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that is to happen soon; much time is for a machine that is busy."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)
