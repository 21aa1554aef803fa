"""Scores of each task, from the outputs of a classifier for all or some samples."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import units_of
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.evaluate.multilabel import MultilabelScores, label_calibration_error, score_multilabel
from uniemox.evaluate.outputs import Outputs
from uniemox.evaluate.scores import (
    AffectScores,
    ClassScores,
    DistributionScores,
    Scores,
    score_affect,
    score_classes,
    score_distributions,
)
from uniemox.evaluate.targets import mapped, target_shares
from uniemox.labels import AFFECT, ScoredLabels
from uniemox.predict.confidence import answers_of, familiarity_of, probabilities_of, sigmoid
from uniemox.predict.ratings import RatingHead


@dataclass(frozen=True)
class AnsweredSamples:
    """M samples with the outputs of a classifier, and the answers that it gives in a prediction."""

    info: ClassifierInfo
    outputs: Outputs

    @cached_property
    def units(self) -> list[str]:
        """(M,), names of images that are resampled together."""
        return units_of(self.outputs.samples)

    @cached_property
    def familiarity(self) -> NDArray[np.float64] | None:
        """(M,); None if the classifier has no distance."""
        return familiarity_of(self.outputs.distances, self.info.distances)

    @cached_property
    def answers(self) -> NDArray[np.float64]:
        """(M, E) probabilities in the classifier's labels, or valence and arousal."""
        return answers_of(self.info, self.outputs.values, self.outputs.distances)

    def units_at(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the units of some samples.  rows: (M',)."""
        return [self.units[row] for row in rows]


class TaskScorer(Protocol):
    """Scores of one task."""

    def score(self, rows: NDArray[np.intp]) -> Scores:
        """Score the samples with these indices, (M',)."""

    def line(self, row: int) -> dict[str, Any]:
        """Return the true and the predicted answer for a sample, as `uniemox evaluate` saves them."""


@dataclass(frozen=True)
class LabelShares:
    """Probabilities of the scored labels for M samples."""

    answered: AnsweredSamples
    scored: ScoredLabels

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """(M, E') probabilities."""
        return mapped(self.answered.answers, self.scored.of_model)

    def line(self, row: int) -> dict[str, Any]:
        """Return the line of a sample, see `TaskScorer`."""
        names = self.scored.labels.labels
        shares = self.values[row]
        truth = self.scored.truth(self.answered.outputs.samples[row].label)
        return {
            "label": None if truth is None else names[truth],
            "predicted": names[int(shares.argmax())],
            "probabilities": {name: round(float(share), 6) for name, share in zip(names, shares, strict=True)},
        }


@dataclass(frozen=True)
class ClassScorer:
    """Scorer of one label per image."""

    shares: LabelShares

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """(M,) indices in the scored labels."""
        scored = self.shares.scored
        return np.array([scored.truth(sample.label) for sample in self.shares.answered.outputs.samples])

    def score(self, rows: NDArray[np.intp]) -> ClassScores:
        """Score samples, see `TaskScorer`."""
        answered = self.shares.answered
        scored = self.shares.scored
        truth = self.truth[rows]
        scores = score_classes(self.shares.values[rows], truth, scored.labels, groups=answered.units_at(rows))
        temperature = answered.info.temperature
        if temperature is None:
            return scores
        uncalibrated = mapped(probabilities_of(answered.outputs.values[rows], None), scored.of_model)
        ece = expected_calibration_error(uncalibrated, truth)
        return replace(scores, temperature=temperature, ece=ece, ece_calibrated=scores.ece)

    def line(self, row: int) -> dict[str, Any]:
        """Return the line of a sample, see `TaskScorer`."""
        return self.shares.line(row)


@dataclass(frozen=True)
class DistributionScorer:
    """Scorer of the shares of people's votes."""

    shares: LabelShares

    @cached_property
    def votes(self) -> NDArray[np.float64]:
        """(M, E') shares of the votes for the scored labels."""
        return target_shares(self.shares.answered.outputs.samples, self.shares.scored)

    def score(self, rows: NDArray[np.intp]) -> DistributionScores:
        """Score samples, see `TaskScorer`."""
        answered = self.shares.answered
        scores = score_distributions(self.shares.values[rows], self.votes[rows], groups=answered.units_at(rows))
        return replace(scores, temperature=answered.info.temperature)

    def line(self, row: int) -> dict[str, Any]:
        """Return the line of a sample, see `TaskScorer`."""
        return self.shares.line(row)


@dataclass(frozen=True)
class MultilabelScorer:
    """Scorer of several labels per image, in the classifier's own labels."""

    answered: AnsweredSamples

    @cached_property
    def is_present(self) -> NDArray[np.bool_]:
        """(M, E), True for the labels that an image has."""
        labels = range(len(self.answered.info.labels))
        return np.array([[index in sample.classes for index in labels] for sample in self.answered.outputs.samples])

    def score(self, rows: NDArray[np.intp]) -> MultilabelScores:
        """Score samples, see `TaskScorer`."""
        info = self.answered.info
        is_present = self.is_present[rows]
        scores = score_multilabel(
            self.answered.answers[rows],
            is_present,
            info.labels,
            np.array(info.label_thresholds),
            groups=self.answered.units_at(rows),
        )
        if info.temperature is None:
            return scores
        uncalibrated = label_calibration_error(sigmoid(self.answered.outputs.values[rows]), is_present)
        return replace(scores, temperature=info.temperature, ece=uncalibrated, ece_calibrated=scores.ece)

    def line(self, row: int) -> dict[str, Any]:
        """Return the line of a sample, see `TaskScorer`."""
        info = self.answered.info
        probabilities = self.answered.answers[row].tolist()
        return {
            "labels": [info.labels[index] for index in self.answered.outputs.samples[row].classes],
            "predicted": list(info.assigned(probabilities)),
            "probabilities": {name: round(value, 6) for name, value in zip(info.labels, probabilities, strict=True)},
        }


@dataclass(frozen=True)
class AffectScorer:
    """Scorer of valence and arousal."""

    answered: AnsweredSamples
    head: RatingHead | None
    """Head that predicts the ratings from a classifier of labels, with intervals; None for a network of ratings."""

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Ratings that are scored: those of the network, without dominance if a sample lacks it."""
        if all(sample.dominance is not None for sample in self.answered.outputs.samples):
            return self.answered.info.labels
        return AFFECT

    @cached_property
    def intervals(self) -> NDArray[np.float64] | None:
        """(M, 2, 2) for valence and arousal; None without a rating head."""
        if self.head is None:
            return None
        answered = self.answered
        return self.head.intervals(answered.answers, answered.familiarity, answered.outputs.is_colourless)

    def score(self, rows: NDArray[np.intp]) -> AffectScores:
        """Score samples, see `TaskScorer`."""
        samples = [self.answered.outputs.samples[row] for row in rows]
        target = np.array([[getattr(sample, axis) for axis in self.axes] for sample in samples], dtype=np.float64)
        return score_affect(
            self.answered.answers[rows][:, : len(self.axes)],
            target,
            groups=self.answered.units_at(rows),
            intervals=None if self.intervals is None else self.intervals[rows],
        )

    def line(self, row: int) -> dict[str, Any]:
        """Return the line of a sample, see `TaskScorer`."""
        return dict(zip(self.answered.info.labels, self.answered.answers[row].tolist(), strict=True))
