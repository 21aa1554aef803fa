"""What is built for others: a wheel and an sdist that pass twine's checks and hold what they need, and the pages."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.runs import uniemox_here

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_they_pass_the_index_s_checks(built: tuple[Path, Path]) -> None:
    check = pytest.importorskip("twine.commands.check")
    assert not check.check([str(path) for path in built], strict=True)


def test_the_wheel_holds_every_file_of_the_package_the_pages_and_the_licences(built: tuple[Path, Path]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "uniemox", "docs/**.md", "docs/*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("needs a clone")
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert {re.sub("^docs/", "uniemox/docs/", name) for name in tracked} <= set(names)
    licences = {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert not [name for name in names if name.split("/")[0] in ("tests", "tools", "docs")]
    assert "Project-URL" not in metadata


def test_the_sdist_holds_what_tests_and_a_build_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    needed = ("pyproject.toml", "README.md", "Makefile", "constraints.txt", "tools/wheel_docs.py", "docs/data.md")
    assert {*needed, "tests/test_package.py", "uniemox/predict/embedded/scene.onnx"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "build/"))]


def test_pages_are_shown_by_name() -> None:
    listed = uniemox_here("docs").stdout
    for path in (ROOT / "docs").rglob("*.md"):
        assert path.relative_to(ROOT / "docs").with_suffix("").as_posix() in listed
    shown = (ROOT / "docs" / "data.md").read_text()
    assert uniemox_here("docs", "data").stdout == uniemox_here("docs", "docs/data.md").stdout == shown
    wrong = uniemox_here("docs", "nothing")
    assert wrong.returncode == 1
    assert "there is no page 'nothing'; there are ask, " in wrong.stderr


def test_pages_that_help_and_messages_name_are_there() -> None:
    texts = "".join(path.read_text() for path in (ROOT / "uniemox").rglob("*.py"))
    named = set(re.findall(r"uniemox docs ([a-z/]+)", texts))
    assert {"data", "curate", "serve", "training"} <= named
    assert not [name for name in named if not (ROOT / "docs" / f"{name}.md").is_file()]
