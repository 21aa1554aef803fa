"""Commands, library, server and curation in an empty home: no file and no connection that nobody asked for."""

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
from uniemox.curate.annotate.agree import agree
from uniemox.curate.release.config import ReleaseConfig
from uniemox.curate.release.run import release
from uniemox.curate.release.splitting import split
from uniemox.cli.curate import curate
from uniemox.curate.annotate.verdicts import verdicts
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
class Left:
    """What a process left, and what it did where strace can tell."""

    home: list[str]
    temporary: list[str]
    written: list[str]
    """Outside of its own folder, which holds its home, its temporary files and its working folder."""
    addresses: list[str]
    """Other machines, or a name server."""


def traced(folder: Path, *command: object) -> Left:
    """Run a command with a home and a folder for temporary files that are empty, and without anybody's settings."""
    with tempfile.TemporaryDirectory(prefix="uniemox-") as temporary:  # short: pytest's own grows with every run
        return _traced(folder, Path(temporary), *command)


def _traced(folder: Path, temporary: Path, *command: object) -> Left:
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
    if STRACE:
        watched = [STRACE, "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", trace]
    else:
        watched = []
    words = [str(word) for word in (*watched, *command)]
    done = subprocess.run(
        words, cwd=folder / "cwd", env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    if STRACE:
        lines = [line for line in trace.read_text().splitlines() if " = -1 E" not in line]
    else:
        lines = []
    own = (str(temporary), *(f"{folder}/{name}" for name in KNOWN))
    return Left(
        home=sorted(str(path.relative_to(folder / "home")) for path in (folder / "home").rglob("*") if path.is_file()),
        temporary=sorted(path.name for path in temporary.iterdir()),
        written=[path for path in written_in(lines, folder / "cwd") if not path.startswith((*own, "/dev/", "/proc/"))],
        addresses=[line for line in lines if is_elsewhere(line)],
    )


def written_in(lines: list[str], folder: Path) -> list[str]:
    """Absolute paths that lines of strace make or open for writing."""
    found = []
    for line in lines:
        path = re.search(r'(?:<([^>]*)>, )?"([^"]*)"', line)
        if path and WRITES.search(line):
            found.append(os.path.normpath(folder / (path[1] or "") / path[2]))
    return found


def is_elsewhere(line: str) -> bool:
    """Whether a line of strace is about another machine, or about a name server, wherever it listens."""
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
def test_what_strace_says_is_understood(lines: str, path: str, elsewhere: bool) -> None:
    assert written_in([lines], Path("/w/cwd")) == ([path] if path else [])
    assert is_elsewhere(lines) == elsewhere


@pytest.mark.portable
@pytest.mark.parametrize("name", ["predict", "library", "explain", "serve", "curate", "pretrain", "finetune"])
def test_nothing_is_left_and_nobody_is_called(name: str, tmp_path: Path) -> None:
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
    left = traced(tmp_path, *commands[name]())
    assert left.addresses == []
    assert left.written == []
    assert [path for path in left.home if not path.startswith((".cache/matplotlib/", ".config/matplotlib/"))] == []
    assert [path for path in left.temporary if not path.startswith("torchinductor_")] == []  # torch makes it, empty
    assert bool(left.home) <= (name == "curate")


@pytest.mark.skipif(STRACE is None, reason="needs strace (apt-get install strace) to see files and connections")
def test_files_and_connections_are_watched(tmp_path: Path) -> None:
    """What the other tests assert is empty is not so for a program that does what it should not."""
    code = (
        "import pathlib, socket; pathlib.Path.home().joinpath('id').write_text('x');"
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 53))"  # goes nowhere, as a question for a name
    )
    left = traced(tmp_path, sys.executable, "-c", code)
    assert left.home == ["id"]
    assert left.written == [str(tmp_path / "home" / "id")]
    assert len(left.addresses) == 1
