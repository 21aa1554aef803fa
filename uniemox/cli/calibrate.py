"""The command that fits a model's confidence to your own images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say, say_parts
from uniemox.cli.data_files import NO_FILES, FileOptions

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet
    from uniemox.evaluate.rating_fit import RatingFit
    from uniemox.evaluate.recalibration import Recalibration


def calibrate(
    *,
    data: str,
    out: Path,
    model: str = "embedded",
    split: str | None = None,
    ratings: Annotated[bool, Parameter(negative="")] = False,
    as_json: JsonFlag = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Fit a model's confidence and its likely labels to your own labelled images.

    What it answers first stays the same; how sure it says it is will be true of images like these. A hundred will do.
    The images must be new to the model, and can't be scored with the result.

    For example:

    uniemox calibrate --data folder:photos --out mine.onnx

    uniemox calibrate --model runs/fi --data csv:photos/labels.csv --out mine.onnx

    uniemox calibrate --ratings --data oasis:OASIS --out mine.onnx

    Args:
        data: KIND:PATH, see `uniemox docs data`; at least 30 images with labels.
        out: The model to write, ONNX: uniemox predict IMAGE --model OUT.
        model: embedded, an ONNX file of uniemox finetune, or a run that holds one.
        split: Use this split only, or all; if not given, calibration or val of data with splits, else all.
        ratings: Learn valence and arousal instead, from images with people's ratings of both, at least 100: a linear
            head on the model's features, with an interval for each. Images of one group are held out together.
        as_json: Print one JSON object.
    """
    need("scipy", extra="data")
    if ratings:
        _fit_ratings(model, files.open(data), out, split, as_json)
        return
    from uniemox.evaluate.recalibration import recalibrate

    found = files.open(data)
    say_parts(found)
    with progress_bar() as progress:
        result = recalibrate(model, found, out, progress.show, split=split)
    if as_json:
        print(json.dumps(asdict(result) | {"verdict": result.verdict, "written": str(out)}))
        return
    say(
        f"wrote {out}: {_count(result)}, temperature {result.temperature:.2f}, calibration error on these "
        f"{result.ece_before:.3f}, now {result.ece_after:.3f}; score other images with uniemox evaluate --model {out}"
    )
    _print_verdict(result)


def _print_verdict(result: "Recalibration") -> None:
    low, high = result.accuracy_interval
    print(
        f"accuracy {result.accuracy:.1%} ({low:.1%} to {high:.1%}); chance {result.chance:.1%}, the commonest class "
        f"{result.commonest:.1%}"
    )
    before = ""
    if result.coverage_before is not None:
        before = f"; before {result.coverage_before:.0%} with {result.set_size_before:.1f}"
    print(
        f"likely sets for 90% hold the label of {result.coverage_after:.0%}, with {result.set_size_after:.1f} labels "
        f"in a set{before}"
    )
    if result.flagged is not None:
        print(f"{result.flagged:.0%} are flagged as unlike the images that the network was trained on")
    print(f"verdict: {result.verdict}")


def _count(result: "Recalibration | RatingFit") -> str:
    """Words for the images that were used."""
    return f"{result.images} images" + ("" if result.split == "all" else f" of split {result.split}")


def _fit_ratings(model: str, data: "DataSet", out: Path, split: str | None, as_json: bool) -> None:
    from uniemox.evaluate.rating_fit import fit_ratings

    say_parts(data)
    with progress_bar() as progress:
        found = fit_ratings(model, data, out, progress.show, split=split)
    if as_json:
        print(json.dumps(asdict(found) | {"written": str(out)}))
        return
    say(f"wrote {out}: {_count(found)} of {found.groups} groups; held out, by tens of the groups:")
    for i, name in enumerate(("valence", "arousal")):
        print(
            f"{name}: rank correlation {found.spearman[i]:.2f}, error {found.mean_error[i]:.2f} of 8 (the mean rating "
            f"for all images: {found.mean_error_of_mean[i]:.2f}), intervals of ±{found.half_width[i]:.2f} hold "
            f"{found.coverage[i]:.0%}"
        )
