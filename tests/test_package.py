"""The wheel and the sdist: twine's checks and their content; and the pages of the documentation."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import onnx
import pytest

from tests.runs import uniemox_here
from uniemox.io.weight_names import EMBEDDED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, which is built from the sdist, and the sdist."""
    pytest.importorskip("hatchling")
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    [sdist] = folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.thorough
def test_distributions_pass_twine_check(built: tuple[Path, Path]) -> None:
    check = pytest.importorskip("twine.commands.check")
    assert not check.check([str(path) for path in built], strict=True)


def test_wheel_contains_package_pages_and_licences(built: tuple[Path, Path]) -> None:
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


def test_sdist_contains_the_files_for_tests_and_builds(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    needed = ("pyproject.toml", "README.md", "Makefile", "constraints.txt", "tools/wheel_docs.py", "docs/data.md")
    assert {*needed, "tests/test_package.py", "uniemox/predict/embedded/scene.onnx"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "build/"))]


def test_model_card_has_the_hash_of_every_model() -> None:
    card = (EMBEDDED / "MODEL_CARD.md").read_text()
    rows = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in EMBEDDED.glob("*.onnx")}
    assert len(rows) == 5
    assert dict(re.findall(r"^\| `(\w+\.onnx)` \| `([0-9a-f]{64})` \|$", card, re.MULTILINE)) == rows


@pytest.mark.thorough
@pytest.mark.long
def test_installed_wheel_runs_the_first_page_of_the_docs(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The wheel is installed in its own environment, with the dependencies of this one; extras can be added."""
    venv.create(tmp_path / "venv", with_pip=False)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--no-index"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_FIND_LINKS")}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*pip, "--no-deps", str(built[0]))
    [packages] = (tmp_path / "venv").rglob("site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    assert run(str(programs / "python"), "-c", "import uniemox; print(uniemox.__file__)").startswith(str(packages))
    shutil.copy(ROOT / "docs" / "images" / "cat.jpg", tmp_path / "photo.jpg")
    page = (ROOT / "docs" / "index.md").read_text("utf-8")
    install, *commands = re.findall(r"^\$ ([^#\n]+)", page, re.MULTILINE)
    assert (install.strip(), len(commands)) == ("pip install .", 1)
    assert "contentment" in run(str(programs / commands[0].split()[0]), *commands[0].split()[1:])
    assert "already satisfied: uniemox[serve]" in run(*pip, "uniemox[serve]")


def test_pages_and_messages_have_the_same_install_commands() -> None:
    """The commands are pip install . in a clone, as no index has uniemox, and uniemox[EXTRA] with an existing extra."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    pages += [path for ending in ("py", "md") for path in (ROOT / "uniemox").rglob(f"*.{ending}")]
    count = 0
    for path in pages:
        for package in re.findall(r"pip install ('[^']*'|[^\s`'\"]+)", path.read_text("utf-8")):
            match = re.fullmatch(r"'uniemox\[([a-z,]+|{extra})\]'", package)
            assert match or not re.search(r"uniemox|\.\[", package), f"{path}: pip install {package}"
            assert not match or set(match[1].split(",")) <= extras | {"{extra}"}, f"{path}: pip install {package}"
            count += bool(match)
    assert count > 20
    for name in ("README.md", "docs/index.md", "docs/tutorials/predict.md"):
        assert re.search(r"pip install \.[\s`]", (ROOT / name).read_text("utf-8")), name
    for path in (ROOT / "docs" / "tutorials").glob("*.md"):
        text = path.read_text("utf-8")
        assert "'uniemox[" not in text or "[uniemox](../index.md)" in text, path


def test_docs_command_prints_pages_by_name() -> None:
    listed = uniemox_here("docs").stdout
    for path in (ROOT / "docs").rglob("*.md"):
        assert path.relative_to(ROOT / "docs").with_suffix("").as_posix() in listed
    page = (ROOT / "docs" / "data.md").read_text()
    assert uniemox_here("docs", "data").stdout == uniemox_here("docs", "docs/data.md").stdout == page
    unknown_page = uniemox_here("docs", "zebras")
    assert unknown_page.returncode == 1
    assert "there is no page 'zebras', and no page contains it; there are alternatives, ask, " in unknown_page.stderr


def test_docs_command_searches_for_words() -> None:
    found = uniemox_here("docs", "bounding BOX").stdout.splitlines()
    assert all("bounding box" in line.lower() for line in found)
    many = uniemox_here("docs", "image")
    assert len(many.stdout.splitlines()) == 40
    assert "more lines" in many.stderr


def test_pages_named_in_help_and_messages_exist() -> None:
    texts = "".join(path.read_text() for folder in ROOT.glob("uniemox*") for path in folder.rglob("*.py"))
    named = set(re.findall(r"uniemox docs ([a-z/]+)", texts))
    assert {"data", "curate", "serve", "training"} <= named
    assert not [name for name in named if not (ROOT / "docs" / f"{name}.md").is_file()]


def test_models_of_the_package_contain_no_paths() -> None:
    models = sorted((ROOT / "uniemox/predict/embedded").glob("*.onnx"))
    assert len(models) == 5
    for path in models:
        properties = onnx.load(path).metadata_props
        trained_on = [json.loads(item.value).get("trained_on", "") for item in properties if item.key == "uniemox"]
        assert not any("/" in str(name) for name in trained_on), path
        assert b"shared/" not in path.read_bytes()
