"""The command that fits a model's confidence to images of one's own."""

import json
from dataclasses import asdict
from pathlib import Path

from uniemox.cli.console import JsonFlag, need, progress_bar, say, say_parts
from uniemox.cli.data_options import NO_FILES, FileOptions


def calibrate(
    *, data: str, out: Path, model: str = "embedded", as_json: JsonFlag = False, files: FileOptions = NO_FILES
) -> None:
    """Fit a model's confidence, its likely labels and what it takes for familiar to labelled images of one's own.

    What it answers first stays the same; how sure it says it is will be true of images like these. A hundred will do.
    The images must be new to the model, and can't be scored with the result.

    Examples:

    uniemox calibrate --data folder:photos --out mine.onnx

    uniemox calibrate --model runs/fi --data csv:photos/labels.csv --out mine.onnx

    Parameters
    ----------
    data
        KIND:PATH, see `uniemox docs data`; at least 30 images with labels.
    out
        The model to write, ONNX: uniemox predict IMAGE --model OUT.
    model
        embedded, an ONNX file of uniemox finetune, or a run that holds one.
    as_json
        Print one JSON object.
    """
    need("scipy", extra="data")
    from uniemox.evaluate.recalibration import recalibrate

    found = files.open(data)
    say_parts(found)
    with progress_bar() as progress:
        result = recalibrate(model, found, out, progress.show)
    if as_json:
        print(json.dumps(asdict(result) | {"written": str(out)}))
        return
    say(
        f"wrote {out}: {result.images} images, temperature {result.temperature:.2f}, calibration error on these "
        f"{result.ece_before:.3f}, now {result.ece_after:.3f}; score other images with uniemox evaluate --model {out}"
    )
