"""The tree is the data flow: a module imports from its own folder, from folders above it, and from the top."""

import ast
from pathlib import Path

import uniemox

PACKAGE = Path(uniemox.__file__).parent
ORDER = (
    *("persons", "data", "views", "losses", "model", "teacher", "checkpoints", "training", "export", "evaluate"),
    *("pretrain", "finetune", "predict", "explain", "serve", "reproduce", "ask", "bench", "curate"),
)
TOP = (
    *("errors", "labels", "image_limits", "images", "decoder_process", "decoder_child", "decoder_pool", "hub", "files"),
    *("onnx_sessions", "onnx_external", "weight_archives", "csv_files"),
)
WITHOUT_TORCH = ("predict", "serve", "persons")
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
    return names


def test_imports_go_upwards_only() -> None:
    for path in MODULES:
        folder = path.relative_to(PACKAGE).parts[0]
        if folder in ("cli", "__init__.py", "__main__.py"):
            continue
        place = folder.removesuffix(".py")
        allowed = {*TOP} if place in TOP else {*TOP, *ORDER[: ORDER.index(place) + 1]}
        for name in imports_of(path):
            if name.startswith("uniemox."):
                assert name.split(".")[1] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def test_what_needs_no_torch_does_not_import_it() -> None:
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] in (
            *WITHOUT_TORCH,
            "errors.py",
            "labels.py",
            "images.py",
            "image_limits.py",
            "decoder_process.py",
            "decoder_child.py",
            "decoder_pool.py",
            "hub.py",
            "files.py",
            "__init__.py",
        ):
            assert not {"torch", "timm", "torchvision"} & {name.split(".")[0] for name in imports_of(path)}, path


def test_one_module_alone_imports_onnxruntime() -> None:
    """It switches its telemetry off first."""
    using = [path for path in MODULES if any(name.split(".")[0] == "onnxruntime" for name in imports_of(path))]
    assert using == [PACKAGE / "onnx_sessions.py"]


def test_modules_stay_readable() -> None:
    for path in MODULES:
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= 400, f"{path.relative_to(PACKAGE)} has {len(lines)} lines"
        assert path.stem not in ("utils", "misc", "helpers", "common")


def test_functions_stay_short() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path.relative_to(PACKAGE)}: {node.name}"
