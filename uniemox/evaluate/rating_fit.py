"""A head of valence and arousal, fitted to people's ratings on what a finished classifier computes, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.data.near import image_hashes
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import read_seen, seen_file, write_hashes
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.outputs import measure_each
from uniemox.evaluate.recalibration import open_file, write_model
from uniemox.io.progress import Progress, silent
from uniemox.labels import AFFECT
from uniemox.predict.network import FEATURES, LOGITS, Array, Network
from uniemox.predict.ranks import rank_correlation
from uniemox.predict.ratings import HASH_DIGITS, HIGHEST, LOWEST, RatingHead, head_inputs
from uniemox.predict.views import Pixels

MIN_IMAGES, FOLDS, COVERAGE = 100, 10, 0.9
PENALTY = 1.0  # of ridge regression, where all features together, and all labels together, have variance 1


@dataclass(frozen=True, slots=True)
class RatingFit:
    """The outcome of a fit, measured on groups that were held out; valence first, then arousal."""

    images: int
    split: str
    groups: int
    spearman: tuple[float, float]
    """Rank correlation of held-out predictions."""
    mean_error: tuple[float, float]
    """Mean distance from the ratings, on the scale of 1 to 9."""
    mean_error_of_mean: tuple[float, float]
    """The same where every image gets the mean rating."""
    half_width: tuple[float, float]
    coverage: tuple[float, float]
    """Of intervals whose width other groups decided."""


def fit_ratings(
    model: str,
    data: DataSet,
    out: Path,
    on_progress: Progress = silent,
    *,
    split: str | None = None,
) -> RatingFit:
    """Write an ONNX classifier again with a head of valence and arousal.

    model: embedded, small, an ONNX file, or a run that holds one.  data: with valence and arousal; images of one group
    are held out together.  out: the file to write.  split: as `recalibrate` takes it.
    The images may still be scored by their labels, because these were not read; the head knows them again, so that
    their ratings are not.
    Raises DataError for fewer than 100 rated images, ConfigError for a model without features or with task affect,
    CheckpointError if out can't be written.
    """
    source, network = open_file(model)
    if network.info.task == "affect" or FEATURES not in network.engine.outputs:
        raise ConfigError(f"{model} is no classifier that gives features; give one of uniemox finetune, task label")
    split, data = data.to_calibrate(split)
    rated = [sample for sample in data.samples if sample.valence is not None and sample.arousal is not None]
    if len(rated) < MIN_IMAGES:
        raise DataError(
            f"{data.name_with_split(split)} has {len(rated)} images with valence and arousal; at least {MIN_IMAGES} "
            "are needed"
        )
    samples, inputs, blocks = _inputs(network, rated, on_progress)
    ratings = np.array([[sample.valence, sample.arousal] for sample in samples])  # (N, 2)
    groups = [sample.group or sample.image_key for sample in samples]
    held_out, fold = cross_fitted(inputs, ratings, groups, blocks)
    distances = np.abs(held_out - ratings)
    weights, bias = ridge(inputs, ratings, blocks)
    hashes = image_hashes(samples, lambda done: on_progress("hashing", done, len(samples)))
    tails = (1 - COVERAGE) / 2
    head = RatingHead(
        weights=weights.T.astype(np.float32),
        bias=bias,
        half_widths=limit_of(distances),
        spread=np.quantile(ratings, [tails, 1 - tails], axis=0).T,
        images=len(samples),
        trained_on=data.name_with_split(split),
        seen=frozenset(digest[:HASH_DIGITS] for digest in hashes if digest),
    )
    write_model(source, out, replace(network.info, ratings=head.to_dict()).to_json())
    write_hashes(seen_file(out), read_seen(source))
    inside = [distances[fold == i] <= limit_of(distances[fold != i]) for i in range(FOLDS)]
    measures = {
        "spearman": [rank_correlation(held_out[:, i], ratings[:, i]) for i in range(len(AFFECT))],
        "mean_error": distances.mean(axis=0),
        "mean_error_of_mean": np.abs(ratings - ratings.mean(axis=0)).mean(axis=0),
        "half_width": head.half_widths,
        "coverage": np.concatenate(inside).mean(axis=0),
    }
    pairs = {name: (float(valence), float(arousal)) for name, (valence, arousal) in measures.items()}
    return RatingFit(images=len(samples), split=split, groups=len(set(groups)), **pairs)


def cross_fitted(
    inputs: NDArray[np.float64], ratings: NDArray[np.float64], groups: Sequence[str], blocks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Predictions (N, 2) by fits that have not seen an image's group, and the number of the fold of each, (N,)."""
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[place]: i % FOLDS for i, place in enumerate(order)}
    fold, found = np.array([fold_of[group] for group in groups]), np.empty_like(ratings)
    for i in range(FOLDS):
        weights, bias = ridge(inputs[fold != i], ratings[fold != i], blocks)
        found[fold == i] = (inputs[fold == i] @ weights + bias).clip(LOWEST, HIGHEST)
    return found, fold


def ridge(
    inputs: NDArray[np.float64], ratings: NDArray[np.float64], blocks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (D + E, 2) and bias (2,) of ridge regression on standardised inputs.

    inputs: (N, D + E).  ratings: (N, 2).  blocks: D and E. Each block has variance 1 in all, so that eight labels
    count as much as thousands of features.
    """
    mean, std = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    scale = np.concatenate([np.full(width, width**-0.5) for width in blocks]) / std
    x, middle = (inputs - mean) * scale, ratings.mean(axis=0)
    dual = np.linalg.solve(x @ x.T + PENALTY * np.eye(len(x)), ratings - middle)  # (N, 2)
    weights = scale[:, None] * (x.T @ dual)
    return weights, middle - mean @ weights


def limit_of(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) below which nine in ten of N new distances lie, by the conformal quantile.  distances: (N, 2)."""
    place = min(int(np.ceil((len(distances) + 1) * COVERAGE)), len(distances)) - 1
    return np.sort(distances, axis=0)[place]


def _inputs(
    network: Network, samples: Sequence[Sample], on_progress: Progress
) -> tuple[list[Sample], NDArray[np.float64], tuple[int, int]]:
    """Return the samples that can be read, the inputs of a head, (N, D + E), and the widths D and E."""

    def measure(views: Mapping[str, Pixels]) -> tuple[Array, Array]:
        found = network.run([views], [FEATURES])
        return found[FEATURES], found[LOGITS]

    found, read, _ = measure_each(network, samples, measure, "looking", on_progress)
    if len(read) < MIN_IMAGES:
        raise DataError(
            f"only {len(read)} of {len(samples)} rated images can be read; at least {MIN_IMAGES} are needed"
        )
    features, logits = (np.concatenate(part) for part in zip(*found, strict=True))
    return read, head_inputs(features, logits), (features.shape[1], logits.shape[1])
