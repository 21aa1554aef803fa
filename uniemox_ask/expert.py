"""A gate between a large model and a small vision model, the expert, for each image.

The idea is that of EmoVLM-KD (Lee et al., arXiv 2505.07164): both models err on different images. Their gate is a
linear layer on the concatenated outputs of both. Large models are asked about few images here, so ours has three
weights: the share of the large model is the logistic function of a constant and of the confidence of each model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.intervals import Interval, PairedDifference, bootstrap_interval, paired_bootstrap
from uniemox.predict import sigmoid
from uniemox_ask.choices import ImageChoices, LabelChoice, most_probable, pooled, probability_rows
from uniemox_ask.question import AskedImage

# Fewer images say too little about three weights.
MIN_VAL = 20
# Keeps the weights finite where one model is always right. In units of a log-likelihood: weak beside 20 images.
PENALTY = 0.1
MAX_STEPS = 1000
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Weights of the logistic function that gives the share of the large model."""

    constant: float
    model_confidence: float
    """Weight of the highest probability of the large model."""
    expert_confidence: float
    """Weight of the highest probability of the expert."""

    def shares(self, model: NDArray[np.float64], expert: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of the large model for each image, (N,), 0 to 1.

        Args:
            model: (N, E) probabilities of the large model.
            expert: (N, E) probabilities of the expert.
        """
        weights = np.array([self.constant, self.model_confidence, self.expert_confidence])
        return sigmoid(_features(model, expert) @ weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Scores of a large model with an expert, on images that the gate was not fitted to."""

    expert: str
    n_val: int
    """Number of images that the gate was fitted to."""
    n: int
    """Number of scored images."""
    gate: Gate
    share: float
    """Mean share of the large model, 0 to 1."""
    accuracy: float
    interval: Interval
    """95 % interval, bootstrap over images."""
    model_accuracy: float
    """Accuracy of the large model alone: the label with the highest mean probability over prompts."""
    expert_accuracy: float
    gain_over_model: PairedDifference
    gain_over_expert: PairedDifference


def fit_gate(model: NDArray[np.float64], expert: NDArray[np.float64], truth: NDArray[np.int64]) -> Gate:
    """Return the gate with the highest likelihood of the true labels, minus a small penalty on its weights.

    The probability of a label is share * p(large model) + (1 - share) * p(expert). Each step is one of Newton's for the
    expected assignment of images to models (Jordan and Jacobs, Neural Computation 6 (1994)).

    Args:
        model: (N, E) probabilities of the large model.
        expert: (N, E) probabilities of the expert.
        truth: (N,) true classes.
    """
    features = _features(model, expert)  # (N, 3)
    rows = np.arange(len(truth))
    p_model = model[rows, truth]  # (N,)
    p_expert = expert[rows, truth]  # (N,)
    weights = np.zeros(features.shape[1])
    for _ in range(MAX_STEPS):
        share = sigmoid(features @ weights)
        likelihood = share * p_model + (1 - share) * p_expert
        # An image whose label both models exclude says nothing about the gate.
        is_informative = likelihood > 0
        assigned = np.where(is_informative, share * p_model / np.where(is_informative, likelihood, 1.0), share)
        gradient = features.T @ (assigned - share) - PENALTY * weights
        curvature = (features * (share * (1 - share))[:, None]).T @ features + PENALTY * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < TOLERANCE:
            break
    constant, model_confidence, expert_confidence = map(float, weights)
    return Gate(constant=constant, model_confidence=model_confidence, expert_confidence=expert_confidence)


def score_gate(
    labels: Sequence[str],
    choices: ImageChoices,
    expert: Mapping[str, NDArray[np.float64]],
    *,
    name: str,
    val: Sequence[AskedImage],
    test: Sequence[AskedImage],
) -> GateResult | None:
    """Fit a gate to val images and score it on test images, both with answers of the large model to all questions.

    Args:
        labels: E labels.
        choices: The large model's choices by image.
        expert: The expert's (E,) probabilities by image.
        name: The expert's name.
        val: Images to fit the gate to.
        test: Images to score, none of them in val.

    Returns:
        The scores; None for fewer than 20 val images, or without test images.
    """
    val_images = [image for image in val if image.sha256 in choices]
    test_images = [image for image in test if image.sha256 in choices]
    if len(val_images) < MIN_VAL or not test_images:
        return None
    truth = np.array([labels.index(image.label) for image in val_images])
    gate = fit_gate(_stack(labels, choices, val_images), _expert_rows(expert, val_images), truth)

    of_model = _stack(labels, choices, test_images)  # (N, E)
    of_expert = _expert_rows(expert, test_images)  # (N, E)
    share = gate.shares(of_model, of_expert)  # (N,)
    mixture = share[:, None] * of_model + (1 - share[:, None]) * of_expert
    hits = _credit(labels, mixture, test_images)
    # Not from its probabilities: an answer without a label has uniform ones, but is wrong.
    model_choices = [pooled(labels, choices[image.sha256]) for image in test_images]
    model_hits = np.array(
        [choice.credit(image.label) for choice, image in zip(model_choices, test_images, strict=True)]
    )
    expert_hits = _credit(labels, of_expert, test_images)
    return GateResult(
        expert=name,
        n_val=len(val_images),
        n=len(test_images),
        gate=gate,
        share=float(share.mean()),
        accuracy=float(hits.mean()),
        interval=bootstrap_interval(hits),
        model_accuracy=float(model_hits.mean()),
        expert_accuracy=float(expert_hits.mean()),
        gain_over_model=paired_bootstrap(hits, model_hits),
        gain_over_expert=paired_bootstrap(hits, expert_hits),
    )


def _stack(labels: Sequence[str], choices: ImageChoices, images: Sequence[AskedImage]) -> NDArray[np.float64]:
    """Return the large model's (N, E) probabilities, averaged over prompts; equal ones if it named no label."""
    return probability_rows(labels, [pooled(labels, choices[image.sha256]) for image in images])


def _expert_rows(expert: Mapping[str, NDArray[np.float64]], images: Sequence[AskedImage]) -> NDArray[np.float64]:
    return np.stack([expert[image.sha256] for image in images])


def _credit(labels: Sequence[str], values: NDArray[np.float64], images: Sequence[AskedImage]) -> NDArray[np.float64]:
    """Return (N,) 1 for a right label, 0 for a wrong one.  values: (N, E)."""
    choices = [LabelChoice(most_probable(labels, row), row) for row in values]
    return np.array([choice.credit(image.label) for choice, image in zip(choices, images, strict=True)])


def _features(model: NDArray[np.float64], expert: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 3) inputs of the gate: a constant, and the confidence of each model."""
    return np.stack([np.ones(len(model)), model.max(axis=1), expert.max(axis=1)], axis=1)
