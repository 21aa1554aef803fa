"""Comparison of two training settings by runs of several seeds each, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.errors import DataError
from uniemox.evaluate.run_records import Predictions, read_run
from uniemox.intervals import PairedDifference, bootstrap_interval, paired_bootstrap


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracies of two groups of runs on one evaluation that all of them have."""

    title: str
    """Data and split."""
    pictures: int
    ours: tuple[float, ...]
    """Accuracy of each run."""
    ours_interval: tuple[float, float]
    """Interval of their mean, over images."""
    theirs: tuple[float, ...]
    theirs_interval: tuple[float, float]
    difference: PairedDifference
    """Difference of the means, ours minus theirs; all seeds of an image are resampled together."""
    commonest: float
    """Accuracy of always predicting the most common class of the scored images."""
    uniform: float
    """Accuracy of random guessing, 1 / classes."""
    baseline: tuple[float, ...] = ()
    """Accuracy of each run of the trivial baseline; empty without one."""
    baseline_interval: tuple[float, float] | None = None
    ours_over_baseline: PairedDifference | None = None
    theirs_over_baseline: PairedDifference | None = None
    note: str = ""
    """Warning if not all runs were scored among the same labels."""


def compare(ours: Sequence[Path], theirs: Sequence[Path], baseline: Sequence[Path] = ()) -> list[Comparison]:
    """Compare two groups of runs on every evaluation that all runs have, pooling their seeds.

    ours, theirs: folders of fine-tuning runs, at least one each.  baseline: runs of a trivial baseline, such as method
    histogram.
    Raises DataError if a folder has no run, they have no evaluation in common, or predictions are for different images.
    """
    runs = {path: _by_title(path) for path in (*ours, *theirs, *baseline)}
    shared = [title for title in next(iter(runs.values()), ()) if all(title in others for others in runs.values())]
    if not ours or not theirs or not shared:
        raise DataError("these runs were not scored on the same data; run uniemox evaluate with each of them")
    result = []
    for title in shared:
        for path, evaluations in runs.items():
            if evaluations[title] is None:
                raise DataError(f"{path}: no labels are saved for {title}; evaluate it again, if it is a classifier")
        groups = [[one for path in group if (one := runs[path][title])] for group in (ours, theirs, baseline)]
        result.append(_compare(title, *groups))
    return result


def _by_title(path: Path) -> dict[str, Predictions | None]:
    """Return a run's predictions by scored data; None for evaluations without labels."""
    predictions: dict[str, Predictions | None] = {}
    for one in read_run(path).evaluations:
        if one.title in predictions:
            raise DataError(f"{path} was scored twice on {one.title}; remove one of the two from its evaluations")
        predictions[one.title] = one.predictions
    return predictions


def chance_of(predictions: Predictions) -> tuple[float, float]:
    """Return two chance levels: accuracy of these images' most common class, and of guessing one of all classes."""
    classes = predictions.probabilities.shape[1]
    counts = np.bincount(predictions.labels, minlength=classes)
    return float(counts.max() / counts.sum()), 1 / classes


def label_note(predictions: Sequence[Predictions]) -> str:
    """Return a warning if answers were scored among different labels; fewer labels leave fewer wrong answers."""
    label_sets = dict.fromkeys(frozenset(one.scored_labels) for one in predictions)
    if len(label_sets) < 2:
        return ""
    lists = " and ".join(f"{len(labels)} ({', '.join(sorted(labels))})" for labels in label_sets)
    return f"not scored among the same labels, but among {lists}: scores among fewer labels are higher"


def _compare(
    title: str, ours: Sequence[Predictions], theirs: Sequence[Predictions], baseline: Sequence[Predictions]
) -> Comparison:
    first, everyone = ours[0], (*ours, *theirs, *baseline)
    if any(one.keys != first.keys for one in everyone):
        raise DataError(f"{title}: the runs were scored on different images; run uniemox evaluate with all of them")
    hits = np.array([one.is_right for one in everyone], dtype=np.float64)  # (S, N)
    own, other, baseline_hits = np.split(hits, [len(ours), len(ours) + len(theirs)])
    commonest, uniform = chance_of(first)
    compared: dict[str, Any] = {"difference": paired_bootstrap(own, other, first.groups)}
    groups = {"ours": own, "theirs": other} | ({"baseline": baseline_hits} if baseline else {})
    for name, group in groups.items():
        compared[name] = tuple(group.mean(axis=1).tolist())
        compared[f"{name}_interval"] = bootstrap_interval(group.mean(axis=0), first.groups)
        if baseline and name != "baseline":
            compared[f"{name}_over_baseline"] = paired_bootstrap(group, baseline_hits, first.groups)
    return Comparison(
        title=title,
        pictures=len(first.keys),
        commonest=commonest,
        uniform=uniform,
        note=label_note(everyone),
        **compared,
    )
