"""Scores from a classifier's outputs, in the labels of the data."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.evaluate.multilabel import MultilabelScores, label_calibration_error, score_multilabel
from uniemox.evaluate.outputs import Outputs, units_of
from uniemox.evaluate.scores import Scores, score_affect, score_classes, score_distributions
from uniemox.evaluate.targets import mapped, target_shares
from uniemox.labels import AFFECT, ScoredLabels
from uniemox.predict.confidence import (
    COVERAGE,
    MIN_TO_FLAG,
    UNFAMILIAR,
    answers_of,
    familiarity_of,
    likely_sets,
    max_coverage,
    probabilities_of,
    set_probabilities_of,
    sigmoid,
)
from uniemox.predict.ratings import RatingHead

# With fewer unfamiliar images, their sets are not scored separately.
MIN_UNFAMILIAR = 10


@dataclass(frozen=True)
class Scorer:
    """Converts outputs of all or some samples to scores."""

    info: ClassifierInfo
    scored: ScoredLabels | None
    """None for valence and arousal."""
    outputs: Outputs
    head: RatingHead | None

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
        """(M, E) probabilities in the classifier's labels, or valence and arousal, as in prediction."""
        return answers_of(self.info, self.outputs.values, self.outputs.distances)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Ratings that are scored: those of the network, without dominance if a sample lacks it."""
        if all(sample.dominance is not None for sample in self.outputs.samples):
            return self.info.labels
        return AFFECT

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(M, E') probabilities of the scored labels, for tasks label and distribution."""
        assert self.scored is not None
        return mapped(self.answers, self.scored.of_model)

    @cached_property
    def intervals(self) -> NDArray[np.float64] | None:
        """(M, 2, 2) for valence and arousal; None without a rating head."""
        if self.head is None:
            return None
        return self.head.intervals(self.answers, self.familiarity, self.outputs.is_colourless)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """(M,) indices in the scored labels, for task label."""
        assert self.scored is not None
        return np.array([self.scored.truth(sample.label) for sample in self.outputs.samples])

    @cached_property
    def votes(self) -> NDArray[np.float64]:
        """(M, E') shares of the votes for the scored labels, for task distribution."""
        assert self.scored is not None
        return target_shares(self.outputs.samples, self.scored)

    def score(self, rows: NDArray[np.intp]) -> Scores:
        """Score the samples with these indices, (M',)."""
        samples = [self.outputs.samples[row] for row in rows]
        units = [self.units[row] for row in rows]
        values = self.outputs.values[rows]
        answers = self.answers[rows]
        temperature = self.info.temperature
        if self.scored is None:
            target = np.array([[getattr(sample, axis) for axis in self.axes] for sample in samples], dtype=np.float64)
            intervals = None if self.intervals is None else self.intervals[rows]
            return score_affect(answers[:, : len(self.axes)], target, groups=units, intervals=intervals)
        if self.info.task == "multilabel":
            return self._score_multilabel(rows, units)
        shares = self.shares[rows]
        if self.info.task == "distribution":
            return replace(score_distributions(shares, self.votes[rows], groups=units), temperature=temperature)
        truth = self.truth[rows]
        scores = score_classes(shares, truth, self.scored.labels, groups=units)
        if temperature is None:
            return scores
        uncalibrated = mapped(probabilities_of(values, None), self.scored.of_model)
        ece = expected_calibration_error(uncalibrated, truth)
        return replace(scores, temperature=temperature, ece=ece, ece_calibrated=scores.ece)

    @cached_property
    def is_present(self) -> NDArray[np.bool_]:
        """(M, E), True for the labels that an image has, for task multilabel."""
        labels = range(len(self.info.labels))
        return np.array([[index in sample.classes for index in labels] for sample in self.outputs.samples])

    def _score_multilabel(self, rows: NDArray[np.intp], units: list[str]) -> MultilabelScores:
        """Score several labels of the samples with these indices, (M',)."""
        is_present = self.is_present[rows]
        info = self.info
        thresholds = np.array(info.label_thresholds)
        scores = score_multilabel(self.answers[rows], is_present, info.labels, thresholds, groups=units)
        if info.temperature is None:
            return scores
        uncalibrated = label_calibration_error(sigmoid(self.outputs.values[rows]), is_present)
        return replace(scores, temperature=info.temperature, ece=uncalibrated, ece_calibrated=scores.ece)

    def trust(self) -> dict[str, float]:
        """Return `Evaluation.trust`. Sets consist of the model's own labels, of which several may be right."""
        measures = dict[str, float]()
        if self.familiarity is not None and len(self.info.distances) >= MIN_TO_FLAG:
            measures["flagged"] = float((self.familiarity < UNFAMILIAR).mean())
        scores = self.info.conformal_scores
        if self.scored is None or self.info.task != "label" or max_coverage(scores) < COVERAGE:
            return measures
        truth = RightAnswers.of(self.outputs, self.scored).truth
        shares = set_probabilities_of(self.info, self.outputs.values, self.outputs.distances)
        parts = {"": np.ones(len(shares), dtype=bool)}
        if self.familiarity is not None and (self.familiarity < UNFAMILIAR).sum() >= MIN_UNFAMILIAR:
            parts["_unfamiliar"] = self.familiarity < UNFAMILIAR
        for suffix, part in parts.items():
            coverage, set_size = likely_sets(scores, COVERAGE, shares[part], truth[part])
            measures |= {f"coverage{suffix}": coverage, f"set_size{suffix}": set_size}
        return measures

    def predictions(self) -> list[dict[str, Any]]:
        """Return a line for every image."""
        lines = []
        for i, (sample, unit) in enumerate(zip(self.outputs.samples, self.units, strict=True)):
            line: dict[str, Any] = {"key": sample.key, "path": str(sample.image), "group": unit}
            if self.scored is None:
                line |= dict(zip(self.info.labels, self.answers[i].tolist(), strict=True))
            elif self.info.task == "multilabel":
                line |= self._multilabel_line(i)
            else:
                names = self.scored.labels.labels
                truth = self.scored.truth(sample.label)
                line["label"] = None if truth is None else names[truth]
                line["predicted"] = names[int(self.shares[i].argmax())]
                line["probabilities"] = {
                    name: round(float(share), 6) for name, share in zip(names, self.shares[i], strict=True)
                }
            lines.append(line)
        return lines

    def _multilabel_line(self, row: int) -> dict[str, Any]:
        """Return the labels of an image, true and given, and the probability of each."""
        names = self.info.labels
        probabilities = self.answers[row].tolist()
        return {
            "labels": [names[index] for index in self.outputs.samples[row].classes],
            "predicted": list(self.info.assigned(probabilities)),
            "probabilities": {name: round(value, 6) for name, value in zip(names, probabilities, strict=True)},
        }


@dataclass(frozen=True, slots=True)
class RightAnswers:
    """Right answers of a model for N images, in the model's own labels."""

    truth: NDArray[np.intp]
    """(N,) index of the right label; if several of the model's labels mean the true one, of the most probable."""
    any_of: NDArray[np.bool_] | None
    """(N, E), True for each right label; None if each label of the data means one of the model."""

    @classmethod
    def of(cls, outputs: Outputs, scored: ScoredLabels) -> "RightAnswers":
        """Return the right answers for outputs, (N, E), of images that all have a scored label."""
        scored_truth = np.array([scored.truth(sample.label) for sample in outputs.samples])  # (N,)
        is_right = meanings_of(scored) == scored_truth[:, None]  # (N, E)
        truth = np.where(is_right, outputs.values, -np.inf).argmax(axis=1)
        return cls(truth, is_right if scored.of_model.merged else None)


def meanings_of(scored: ScoredLabels) -> NDArray[np.intp]:
    """Return the index in the scored labels of each of the model's labels, (E,); -1: none."""
    meanings = map(scored.of_model, range(len(scored.of_model.source)))
    return np.array([-1 if index is None else index for index in meanings])
