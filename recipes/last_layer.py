"""Compare fits of the last layer by their recall of fear and their cost: a table of recipes/README.md.

Run: python -m recipes.last_layer fi:../shared/data/fi,fi:../shared/data/fi_more check.json [splits.json]

check.json is the output of `uniemox data check DATA --json`. The images are those that calibrate the embedded model
(with splits.json, its split val), which its networks were not trained on. Each fit is cross-fitted in ten parts of
these images: an image is scored by a layer that was fitted without its part. The layers start from the model's own and
are drawn towards it, with a strength that the other parts choose. Prints a line of a table for each fit.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold

from uniemox.data.source import open_data
from uniemox.evaluate.outputs import run_each
from uniemox.evaluate.recalibration import open_file
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import split_for_training
from uniemox.io.progress import silent
from uniemox.predict.confidence import log_softmax
from uniemox.predict.network import FEATURES, LOGITS

FOLDS = 10
INNER_FOLDS = 3
GAMMA = 2.0
# Strengths of the penalty that draws the layer towards the model's own.
STRENGTHS = (0.3, 3.0, 30.0, 300.0)
Array = NDArray[np.float64]
Weighting = Callable[[NDArray[np.int64]], Array]
COLUMNS = ("fit", "recall of fear", "mean recall", "accuracy", "log loss", "share predicted as fear")


def equal(truth: NDArray[np.int64]) -> Array:
    """Return equal weights (N,)."""
    return np.ones(len(truth))


def balanced(truth: NDArray[np.int64]) -> Array:
    """Return weights (N,) that give every class the same total."""
    return (len(truth) / np.bincount(truth))[truth] / len(np.unique(truth))


def fit_layer(
    x: Array, logits: Array, truth: NDArray[np.int64], weights: Array, *, gamma: float, strength: float
) -> Array:
    """Return the change of the last layer, (C + 1, E), that lowers the focal loss (arXiv 1708.02002, equation 4).

    Args:
        x: Standardised features and a column of ones, (N, C + 1).
        logits: Logits of the model, (N, E).
        truth: Indices of the true labels, (N,).
        weights: Weights of the samples, (N,).
        gamma: Exponent of the focal loss; 0 is cross-entropy.
        strength: Strength of the penalty on the change.
    """
    rows = np.arange(len(truth))
    shape = (x.shape[1], logits.shape[1])

    def loss(flat: Array) -> tuple[float, Array]:
        change = flat.reshape(shape)
        log_p = log_softmax(logits + x @ change)
        p = np.exp(log_p)
        of_truth = p[rows, truth]
        log_of_truth = log_p[rows, truth]
        factor = (1 - of_truth) ** gamma
        value = -(weights * factor * log_of_truth).mean() + strength * np.square(change[:-1]).sum() / len(x)
        # Derivative of the loss by the log-probability of the true label.
        if gamma:
            slope = -factor + gamma * (1 - of_truth) ** (gamma - 1) * of_truth * log_of_truth
        else:
            slope = -factor
        target = np.zeros_like(p)
        target[rows, truth] = 1
        gradient = x.T @ ((weights * slope)[:, None] * (target - p)) / len(x)
        gradient[:-1] += 2 * strength * change[:-1] / len(x)
        return float(value), gradient.ravel()

    solution = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(solution.x).reshape(shape)


def cross_fit(x: Array, logits: Array, truth: NDArray[np.int64], weighting: Weighting, gamma: float) -> Array:
    """Return logits (N, E) of layers that were fitted without the image's part."""
    result = np.empty_like(logits)
    for fit, scored in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, truth):
        losses = []
        for strength in STRENGTHS:
            inner = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=1).split(x[fit], truth[fit])
            total = 0.0
            for inner_fit, inner_scored in inner:
                fit_rows = fit[inner_fit]
                scored_rows = fit[inner_scored]
                change = fit_layer(
                    x[fit_rows],
                    logits[fit_rows],
                    truth[fit_rows],
                    weighting(truth[fit_rows]),
                    gamma=gamma,
                    strength=strength,
                )
                log_p = log_softmax(logits[scored_rows] + x[scored_rows] @ change)
                total -= float(
                    (weighting(truth[scored_rows]) * log_p[np.arange(len(scored_rows)), truth[scored_rows]]).sum()
                )
            losses.append(total)
        best = STRENGTHS[int(np.argmin(losses))]
        change = fit_layer(x[fit], logits[fit], truth[fit], weighting(truth[fit]), gamma=gamma, strength=best)
        result[scored] = logits[scored] + x[scored] @ change
    return result


def main(source: str, check: str, splits: str | None = None) -> None:
    """Print the table."""
    data = open_data(source, with_texts=False, exclude=Path(check), splits=None if splits is None else Path(splits))
    monitor = FinetuneConfig(init="embedded", select="last", monitor="holdout" if splits is None else "val")
    samples = split_for_training(data, monitor, None).calibration
    _, network = open_file("embedded")
    info = network.info
    outputs, readable, _ = run_each(network, samples, [FEATURES], "looking", silent)
    truth = np.array([info.labels.index(str(data.label_of(sample))) for sample in readable])
    logits = outputs[LOGITS].astype(np.float64) / (info.temperature or 1.0)
    features = outputs[FEATURES].astype(np.float64)
    # Principal axes: the layer of thousands of features has far more weights than there are images.
    centred = features - features.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    x = centred @ axes[:64].T
    x = np.concatenate([x / x.std(axis=0), np.ones((len(x), 1))], axis=1)
    fear = info.labels.index("fear")
    fits: dict[str, Array] = {
        "unchanged": logits,
        "cross-entropy": cross_fit(x, logits, truth, equal, 0.0),
        "cross-entropy, balanced classes": cross_fit(x, logits, truth, balanced, 0.0),
        f"focal loss, γ = {GAMMA:g}": cross_fit(x, logits, truth, equal, GAMMA),
        f"focal loss, γ = {GAMMA:g}, balanced classes": cross_fit(x, logits, truth, balanced, GAMMA),
    }
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name, values in fits.items():
        best = values.argmax(axis=1)
        recalls = [np.mean(best[truth == label] == label) for label in range(len(info.labels))]
        loss = -log_softmax(values)[np.arange(len(truth)), truth].mean()
        print(
            f"| {name} | {recalls[fear]:.1%} | {np.mean(recalls):.1%} | {np.mean(best == truth):.1%} | {loss:.3f} "
            f"| {np.mean(best == fear):.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
