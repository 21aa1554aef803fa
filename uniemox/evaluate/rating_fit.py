"""Fit valence and arousal to people's ratings, without torch: `uniemox calibrate --ratings`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from uniemox.data.hashes import fingerprints
from uniemox.data.overlaps import JoinedCopies
from uniemox.data.perceptual import PREFIX
from uniemox.data.sample import Broken, DataSet, Sample, units_of
from uniemox.data.seen import OTHERS, SeenSearch, hashes_in, read_seen, seen_file, write_hashes
from uniemox.data.unreadable import reasons_of
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.outputs import run_each
from uniemox.evaluate.recalibration import open_file, write_model
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_names import refuse_name_in_package
from uniemox.labels import AFFECT
from uniemox.labels.rating_scale import HIGHEST_RATING, LOWEST_RATING
from uniemox.persons.box import Box
from uniemox.plurals import counted
from uniemox.predict.confidence import COVERAGE
from uniemox.predict.network import FEATURES, LOGITS, Network
from uniemox.predict.ratings import HASH_DIGITS, RatingHead, head_inputs
from uniemox.ranks import rank_correlation
from uniemox.resampling import folds_of
from uniemox.views.alterations import grey

MIN_RATED = 100
FOLDS = 10
# Penalty of ridge regression on two blocks of inputs, features and labels, with a total variance of 1 each.
PENALTY = 1.0


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
    notes: tuple[str, ...] = ()
    """Sentences about images that were left out, and about copies of one image under several names."""
    may_be_seen: bool = False
    """True if the classifier may have been trained on some of these images; the fit is then measured too well."""

    @property
    def verdict(self) -> str:
        """Sentence on ratings that are predicted no better than by a constant; empty if there are none."""
        useless = [name for i, name in enumerate(AFFECT) if self.mean_error[i] >= self.mean_error_of_mean[i]]
        return f"{' and '.join(useless)} predicted no better than by the mean rating for all images" if useless else ""


def fit_ratings(
    model: str, data: DataSet, out: Path, on_progress: Progress = silent, *, split: str | None = None
) -> RatingFit:
    """Write an ONNX classifier again with a head for valence and arousal.

    The images may still be scored by their labels, which the fit does not read. Their ratings may not: the head stores
    the images' hashes.

    Args:
        model: embedded, small, an ONNX file, or a run that contains one.
        data: Images with valence and arousal; images of one group are held out together.
        out: File to write.
        on_progress: Called after each image.
        split: As for `recalibrate`.

    Returns:
        Measurements of the fit on held-out groups.

    Raises:
        DataError: If there are fewer than 100 rated images, or all of them are of one group.
        ConfigError: If the model has no features, or has task affect; or if out has the name of a model in the package.
        CheckpointError: If out can't be written.
    """
    refuse_name_in_package(out)
    source, network = open_file(model)
    if not network.info.has_shares or FEATURES not in network.engine.outputs:
        raise ConfigError(f"{model} is not a classifier with features; give one of uniemox finetune, task label")
    split, data = data.to_calibrate(split)
    training_hashes = read_seen(source)
    images, broken = _read_rated(network, data, split, training_hashes, on_progress)
    held_out = HeldOutRatings.of(images)
    # Grey images get intervals of their own, which are fitted on grey copies.
    grey_outputs, _, _ = run_each(network, images.samples, [FEATURES], "encoding grey copies", on_progress, grey)
    grey_inputs = head_inputs(grey_outputs[FEATURES], grey_outputs[LOGITS])
    held_out_grey = replace(held_out, predictions=_predict_by_fold(images, held_out.fold, grey_inputs))

    weights, bias = ridge(images.inputs, images.ratings, images.blocks)
    tail = (1 - COVERAGE) / 2
    head = RatingHead(
        weights=weights.T.astype(np.float32),
        bias=bias,
        ends=held_out.interval_ends(),
        colourless_ends=held_out_grey.interval_ends(),
        spread=np.quantile(images.ratings, [tail, 1 - tail], axis=0).T,
        images=len(images.samples),
        trained_on=data.name_with_split(split),
        seen=frozenset(digest[:HASH_DIGITS] for digest in images.hashes if not digest.startswith(PREFIX)),
        perceptual=frozenset(digest.removeprefix(PREFIX) for digest in images.hashes if digest.startswith(PREFIX)),
    )
    write_model(source, out, replace(network.info, ratings=head.to_dict()).to_json())
    write_hashes(seen_file(out), training_hashes or {OTHERS})
    fit = _measured(head, held_out, split=split, groups=len(set(images.groups)), unreadable=reasons_of(broken))
    return replace(fit, notes=images.notes, may_be_seen=not training_hashes or OTHERS in training_hashes)


@dataclass(frozen=True, slots=True, eq=False)
class RatedImages:
    """Images with ratings, as the head reads them."""

    samples: Sequence[Sample]
    inputs: NDArray[np.float64]
    """(N, D + E), see `head_inputs`."""
    blocks: tuple[int, int]
    """D and E."""
    ratings: NDArray[np.float64]
    """(N, 2), valence and arousal, 1 to 9."""
    groups: Sequence[str]
    """N names; images of one group are held out together."""
    sources: Sequence[str | None]
    """N names of data sets."""
    hashes: Set[str] = frozenset()
    """See `hashes_in`."""
    notes: tuple[str, ...] = ()
    """See `RatingFit`."""


def _read_rated(
    network: Network, data: DataSet, split: str, training_hashes: Set[str], on_progress: Progress
) -> tuple[RatedImages, Sequence[Broken]]:
    """Encode the rated images of a data set; returns them, and the unreadable ones.

    Training images of the classifier are left out: their features fit them better than those of other images.

    Args:
        network: The classifier.
        data: The data set.
        split: Name of the split that it is.
        training_hashes: Hashes of the classifier's training images.
        on_progress: Called after each image.

    Raises:
        DataError: If there are too few, or all of them are of one group.
    """
    rated = mean_ratings(
        [sample for sample in data.samples if sample.valence is not None and sample.arousal is not None]
    )
    if len(rated) < MIN_RATED:
        reason = ""
        if not rated and any(sample.valence is not None or sample.arousal is not None for sample in data.samples):
            reason = ": each image has only one of the two"
        raise DataError(
            f"{data.name_with_split(split)} has {counted(len(rated), 'image')} with valence and arousal{reason}; at "
            f"least {MIN_RATED} are needed"
        )
    hashed, unreadable = fingerprints(rated, on_progress)
    search = SeenSearch(rated, [image.sha256 for image in hashed], thumbs=[image.thumb for image in hashed])
    seen_keys = {sample.key for sample in search.look_up(training_hashes).samples}
    new = [(sample, image) for sample, image in zip(rated, hashed, strict=True) if sample.key not in seen_keys]
    joined = JoinedCopies.of([sample for sample, _ in new], [image for _, image in new])
    notes = [joined.note] if joined.note else []
    if seen_keys:
        notes.append(
            f"{counted(len(seen_keys), 'image was', 'images were')} left out, such as {min(seen_keys)}: the classifier "
            "was trained on them"
        )
    count = len(new) - len(unreadable) - len(joined.surplus)
    if count < MIN_RATED:
        raise DataError(
            f"only {count} of {len(rated)} rated images can be read, are no copy of another one and are new to the "
            f"classifier; at least {MIN_RATED} are needed"
        )
    outputs, samples, broken = run_each(network, joined.samples, [FEATURES], "encoding images", on_progress)
    groups = units_of(samples)
    if len(set(groups)) < 2:
        raise DataError(
            f"{data.name_with_split(split)}: all {len(samples)} rated images are of one group, so none can be held "
            "out; give images of several groups"
        )
    images = RatedImages(
        samples=samples,
        inputs=head_inputs(outputs[FEATURES], outputs[LOGITS]),
        blocks=(outputs[FEATURES].shape[1], outputs[LOGITS].shape[1]),
        ratings=np.array([[sample.valence, sample.arousal] for sample in samples]),
        groups=groups,
        sources=[data.part_of(sample) for sample in samples],
        hashes=hashes_in([sample for sample, _ in new], [image for _, image in new]),
        notes=tuple(notes),
    )
    return images, broken


def mean_ratings(samples: Sequence[Sample]) -> list[Sample]:
    """Return one sample for each image, or person in it, with the means of all ratings of valence and arousal."""
    keys = {sample.key for sample in samples}
    by_image: dict[tuple[str, Box | None], list[Sample]] = {}
    for sample in samples:
        # A repeated image has the first one's key with a number, also in shards. A file may have such a name, too.
        key = sample.image_key if sample.image_key in keys else sample.key
        by_image.setdefault((key, sample.target_box), []).append(sample)
    means = []
    for repeated in by_image.values():
        ratings = np.array([[sample.valence, sample.arousal] for sample in repeated], dtype=np.float64)
        valence, arousal = ratings.mean(axis=0).tolist()
        means.append(replace(repeated[0], valence=valence, arousal=arousal) if len(repeated) > 1 else repeated[0])
    return means


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRatings:
    """Predictions of fits that did not use an image's group, and the ratings."""

    predictions: NDArray[np.float64]  # (N, 2)
    ratings: NDArray[np.float64]  # (N, 2)
    sources: Sequence[str | None]  # N names of data sets
    fold: NDArray[np.int64]  # (N,)

    @classmethod
    def of(cls, images: RatedImages) -> Self:
        """Fit each image without its fold."""
        fold = folds_of(images.groups, FOLDS)
        predictions = _predict_by_fold(images, fold, images.inputs)
        return cls(predictions=predictions, ratings=images.ratings, sources=images.sources, fold=fold)

    def part(self, is_in: NDArray[np.bool_]) -> Self:
        """Return the images of a mask, (N,)."""
        sources = [source for source, is_used in zip(self.sources, is_in, strict=True) if is_used]
        return replace(
            self,
            predictions=self.predictions[is_in],
            ratings=self.ratings[is_in],
            sources=sources,
            fold=self.fold[is_in],
        )

    def interval_ends(self) -> NDArray[np.float64]:
        """Fit the ends of 90 % intervals, see `RatingHead.ends`.

        Every data set with at least 100 images has ends of its own; the others are joined with all images.

        Returns:
            (S, 2, 2, 2) for S data sets: rating, low and high end, a and b.
        """
        counts = Counter(self.sources)
        large = [source for source in counts if counts[source] >= MIN_RATED]
        masks = [np.array([other == source for other in self.sources]) for source in large]
        if len(large) < len(counts):
            masks.append(np.ones(len(self.sources), dtype=bool))
        axes = range(self.ratings.shape[1])
        return np.array([[_ends(self.predictions[mask, i], self.ratings[mask, i]) for i in axes] for mask in masks])

    def are_inside(self, head: RatingHead) -> NDArray[np.bool_]:
        """Return True where an interval contains its rating, (N, 2), if other folds determine the interval's ends."""
        inside = np.empty(self.ratings.shape, dtype=bool)
        for i in range(FOLDS):
            is_in_fold = self.fold == i
            part = self.part(is_in_fold)
            ends = self.part(~is_in_fold).interval_ends()
            intervals = replace(head, ends=ends).intervals(part.predictions, None)
            inside[is_in_fold] = (intervals[..., 0] <= part.ratings) & (part.ratings <= intervals[..., 1])
        return inside


def _measured(
    head: RatingHead, held_out: HeldOutRatings, *, split: str, groups: int, unreadable: Mapping[str, str]
) -> RatingFit:
    """Measure a fit on held-out images."""
    predictions = held_out.predictions
    ratings = held_out.ratings
    inside = held_out.are_inside(head)
    intervals = head.intervals(predictions, None)
    return RatingFit(
        images=len(ratings),
        split=split,
        groups=groups,
        lowest=_pair(ratings.min(axis=0)),
        highest=_pair(ratings.max(axis=0)),
        spearman=_pair([rank_correlation(predictions[:, i], ratings[:, i]) for i in range(len(AFFECT))]),
        mean_error=_pair(np.abs(predictions - ratings).mean(axis=0)),
        mean_error_of_mean=_pair(np.abs(ratings - ratings.mean(axis=0)).mean(axis=0)),
        width=_pair((intervals[..., 1] - intervals[..., 0]).mean(axis=0)),
        coverage=_pair(inside.mean(axis=0)),
        coverage_by_fifth=(_by_fifth(inside[:, 0], ratings[:, 0]), _by_fifth(inside[:, 1], ratings[:, 1])),
        unreadable=unreadable,
    )


def _pair(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the values of valence and arousal."""
    valence, arousal = values
    return float(valence), float(arousal)


def _by_fifth(values: NDArray[np.bool_], ratings: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the mean of values (N,) in each fifth of the ratings (N,), lowest first."""
    return tuple(float(values[part].mean()) for part in np.array_split(np.argsort(ratings, kind="stable"), 5))


def _predict_by_fold(images: RatedImages, fold: NDArray[np.int64], inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return predictions (N, 2), each by the fit without the image's fold.

    Args:
        images: Images that are fitted.
        fold: (N,) numbers of the folds.
        inputs: (N, D + E), those of the images or of altered copies.
    """
    predictions = np.empty_like(images.ratings)
    for i in range(FOLDS):
        is_in_fold = fold == i
        weights, bias = ridge(images.inputs[~is_in_fold], images.ratings[~is_in_fold], images.blocks)
        predictions[is_in_fold] = (inputs[is_in_fold] @ weights + bias).clip(LOWEST_RATING, HIGHEST_RATING)
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
    mean = inputs.mean(axis=0)
    # A constant input must not divide by 0.
    std = inputs.std(axis=0) + 1e-6
    scale = np.concatenate([np.full(width, width**-0.5) for width in blocks]) / std
    x = (inputs - mean) * scale
    mean_rating = ratings.mean(axis=0)
    # The dual form solves N equations instead of D + E.
    dual = np.linalg.solve(x @ x.T + PENALTY * np.eye(len(x)), ratings - mean_rating)  # (N, 2)
    weights = scale[:, None] * (x.T @ dual)
    return weights, mean_rating - mean @ weights


def _ends(predictions: NDArray[np.float64], ratings: NDArray[np.float64]) -> list[list[float]]:
    """Return a and b of the low and of the high end, for predictions and ratings (N,)."""
    errors = ratings - predictions
    tail = (1 - COVERAGE) / 2
    low, high = (_quantile_line(predictions, errors, level) for level in (tail, 1 - tail))
    # The distance of errors outside of the lines, by which these are then moved apart (conformalised quantile
    # regression).
    outside = np.maximum(low[0] + low[1] * predictions - errors, errors - high[0] - high[1] * predictions)
    rank = min(math.ceil((len(outside) + 1) * COVERAGE), len(outside))
    shift = float(np.sort(outside)[rank - 1])
    return [[low[0] - shift, low[1]], [high[0] + shift, high[1]]]


def _quantile_line(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return a and b of the line a + b · x with this quantile of y (Koenker & Bassett, Econometrica 1978).

    Args:
        x: (N,).
        y: (N,).
        level: Level of the quantile, 0 to 1.
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
