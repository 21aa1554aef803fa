"""A stranger's package adds a command, a reader and a method, without a line of ours changed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.drawn import class_folders
from tests.test_docs import DOCS, ROOT, write_package
from uniemox.cli.foreign import foreign_commands
from uniemox.io import plugins
from uniemox.io.plugins import plugins_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with the package of the how-to pages, as pip would install it, and images named after their labels."""
    for page in ("command", "reader"):
        write_package((DOCS / "extending" / f"{page}.md").read_text("utf-8"), tmp_path)
    method = (DOCS / "extending" / "method.md").read_text("utf-8")
    [code, *_] = re.findall(r"```python\n(.*?)```", method, re.DOTALL)
    (tmp_path / "mypackage" / "module.py").write_text(code)
    [short_name] = re.findall(r"```toml\n\[project.entry-points.*?\n(.*?)```", method, re.DOTALL)
    [installed] = tmp_path.glob("*.dist-info/entry_points.txt")
    installed.write_text(f"{installed.read_text()}[uniemox.methods]\n{short_name.replace(chr(34), '')}")
    images = tmp_path / "mine"
    images.mkdir()
    for path in class_folders(tmp_path / "classes", ("awe", "fear"), 12).rglob("*.*"):
        path.rename(images / f"{path.parent.name}-{path.name}".replace(path.suffix, ".jpg"))
    return tmp_path


def uniemox(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "COLUMNS": "200"}
    line = [sys.executable, "-m", "uniemox", *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.thorough
@pytest.mark.long
def test_the_package_adds_a_command_a_reader_and_a_method(folder: Path) -> None:
    done = uniemox(folder, "--help")
    assert re.search(r"mine\s+Print the images of a folder that evoke an emotion most", done.stdout)
    assert re.search(r"predict\s+Predict what", done.stdout)
    done = uniemox(folder, "mine", "mine", "--label", "fear")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^0\.\d{3} .*\.jpg$", done.stdout, re.MULTILINE)) == 5
    assert "Emotion to look for" in uniemox(folder, "mine", "--help").stdout
    data = ("--data", "mypackage.readers:open_mine:mine")
    small = ("--view.size", "32", "--batch-size", "8", "--schedule.epochs", "1", "--schedule.warmup-epochs", "0")
    network = ("--network.fused-width", "8", "--no-probe-first", "--hardware.device", "cpu", "--hardware.workers", "0")
    method = ("--method", "mine", "--init", "scratch:timm:test_vit")
    done = uniemox(folder, "finetune", *data, *method, *small, *network, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "model.onnx").is_file()


def test_a_command_that_cannot_be_imported_is_an_error_of_its_package(folder: Path) -> None:
    (folder / "mypackage" / "commands.py").write_text("import nowhere_to_be_found\n")
    done = uniemox(folder, "mine", "mine")
    assert done.returncode == 1
    message = " ".join(done.stderr.split())
    assert (
        "the command mine of the package mypackage can't be imported: No module named 'nowhere_to_be_found'" in message
    )
    # Other commands don't notice.
    assert uniemox(folder, "docs").returncode == 0
    assert "mine" in uniemox(folder, "--help").stdout


OURS = {"predict": "Predict what images make people feel", "reproduce": "Reproduce a table or figure of the paper"}
"""A command of the library, and one that a program adds as the package of a stranger does."""


def test_a_package_cannot_replace_a_command(folder: Path) -> None:
    [entry_points] = folder.glob("*.dist-info/entry_points.txt")
    entry_points.write_text("[uniemox.commands]\n" + "".join(f"{name} = mypackage.commands:mine\n" for name in OURS))
    for name, text in OURS.items():
        assert text in " ".join(uniemox(folder, name, "--help").stdout.split())


@pytest.mark.parametrize("is_first", [True, False])
def test_the_order_of_packages_decides_nothing(monkeypatch: pytest.MonkeyPatch, is_first: bool) -> None:
    """This holds for commands such as serve, and for methods such as solver."""
    ours, theirs = (
        SimpleNamespace(name="serve", value=f"{package}.cli:serve", dist=SimpleNamespace(name=package))
        for package in ("uniemox", "mypackage")
    )
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [theirs, ours] if is_first else [ours, theirs])
    assert plugins_of("uniemox.methods") == foreign_commands(()) == {"serve": ours}
