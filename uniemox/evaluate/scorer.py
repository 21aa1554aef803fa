"""Scores from a classifier's outputs, in the labels of the data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.hashes import stored_or_image_hashes
from uniemox.evaluate.outputs import Outputs
from uniemox.evaluate.scores import Scores
from uniemox.evaluate.task_scorers import (
    AffectScorer,
    AnsweredSamples,
    ClassScorer,
    DistributionScorer,
    LabelShares,
    MultilabelScorer,
    TaskScorer,
)
from uniemox.labels import ScoredLabels
from uniemox.predict.confidence import (
    COVERAGE,
    MIN_TO_FLAG,
    UNFAMILIAR,
    likely_sets,
    max_coverage,
    set_probabilities_of,
)
from uniemox.predict.ratings import RatingHead

# With fewer unfamiliar images, their sets are not scored separately.
MIN_UNFAMILIAR = 10


@dataclass(frozen=True)
class Scorer:
    """Converts outputs of all or some samples to scores."""

    answered: AnsweredSamples
    scored: ScoredLabels | None
    """None for valence and arousal."""
    task_scorer: TaskScorer

    @classmethod
    def of(
        cls, info: ClassifierInfo, scored: ScoredLabels | None, outputs: Outputs, head: RatingHead | None
    ) -> "Scorer":
        """Return the scorer of a classifier's task.

        Args:
            info: Metadata of the classifier.
            scored: Labels that are scored; None for valence and arousal.
            outputs: Outputs of the classifier for M samples.
            head: Head whose ratings are scored instead of the classifier's labels.
        """
        answered = AnsweredSamples(info, outputs)
        task_scorer: TaskScorer
        if scored is None:
            task_scorer = AffectScorer(answered, head)
        elif info.task == "multilabel":
            task_scorer = MultilabelScorer(answered)
        elif info.task == "distribution":
            task_scorer = DistributionScorer(LabelShares(answered, scored))
        else:
            task_scorer = ClassScorer(LabelShares(answered, scored))
        return cls(answered, scored, task_scorer)

    def score(self, rows: NDArray[np.intp]) -> Scores:
        """Score the samples with these indices, (M',)."""
        return self.task_scorer.score(rows)

    def trust(self) -> dict[str, float]:
        """Return `Evaluation.trust`. Sets consist of the model's own labels, of which several may be right."""
        measures = dict[str, float]()
        info = self.answered.info
        outputs = self.answered.outputs
        familiarity = self.answered.familiarity
        if familiarity is not None and len(info.distances) >= MIN_TO_FLAG:
            measures["flagged"] = float((familiarity < UNFAMILIAR).mean())
        scores = info.conformal_scores
        if self.scored is None or info.task != "label" or max_coverage(scores) < COVERAGE:
            return measures
        truth = RightAnswers.of(outputs, self.scored).truth
        shares = set_probabilities_of(info, outputs.values, outputs.distances)
        parts = {"": np.ones(len(shares), dtype=bool)}
        if familiarity is not None and (familiarity < UNFAMILIAR).sum() >= MIN_UNFAMILIAR:
            parts["_unfamiliar"] = familiarity < UNFAMILIAR
        for suffix, part in parts.items():
            coverage, set_size = likely_sets(scores, COVERAGE, shares[part], truth[part])
            measures |= {f"coverage{suffix}": coverage, f"set_size{suffix}": set_size}
        return measures

    def predictions(self) -> list[dict[str, Any]]:
        """Return a line for every image, with the hash of its file, or of the file that a shard was made of."""
        samples = self.answered.outputs.samples
        hashes = stored_or_image_hashes(samples)
        rows = zip(samples, self.answered.units, hashes, strict=True)
        return [
            {
                "key": sample.key,
                "path": str(sample.image),
                "sha256": sample.source_sha256 or digest,
                "group": unit,
                **self.task_scorer.line(row),
            }
            for row, (sample, unit, digest) in enumerate(rows)
        ]


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
