"""Answers of a row of the scoreboard to one data set, and their comparison with those of another row.

A model whose labels are mapped to those of the data chooses among fewer labels, and is scored on fewer images. Both
would make its accuracy incomparable. Two rows are therefore compared on the images of both, and each chooses the most
probable of the labels that both can predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.evaluate import Predictions
from uniemox.intervals import PairedDifference, paired_bootstrap

# With a single label, every answer is right.
MIN_LABELS = 2


@dataclass(frozen=True, slots=True)
class RowAnswers:
    """Answers of S runs, one per seed, about the N images that all of them were scored on."""

    runs: tuple[Predictions, ...]
    """Predictions of each run, for the same images and among the same labels in the same order."""
    label_map: str = ""
    """The user's label map by which all of them were scored; empty without one."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the images, (N,)."""
        return self.runs[0].keys

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each image, (N,); images of one group are resampled together."""
        return self.runs[0].groups

    @property
    def truths(self) -> list[str]:
        """True label of each image, (N,)."""
        return self.runs[0].words

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the scores, in alphabetical order."""
        return self.runs[0].scored_labels

    @property
    def predictable(self) -> frozenset[str]:
        """Labels with a probability above 0 for any image."""
        highest = np.max([run.probabilities.max(axis=0) for run in self.runs], axis=0)  # (E,)
        return frozenset(label for label, probability in zip(self.labels, highest, strict=True) if probability > 0)

    @property
    def hits(self) -> NDArray[np.float64]:
        """(S, N), 1 for a right answer."""
        return np.array([run.is_right for run in self.runs], dtype=np.float64)

    def among(self, labels: Sequence[str], keys: Sequence[str]) -> "RowAnswers":
        """Return the answers about some images if the model chooses among some labels; see `Predictions.among`."""
        return RowAnswers(tuple(run.among(labels, keys) for run in self.runs), self.label_map)


@dataclass(frozen=True, slots=True)
class RowDifference:
    """Difference of two rows on the images and labels of both."""

    n: int
    labels: int
    """Number of labels that both can predict."""
    paired: PairedDifference


def join_answers(predictions: Sequence[Predictions], label_maps: Sequence[str]) -> RowAnswers | None:
    """Return the answers of runs about the images of all; None without such an image, or for different labels or maps.

    Args:
        predictions: Predictions of each run.
        label_maps: The user's label map of each run; empty without one.
    """
    if len(set(label_maps)) > 1:
        return None
    keys = sorted(set.intersection(*(set(item.keys) for item in predictions)))
    if not keys or len({frozenset(item.scored_labels) for item in predictions}) > 1:
        return None
    labels = sorted(predictions[0].scored_labels)
    return RowAnswers(tuple(item.among(labels, keys) for item in predictions), label_maps[0])


def difference_of(ours: RowAnswers, theirs: RowAnswers) -> RowDifference | str:
    """Return the difference of two rows, or the reason why they can't be compared."""
    our_truths = dict(zip(ours.keys, ours.truths, strict=True))
    their_truths = dict(zip(theirs.keys, theirs.truths, strict=True))
    shared = sorted(our_truths.keys() & their_truths.keys())
    if not shared:
        return "they were scored on different images"
    if ours.label_map and theirs.label_map and ours.label_map != theirs.label_map:
        return f"they were scored by different label maps ({ours.label_map} and {theirs.label_map})"
    labels = ours.predictable & theirs.predictable
    if len(labels) < MIN_LABELS:
        return f"they can predict {len(labels)} of the same labels"
    if set(ours.labels) == set(theirs.labels):
        conflicts = [key for key in shared if our_truths[key] != their_truths[key]]
        if conflicts:
            return f"{len(conflicts)} images have another label, {conflicts[0]} among them"
    keys = [key for key in shared if our_truths[key] in labels and our_truths[key] == their_truths[key]]
    if not keys:
        return "no image of both has a label that both can predict"
    shared_labels = sorted(labels)
    our_answers = ours.among(shared_labels, keys)
    their_answers = theirs.among(shared_labels, keys)
    paired = paired_bootstrap(our_answers.hits, their_answers.hits, our_answers.groups)
    return RowDifference(n=len(keys), labels=len(labels), paired=paired)
