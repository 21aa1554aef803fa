"""Scores encoders and fine-tuned networks on images that no arm has seen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import nn

from experiments.continued.probe import (
    BATCH,
    FOLDS,
    TENTHS,
    Scores,
    balanced,
    best_penalty,
    features_of,
    fit,
    log_probabilities,
    score,
    standardised,
)
from experiments.continued.tensors import Images, resize_whole
from experiments.continued.transfer import OtherData
from experiments.published_start.plan import ALL, SECONDARY, TENTH, TUNED
from uniemox.views.patches import normalise


class Mean(NamedTuple):
    """Means over classes of the means over a class's images."""

    recall: float
    """Percent."""
    log_likelihood: float
    """Nats."""


def mean_of(scores: Scores, labels: NDArray[np.int64]) -> Mean:
    """Return both figures of scores of N images with labels (N,)."""
    return Mean(100 * balanced(scores.hit, labels), balanced(scores.log_likelihood, labels))


def scores_of(log_probability: NDArray[np.float64], labels: NDArray[np.int64]) -> Scores:
    """Return the scores of log-probabilities (N, E)."""
    own = log_probability[np.arange(len(labels)), labels]
    return Scores(own, (log_probability.argmax(axis=1) == labels).astype(np.float64))


def tuning_rows(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows on which a network is fine-tuned, four fifths of each class, and the rows that are scored."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    fitted, scored = next(folds.split(labels, labels))
    return fitted, scored


def probe_elsewhere(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    other_features: NDArray[np.float64],
    other_labels: NDArray[np.int64],
    fit_rows: Sequence[NDArray[np.int64]],
) -> Scores:
    """Score images by probes that are fitted to other images, and return the means over the probes.

    Args:
        features: Features of the images that probes are fitted to, (N, D).
        labels: Their labels, (N,).
        other_features: Features of the images to score, (M, D).
        other_labels: Their labels, (M,).
        fit_rows: Rows of each probe.
    """
    classes = int(labels.max()) + 1
    parts = []
    for rows in fit_rows:
        scale = standardised(features[rows])
        x = scale(features[rows])
        model = fit(x, labels[rows], best_penalty(x, labels[rows], classes))
        parts.append(scores_of(log_probabilities(model, scale(other_features), classes), other_labels))
    return Scores(
        np.mean([part.log_likelihood for part in parts], axis=0), np.mean([part.hit for part in parts], axis=0)
    )


def score_encoder(encoder: nn.Module, scored: Images, held_out: Images, side_px: int, jobs: int) -> dict[str, Scores]:
    """Score a frozen encoder by probes with all labels and with a tenth, by budget."""
    labels = scored.labels.cpu().numpy()
    held_out_labels = held_out.labels.cpu().numpy()
    features = features_of(encoder, scored, side_px)
    held_out_features = features_of(encoder, held_out, side_px)
    tenths = StratifiedKFold(TENTHS, shuffle=True, random_state=0)
    fit_rows = {
        SECONDARY[0]: [np.arange(len(labels))],
        SECONDARY[1]: [small for _, small in tenths.split(labels, labels)],
    }
    scores = {
        ALL: score(features, labels, tenths=False, jobs=jobs),
        TENTH: score(features, labels, tenths=True, jobs=jobs),
    }
    for name, rows in fit_rows.items():
        scores[name] = probe_elsewhere(features, labels, held_out_features, held_out_labels, rows)
    return scores


@torch.inference_mode()
def score_classifier(classifier: nn.Module, images: Images, side_px: int) -> Scores:
    """Score a classifier on whole images, in float32."""
    classifier.eval()
    rows = [
        classifier(normalise(resize_whole(pixels, side_px), pixels.device)).log_softmax(dim=1).cpu()
        for pixels in images.pixels.split(BATCH)
    ]
    return scores_of(torch.cat(rows).double().numpy(), images.labels.cpu().numpy())


def score_tuned(classifier: nn.Module, scored: Images, held_out: Images, side_px: int) -> dict[str, Scores]:
    """Score a fine-tuned classifier on both parts, by budget."""
    return {
        TUNED: score_classifier(classifier, scored, side_px),
        SECONDARY[2]: score_classifier(classifier, held_out, side_px),
    }


def score_elsewhere(encoder: nn.Module, data: Sequence[OtherData], side_px: int) -> dict[str, float]:
    """Return recall in percent, or 100 times a correlation, on data of other sources by name."""
    return {part.name: part.score(encoder, side_px) for part in data}
