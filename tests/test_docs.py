"""The documentation: the site builds strictly, its tutorials run as they stand, and it names every public name."""

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

import pytest

import uniemox
from tests.conftest import CHROMIUM
from tests.runs import uniemox as uniemox_command
from tests.runs import uniemox_here
from tools.site_pages import PAGES, relink
from uniemox.cli.docs import docs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
EXTENSIONS = sorted((DOCS / "extending").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site, without a warning: mkdocs.yml is strict, which --quiet would turn off.

    It is built without the packages of training, which the extra docs does not bring.
    """
    folder = tmp_path_factory.mktemp("site")
    blocked = tmp_path_factory.mktemp("blocked")
    (blocked / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'torchvision', 'timm', 'scipy', 'sklearn', 'matplotlib', 'fastapi'):\n"
        "    sys.modules[name] = None\n"
    )
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(blocked)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class LinksAndAnchors(HTMLParser):
    """Links and names of the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values["id"] or ""} if "id" in values else set()
        self.links += [values[name] or "" for name in ("href", "src") if name in values]


@pytest.mark.thorough
def test_every_link_of_the_site_leads_to_a_file_and_a_heading(site: Path) -> None:
    pages = {path: LinksAndAnchors(path.read_text("utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    for page, content in pages.items():
        for link in content.links:
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            if target in pages and parts.fragment and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.relative_to(site)}: {link}"


def test_extend_section_has_every_how_to_page_about_extending() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    section = text.partition("  - Extend:\n")[2].partition("\n  - ")[0]
    assert sorted(re.findall(r"extending/(\w+)\.md", section)) == [page.stem for page in EXTENSIONS]
    assert text.count("extending/") == len(EXTENSIONS)


def test_site_has_readme_model_card_changelog_and_licence(site: Path) -> None:
    for source, page in PAGES.items():
        html = (site / page).with_suffix(".html").read_text("utf-8")
        text = (ROOT / source).read_text("utf-8")
        last_words = re.findall(r"[A-Za-z]{4,} [a-z]{2,} [a-z]{2,}", text)[-1]
        assert last_words in html, source
    assert 'href="project/model-card.html"' in (site / "faq.html").read_text("utf-8")
    assert not (DOCS / "project").exists()


def test_links_between_files_of_the_repository_become_links_between_pages() -> None:
    text = "[a](docs/data.md#splits) ![b](docs/images/cat.jpg) [c](LICENSE) [d](https://a.org/x.md) [e](tests/x.py)"
    assert relink(text, "README.md", "project/readme.md") == (
        "[a](../data.md#splits) ![b](../images/cat.jpg) [c](licence.md) [d](https://a.org/x.md) [e](tests/x.py)"
    )
    assert relink("[f](../../README.md), [g](../data.md)", "docs/tutorials/x.md", "tutorials/x.md") == (
        "[f](../project/readme.md), [g](../data.md)"
    )


def test_make_docs_installs_only_the_extra_docs() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    words = ["make", "--dry-run", "--assume-new", "pyproject.toml", "docs", "PYTHON=python3"]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    [install] = [line for line in lines if "pip install" in line]
    assert install.endswith("'.[docs]'")
    assert not [line for line in lines if ".venv/" in line]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "word",
    ["GPU", "offline", "commercial", "windows", "macOS", "docker", "cite", "delete", "label", "accuracy", "exciting"],
)
def test_docs_command_finds_the_answer_to_a_question(word: str) -> None:
    lines = uniemox_here("docs", word).stdout.splitlines()
    assert [line for line in lines if line.startswith("faq: ## ")], lines


def test_docs_command_opens_a_page_without_its_folder() -> None:
    assert uniemox_here("docs", "classifier").stdout == uniemox_here("docs", "tutorials/classifier").stdout


def test_docs_command_shows_signatures_and_docstrings_in_the_reference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    docs("reference")
    text = capsys.readouterr().out
    assert ":::" not in text
    assert "options: {" not in text
    directives = re.findall(r"^::: ([\w.]+)", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE)
    sections = dict(re.findall(r"^### (\S+)\n\n````python\n(.*?)````$", text, re.MULTILINE | re.DOTALL))
    assert len(sections) == len(directives)
    for name, section in sections.items():
        assert '"""' in section, name
        ast.parse(section)
    for name in uniemox.__all__:
        assert f"uniemox.{name}" in sections or f"class {name}(" in sections["uniemox.errors"], name
    assert "images: Iterable[ImageLike], *, coverage: float | None = None" in sections["uniemox.Predictor"]
    assert "def fingerprint" not in sections["uniemox.Predictor"]
    assert "Probability by label, with sum 1" in sections["uniemox.Prediction"]
    assert "class ImageError(UniemoxError)" in sections["uniemox.errors"]
    assert "return list(" not in sections["uniemox.search"]
    assert "noqa" not in text
    # What is shown is also found.
    docs("label_pairs")
    assert "reference: label_pairs: " in capsys.readouterr().out


def test_pages_are_built_and_load_nothing_from_other_sites(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        html = (site / page.relative_to(DOCS).with_suffix(".html")).read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', html)
        assert not loaded, page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    html = (site / "reference.html").read_text("utf-8")
    for name in uniemox.__all__:
        assert f".{name}<" in html or f">{name}<" in html, name


def test_types_that_functions_of_the_reference_take_and_return_are_in_it() -> None:
    shown = {
        match["name"]: None if match["members"] is None else re.findall(r"\w+", match["members"])
        for match in re.finditer(
            r"^::: (?P<name>[\w.]+)(?:\n +options: \{ members: \[(?P<members>.*)\] \})?",
            (DOCS / "reference.md").read_text("utf-8"),
            re.MULTILINE,
        )
    }
    missing = {}
    for name, members in shown.items():
        module_name, _, own_name = name.rpartition(".")
        if (ROOT / module_name.replace(".", "/")).with_suffix(".py").is_file():
            for annotation in annotations_of(module_name, own_name, members):
                for type_name in types_in(annotation, module_name):
                    if type_name not in shown and type_name.rpartition(".")[0] not in shown:
                        missing[type_name] = name
    assert not missing


@cache
def syntax_of(module_name: str) -> ast.Module:
    return ast.parse(Path(str(import_module(module_name).__file__)).read_text("utf-8"))


@cache
def imports_of(module_name: str) -> dict[str, tuple[str, str]]:
    """Return module and name of what a module imports from the package, also for type checkers alone, by its name."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(syntax_of(module_name))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("uniemox")
        for alias in node.names
    }


def annotations_of(module_name: str, name: str, members: list[str] | None) -> Iterator[ast.expr]:
    """Yield the annotations of a function, or of the public fields and methods of a class.

    Args:
        module_name: Module of the function or class.
        name: Its name.
        members: Names of the shown members of a class; None: all that are public.
    """
    for node in syntax_of(module_name).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield from annotations_of_function(node)
        if not (isinstance(node, ast.ClassDef) and node.name == name):
            continue
        for member in node.body:
            if isinstance(member, ast.AnnAssign):
                member_name = ast.unparse(member.target)
            else:
                member_name = getattr(member, "name", "_")
            if member_name.startswith("_") or (members is not None and member_name not in members):
                continue
            if isinstance(member, ast.FunctionDef):
                yield from annotations_of_function(member)
            elif isinstance(member, ast.AnnAssign):
                yield member.annotation


def annotations_of_function(node: ast.FunctionDef) -> Iterator[ast.expr]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    annotations = [argument.annotation for argument in arguments if argument is not None] + [node.returns]
    yield from (annotation for annotation in annotations if annotation is not None)


def types_in(annotation: ast.expr, module_name: str) -> Iterator[str]:
    """Yield the import paths of the package's classes in an annotation, also of those in a union with a name."""
    module = import_module(module_name)
    imports = imports_of(module_name)
    words = re.findall(r"\w+", re.sub(r"Literal\[.*?\]", "", ast.unparse(annotation)))
    for word in words:
        value = getattr(module, word, None)
        if word in imports:
            source, name = imports[word]
            value = getattr(import_module(source), name)
        for kind in (value, *get_args(value)):
            if inspect.isclass(kind) and kind.__module__.startswith("uniemox"):
                yield f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.browser
def test_search_finds_pages(site: Path) -> None:
    from playwright.sync_api import TimeoutError, sync_playwright

    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        field = page.locator(".md-search__input")
        result = page.locator(".md-search-result__item").first
        # Input before the page's script listens is lost, so it is typed again.
        for _ in range(12):
            field.fill("")
            field.press_sequentially("histogram")
            with suppress(TimeoutError):
                result.wait_for(timeout=5_000)
                break
        assert result.is_visible()
        browser.close()
        server.shutdown()


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Console and Python blocks run; blocks marked sh need the network, or people.

    Probes are fitted on one network of the embedded model instead of three, which takes a third of the time.
    """
    shutil.copytree(DOCS / "images", tmp_path / "photos", ignore=lambda _, names: [n for n in names if ".jpg" not in n])
    text = page.read_text("utf-8").replace("--method probe", "--method probe --init small")
    lines = [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert lines or blocks
    for line in lines:
        command, _, file = line.partition(" > ")
        program, *words = shlex.split(command)
        assert program == "uniemox"
        done = uniemox_command(*words, folder=tmp_path)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
        if file:
            (tmp_path / file).write_text(done.stdout)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})


def test_predictions_become_tasks_of_label_studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other half of the block needs FiftyOne, which includes a database and is not installed here."""
    [block] = re.findall(r"```python\n(import json\n.*?)```", (DOCS / "predict.md").read_text("utf-8"), re.DOTALL)
    lines = [{"path": "a.jpg", "scene": {"awe": 0.7, "fear": 0.3}}, {"path": "b.jpg", "error": "b.jpg: cut off"}]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    first, _, fiftyone_block = block.partition("import fiftyone as fo")
    exec(first, {})
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    [prediction] = task["predictions"]
    assert prediction["score"] == 0.7
    assert prediction["result"][0]["value"] == {"choices": ["awe"]}
    compile(fiftyone_block.partition("\n")[2], "predict.md", "exec")


def write_package(page: str, folder: Path) -> None:
    """Write the blocks with a title as files, and what pip would install for a pyproject.toml among them."""
    for name, block in re.findall(r'```\w+ title="(.+?)"\n(.*?)```', page, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block, "utf-8")
        if name != "pyproject.toml":
            continue
        project = tomllib.loads(block)["project"]
        installed = folder / f"{project['name']}-{project['version']}.dist-info"
        installed.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (installed / "METADATA").write_text(metadata)
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
        (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.thorough
@pytest.mark.parametrize("page", EXTENSIONS, ids=lambda page: page.stem)
def test_page_about_extending_runs(page: Path, tmp_path: Path) -> None:
    """Blocks with a title are files of a package outside ours; the other Python blocks run in a process of their own,
    then the console lines."""
    shutil.copytree(DOCS / "images", tmp_path / "photos", ignore=lambda _, names: [n for n in names if ".jpg" not in n])
    text = page.read_text("utf-8")
    write_package(text, tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    commands = [[sys.executable, "-c", "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))]]
    lines = [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands += [[sys.executable, "-m", *shlex.split(line)] for line in lines]
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
