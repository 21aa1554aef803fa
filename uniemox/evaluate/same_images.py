"""Checks that a comparison is of different models, scored on the same images with the same labels."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.run_records import Predictions
from uniemox.plurals import counted

# Largest difference between two models' probabilities that counts as none. Those of two seeds differ by more for some
# image.
EQUAL_ANSWERS = 0.01
DIFFERENT_IMAGES = "the runs were scored on different images; run uniemox evaluate with all of them"


def check_same_images(title: str, predictions: Sequence[Predictions]) -> None:
    """Raise DataError if models were scored on different images, or against different labels of one image.

    Args:
        title: What was scored.
        predictions: Predictions of each model.
    """
    _refuse_other_images(title, predictions)
    _refuse_other_labels(title, predictions)
    _refuse_lost_images(title, predictions)


def refuse_equal_answers(side: str, runs: Sequence[Path], predictions: Sequence[Predictions]) -> None:
    """Raise ConfigError if two runs of one side answer alike: copies of one model, also exported or in 8 bits.

    Args:
        side: Name of the side, for the message.
        runs: Its runs or models.
        predictions: Predictions of each.
    """
    for (run, first), (other, second) in combinations(zip(runs, predictions, strict=True), 2):
        if first.keys != second.keys or first.scored_labels != second.scored_labels:
            continue
        if np.abs(first.probabilities - second.probabilities).max() <= EQUAL_ANSWERS:
            raise ConfigError(
                f"{side}: {run} and {other} give the same probabilities for all {len(first.keys)} images, so they are "
                "one model, which counts once: give one of them, or --mixed (allow_mixed=True in Python)"
            )


def _refuse_lost_images(title: str, predictions: Sequence[Predictions]) -> None:
    """Raise DataError if a model was not scored on an image whose label it can predict."""
    word_of = {key: word for item in predictions for key, word in zip(item.keys, item.words, strict=True)}
    for item in predictions:
        scored = set(item.keys)
        if any(word in item.scored_labels for key, word in word_of.items() if key not in scored):
            raise DataError(f"{title}: {DIFFERENT_IMAGES}")


def _refuse_other_images(title: str, predictions: Sequence[Predictions]) -> None:
    """Raise DataError if models were scored on different images of one name, as in two folders of one name."""
    hash_of = dict[str, str]()
    others = set[str]()
    for item in predictions:
        for key, digest in zip(item.keys, item.hashes or [""] * len(item.keys), strict=True):
            # Without a hash, nothing is known.
            if digest and hash_of.setdefault(key, digest) != digest:
                others.add(key)
    if others:
        raise DataError(
            f"{title}: {counted(len(others), 'image has', 'images have')} another content in one of the runs' data, "
            f"such as {min(others)}: two data sets have these names, or files were replaced; run uniemox evaluate with "
            "all runs on the same data"
        )


def _refuse_other_labels(title: str, predictions: Sequence[Predictions]) -> None:
    """Raise DataError if models were scored against different labels of an image, as after a correction of the data.

    A label that the other model can't be scored on is no contradiction: it may have another name there.
    """
    for first, other in combinations(predictions, 2):
        word_of = dict(zip(first.keys, first.words, strict=True))
        shared = set(first.scored_labels) & set(other.scored_labels)
        pairs = [(key, word_of.get(key), word) for key, word in zip(other.keys, other.words, strict=True)]
        changed = [pair for pair in pairs if pair[1] != pair[2] and {pair[1], pair[2]} <= shared]
        if changed:
            key, before, now = changed[0]
            raise DataError(
                f"{title}: the runs were scored against different labels of {counted(len(changed), 'image')}, such as "
                f"{key} ({before} and {now}), so the data have changed meanwhile; run uniemox evaluate with all of them"
            )
