"""The tree is the data flow, in two halves: what runs without torch, and the method; see CONTRIBUTING.md."""

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import uniemox

PACKAGE = Path(uniemox.__file__).parent
TOP = ("errors", "bounds", "spelling", "labels", "intervals", "ranks", "paper", "classifier_info", "io")
LIGHT = ("persons", "data", "predict")
"""Rooms that never import torch, not even inside a function."""
TORCH = ("views", "losses", "model", "checkpoints", "training", "teacher", "export", "evaluate", "pretrain", "finetune")
CLIENTS = ("serve", "ask", "curate", "reproduce", "bench")
ORDER = (*LIGHT, *TORCH, "insight", *CLIENTS)
WITHOUT_TORCH = (*TOP, *LIGHT, "insight", "serve", "ask", "curate", "cli")
"""Rooms whose modules load in an installation without torch."""
WITH_TORCH = ("insight/explain/grad_cam.py", "insight/explain/reconstructions.py", "cli/callbacks.py")
"""Modules of these rooms that need torch: imported inside the functions that use them."""
LAZY = {("predict/opening.py", "uniemox.teacher.zero_shot")}
"""The one import against the order: `load` opens a zero-shot CLIP by name like any other model."""
SETTINGS = ("config.py", "presets.py")
"""Modules of the torch half that need no torch, so that help and refusals don't wait for it."""
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION_LINES = 60  # without the docstring


def name_of(path: Path) -> str:
    """In the package, as it is imported: predict.network."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, *, lazy: bool = True, types: bool = True) -> set[str]:
    """Dotted names that a module imports, anywhere in it.

    lazy: also inside functions and for types alone.  types: also for types alone.
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

    visit(ast.parse(path.read_text("utf-8")))
    return names


def test_imports_go_upwards_only() -> None:
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        place = relative.parts[0].removesuffix(".py")
        if place in ("cli", "__init__", "__main__"):
            continue
        is_top = place in TOP
        allowed = {*TOP} if is_top else {*TOP, *ORDER[: ORDER.index(place) + 1]}
        for name in imports_of(path):
            if name.startswith("uniemox.") and (str(relative), name) not in LAZY:
                assert name.split(".")[1] in allowed, f"{relative} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also through imports inside functions; those for types alone run never."""
    known = {f"uniemox.{name_of(path)}".removesuffix(".__init__"): path for path in MODULES}
    needs = {name: {one for one in imports_of(path, types=False) if one in known} for name, path in known.items()}
    left = dict(needs)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    needed = {name for name, others in left.items() if any(name in more for more in left.values())}
    assert sorted(needed) == []


def test_the_light_half_imports_without_torch() -> None:
    """Every module of it, of the commands and of settings, in one process where torch can't be imported."""
    light = [
        name_of(path)
        for path in MODULES
        if (path.relative_to(PACKAGE).parts[0].removesuffix(".py") in WITHOUT_TORCH or path.name in SETTINGS)
        and str(path.relative_to(PACKAGE)) not in WITH_TORCH
        and path.name not in ("process.py", "sklearn_features.py")  # a program; scipy looks into sys.modules
    ]
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'timm', 'torchvision'): sys.modules[name] = None\n"
        f"for name in {light!r}: importlib.import_module('uniemox.' + name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_itself_over_others() -> None:
    """Imports when a module is loaded form no circle."""
    modules = {f"uniemox.{name_of(path)}": path for path in MODULES}
    imports = {name: imports_of(path, lazy=False) & modules.keys() for name, path in modules.items()}
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in finished:
            for other in imports[name]:
                visit(other, (*way, name))
            finished.add(name)

    for name in modules:
        visit(name, ())


def test_one_module_alone_replaces_files() -> None:
    """Others call `io.files.replacing`, so that a file is written whole or not at all."""
    using = [path for path in MODULES if re.search(r"\bos\.(replace|rename)\b|\.tmp\b", path.read_text("utf-8"))]
    assert using == [PACKAGE / "io/files.py"]


def test_one_module_alone_imports_onnxruntime() -> None:
    """It switches its telemetry off first."""
    using = [path for path in MODULES if any(name.split(".")[0] == "onnxruntime" for name in imports_of(path))]
    assert using == [PACKAGE / "io/onnx_sessions.py"]


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, Path] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in found, f"{node.name} in {found[node.name]} and {path}"
                found[node.name] = path


def test_modules_are_named_after_what_they_do() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "misc", "helpers", "common")]


def test_functions_stay_short() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                code = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = node.end_lineno - code[0].lineno if code else 0
                assert lines < MAX_FUNCTION_LINES, f"{path.relative_to(PACKAGE)}: {node.name}"


def test_the_documented_way_from_the_command_to_a_loss_is_the_codes() -> None:
    """docs/method.md: each function of the table is there, and calls the next."""
    text = (PACKAGE.parent / "docs" / "method.md").read_text("utf-8")
    table = text.split("## From the command to the line that computes L2")[1].split("##")[0]
    rows = [re.findall(r"`([^`]+)`", line) for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == 5
    for (place, name, *called), (_, following, *_) in pairwise(rows):
        nodes = ast.walk(ast.parse((PACKAGE / place).read_text("utf-8")))
        found = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name]
        calls = {
            getattr(node.func, "attr", getattr(node.func, "id", None))
            for function in found
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        }
        assert called[0] in calls, f"{place}: {name} does not call {called[0]}"
        assert following in (called[0], *(word.split(".")[-1] for word in called[1:])) or called[0] == "model"
    place, name, *_ = rows[-1]
    assert f"def {name}(" in (PACKAGE / place).read_text("utf-8")
