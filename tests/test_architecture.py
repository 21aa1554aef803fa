"""The order of the library's rooms, and its clients, which import public names alone; see CONTRIBUTING.md."""

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import uniemox

PACKAGE = Path(uniemox.__file__).parent
ROOT = PACKAGE.parent
CLIENTS = ("uniemox_serve", "uniemox_ask", "uniemox_curate", "uniemox_paper")
"""Programs built on the library's public names."""
TOP = (
    "callable_package",
    "errors",
    "bounds",
    "spelling",
    "plurals",
    "labels",
    "resampling",
    "intervals",
    "ranks",
    "paper",
    "network_spec",
    "classifier_info",
    "io",
)
LIGHT = ("persons", "data", "predict")
"""Rooms that never import torch, not even inside a function, but for LAZY."""
TORCH = ("views", "losses", "model", "checkpoints", "training", "teacher", "export", "evaluate", "pretrain", "finetune")
ORDER = (*LIGHT, *TORCH, "insight", "bench")
PUBLIC_MODULES = (
    "api",
    "bounds",
    "classifier_info",
    "errors",
    "intervals",
    "network_spec",
    "paper",
    "plurals",
    "resampling",
    "run_settings",
    "spelling",
)
"""Modules whose names are all public. Of a room, those are public that its `__init__.pyi` lists."""
WITHOUT_TORCH = (*TOP, *LIGHT, "insight", "cli")
"""Rooms whose modules load in an installation without torch."""
WITH_TORCH = ("insight/explain/grad_cam.py", "insight/explain/reconstructions.py", "cli/callbacks.py")
"""Modules of these rooms that need torch: imported inside the functions that use them."""
LAZY = {("predict/opening.py", "uniemox.teacher.zero_shot")}
"""The one import against the order: `load` opens a zero-shot CLIP by name like any other model."""
SETTINGS = ("config.py", "presets.py")
"""Modules of the torch half that need no torch, so that help and refusals don't wait for it."""
MODULES = sorted(PACKAGE.rglob("*.py"))
CLIENT_MODULES = [path for client in CLIENTS for path in sorted((ROOT / client).rglob("*.py"))]
ALL_MODULES = [*MODULES, *CLIENT_MODULES]
# Not counting the docstring.
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    """Return the dotted name of a module, such as uniemox.predict.network."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports_of(path: Path, *, lazy: bool = True, types: bool = True) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it.

    Args:
        path: The module.
        lazy: Include imports inside functions and for types alone.
        types: Include imports for types alone.
    """
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                names.add(str(child.module))
            is_lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if (lazy or not is_lazy) and ((lazy and types) or not is_for_types):
                visit(child)

    visit(parsed(path))
    return names


def test_imports_follow_the_order_of_the_rooms() -> None:
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        if room in ("api", "run_settings", "cli", "__init__", "__main__"):
            continue
        is_top = room in TOP
        allowed = {*TOP} if is_top else {*TOP, *ORDER[: ORDER.index(room) + 1]}
        for name in imports_of(path):
            if name.startswith("uniemox.") and (str(relative), name) not in LAZY:
                assert name.split(".")[1] in allowed, f"{relative} imports {name}"


def public_names(package: str) -> set[str]:
    """Return the names in the stub of a package; a package without one has none."""
    stub = ROOT.joinpath(*package.split(".")) / "__init__.pyi"
    if not stub.is_file():
        return set()
    nodes = parsed(stub).body
    return {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_clients_import_only_public_names() -> None:
    """A client reads no module inside a room of the library, nor one of another client."""
    public = {f"uniemox.{name}" for name in PUBLIC_MODULES}
    imports = 0
    for path in CLIENT_MODULES:
        client = path.relative_to(ROOT).parts[0]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("uniemox.") for alias in node.names), path
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("uniemox"):
                continue
            module = str(node.module)
            if module.split(".", maxsplit=1)[0] == client or module in public:
                continue
            unlisted = {alias.name for alias in node.names} - public_names(module) - {"__version__"}
            assert not unlisted, f"{path.relative_to(ROOT)} imports {unlisted} of {module}, which are not public"
            imports += 1
    assert imports > 100


def test_examples_of_the_documentation_import_only_public_names() -> None:
    """Users copy them."""
    public = {f"uniemox.{name}" for name in PUBLIC_MODULES}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    sources = {path: path.read_text("utf-8") for path in pages}
    sources |= {path: path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.ipynb"))}
    imports = 0
    for path, text in sources.items():
        for module, names in re.findall(r"from (uniemox(?:\.\w+)*) import ([\w, ]+)", text):
            if module in public:
                continue
            unlisted = {name.strip() for name in names.split(",")} - public_names(module)
            assert not unlisted, f"{path.relative_to(ROOT)} imports {unlisted} of {module}, which are not public"
            imports += 1
    assert imports > 20


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/extending/command.md"])
def test_pages_list_the_public_modules(page: str) -> None:
    [line] = re.findall(r".*`paper`.*`run_settings`.*", (ROOT / page).read_text("utf-8").replace("`uniemox.", "`"))
    listed = set(re.findall(r"`(\w+)`", line))
    assert set(PUBLIC_MODULES) <= listed
    assert listed - set(PUBLIC_MODULES) <= {"uniemox"}


def test_library_imports_no_client() -> None:
    for path in MODULES:
        assert not [name for name in imports_of(path) if name.startswith("uniemox_")], path


@pytest.mark.parametrize(
    "package", sorted(name_of(stub) for root in ("uniemox", *CLIENTS) for stub in (ROOT / root).rglob("__init__.pyi"))
)
def test_public_names_are_there(package: str) -> None:
    """Each name in a stub can be imported. It has not the name of a module, which would hide it or be hidden."""
    module = importlib.import_module(package)
    names = public_names(package)
    assert names == set(module.__all__)
    for name in names:
        assert getattr(module, name) is not None
        # `uniemox.finetune` is a function and a package, see callable_package.
        assert importlib.util.find_spec(f"{package}.{name}") is None or package == "uniemox", name


def test_modules_have_no_import_cycles() -> None:
    """Imports inside functions count; imports for types alone never run."""
    module_paths = {name_of(path): path for path in ALL_MODULES}
    needs = {
        name: {name for name in imports_of(path, types=False) if name in module_paths}
        for name, path in module_paths.items()
    }
    remaining = dict(needs)
    while leaves := [name for name, others in remaining.items() if not others & remaining.keys()]:
        for name in leaves:
            del remaining[name]
    needed = {name for name, others in remaining.items() if any(name in others for others in remaining.values())}
    assert sorted(needed) == []


def test_light_modules_import_without_torch() -> None:
    """All modules of the light half, of the commands and of settings load in a process that can't import torch."""
    light = [
        name_of(path)
        for path in MODULES
        if (path.relative_to(PACKAGE).parts[0].removesuffix(".py") in WITHOUT_TORCH or path.name in SETTINGS)
        and str(path.relative_to(PACKAGE)) not in WITH_TORCH
        # The first is a program; scipy, which the second imports, looks into sys.modules.
        and path.name not in ("process.py", "sklearn_features.py")
    ]
    light += [name_of(path) for path in CLIENT_MODULES if not name_of(path).startswith("uniemox_paper")]
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'timm', 'torchvision'): sys.modules[name] = None\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_time_has_no_cycles() -> None:
    """Imports that run when a module is loaded form no cycle."""
    modules = {name_of(path): path for path in ALL_MODULES}
    imports = {name: imports_of(path, lazy=False) & modules.keys() for name, path in modules.items()}
    finished: set[str] = set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join((*chain[chain.index(name) :], name))
        if name not in finished:
            for other in imports[name]:
                visit(other, (*chain, name))
            finished.add(name)

    for name in modules:
        visit(name, ())


def test_only_one_module_replaces_files() -> None:
    """Others call `io.files.replacing`, so that a file is written completely or not at all.

    Those besides it rename whole folders, or move a damaged file aside.
    """
    pattern = r"\bos\.(replace|rename)\b|\.tmp\b|\w\.(rename|replace)\(\w+\)"
    using = {path.relative_to(ROOT).as_posix() for path in ALL_MODULES if re.search(pattern, path.read_text("utf-8"))}
    assert using == {
        "uniemox/io/files.py",
        "uniemox/training/state.py",
        "uniemox/insight/index_file.py",
        "uniemox_curate/release/writing.py",
        "uniemox_curate/release/takedown.py",
    }


def test_only_one_module_imports_onnxruntime() -> None:
    """It switches its telemetry off first."""
    using = [path for path in ALL_MODULES if any(name.split(".")[0] == "onnxruntime" for name in imports_of(path))]
    assert using == [PACKAGE / "io/onnx_sessions.py"]


def test_no_two_classes_share_a_name() -> None:
    module_of: dict[str, Path] = {}
    for path in ALL_MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in module_of, f"{node.name} in {module_of[node.name]} and {path}"
                module_of[node.name] = path


def test_no_module_has_a_catch_all_name() -> None:
    assert not [path for path in ALL_MODULES if path.stem in ("utils", "misc", "helpers", "common")]


def test_functions_have_at_most_60_lines() -> None:
    for path in ALL_MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = node.end_lineno - statements[0].lineno if statements else 0
                assert lines < MAX_FUNCTION_LINES, f"{path.relative_to(ROOT)}: {node.name}"


def test_documented_calls_from_the_command_to_a_loss_exist() -> None:
    """Each function in the table of docs/method.md exists, and calls the next."""
    text = (PACKAGE.parent / "docs" / "method.md").read_text("utf-8")
    table = text.split("## From the command to the line that computes L2")[1].split("##")[0]
    rows = [re.findall(r"`([^`]+)`", line) for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == 5
    for (module, name, *called), (_, following, *_) in pairwise(rows):
        nodes = ast.walk(parsed(PACKAGE / module))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name]
        calls = {
            getattr(node.func, "attr", getattr(node.func, "id", None))
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        }
        assert called[0] in calls, f"{module}: {name} does not call {called[0]}"
        assert following in (called[0], *(word.split(".")[-1] for word in called[1:])) or called[0] == "model"
    module, name, *_ = rows[-1]
    assert f"def {name}(" in (PACKAGE / module).read_text("utf-8")
