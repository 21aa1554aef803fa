"""Fits a model to the user's images without torch: calibrates it with labels, or fits valence and arousal to ratings.

`uniemox calibrate` writes the ONNX file again with the fitted values.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.near import image_hashes
from uniemox.data.sample import DataSet
from uniemox.data.seen import read_seen, refuse_seen, seen_file, write_hashes
from uniemox.data.unreadable import reasons_of
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.calibration import calibrated, expected_calibration_error
from uniemox.evaluate.outputs import Outputs, outputs_of_network, run_each
from uniemox.evaluate.run import file_of, is_onnx, mapped
from uniemox.intervals import Interval, bootstrap_interval
from uniemox.io.files import ONNX, replacing
from uniemox.io.onnx_external import with_metadata
from uniemox.io.progress import Progress, silent
from uniemox.labels import AFFECT, ScoredLabels, scored_labels
from uniemox.predict.confidence import UNFAMILIAR, answers_of, familiarity_of, likely_sets, set_probabilities_of
from uniemox.predict.network import FEATURES, KEY, LOGITS, Network
from uniemox.predict.opening import open_network
from uniemox.predict.ranks import rank_correlation
from uniemox.predict.ratings import HASH_DIGITS, HIGHEST, LOWEST, RatingHead, head_inputs
from uniemox.views.alterations import grey

MIN_IMAGES = 30
MIN_RATED = 100
FOLDS = 10
COVERAGE = 0.9
PENALTY = 1.0  # of ridge regression on features with total variance 1, and labels with total variance 1


@dataclass(frozen=True, slots=True)
class Recalibration:
    """Fitted values, number of images, and scores on these images before and after."""

    images: int
    split: str
    temperature: float
    ece_before: float
    ece_after: float
    accuracy: float
    """Accuracy among scored_labels; calibration does not change the order of the labels."""
    accuracy_interval: Interval
    chance: float
    """Accuracy of guessing one of scored_labels."""
    commonest: float
    """Accuracy of always predicting the most common label."""
    coverage_before: float | None
    """Share of images whose label is in the 90 % likely set; None if the model had too few scores."""
    coverage_after: float
    set_size_before: float | None
    """Mean number of labels per set."""
    set_size_after: float
    flagged: float | None
    """Share of images flagged as unlike the training images; None if the model has no distance."""
    scored_labels: tuple[str, ...]
    """Labels among which the accuracy was measured, as in `uniemox evaluate`."""
    unreadable: Mapping[str, str]
    """Reasons for images that can't be read, by key."""

    @property
    def verdict(self) -> str:
        """Return whether the whole interval of the accuracy is above the best guess without an image."""
        if self.accuracy_interval[0] <= self.chance:
            return "no better than chance on these images: fine-tune instead"
        if self.accuracy_interval[0] <= self.commonest:
            return "no better than always predicting the most common class of these images: fine-tune instead"
        return "better than chance on these images"


def recalibrate(
    model: str, data: DataSet, out: Path, on_progress: Progress = silent, *, split: str | None = None
) -> Recalibration:
    """Write an ONNX model again with temperature and conformal scores of labelled images.

    Distances from the training images stay those of the network.

    Args:
        model: Embedded, an ONNX file, or a run that contains one.
        data: Its labels must have a one-to-one map from the model's.
        out: File to write; the hashes of the images are written next to it, so that they are not scored later.
        split: Images to use, or all; None: calibration or val of data with splits, else all.

    Raises:
        DataError: For fewer than 30 labelled images, or for training images of the model.
        ConfigError: For a model without probabilities.
        LabelError: Without a label map.
        CheckpointError: If out can't be written.
    """
    source, network = open_file(model)
    info = network.info
    if info.task != "label":
        raise ConfigError(f"{model} has task {info.task}; labels can only calibrate a classifier with task label")
    scored = scored_labels(info.find_labels(), data.labels)
    if scored.of_model.merged:
        raise ConfigError(f"several labels of {model} become one of {data.labels.name}; give data in its own labels")
    split, data = data.to_calibrate(split)
    samples = [sample for sample in data.samples if scored.truth(sample.label) is not None]
    if len(samples) < MIN_IMAGES:
        raise DataError(
            f"{data.name_with_split(split)} has {len(samples)} images with a label of {model}; at least "
            f"{MIN_IMAGES} are needed, and a hundred are better: add images, or give a larger split with --split"
        )
    hashes = image_hashes(samples, on_progress)
    seen = read_seen(source)
    refuse_seen(samples, hashes, seen, data.name)
    outputs = outputs_of_network(network, samples, on_progress, what="calibrating")
    if len(outputs.samples) < MIN_IMAGES:
        raise DataError(f"only {len(outputs.samples)} of {len(samples)} images can be read; {MIN_IMAGES} are needed")
    back = {scored.of_model(i): i for i in range(len(info.labels))}
    truth = np.array([back[scored.truth(sample.label)] for sample in outputs.samples])
    fitted = calibrated(info, outputs.values, outputs.distances, np.eye(len(info.labels))[truth])
    fitted = replace(fitted, calibration_images="independent", calibrated_on=data.name_with_split(split))
    write_model(source, out, fitted.to_json())
    read = {sample.key for sample in outputs.samples}
    used = {digest for sample, digest in zip(samples, hashes, strict=True) if sample.key in read}
    write_hashes(seen_file(out), used | seen)
    return _measured(info, fitted, outputs, truth, scored, split)


def _measured(
    info: ClassifierInfo,
    fitted: ClassifierInfo,
    outputs: Outputs,
    truth: NDArray[np.integer],
    scored: ScoredLabels,
    split: str,
) -> Recalibration:
    """Measure the change from info to fitted on the same outputs.  truth: (N,) indices in the model's labels."""
    before, after = (answers_of(one, outputs.values, outputs.distances) for one in (info, fitted))
    place_of = np.array([-1 if (place := scored.of_model(i)) is None else place for i in range(len(info.labels))])
    is_right = mapped(before, scored.of_model).argmax(axis=1) == place_of[truth]
    familiarity = familiarity_of(outputs.distances, fitted.distances)
    has_sets = len(info.conformal_scores) >= MIN_IMAGES
    shares_before, shares_after = (
        set_probabilities_of(each, outputs.values, outputs.distances) for each in (info, fitted)
    )
    sets_before = likely_sets(info.conformal_scores, COVERAGE, shares_before, truth) if has_sets else (None, None)
    sets_after = likely_sets(fitted.conformal_scores, COVERAGE, shares_after, truth)
    return Recalibration(
        images=len(truth),
        split=split,
        temperature=fitted.temperature or 1.0,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(after, truth),
        accuracy=float(is_right.mean()),
        accuracy_interval=bootstrap_interval(is_right, [one.group or one.image_key for one in outputs.samples]),
        chance=1 / len(scored.labels),
        commonest=float(np.bincount(truth).max() / len(truth)),
        coverage_before=sets_before[0],
        coverage_after=sets_after[0],
        set_size_before=sets_before[1],
        set_size_after=sets_after[1],
        flagged=None if familiarity is None else float((familiarity < UNFAMILIAR).mean()),
        scored_labels=scored.labels.labels,
        unreadable=reasons_of(outputs.broken),
    )


@dataclass(frozen=True, slots=True)
class RatingFit:
    """Result of a fit, measured on held-out groups; valence first, then arousal."""

    images: int
    split: str
    groups: int
    lowest: tuple[float, float]
    """Lowest rating, on the scale of 1 to 9."""
    highest: tuple[float, float]
    spearman: tuple[float, float]
    """Rank correlation of held-out predictions."""
    mean_error: tuple[float, float]
    """Mean distance from the ratings, on the scale of 1 to 9."""
    mean_error_of_mean: tuple[float, float]
    """The same if every image gets the mean rating."""
    width: tuple[float, float]
    """Mean width of the intervals."""
    coverage: tuple[float, float]
    """Coverage of intervals whose ends other groups determined."""
    coverage_by_fifth: tuple[tuple[float, ...], tuple[float, ...]]
    """The same for the fifth of the images with the lowest ratings, the next fifth, and so on."""
    unreadable: Mapping[str, str]
    """Reasons for images that can't be read, by key."""


def fit_ratings(
    model: str, data: DataSet, out: Path, on_progress: Progress = silent, *, split: str | None = None
) -> RatingFit:
    """Write an ONNX classifier again with a head for valence and arousal.

    The images may still be scored by their labels, which the fit does not read. Their ratings may not: the head stores
    the images' hashes.

    Args:
        model: Embedded, small, an ONNX file, or a run that contains one.
        data: With valence and arousal; images of one group are held out together.
        out: File to write.
        split: As for `recalibrate`.

    Raises:
        DataError: For fewer than 100 rated images.
        ConfigError: For a model without features or with task affect.
        CheckpointError: If out can't be written.
    """
    source, network = open_file(model)
    if network.info.task == "affect" or FEATURES not in network.engine.outputs:
        raise ConfigError(f"{model} is not a classifier with features; give one of uniemox finetune, task label")
    split, data = data.to_calibrate(split)
    rated = [sample for sample in data.samples if sample.valence is not None and sample.arousal is not None]
    if len(rated) < MIN_RATED:
        raise DataError(
            f"{data.name_with_split(split)} has {len(rated)} images with valence and arousal; at least {MIN_RATED} "
            "are needed"
        )
    outputs, samples, broken = run_each(network, rated, [FEATURES], "looking", on_progress)
    if len(samples) < MIN_RATED:
        raise DataError(
            f"only {len(samples)} of {len(rated)} rated images can be read; at least {MIN_RATED} are needed"
        )
    inputs = head_inputs(outputs[FEATURES], outputs[LOGITS])
    blocks = (outputs[FEATURES].shape[1], outputs[LOGITS].shape[1])
    ratings = np.array([[sample.valence, sample.arousal] for sample in samples])  # (N, 2)
    groups = [sample.group or sample.image_key for sample in samples]
    sources = [data.part_of(sample) for sample in samples]
    held_out, fold = cross_fitted(inputs, ratings, groups, blocks)
    of_grey, _, _ = run_each(network, samples, [FEATURES], "looking at grey copies", on_progress, grey)
    grey_inputs = head_inputs(of_grey[FEATURES], of_grey[LOGITS])
    held_out_grey = predict_by_fold(inputs, ratings, fold, blocks, grey_inputs)
    weights, bias = ridge(inputs, ratings, blocks)
    hashes = image_hashes(samples, on_progress)
    tails = (1 - COVERAGE) / 2
    head = RatingHead(
        weights=weights.T.astype(np.float32),
        bias=bias,
        ends=interval_ends(held_out, ratings, sources),
        colourless_ends=interval_ends(held_out_grey, ratings, sources),
        spread=np.quantile(ratings, [tails, 1 - tails], axis=0).T,
        images=len(samples),
        trained_on=data.name_with_split(split),
        seen=frozenset(digest[:HASH_DIGITS] for digest in hashes if digest),
    )
    write_model(source, out, replace(network.info, ratings=head.to_dict()).to_json())
    write_hashes(seen_file(out), read_seen(source))
    inside = _are_inside(head, held_out, ratings, sources, fold)
    return RatingFit(
        images=len(samples),
        split=split,
        groups=len(set(groups)),
        unreadable=reasons_of(broken),
        coverage_by_fifth=(_by_fifth(inside[:, 0], ratings[:, 0]), _by_fifth(inside[:, 1], ratings[:, 1])),
        **_measures(head, held_out, ratings, inside),
    )


def _measures(
    head: RatingHead, held_out: NDArray[np.float64], ratings: NDArray[np.float64], inside: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the fields of a `RatingFit` that are pairs of numbers.  All arguments but the head: (N, 2)."""
    intervals = head.intervals(held_out, None)
    measures = {
        "lowest": ratings.min(axis=0),
        "highest": ratings.max(axis=0),
        "spearman": [rank_correlation(held_out[:, i], ratings[:, i]) for i in range(len(AFFECT))],
        "mean_error": np.abs(held_out - ratings).mean(axis=0),
        "mean_error_of_mean": np.abs(ratings - ratings.mean(axis=0)).mean(axis=0),
        "width": (intervals[..., 1] - intervals[..., 0]).mean(axis=0),
        "coverage": inside.mean(axis=0),
    }
    return {name: (float(valence), float(arousal)) for name, (valence, arousal) in measures.items()}


def _are_inside(
    head: RatingHead,
    held_out: NDArray[np.float64],
    ratings: NDArray[np.float64],
    sources: Sequence[str | None],
    fold: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return whether intervals contain the ratings, (N, 2), if other folds determine the ends of each interval.

    Args:
        held_out: (N, 2) predictions.
        ratings: (N, 2).
        sources: N names of data sets.
        fold: (N,).
    """
    inside = np.empty(ratings.shape, dtype=bool)
    for i in range(FOLDS):
        is_other = fold != i
        other_sources = [source for source, is_used in zip(sources, is_other, strict=True) if is_used]
        part = replace(head, ends=interval_ends(held_out[is_other], ratings[is_other], other_sources))
        intervals = part.intervals(held_out[~is_other], None)
        inside[~is_other] = (intervals[..., 0] <= ratings[~is_other]) & (ratings[~is_other] <= intervals[..., 1])
    return inside


def _by_fifth(values: NDArray[np.bool_], ratings: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the mean of values (N,) in each fifth of the ratings (N,), lowest first."""
    return tuple(float(values[part].mean()) for part in np.array_split(np.argsort(ratings, kind="stable"), 5))


def cross_fitted(
    inputs: NDArray[np.float64], ratings: NDArray[np.float64], groups: Sequence[str], blocks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return predictions (N, 2) of fits that did not use an image's group, and the fold of each image, (N,)."""
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[place]: i % FOLDS for i, place in enumerate(order)}
    fold = np.array([fold_of[group] for group in groups])
    return predict_by_fold(inputs, ratings, fold, blocks, inputs), fold


def predict_by_fold(
    inputs: NDArray[np.float64],
    ratings: NDArray[np.float64],
    fold: NDArray[np.int64],
    blocks: Sequence[int],
    images: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return predictions (N, 2) for images, each by the fit without its fold.

    Other arguments: as for `ridge`; fold: (N,).

    Args:
        images: (N, D + E), the inputs themselves or those of altered copies.
    """
    predictions = np.empty_like(ratings)
    for i in range(FOLDS):
        weights, bias = ridge(inputs[fold != i], ratings[fold != i], blocks)
        predictions[fold == i] = (images[fold == i] @ weights + bias).clip(LOWEST, HIGHEST)
    return predictions


def ridge(
    inputs: NDArray[np.float64], ratings: NDArray[np.float64], blocks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (D + E, 2) and bias (2,) of ridge regression on standardised inputs.

    Args:
        inputs: (N, D + E).
        ratings: (N, 2).
        blocks: D and E. Each block has a total variance of 1, so eight labels count as much as thousands of features.
    """
    mean, std = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    scale = np.concatenate([np.full(width, width**-0.5) for width in blocks]) / std
    x = (inputs - mean) * scale
    middle = ratings.mean(axis=0)
    dual = np.linalg.solve(x @ x.T + PENALTY * np.eye(len(x)), ratings - middle)  # (N, 2)
    weights = scale[:, None] * (x.T @ dual)
    return weights, middle - mean @ weights


def interval_ends(
    predictions: NDArray[np.float64], ratings: NDArray[np.float64], sources: Sequence[str | None]
) -> NDArray[np.float64]:
    """Fit the ends of 90 % intervals to held-out predictions, see `RatingHead.ends`.

    Every data set with at least 100 images has ends of its own; the others are joined with all images.

    Args:
        predictions: (N, 2), of fits without the image.
        ratings: (N, 2).
        sources: N names of data sets.

    Returns:
        (S, 2, 2, 2) for S data sets: rating, low and high end, a and b.
    """
    counts = Counter(sources)
    large = [source for source in counts if counts[source] >= MIN_RATED]
    masks = [np.array([other == source for other in sources]) for source in large]
    if len(large) < len(counts):
        masks.append(np.ones(len(sources), dtype=bool))
    return np.array(
        [[_ends(predictions[mask, i], ratings[mask, i]) for i in range(ratings.shape[1])] for mask in masks]
    )


def _ends(predictions: NDArray[np.float64], ratings: NDArray[np.float64]) -> list[list[float]]:
    """Return a and b of the low and of the high end, for predictions and ratings (N,)."""
    errors = ratings - predictions
    tail = (1 - COVERAGE) / 2
    low, high = (_quantile_line(predictions, errors, level) for level in (tail, 1 - tail))
    # How far errors lie outside of the lines, which are then moved apart (conformalised quantile regression).
    outside = np.maximum(low[0] + low[1] * predictions - errors, errors - high[0] - high[1] * predictions)
    place = min(math.ceil((len(outside) + 1) * COVERAGE), len(outside)) - 1
    shift = float(np.sort(outside)[place])
    return [[low[0] - shift, low[1]], [high[0] + shift, high[1]]]


def _quantile_line(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return a and b of the line a + b · x with this quantile of y (Koenker & Bassett, Econometrica 1978).

    Args:
        x: (N,).
        y: (N,).
        level: 0 to 1.
    """
    from scipy import sparse  # noqa: PLC0415 - only a fit needs it
    from scipy.optimize import linprog  # noqa: PLC0415

    # Minimise Σ level · above + (1 - level) · below, where y = a + b · x + above - below, and both are at least 0.
    count = len(x)
    costs = np.concatenate([[0, 0], np.full(count, level), np.full(count, 1 - level)])
    terms = np.stack([np.ones(count), x], axis=1)
    equations = sparse.hstack([terms, sparse.eye(count), -sparse.eye(count)], format="csc")
    bounds = [(None, None)] * 2 + [(0, None)] * (2 * count)
    line = linprog(costs, A_eq=equations, b_eq=y, bounds=bounds).x[:2]
    return float(line[0]), float(line[1])


def open_file(model: str) -> tuple[Path, Network]:
    """Return the ONNX file of a model (embedded, small, the file itself, or in a run), and its network."""
    given = Path(model)
    source = file_of(given) if is_onnx(given) else given / ONNX
    return source, open_network(source)


def write_model(source: Path, out: Path, info: str) -> None:
    """Write a uniemox ONNX file again with other metadata. Raises CheckpointError."""
    with replacing(out, CheckpointError) as partial:
        partial.write_bytes(with_metadata(source.read_bytes(), KEY, info))
