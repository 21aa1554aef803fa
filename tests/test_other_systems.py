"""Commands of the core on systems that are not Linux, as far as Linux can show it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_POSIX = """
import builtins
import sys

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None

open_file = builtins.open


def open_without_proc(file, *args, **kwargs):
    if str(file).startswith("/proc/"):
        raise FileNotFoundError(file)
    return open_file(file, *args, **kwargs)


builtins.open = open_without_proc
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["predict", "photos/cat.jpg", "photos/rocket.jpg", "--json"], None),
        (["survey", "photos", "--out", "survey.html"], "survey.html"),
        (["search", "photos", "--emotion", "awe"], "photos/.uniemox/*.npz"),
        (["explain", "photos/cat.jpg", "--out", "why.png"], "why.png"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_core_runs_without_what_only_linux_and_macos_have(
    words: list[str], written: str | None, tmp_path: Path
) -> None:
    """Python for Windows lacks these modules, and only Linux has /proc; processes that decode images start the same."""
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "rocket.jpg"):
        shutil.copy(ROOT / "docs" / "images" / name, tmp_path / "photos" / name)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(WITHOUT_POSIX)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(blocked), str(ROOT)))}
    command = [sys.executable, "-c", "from uniemox.cli import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if written:
        [file] = tmp_path.glob(written)
        assert file.stat().st_size > 1000
    else:
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [max(answer["scene"], key=answer["scene"].get) for answer in answers] == ["contentment", "amusement"]
