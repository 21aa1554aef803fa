"""Commands, library, server and curation in an empty home: no unrequested file and no connection."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.drawn import draw_image
from tests.runs import pretrain_words, pretrained

ROOT = Path(__file__).parents[1]
STRACE = shutil.which("strace")
CALLS = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,connect,bind,sendto"
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|^\d+ +(creat|mkdir|rename|link|symlink)")
LOOPBACK = ("127.0.0.1", "::1")
KNOWN = ("cwd/", "home/.cache/matplotlib", "home/.config/matplotlib")
MAIN = [sys.executable, "-m", "uniemox"]
PREDICT = """
import uniemox
print(uniemox.load().predict("a.png").kind)
"""
SERVE = """
import uniemox
from tests.serve.serving import running
with running([uniemox.load()]) as server:
    assert server.post("/predict", open("a.png", "rb").read()).status == 200
"""
CURATE = """
import urllib.request
from pathlib import Path
from tests.curate.places import project_of, say, served
from uniemox_curate.annotate.agree import agree
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.cli.curate import curate
from uniemox_curate.annotate.verdicts import verdicts
project = project_of(Path("p"), ["awe", "fear"] * 6, looks=True)
say(project, Ada="af" * 6, Ben="af" * 6)
agree(project)
split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=1)
release(project, Path("out"), ReleaseConfig(name="Tiny"))
curate(["status", "p", "--html", "status.html"], exit_on_error=False, result_action="return_none")
with served(project) as address:
    urllib.request.urlopen(f"{address}/join").read()
"""


@dataclass
class Traces:
    """Files that a process left, and its writes and connections if strace is available."""

    home: list[str]
    temporary: list[str]
    written: list[str]
    """Paths outside of its own folder, which contains its home, its temporary files and its working folder."""
    addresses: list[str]
    """Connections to other machines, or to a name server."""


def run_traced(folder: Path, *command: object) -> Traces:
    """Run a command with an empty home, an empty folder for temporary files, and without any settings."""
    # A short path: pytest's own becomes longer with every run.
    with tempfile.TemporaryDirectory(prefix="uniemox-") as temporary:
        return _run_traced(folder, Path(temporary), *command)


def _run_traced(folder: Path, temporary: Path, *command: object) -> Traces:
    for name in ("home", "cwd"):
        (folder / name).mkdir()
    draw_image(1).save(folder / "cwd" / "a.png")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    trace = folder / "trace.txt"
    strace = [STRACE, "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", trace] if STRACE else []
    words = [str(word) for word in (*strace, *command)]
    done = subprocess.run(
        words, cwd=folder / "cwd", env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in trace.read_text().splitlines() if " = -1 E" not in line] if STRACE else []
    allowed = (str(temporary), *(f"{folder}/{name}" for name in KNOWN))
    return Traces(
        home=sorted(str(path.relative_to(folder / "home")) for path in (folder / "home").rglob("*") if path.is_file()),
        temporary=sorted(path.name for path in temporary.iterdir()),
        written=[
            path for path in written_in(lines, folder / "cwd") if not path.startswith((*allowed, "/dev/", "/proc/"))
        ],
        addresses=[line for line in lines if is_elsewhere(line)],
    )


def written_in(lines: list[str], folder: Path) -> list[str]:
    """Return the absolute paths that lines of strace create or open for writing."""
    paths = []
    for line in lines:
        path = re.search(r'(?:<([^>]*)>, )?"([^"]*)"', line)
        if path and WRITES.search(line):
            paths.append(os.path.normpath(folder / (path[1] or "") / path[2]))
    return paths


def is_elsewhere(line: str) -> bool:
    """Return True if a line of strace names another machine, or a name server at any address."""
    address = re.search(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]*)"', line)
    return address is not None and (address[2] not in LOOPBACK or address[1] == "53")


@pytest.mark.parametrize(
    ("lines", "path", "elsewhere"),
    [
        ('7 openat(AT_FDCWD</w/cwd>, "run/a", O_WRONLY|O_CREAT, 0666) = 3', "/w/cwd/run/a", False),
        ('7 openat(6</w/h/.cache>, "id.tmp", O_WRONLY|O_CREAT <unfinished ...>', "/w/h/.cache/id.tmp", False),
        ('7 openat(AT_FDCWD</w/cwd>, "/usr/lib/hyperlink.py", O_RDONLY) = 3', "", False),
        ('7 mkdir("/w/h/.cache", 0777) = 0', "/w/h/.cache", False),
        ('7 connect(3<x>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("9.9.9.9")}, 16) = 0', "", True),
        ('7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', "", True),
        ('7 bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', "", False),
        ('7 bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")}, 16) = 0', "", True),
    ],
)
def test_lines_of_strace_are_parsed(lines: str, path: str, elsewhere: bool) -> None:
    assert written_in([lines], Path("/w/cwd")) == ([path] if path else [])
    assert is_elsewhere(lines) == elsewhere


@pytest.mark.thorough
@pytest.mark.portable
@pytest.mark.parametrize("name", ["predict", "library", "explain", "serve", "curate", "pretrain", "finetune"])
def test_commands_leave_no_files_and_open_no_connections(name: str, tmp_path: Path) -> None:
    small = ("--method", "knn", "--view.size", 32, "--hardware.device", "cpu", "--hardware.workers", 1)
    commands = {
        "predict": lambda: [*MAIN, "predict", "a.png", "--json"],
        "library": lambda: [sys.executable, "-c", PREDICT],
        "explain": lambda: [*MAIN, "explain", "a.png", "--out", "maps"],
        "serve": lambda: [sys.executable, "-c", SERVE],
        "curate": lambda: [sys.executable, "-c", CURATE],
        "pretrain": lambda: [*MAIN, *pretrain_words(tmp_path / "cwd" / "run", hardware__workers=1)],
        "finetune": lambda: [
            *MAIN,
            "finetune",
            "--init",
            pretrained(),
            "--data",
            "synthetic:64",
            "--out",
            "run",
            *small,
        ],
    }
    traces = run_traced(tmp_path, *commands[name]())
    assert traces.addresses == []
    assert traces.written == []
    assert [path for path in traces.home if not path.startswith((".cache/matplotlib/", ".config/matplotlib/"))] == []
    assert [path for path in traces.temporary if not path.startswith("torchinductor_")] == []  # torch makes it, empty
    assert bool(traces.home) <= (name == "curate")


@pytest.mark.skipif(STRACE is None, reason="needs strace (apt-get install strace) to see files and connections")
def test_files_and_connections_are_detected(tmp_path: Path) -> None:
    """A program that writes to its home and sends a packet is detected."""
    code = (
        "import pathlib, socket; pathlib.Path.home().joinpath('id').write_text('x');"
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 53))"  # goes nowhere, as a question for a name
    )
    traces = run_traced(tmp_path, sys.executable, "-c", code)
    assert traces.home == ["id"]
    assert traces.written == [str(tmp_path / "home" / "id")]
    assert len(traces.addresses) == 1
