"""The command that fits a model's confidence to your own images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from uniemox.cli.console import (
    Flag,
    JsonObject,
    UsageError,
    need,
    progress_bar,
    refuse_existing,
    refuse_other,
    say,
    say_notes,
)
from uniemox.cli.data_options import NO_FILES, FileOptions
from uniemox.cli.evaluate import LabelMapText
from uniemox.data.seen import seen_file
from uniemox.evaluate.label_pairs import read_label_pairs
from uniemox.labels import AFFECT
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox.evaluate.calibration import LogLossChange
    from uniemox.evaluate.rating_fit import RatingFit
    from uniemox.evaluate.recalibration import Recalibration


# If no rating is above this value, people probably rated on another scale than 1 to 9.
NARROW_SCALE_MAX = 7


def calibrate(
    *,
    data: str,
    out: Path,
    model: str = "embedded",
    split: str | None = None,
    label_map: LabelMapText = None,
    ratings: Flag = False,
    as_json: JsonObject = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Calibrate a model's probabilities and sets of likely labels on your own labelled images.

    The most probable label of the model stays the same, but its probability fits images like yours better. (Where
    several of its labels mean one of yours, your most probable label may change.) 100 images are enough for most; a
    model that fits your images already may need more. They must be new to the model; `uniemox evaluate` refuses to
    score the calibrated model on them. If a new temperature makes the log loss of images that the fit does not use
    rise, the model keeps its own, and only the likely sets are new.

    For example:

    - uniemox calibrate --data folder:photos --out mine.onnx
    - uniemox calibrate --model runs/fi --data csv:photos/labels.csv --out mine.onnx
    - uniemox calibrate --data folder:photos --map fun=amusement+excitement,yuck=disgust --out mine.onnx
    - uniemox calibrate --ratings --data oasis:OASIS --out mine.onnx

    Args:
        data: KIND:PATH, see `uniemox docs data`; at least 30 images with labels.
        out: ONNX file to write, which must not exist; use it with uniemox predict IMAGE --model OUT.
        model: embedded, small, an ONNX file of uniemox finetune, or a run that contains one.
        split: Split to use, or all. Default: calibration, else val; all if the data have no splits.
        ratings: Learn valence and arousal instead, from at least 100 images with people's ratings of both. Fits a
            linear head with intervals on the model's features. Images of one group are held out together.
    """
    refuse_other(out, ".onnx")
    need("scipy", extra="data")
    if ratings and label_map is not None:
        raise UsageError("--map is for labels and --ratings for valence and arousal; leave out one of them")
    if out.exists():
        refuse_existing(out, seen_file(out))
    pairs = None if label_map is None else read_label_pairs(label_map)
    from uniemox.data.unreadable import describe_unreadable
    from uniemox.evaluate.evaluation import UNKNOWN_TRAINING
    from uniemox.evaluate.rating_fit import fit_ratings
    from uniemox.evaluate.recalibration import Recalibration, recalibrate

    dataset = files.open(data)
    say_notes(dataset)
    result: Recalibration | RatingFit
    verdict = ""
    with progress_bar() as progress:
        if ratings:
            result = fit_ratings(model, dataset, out, progress.show, split=split)
            line, words = _rating_words(result)
            verdict = result.verdict
        else:
            result = recalibrate(model, dataset, out, progress.show, split=split, label_pairs=pairs)
            if result.left_out:
                images_text = counted(result.left_out, "image was", "images were")
                reason = "no label of the model means theirs"
                if pairs is not None:
                    reason += ", or the label map leaves it out"
                say(f"{images_text} left out: {reason}")
            verdict = result.verdict
            line, words = _confidence_words(result, out)
    for unreadable in describe_unreadable(result.unreadable):
        say(unreadable)
    for note in result.notes:
        say(note)
    if result.may_be_seen:
        say(UNKNOWN_TRAINING)
    if as_json:
        values = asdict(result) | {"written": str(out)}
        if verdict:
            values["verdict"] = verdict
        print(json.dumps(values))
    else:
        part = "" if result.split == "all" else f" of split {result.split}"
        say(f"wrote {out}: {result.images} images{part}{line}")
        print("\n".join(words))


def _confidence_words(result: "Recalibration", out: Path) -> tuple[str, list[str]]:
    """Return the end of a line for standard error, and lines for standard output."""
    from uniemox.intervals import few_groups_note

    low, high = result.accuracy_interval
    before = ""
    if result.coverage_before is not None:
        before = f"; before {result.coverage_before:.0%} with {result.set_size_before:.1f}"
    accuracy = f"{result.accuracy:.1%} ({low:.1%} to {high:.1%})"
    if result.accuracy != result.accuracy_before:
        accuracy += f", before {result.accuracy_before:.1%}"
    words = [
        f"accuracy among {len(result.scored_labels)} labels {accuracy}; chance {result.chance:.1%}, the commonest "
        f"class {result.commonest:.1%}",
        f"likely sets for 90% hold the label of {result.coverage_after:.0%}, with {result.set_size_after:.1f} labels "
        f"of the model in a set{before}",
        _coverage_words(result),
    ]
    if result.units is not None and (note := few_groups_note(result.units, result.images)):
        words.append(note)
    if result.log_loss is not None:
        words.append(_log_loss_words(result.log_loss))
    if result.flagged is not None:
        words.append(f"{result.flagged:.0%} are flagged as unlike the images that the network was trained on")
    as_before = " as before" if result.keeps_temperature else ""
    line = (
        f", temperature {result.temperature:.2f}{as_before}, calibration error among all labels of the model "
        f"{result.ece_before:.3f}, now {result.ece_after:.3f}"
    )
    return f"{line}; score other images with uniemox evaluate --model {out}", [*words, f"verdict: {result.verdict}"]


def _coverage_words(result: "Recalibration") -> str:
    """Say how far the sets' coverage of other images may be from the one of these images."""
    low, high = result.coverage_range
    fitted_to = f"{result.images} images"
    if result.units not in (None, result.images):
        fitted_to += f" of {counted(result.units, 'group')}"
    return (
        f"of other images like these, sets fitted to {fitted_to} hold the label of {low:.0%} to {high:.0%} "
        "(with a probability of 95%); more images narrow this range"
    )


def _log_loss_words(change: "LogLossChange") -> str:
    """Say if the probabilities became better, by images that the temperature was not fitted to."""
    low, high = change.interval
    if change.is_within_noise:
        meaning = "within noise, so the temperature stays unchanged"
    elif high < 0:
        meaning = "better than before"
    else:
        meaning = "worse, so the temperature stays unchanged"
    return (
        f"log loss among all labels of the model {change.before:.3f}, with a new temperature {change.after:.3f} in "
        "cross-validation; "
        f"change {change.change:+.3f} ({low:+.3f} to {high:+.3f}): {meaning}"
    )


def _rating_words(fit: "RatingFit") -> tuple[str, list[str]]:
    """Return the end of a line for standard error, and lines for standard output."""
    line = f" of {fit.groups} groups, rated {min(fit.lowest):.1f} to {max(fit.highest):.1f} of 1 to 9"
    if max(fit.highest) <= NARROW_SCALE_MAX:
        line += " (if people rated on another scale, name it: csv:TABLE?scale=1-7)"
    lines = [
        f"{name}: rank correlation {fit.spearman[i]:.2f}, error {fit.mean_error[i]:.2f} of 8 (the mean rating "
        f"for all images: {fit.mean_error_of_mean[i]:.2f}); intervals, {fit.width[i]:.1f} wide on average, hold "
        f"{fit.coverage[i]:.0%} of the ratings (lowest fifth {fit.coverage_by_fifth[i][0]:.0%}, highest fifth "
        f"{fit.coverage_by_fifth[i][-1]:.0%})"
        for i, name in enumerate(AFFECT)
    ]
    if fit.verdict:
        lines.append(f"verdict: {fit.verdict}")
    return f"{line}; ten-fold cross-validation over groups:", lines
