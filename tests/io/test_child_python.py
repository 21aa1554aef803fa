"""Python processes of ours import nothing from the working folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from uniemox.io.child_python import safe_environment


@pytest.mark.parametrize("name", ["json.py", "uniemox.py"])
def test_modules_in_the_working_folder_are_not_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("raise SystemExit('a module of a stranger ran')")
    # The process of a process, as those of torchrun.
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'uniemox', '--version'], check=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=safe_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
