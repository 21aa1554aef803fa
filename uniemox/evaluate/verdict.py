"""Sentences on what scores mean: trivial baselines, classes with few images, calibration."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from uniemox.evaluate.scores import MIN_OF_CLASS, images_by_class, small_classes
from uniemox.labels import AXES, quoted

# Difference of calibration errors that is worth a line.
MIN_ECE_CHANGE = 0.02


def verdict_of(
    values: Mapping[str, Any], choices: int, *, flags: bool, advises_calibration: bool = True
) -> Iterator[str]:
    """Yield sentences on what scores mean; none for distributions.

    Args:
        values: The scores.
        choices: Number of labels among which the model chose.
        flags: True if the model flags unfamiliar images; its answers for them are less certain.
        advises_calibration: Say if the calibration does not fit the images. It can't fit training images, whose
            probabilities are too high.
    """
    if "confusion" in values:
        yield from _of_classes(values, choices)
        if advises_calibration:
            yield from _of_calibration(values, flags=flags)
    if "positives" in values:
        yield from _of_several_labels(values)
    if "ccc" in values:
        yield from _of_ratings(values)


def _of_classes(values: Mapping[str, Any], choices: int) -> Iterator[str]:
    """Yield sentences on trivial baselines and small classes. Arguments are those of `verdict_of`."""
    images = images_by_class(values)
    commonest = max(images, key=images.__getitem__)
    share = images[commonest] / values["n"]
    yield f"chance {1 / choices:.1%}; always {quoted(commonest)}, the most frequent label: {share:.1%}"
    low, _ = values["accuracy_interval"]
    if low <= share:
        yield "the accuracy may be no better than always predicting the most frequent label"
    small = [f"{quoted(label)} ({count})" for label, count in small_classes(values).items() if count > 0]
    if small:
        yield f"too few images for a recall with an interval: {', '.join(small)}"


def _of_calibration(values: Mapping[str, Any], *, flags: bool) -> Iterator[str]:
    """Yield a sentence if the network's own probabilities fit better. Arguments are those of `verdict_of`."""
    before = values["ece"]
    after = values["ece_calibrated"]
    # Chance changes the error of few images by more.
    noise = 1 / math.sqrt(values["n"])
    if after is not None and after > before + max(MIN_ECE_CHANGE, noise):
        temperature = values["temperature"]
        corrections = []
        if temperature != 1:
            corrections.append(f"the temperature ({temperature:.2f})")
        if flags or not corrections:
            corrections.append("less certainty for unfamiliar images")
        yield (
            f"on these images, the network's own probabilities have a smaller calibration error ({before:.3f}) than "
            f"those of the model's answers ({after:.3f}), which differ by {' and '.join(corrections)}; uniemox "
            "calibrate fits the model to images like yours"
        )


def _of_ratings(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence on the trivial baseline."""
    baselines = {axis: (values[axis] or {}).get("mae_of_mean") for axis in AXES if axis in values}
    errors = [f"{axis} {value:.3f}" for axis, value in baselines.items() if value is not None]
    if errors:
        yield f"always the mean rating of these images: mean absolute error {', '.join(errors)}, and no correlation"


def _of_several_labels(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on chance, and on labels with few images."""
    present = {label: count for label, count in values["positives"].items() if count}
    chance = sum(present.values()) / len(present) / values["n"]
    yield f"chance: a mean average precision of {chance:.3f}, the mean share of images with a label"
    small = [f"{quoted(label)} ({count})" for label, count in present.items() if count < MIN_OF_CLASS]
    if small:
        yield f"few images, so these precisions may be far off: {', '.join(small)}"
    absent = [label for label, count in values["positives"].items() if not count]
    if absent:
        yield f"no image has these labels, so the mean leaves them out: {', '.join(map(quoted, absent))}"
