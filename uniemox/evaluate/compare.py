"""Is one recipe better than another? Runs of several seeds of each, on the same pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.errors import DataError
from uniemox.evaluate.intervals import PairedDifference, bootstrap_interval, paired_bootstrap
from uniemox.evaluate.kept import Predictions, read_run


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracies of two groups of runs on one evaluation that all of them have."""

    title: str
    """Data and split."""
    pictures: int
    ours: tuple[float, ...]
    """Accuracy of each run."""
    ours_interval: tuple[float, float]
    """Of their mean, over pictures."""
    theirs: tuple[float, ...]
    theirs_interval: tuple[float, float]
    difference: PairedDifference
    """Of the means, ours minus theirs; all seeds of a picture are drawn together."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def compare(ours: Sequence[Path], theirs: Sequence[Path]) -> list[Comparison]:
    """Every evaluation that all runs share, their seeds pooled.

    ours, theirs: folders of fine-tuning runs, at least one each.
    Raises DataError if a folder holds no run, they share no evaluation, or predictions are not of the same pictures.
    """
    kept = {path: read_run(path) for path in (*ours, *theirs)}
    titles = [{one.title: one for one in run.evaluations} for run in kept.values()]
    for (path, run), found_titles in zip(kept.items(), titles, strict=True):
        if len(found_titles) < len(run.evaluations):
            twice = next(one.title for one in run.evaluations if found_titles[one.title] is not one)
            raise DataError(f"{path} was scored twice on {twice}; remove one of the two from its evaluations")
    shared = [title for title in titles[0] if all(title in others for others in titles)] if titles else []
    if not ours or not theirs or not shared:
        raise DataError("these runs were not scored on the same data; run uniemox evaluate with each of them")
    result = []
    for title in shared:
        found: dict[Path, Predictions] = {}
        for (path, _), evaluations in zip(kept.items(), titles, strict=True):
            predictions = evaluations[title].predictions
            if predictions is None:
                raise DataError(f"{path}: no labels were predicted for {title}; only classifiers can be compared so")
            found[path] = predictions
        result.append(_compare(title, [found[path] for path in ours], [found[path] for path in theirs]))
    return result


def _compare(title: str, ours: Sequence[Predictions], theirs: Sequence[Predictions]) -> Comparison:
    first = ours[0]
    rows = []
    for one in (*ours, *theirs):
        places = {key: place for place, key in enumerate(one.keys)}
        if places.keys() != set(first.keys) or len(one.keys) != len(first.keys):
            raise DataError(f"{title}: the runs were scored on other pictures; run uniemox evaluate with all of them")
        rows.append(one.is_right[[places[key] for key in first.keys]])
    hits = np.array(rows, dtype=np.float64)  # (S, N)
    own, other = hits[: len(ours)], hits[len(ours) :]
    return Comparison(
        title=title,
        pictures=len(first.keys),
        ours=tuple(own.mean(axis=1).tolist()),
        ours_interval=bootstrap_interval(own.mean(axis=0), first.groups),
        theirs=tuple(other.mean(axis=1).tolist()),
        theirs_interval=bootstrap_interval(other.mean(axis=0), first.groups),
        difference=paired_bootstrap(own, other, first.groups),
    )
