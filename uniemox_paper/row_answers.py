"""Answers of a row of the scoreboard to one data set, and their comparison with those of another row.

A model whose labels are mapped to those of the data chooses among fewer labels, and is scored on fewer images. Both
would make its accuracy incomparable. Two rows are therefore compared on the images of both, and each chooses the most
probable of the labels that both can predict.
"""

from collections.abc import Collection, Sequence
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

    keys: tuple[str, ...]  # N
    groups: tuple[str, ...]  # N; images of one group are resampled together
    truths: tuple[str, ...]  # N
    labels: tuple[str, ...]
    """E labels of the scores, in alphabetical order."""
    predicted: NDArray[np.int64]  # (S, N), indices of labels
    probabilities: NDArray[np.float64]  # (S, N, E), 0 to 1

    @property
    def predictable(self) -> frozenset[str]:
        """Labels with a probability above 0 for any image."""
        highest = self.probabilities.max(axis=(0, 1))  # (E,)
        return frozenset(label for label, probability in zip(self.labels, highest, strict=True) if probability > 0)

    @property
    def hits(self) -> NDArray[np.float64]:
        """(S, N), 1 for a right answer."""
        return np.array(np.array(self.labels)[self.predicted] == np.array(self.truths), dtype=np.float64)

    def hits_among(self, keys: Sequence[str], labels: Collection[str]) -> NDArray[np.float64]:
        """Return (S, K) 1 for a right answer about K images, if the model chooses among these labels alone.

        Args:
            keys: K images, whose true labels are among the labels.
            labels: At least one label.
        """
        place_of = {key: i for i, key in enumerate(self.keys)}
        places = [place_of[key] for key in keys]
        if self.predictable <= set(labels):
            return self.hits[:, places]
        columns = [i for i, label in enumerate(self.labels) if label in labels]
        chosen = self.probabilities[:, places][:, :, columns].argmax(axis=2)  # (S, K)
        words = np.array([self.labels[i] for i in columns])[chosen]
        return np.array(words == np.array([self.truths[place] for place in places]), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class RowDifference:
    """Difference of two rows on the images and labels of both."""

    n: int
    labels: int
    """Number of labels that both can predict."""
    paired: PairedDifference


def join_answers(predictions: Sequence[Predictions]) -> RowAnswers | None:
    """Return the answers of runs about the images of all; None without such an image, or for different labels.

    Args:
        predictions: Predictions of each run.
    """
    keys = sorted(set.intersection(*(set(item.keys) for item in predictions)))
    if not keys or len({frozenset(item.scored_labels) for item in predictions}) > 1:
        return None
    labels = tuple(sorted(predictions[0].scored_labels))
    predicted = []
    probabilities = []
    for item in predictions:
        place_of = {key: i for i, key in enumerate(item.keys)}
        places = [place_of[key] for key in keys]
        columns = [item.scored_labels.index(label) for label in labels]
        predicted.append([labels.index(item.scored_labels[i]) for i in item.predicted[places]])
        probabilities.append(item.probabilities[places][:, columns])
    first = predictions[0]
    place_of = {key: i for i, key in enumerate(first.keys)}
    words = first.words
    return RowAnswers(
        keys=tuple(keys),
        groups=tuple(first.groups[place_of[key]] for key in keys),
        truths=tuple(words[place_of[key]] for key in keys),
        labels=labels,
        predicted=np.array(predicted),
        probabilities=np.array(probabilities),
    )


def difference_of(ours: RowAnswers, theirs: RowAnswers) -> RowDifference | str:
    """Return the difference of two rows, or the reason why they can't be compared."""
    our_truths = dict(zip(ours.keys, ours.truths, strict=True))
    their_truths = dict(zip(theirs.keys, theirs.truths, strict=True))
    shared = sorted(our_truths.keys() & their_truths.keys())
    if not shared:
        return "they were scored on different images"
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
    group_of = dict(zip(ours.keys, ours.groups, strict=True))
    paired = paired_bootstrap(
        ours.hits_among(keys, labels), theirs.hits_among(keys, labels), [group_of[key] for key in keys]
    )
    return RowDifference(n=len(keys), labels=len(labels), paired=paired)
