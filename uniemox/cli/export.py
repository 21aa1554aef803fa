"""The command that exports a classifier for other programs."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from uniemox.cli.console import Files, Flag, JsonObject, need, progress_bar, quoted, refuse_other, say
from uniemox.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from uniemox.export.compact import Int8Check


def export(
    model: Path,
    /,
    *,
    out: Path,
    to: Literal["onnx", "hub-folder", "web"] = "onnx",
    runtime: Files = None,
    float16: Flag = False,
    int8_weights: Flag = False,
    keep_float16: str | None = None,
    int8: Flag = False,
    data: str | None = None,
    as_json: JsonObject = False,
) -> None:
    """Write a classifier as one ONNX file, as a folder for a model hub, or as a web page that needs no server.

    For example:

    - uniemox export runs/fi --out fi.onnx
    - uniemox export runs/fi --out fi-small.onnx --float16
    - uniemox export runs/fi --out fi-int8.onnx --int8 --data fi:photos/fi
    - uniemox export runs/fi --to hub-folder --out fi-for-others
    - uniemox export embedded --to web --runtime node_modules/onnxruntime-web --out site

    Args:
        model: A fine-tuning run, its model.safetensors or model.onnx; embedded or small (hub-folder: only a run).
        out: File or folder to write.
        to: onnx: one file. hub-folder: model.onnx, README.md as model card, and model.safetensors with config.json, for
            timm and transformers; nothing is uploaded. web: a static page that predicts in the visitor's browser, also
            offline.
        runtime: With --to web: folder of the npm package onnxruntime-web, which runs the model in the browser.
        float16: Store weights in half the space; computation stays float32.
        int8_weights: Store weights in a quarter of the space; computation stays float32. Probabilities change slightly.
        keep_float16: With --int8-weights: regular expression; weights whose name contains a match are stored in 16
            bits.
        int8: Compute in 8 bits; layers that lose too much stay float32. Writes the file only if that is faster here,
            changes probabilities by at most 0.015 on average and costs no accuracy, else exits with 1.
        data: With --int8: KIND:PATH of images like those the model is meant for, see `uniemox docs data`.
    """
    if (to == "web") != (runtime is not None):
        raise ConfigError("--to web and --runtime FOLDER need each other: see `npm pack onnxruntime-web`")
    if to != "onnx" and (int8_weights or float16 or int8 or as_json):
        raise ConfigError(f"--to {to} can't be combined with --float16, --int8-weights, --int8 or --json")
    if int8 != (data is not None):
        raise ConfigError("--int8 and --data KIND:PATH need each other: int8 is tested on images first")
    if int8_weights and (float16 or int8):
        raise ConfigError("--int8-weights can't be combined with --float16 or --int8; leave one of them out")
    if keep_float16 is not None and not int8_weights:
        raise ConfigError("--keep-float16 needs --int8-weights; --float16 stores all weights in 16 bits")
    if runtime is not None:
        _write_site(model, out, runtime)
        return
    need("torch", "timm", "onnx", "onnxscript", extra="train")
    if to == "hub-folder":
        _write_hub_folder(model, out)
        return
    refuse_other(out, ".onnx")
    weights = "float16" if float16 else "int8" if int8_weights else None
    _tell(out, _write(model, out, data, weights, keep_float16), as_json=as_json)


def _write_site(model: Path, out: Path, runtime: Path) -> None:
    """Write a web page with the model of an ONNX file, of a finished run, or of the package."""
    from uniemox.io.files import ONNX
    from uniemox.io.weight_names import EMBEDDED, IN_PACKAGE
    from uniemox.predict.opening import open_network
    from uniemox.serve.site import write_site

    if str(model) in IN_PACKAGE:
        file = EMBEDDED / IN_PACKAGE[str(model)]
    else:
        file = model / ONNX if model.is_dir() else model
    write_site(open_network(model), file, out, runtime)
    say(f"wrote {out}; try it: python -m http.server --bind 127.0.0.1 --directory {out}")


def _write_hub_folder(run: Path, out: Path) -> None:
    """Write a folder for a model hub from a run, with the run's scores."""
    from uniemox.checkpoints.classifier import load_classifier
    from uniemox.evaluate.run_records import read_run
    from uniemox.export.hub_folder import write_hub_folder

    weights = _weights_of(run)
    scores = [
        f"- {one.title}, {one.values['n']:,} images: {one.measure} {one.values[one.measure]:.3f}"
        for one in read_run(run).evaluations
    ]
    is_timm = write_hub_folder(*load_classifier(weights), out, name=run.resolve().name, scores=scores)
    if is_timm:
        opens = "timm, transformers and uniemox open it"
    else:
        opens = "uniemox opens it; timm has no such network"
    say(f"wrote {out}: {opens}. Finish its README.md, then upload the folder: hf upload OWNER/REPOSITORY {quoted(out)}")


def _tell(out: Path, check: "Int8Check | None", *, as_json: bool) -> None:
    """Print what was written.

    Raises:
        ConfigError: If nothing was.
    """
    is_written = check is None or check.is_kept
    if check is not None:
        say(str(check))
    if as_json:
        report = {"written": str(out) if is_written else None} | ({} if check is None else {"int8": check.as_dict()})
        print(json.dumps(report | ({"bytes": out.stat().st_size} if is_written else {})))
    if not is_written:
        raise ConfigError("nothing was written: int8 is slower or changes the predictions too much; see above")
    if not as_json:
        say(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB; next: uniemox predict IMAGE --model {quoted(out)}")


def _write(
    model: Path, out: Path, data: str | None, weights: str | None, keep_float16: str | None
) -> "Int8Check | None":
    """Write the file; with data in 8 bits, if that is worthwhile.  weights: float16, int8 or None."""
    from uniemox.data.seen import read_seen, seen_file, write_hashes
    from uniemox.data.source import open_data
    from uniemox.evaluate.run import file_of
    from uniemox.export.compact import export_int8, store_as_float16, store_as_int8
    from uniemox.export.onnx import read_model, write_model

    dataset = None if data is None else open_data(data)
    check = None
    with TemporaryDirectory(prefix="uniemox-export-") as folder:
        source = _as_onnx(model, Path(folder))
        if dataset is not None:
            with progress_bar() as progress:
                check = export_int8(source, source, dataset, on_progress=progress.show)
            if not check.is_kept:
                return check
        if weights == "float16":
            store_as_float16(source, source)
        elif weights == "int8":
            store_as_int8(source, source, keep_float16=keep_float16)
        write_model(read_model(source), out)
    if seen := read_seen(file_of(model)):
        write_hashes(seen_file(out), seen)
    return check


def _as_onnx(model: Path, folder: Path) -> Path:
    """Write the model as ONNX to a folder.

    Raises:
        CheckpointError: For an unfinished run.
    """
    from uniemox.checkpoints.classifier import load_classifier
    from uniemox.export.onnx import export_classifier, read_model, write_model
    from uniemox.io.weight_names import EMBEDDED, IN_PACKAGE

    if str(model) in IN_PACKAGE:
        model = EMBEDDED / IN_PACKAGE[str(model)]
    made = folder / "model.onnx"
    weights = _weights_of(model) if model.is_dir() else model
    if weights.suffix == ".onnx":
        write_model(read_model(weights), made)
    else:
        export_classifier(*load_classifier(weights), made)
    return made


def _weights_of(run: Path) -> Path:
    """Return the weights file of a run.

    Raises:
        CheckpointError: If the run is not finished.
    """
    from uniemox.io.files import WEIGHTS

    if not (run / WEIGHTS).is_file():
        raise CheckpointError(f"{run} has no {WEIGHTS}; give a finished run of uniemox finetune")
    return run / WEIGHTS
