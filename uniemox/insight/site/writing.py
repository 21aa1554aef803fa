"""Web page as a folder of static files: the network runs in the visitor's browser with onnxruntime-web."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.files import replacing_folder, write_file
from uniemox.io.html import STYLE_SHEET
from uniemox.io.weight_names import refuse_name_in_package
from uniemox.predict.confidence import max_coverage
from uniemox.predict.network import DISTANCE, FEATURES, LOGITS, MAPS, Network
from uniemox.predict.schema import FIELDS, columns_of, table_fields

# Files of the npm package onnxruntime-web by backend; the browser loads one of the two.
RUNTIME = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
SCRIPTS = ("page.js", "answer.js", "elements.js", "example.js", "files.js", "maps.js", "names.js", "table.js")
PAGE = (*SCRIPTS, "style.css", "icon.svg", "example.json", "example.jpg", "example_map.jpg")
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' data: blob:; worker-src 'self'; manifest-src 'self'"
)
SITE = files("uniemox.insight.site")
PAGE_FOLDER = SITE / "page"
"""Folder of the page's files; a server offers all of them, and the style sheet of all pages as `STYLE_NAME`."""
STYLE_NAME = "parts.css"
HEAD = '<meta charset="utf-8">'
INFO = ("labels", "label_set", "kind", "task", "size", "crop_fraction", "mean", "std", "temperature", "offsets")


def write_site(network: Network, model: Path, out: Path, runtime: Path) -> None:
    """Write the page, the model and the runtime into a new folder that any web server can offer.

    Args:
        network: The content of `model`.
        model: An ONNX file.
        out: The folder to write; it may exist if it is empty.
        runtime: The npm package onnxruntime-web, or its folder dist.

    Raises:
        ConfigError: For a folder that is not empty, or has the name of a model in the package; for an incomplete
            runtime.
        CheckpointError: For a model that the page can't show: one that reads the person view, or predicts valence and
            arousal.
    """
    refuse_name_in_package(out)
    info = network.info
    if info.needs_person or info.task == "affect":
        raise CheckpointError(
            f"{model}: the page shows emotions of whole scenes; this model has streams {info.streams!r} and task "
            f"{info.task!r}: train one with --network.streams scene and labels, or offer this one with uniemox serve"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty; choose another --out")
    dist = runtime / "dist" if (runtime / "dist").is_dir() else runtime
    missing = [name for names in RUNTIME.values() for name in names if not (dist / name).is_file()]
    if missing:
        raise ConfigError(
            f"{runtime} has no {missing[0]}; download the npm package (npm pack onnxruntime-web), unpack it, and "
            "give its folder as --runtime"
        )
    # The name of a folder such as `site/.` has no last part.
    with replacing_folder(Path(os.path.abspath(out)), ConfigError) as partial:
        _write_files(network, model, partial, dist)


def _write_files(network: Network, model: Path, out: Path, dist: Path) -> None:
    """Write all files of the page.

    Args:
        network: The content of `model`.
        model: An ONNX file.
        out: An empty folder.
        dist: Folder with the files of the runtime.
    """
    info = network.info
    (out / "runtime").mkdir()
    (out / "page").mkdir()
    for name in {name for names in RUNTIME.values() for name in names}:
        shutil.copyfile(dist / name, out / "runtime" / name)
    shutil.copyfile(model, out / "model.onnx")
    _write_page(out)
    version = f"uniemox-{hashlib.sha256(b''.join(path.read_bytes() for path in _files(out))).hexdigest()[:16]}"
    _write_json(out / "model.json", _model_values(network, version))
    # The page reads the files below where it would ask a server for GET /models and /openapi.json.
    description = {
        "name": network.name,
        "kind": info.kind,
        "task": info.task,
        "labels": info.labels,
        "max_coverage": max_coverage(info.conformal_scores),
    }
    _write_json(out / "models.json", [description])
    columns = [[field.name, *columns_of(field)] for field in table_fields((), of_film=False)]
    answer = {"properties": {field.name: {"description": field.meaning} for field in FIELDS}, "x-columns": columns}
    _write_json(out / "openapi.json", {"components": {"schemas": {"ImageAnswer": answer}}})
    icon = {"src": "page/icon.svg", "sizes": "any", "type": "image/svg+xml"}
    manifest = {
        "name": "uniemox",
        "start_url": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "icons": [icon],
    }
    _write_json(out / "manifest.webmanifest", manifest)
    # The service worker stores these for offline use. The runtime is stored when the page loads it.
    names = ["./", *(path.relative_to(out).as_posix() for path in _files(out) if path.parent.name != "runtime")]
    constants = f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(names)};\n"
    write_file(out / "sw.js", constants + _text("web/sw.js"))


def _write_page(out: Path) -> None:
    html = _text("page/index.html")
    policy = f'{HEAD}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    write_file(out / "index.html", html.replace(HEAD, policy))
    for name in PAGE:
        write_file(out / "page" / name, PAGE_FOLDER.joinpath(name).read_bytes())
    write_file(out / "page" / STYLE_NAME, STYLE_SHEET.read_bytes())
    write_file(out / "page/server.js", _text("web/web.js"))
    write_file(out / "page/resize.js", _text("web/resize.js"))


def _model_values(network: Network, version: str) -> dict[str, object]:
    """Return the values of a model that the page's script needs."""
    info = network.info
    values: dict[str, object] = {name: getattr(info, name) for name in INFO}
    head = network.rating_head
    used = {LOGITS, MAPS}
    if head:
        used.add(FEATURES)
    if info.distances:
        used.add(DISTANCE)
    return values | {
        "name": network.name,
        "version": version,
        "thresholds": info.label_thresholds,
        "conformal_scores": info.conformal_scores,
        "rules": asdict(info.rules),
        "ratings": None if head is None else head.to_dict() | {"seen": ""},
        "distances": info.distances if DISTANCE in network.engine.outputs else (),
        "outputs": sorted(used & network.engine.outputs),
        "runtime": {backend: [f"runtime/{name}" for name in names] for backend, names in RUNTIME.items()},
    }


def _files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def _text(name: str) -> str:
    return SITE.joinpath(name).read_text("utf-8")


def _write_json(path: Path, value: object) -> None:
    write_file(path, json.dumps(value, allow_nan=False) + "\n")
