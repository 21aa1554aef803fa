"""Scores a frozen encoder: a cross-fitted logistic probe on emotions, and R² onto the teacher's features.

    python -m experiments.does_it_help.probe --init RUN --data shards:PATH --teacher teacher.npz --out probe.npz

Pre-training reads no label, so every image of train is scored by a probe that was not fitted on it: five folds, the
same for every encoder. The penalty is chosen on the images of val, which are used for nothing else.
"""

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from experiments.does_it_help.features import features_of
from experiments.does_it_help.outcomes import read_log, store_labels, write_outcome
from experiments.does_it_help.plan import SIDE_PX
from uniemox.data.source import open_data
from uniemox.teacher.features import StoredTeacher
from uniemox.training.hardware import keep_freed_memory

# Values of sklearn's C; larger values separate the training images of all encoders here.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5
# Penalty of the map to the teacher's features.
RIDGE = 100.0


def main() -> None:
    """Parse the command line, probe, and write the outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("init", "data", "teacher", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path if name in ("teacher", "out") else str)
    parser.add_argument("--labels", type=Path, help="file that names the scored images, the same for all outcomes")
    parser.add_argument("--validation-only", action="store_true", help="score val alone, for the grid")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        figures, scored = probe(args.init, args.data, args.teacher, is_scored=not args.validation_only)
    if scored is not None and args.labels is not None:
        store_labels(args.labels, scored.keys, scored.labels)
    write_outcome(args.out, figures | read_log(Path(args.init)), None if scored is None else scored.log_probabilities)


@dataclass(frozen=True, slots=True)
class Scored:
    """All images of train, each scored by a probe that was not fitted on it."""

    keys: NDArray[np.str_]
    """Names, (N,)."""
    labels: NDArray[np.uint8]
    """Labels, (N,)."""
    log_probabilities: NDArray[np.float32]
    """Log-probabilities, (N, E)."""


def probe(init: str, data: str, teacher: Path, *, is_scored: bool) -> tuple[dict[str, Any], Scored | None]:
    """Fit and score a probe.

    Returns:
        The penalty and the scores on val (balanced log-likelihood, its values per image, mean recall, R² onto the
        teacher's features), and with is_scored the images of train.
    """
    dataset = open_data(data)
    samples, features = features_of(init, [sample for sample in dataset.samples if sample.label is not None], SIDE_PX)
    order = np.argsort([sample.key for sample in samples])
    samples = [samples[i] for i in order]
    features = features[order]
    labels = np.array([sample.label for sample in samples])
    is_train = np.array([sample.split == "train" for sample in samples])
    mean = features[is_train].mean(axis=0)
    std = features[is_train].std(axis=0) + 1e-6
    x = ((features - mean) / std).astype(np.float64)
    classes = len(dataset.labels)
    val_answers = {c: _fit(x[is_train], labels[is_train], c, x[~is_train], classes) for c in PENALTIES}
    scores = {c: balanced(true_of(rows, labels[~is_train]), labels[~is_train]) for c, rows in val_answers.items()}
    best = max(scores, key=lambda c: scores[c])
    val_likelihoods = true_of(val_answers[best], labels[~is_train])
    stored = StoredTeacher(teacher)
    target = stored.image_features(torch.empty(0), [sample.key for sample in samples]).numpy()
    figures: dict[str, Any] = {"penalty": best, "val_log_likelihood": scores[best]}
    figures["val_recall"] = balanced(val_answers[best].argmax(axis=1) == labels[~is_train], labels[~is_train])
    figures["val_values"] = [round(float(value), 4) for value in val_likelihoods]
    figures["val_labels"] = labels[~is_train].tolist()
    figures["r2"] = _r2(x, target, is_train)
    if not is_scored:
        return figures, None
    x = x[is_train]
    labels = labels[is_train]
    answers = np.empty((len(x), classes), dtype=np.float32)
    for fit_rows, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, labels):
        answers[held_out] = _fit(x[fit_rows], labels[fit_rows], best, x[held_out], classes)
    keys = [sample.key for sample, is_scored_image in zip(samples, is_train, strict=True) if is_scored_image]
    return figures, Scored(np.array(keys, dtype=str), labels.astype(np.uint8), answers)


def _fit(x: NDArray, labels: NDArray, penalty: float, scored_features: NDArray, classes: int) -> NDArray[np.float64]:
    """Return log-probabilities (M, E) of `scored_features` by a logistic regression with equal class weights."""
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=500, tol=1e-3)
    with warnings.catch_warnings():
        # Fits with the weakest penalties do not always converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, labels)
    rows = np.full((len(scored_features), classes), np.log(1e-12))
    rows[:, model.classes_] = model.predict_log_proba(scored_features)
    return rows


def true_of(log_probabilities: NDArray, labels: NDArray) -> NDArray[np.float64]:
    """Return the log-probability of each image's label: (N, E), (N,) -> (N,)."""
    return log_probabilities[np.arange(len(labels)), labels]


def balanced(values: NDArray, labels: NDArray) -> float:
    """Return the mean over classes of the mean over the class's images.

    >>> balanced(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 1]))
    0.5
    """
    return float(np.mean([values[labels == label].mean() for label in np.unique(labels)]))


def _r2(x: NDArray, target: NDArray, is_train: NDArray[np.bool_]) -> float:
    """Return the share of the variance of the teacher's features on val that a ridge regression explains."""
    target = target / np.linalg.norm(target, axis=1, keepdims=True)
    prediction = Ridge(alpha=RIDGE).fit(x[is_train], target[is_train]).predict(x[~is_train])
    val_target = target[~is_train]
    mean = target[is_train].mean(axis=0)
    return float(1 - np.square(val_target - prediction).sum() / np.square(val_target - mean).sum())


if __name__ == "__main__":
    main()
