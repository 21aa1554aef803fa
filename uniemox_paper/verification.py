"""Checks that the weights of a run still give its scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.data import open_data
from uniemox.errors import CheckpointError, DataError
from uniemox.evaluate import Evaluation, SavedEvaluation, evaluate, read_evaluation
from uniemox.io import EVALUATIONS

# Maximum change of a probability by rounding on another machine.
CLOSE = 1e-3


def verify(run: Path) -> list[dict[str, Any]]:
    """Evaluate a fine-tuning run's saved weights again, on the same images as each saved evaluation.

    Returns:
        Data, split, accuracy, number of pictures and the largest difference of a probability of each.

    Raises:
        CheckpointError: With both figures, if the result differs.
        DataError: If the run has no evaluation, or its data are missing.
    """
    files = sorted((run / EVALUATIONS).glob("*.json"))
    if not files:
        raise DataError(f"{run} has no evaluation to verify; run uniemox evaluate --model {run} first")
    return [_verify(run, read_evaluation(file)) for file in files]


def _verify(run: Path, saved: SavedEvaluation) -> dict[str, Any]:
    if saved.predictions is None:
        reason = saved.missing or "only evaluations of labels can be verified"
        raise DataError(f"{run}: the evaluation on {saved.title} can't be verified: {reason}")
    persons = saved.values.get("persons")
    opened = open_data(saved.data, persons=None if persons is None else Path(persons), from_file=True)
    samples = {sample.key: sample for sample in opened.samples}
    keys = saved.predictions.keys
    if gone := [key for key in keys if key not in samples]:
        raise DataError(f"{opened.name} lacks {len(gone)} of {len(keys)} scored images, such as {gone[0]}")
    data = replace(opened, samples=[samples[key] for key in keys])
    evaluation = evaluate(run, data, allow_seen=True)  # training images were checked at the first evaluation
    largest = _largest_difference(evaluation, saved)
    values = evaluation.as_dict()
    accuracy = values["accuracy"]
    is_same = all(values[name] == saved.values[name] for name in ("accuracy", "confusion"))
    if not is_same or largest > CLOSE:
        raise CheckpointError(
            f"{run}: its weights give accuracy {accuracy:.4f} on {saved.title}, the evaluation has "
            f"{saved.values['accuracy']:.4f} (probabilities differ by up to {largest:.2g}): weights, images or "
            "program have changed; evaluate again, and compare versions in config.json"
        )
    figures = {"accuracy": accuracy, "pictures": len(keys), "largest_difference": largest}
    return {"data": saved.data, "split": saved.split, **figures}


def _largest_difference(evaluation: Evaluation, saved: SavedEvaluation) -> float:
    """Return the largest difference of probabilities.

    Raises:
        DataError: If a label has changed.
    """
    assert saved.predictions is not None
    labels = saved.predictions.scored_labels
    lines = {line["key"]: line for line in evaluation.predictions}
    largest = 0.0
    for i, key in enumerate(saved.predictions.keys):
        line = lines.get(key)
        if line is None:
            raise DataError(f"{saved.title}: {key} can't be read any more")
        label = labels[int(saved.predictions.labels[i])]
        if line["label"] != label:
            raise DataError(f"{saved.title}: {key} was {label} when it was scored and is {line['label']} now")
        now = np.array([line["probabilities"][name] for name in labels])
        largest = max(largest, float(np.abs(now - saved.predictions.probabilities[i]).max()))
    return largest
