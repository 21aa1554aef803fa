"""Targets of an evaluation: the samples that have one, and their votes as shares of the scored labels."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import DataSet, Sample, shares_of
from uniemox.errors import DataError
from uniemox.labels import NO_LABELS, LabelMap, LabelSet, ScoredLabels
from uniemox.plurals import counted


def mapped_labels(scored: ScoredLabels | None) -> str:
    """Return the map from the model's labels to the scored ones, in words; empty if they are the same."""
    if scored is None or scored.of_model.source.labels == scored.labels.labels:
        return ""
    return str(scored.of_model)


def samples_to_score(
    data: DataSet, info: ClassifierInfo, scored: ScoredLabels | None, without: Set[str]
) -> tuple[list[Sample], list[str]]:
    """Return the samples with a target for the model, and messages about the labels and the other samples.

    Args:
        data: All samples.
        info: Metadata of the model.
        scored: Labels in which it is scored; None for valence and arousal.
        without: Labels of the data that the user's map leaves out.

    Raises:
        DataError: If no sample has a target.
    """
    notes: list[str] = []
    if mapped := mapped_labels(scored):
        notes.append(f"labels are mapped: {mapped}")
    if scored is None:
        labelled = [sample for sample in data.samples if sample.valence is not None and sample.arousal is not None]
        samples = labelled
    elif info.task == "multilabel":
        data.check_categories()
        labelled = [sample for sample in data.samples if sample.classes]
        samples = labelled
    elif info.task == "distribution":
        labelled = [sample for sample in data.samples if shares_of(sample, data.labels)]
        has_votes: list[bool] = (target_shares(labelled, scored).sum(axis=1) > 0).tolist()
        samples = list(compress(labelled, has_votes))
        notes += _notes_on_votes(labelled, len(samples), data.labels, scored, without)
    else:
        labelled = [sample for sample in data.samples if sample.label is not None]
        samples = [sample for sample in labelled if scored.truth(sample.label) is not None]
        notes += _notes_on_labels(Counter(map(data.label_of, labelled)), data.labels, scored, without)
    if len(data) > len(labelled):
        images = counted(len(data) - len(labelled), "image has", "images have")
        notes.append(f"{images} no label or rating to compare with")
    if not samples:
        has_ratings = any(sample.valence is not None and sample.arousal is not None for sample in data.samples)
        hint = ""
        if has_ratings:
            hint = "; score its valence and arousal with --task affect (task='affect' in Python)"
        elif scored is not None and not data.has_labels:
            hint = f"; {NO_LABELS}"
        raise DataError(f"{data.name} has no image to score: none of {len(data)} has what the model predicts{hint}")
    if scored is not None and scored.absent:
        lacking = ", ".join(scored.absent)
        notes.append(f"scored among all {len(scored.labels)} labels of the model; the data have no class {lacking}")
    return samples, notes


def _notes_on_labels(
    images_of: Mapping[str | None, int], labels: LabelSet, scored: ScoredLabels, without: Set[str]
) -> Iterator[str]:
    """Yield messages about the images that are left out by their label.

    Args:
        images_of: Number of images of each label of the data.
        labels: Labels of the data.
        scored: Labels in which the model is scored.
        without: Labels of the data that the user's map leaves out.
    """
    for reason, names in _labels_left_out(labels, scored, without):
        count = sum(images_of.get(name, 0) for name in names)
        if count:
            present = ", ".join(name for name in names if images_of.get(name))
            yield f"{counted(count, 'image was', 'images were')} left out: {reason} {present}"


def _notes_on_votes(
    samples: Sequence[Sample], scored_count: int, labels: LabelSet, scored: ScoredLabels, without: Set[str]
) -> Iterator[str]:
    """Yield messages about the votes that are left out, and the images without others.

    Args:
        samples: Samples with votes.
        scored_count: Number of samples with a vote that counts.
        labels: Labels of the data.
        scored: Labels in which the model is scored.
        without: Labels of the data that the user's map leaves out.
    """
    votes = np.array([shares_of(sample, labels) for sample in samples])
    for reason, names in _labels_left_out(labels, scored, without):
        share = votes[:, [labels.index(name) for name in names]].sum(axis=1).mean() if len(votes) else 0.0
        if share > 0:
            yield f"{share:.1%} of the votes were left out: {reason} {', '.join(names)}"
    if scored_count < len(samples):
        lost = len(samples) - scored_count
        have = "it has" if lost == 1 else "they have"
        yield f"{counted(lost, 'image was', 'images were')} left out: {have} no other votes"


def _labels_left_out(labels: LabelSet, scored: ScoredLabels, without: Set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the labels of the data that are not scored, by the reason."""
    unscored = [label for i, label in enumerate(labels.labels) if scored.truth(i) is None]
    for reason, is_chosen in (("the label map leaves out", True), ("the model has no label for", False)):
        names = [label for label in unscored if (label in without) == is_chosen]
        if names:
            yield reason, names


def target_shares(samples: Sequence[Sample], scored: ScoredLabels) -> NDArray[np.float64]:
    """Return the shares of the votes for the scored labels that the model can predict.

    Args:
        samples: N samples.
        scored: Labels in which the model is scored.

    Returns:
        (N, E'), rows that sum to 1, or to 0 for a sample without a vote for any of these labels.
    """
    labels = scored.of_data.source
    without_votes = [0.0] * len(labels)
    votes = np.array([shares_of(sample, labels) or without_votes for sample in samples]).reshape(-1, len(labels))
    shares = mapped(votes, scored.of_data)
    # With a share for the others, the divergence of an answer that can't have them would be infinite.
    shares[:, list(set(range(len(scored.labels))) - scored.predictable)] = 0
    return _with_sum_one(shares)


def mapped(probabilities: NDArray[np.float64], mapping: LabelMap) -> NDArray[np.float64]:
    """Return probabilities of the target's labels, (N, E'), from those of the source's, (N, E); rows of sum 1.

    Probabilities of labels that become one are added. A label without a source has probability 0.
    """
    shares = np.zeros((len(probabilities), len(mapping.target)))
    for i in range(len(mapping.source)):
        if (label := mapping(i)) is not None:
            shares[:, label] += probabilities[:, i]
    return _with_sum_one(shares)


def _with_sum_one(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows, (N, E), divided by their sum; a row of zeros stays."""
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
