"""The command that exports a classifier for other programs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from uniemox.cli.console import Files, Flag, JsonObject, need, progress_bar, refuse_other, say, shell_quoted
from uniemox.cli.data_options import Splits
from uniemox.errors import ConfigError

if TYPE_CHECKING:
    from uniemox.export.int8 import Int8Check


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
    splits: Splits = None,
    as_json: JsonObject = False,
) -> None:
    """Write a classifier as one ONNX file, a folder for a model hub, or a web page that needs no server.

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
        float16: Store float32 weights in half the space; computation stays float32. Those of embedded have 16 bits.
        int8_weights: Store weights in a quarter of the space; computation stays float32. Probabilities change slightly.
        keep_float16: With --int8-weights: regular expression; weights whose name contains a match are stored in 16
            bits.
        int8: Compute in 8 bits; layers that lose too much stay float32. Writes the file only if that is faster here,
            changes probabilities by at most 0.015 on average and costs no accuracy, else exits with 1. Takes minutes.
        data: With --int8: KIND:PATH of images like those the model is meant for, see `uniemox docs data`. Accuracy is
            only checked if they have labels of the model. With --splits, only the test part is used.
    """
    if (to == "web") != (runtime is not None):
        raise ConfigError("--to web and --runtime FOLDER need each other: see `npm pack onnxruntime-web`")
    if to != "onnx" and (int8_weights or float16 or int8 or as_json):
        raise ConfigError(f"--to {to} can't be combined with --float16, --int8-weights, --int8 or --json")
    if int8 != (data is not None):
        raise ConfigError("--int8 and --data KIND:PATH need each other: int8 is tested on images first")
    if splits is not None and data is None:
        raise ConfigError("--splits needs --data KIND:PATH, whose test part it names")
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
    from uniemox.data.source import open_data
    from uniemox.export.run import Bits, export_onnx

    weights: Bits | None = None
    if float16:
        weights = "float16"
    elif int8_weights:
        weights = "int8"
    dataset = None if data is None else open_data(data, splits=splits)
    if dataset is not None and splits is not None:
        dataset = dataset.only(dataset.scored_split(None))
    with progress_bar() as progress:
        check = export_onnx(
            model, out, weights=weights, keep_float16=keep_float16, data=dataset, on_progress=progress.show
        )
    _report(out, check, as_json=as_json)


def _write_site(model: Path, out: Path, runtime: Path) -> None:
    """Write a web page with the model of an ONNX file, of a finished run, or of the package."""
    from uniemox.insight.site.writing import write_site
    from uniemox.io.run_files import ONNX
    from uniemox.io.weight_names import file_in_package
    from uniemox.predict.opening import open_network

    file = file_in_package(model)
    write_site(open_network(model), file / ONNX if file.is_dir() else file, out, runtime)
    say(f"wrote {out}; try it: python -m http.server --bind 127.0.0.1 --directory {out}")


def _write_hub_folder(run: Path, out: Path) -> None:
    """Write a folder for a model hub from a run, with the run's scores."""
    from uniemox.evaluate.run_records import score_lines
    from uniemox.export.run import export_hub_folder

    is_timm = export_hub_folder(run, out, score_lines)
    readers = "timm, transformers and uniemox open it" if is_timm else "uniemox opens it; timm has no such network"
    upload = f"hf upload OWNER/REPOSITORY {shell_quoted(out)}"
    say(f"wrote {out}: {readers}. Finish its README.md, then upload the folder: {upload}")


def _report(out: Path, check: "Int8Check | None", *, as_json: bool) -> None:
    """Print the written file and its size, and the result of an int8 check.

    Raises:
        ConfigError: If nothing was written.
    """
    is_written = check is None or check.is_kept
    if check is not None:
        say(str(check))
    if as_json:
        report: dict[str, Any] = {"written": str(out) if is_written else None}
        if check is not None:
            report["int8"] = check.as_dict()
        if is_written:
            report["bytes"] = out.stat().st_size
        print(json.dumps(report))
    if not is_written:
        raise ConfigError("nothing was written: int8 is slower or changes the predictions too much; see above")
    if not as_json:
        say(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB; next: uniemox predict IMAGE --model {shell_quoted(out)}")
