"""Two processes never write one file of answers, or one sidecar."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.predict.answers import opened, prediction
from uniemox.data.sidecar import Sidecar, read_sidecar
from uniemox.errors import ConfigError, DataError
from uniemox.io.files import FileLock
from uniemox.predict.tables import read_lines

ANSWERS = "from tests.predict.answers import *; file = opened(Path({0!r})); file.write(prediction('a.jpg'))"
SIDECAR = "from uniemox.data.people import *; file = Sidecar(Path({0!r}), {{}}); file.append('a', {{}})"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no advisory locks")


def other_process(code: str, path: Path) -> "subprocess.Popen[str]":
    """A process that has written one line and keeps the file open."""
    program = f"{code.format(os.fspath(path))}; print('open', flush=True); input(); print('end')"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def open_answers(path: Path) -> Any:
    return opened(path, resume=True)


def open_sidecar(path: Path) -> Any:
    return Sidecar(path, {})


@pytest.mark.parametrize(("code", "reopen"), [(ANSWERS, open_answers), (SIDECAR, open_sidecar)])
def test_a_file_that_another_process_writes_is_refused_until_it_ends(
    tmp_path: Path, code: str, reopen: Callable[[Path], Any]
) -> None:
    path = tmp_path / "new" / "file.jsonl"
    process = other_process(code, path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"another process is writing .*file\.jsonl; wait until it ends"):
        reopen(path)
    assert path.read_bytes() == before
    process.kill()
    process.communicate()
    with reopen(path):
        assert (tmp_path / "new" / "file.jsonl.lock").exists()
    assert [file.name for file in path.parent.iterdir()] == ["file.jsonl"]


def test_lines_of_a_table_are_locked_too(tmp_path: Path) -> None:
    with opened(tmp_path / "a.csv"), pytest.raises(ConfigError, match="another process"):
        opened(tmp_path / "a.csv", resume=True)


def test_runs_that_start_together_write_each_answer_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    code = (
        "import sys, time\nfrom tests.predict.answers import *\n"
        f"sys.stdin.read()\nwith ResultFile(Path({os.fspath(path)!r}), resume=True, answered=ANSWERED) as file:\n"
        "  for i in range(100):\n"
        "    if not file.has(str(i)): file.write(prediction(str(i), faces=FACES)); time.sleep(0.01)\n"
    )
    together = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in together:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    errors = [process.communicate()[1] for process in together]
    assert sum(process.returncode == 0 for process in together) >= 1
    assert all(not error or b"another process is writing" in error for error in errors)
    assert sorted(line["path"] for line in read_lines(path)) == sorted(map(str, range(100)))


def test_a_file_that_is_refused_for_another_reason_is_not_locked(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with opened(path) as file:
        file.write(prediction("a.jpg"))
    with pytest.raises(ConfigError, match="is there already"):
        opened(path)
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]
    with Sidecar(tmp_path / "s.jsonl", {"how": 1}):
        pass
    with pytest.raises(DataError, match="with other settings"):
        Sidecar(tmp_path / "s.jsonl", {"how": 2})
    assert read_sidecar(tmp_path / "s.jsonl")[0] == {"how": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.jsonl", "s.jsonl"]


def test_lock_waits_a_moment_for_the_processes_of_a_killed_run(tmp_path: Path) -> None:
    """Forked loading processes share the lock, and end shortly after the run."""
    before = FileLock(tmp_path / "file.jsonl")
    released = threading.Event()

    def release() -> None:
        released.set()
        before.release()

    ends = threading.Timer(0.2, release)
    ends.start()
    FileLock(tmp_path / "file.jsonl").release()
    assert released.is_set()
    ends.join()
