"""What a heat map is worth, as numbers: deletion and insertion (RISE, arXiv 1806.07421, section 4.3).

Without torch; any classifier is a function from pixels to probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError, ShapeError
from uniemox.intervals import Interval, bootstrap_interval
from uniemox.predict.explain.explanation import Array, enlarged

Classify = Callable[[Array], NDArray[np.floating]]
"""Pixels (N, 3, S, S), normalised -> probabilities (N, E)."""

STEPS = 28
BATCH = 15  # 29 images of a curve in two runs
BLUR = 5 / 224  # deviation of the Gaussian, as a share of the side; the paper's 5 px of 224


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScores:
    """Areas under the probability's curve while an image is taken away or put together, hottest places first."""

    deletion: float
    """0 to 1; low where the map names what the answer needs. Places become the image's mean colour."""
    insertion: float
    """0 to 1; high where the map names what is enough for the answer. Places appear on the blurred image."""
    random_deletion: float
    """The same of a map of random values as coarse as the given one: what the two are to be compared with."""
    random_insertion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """Means over images, with 95 % bootstrap intervals."""

    pictures: int
    mean: MapScores
    intervals: dict[str, Interval]
    """By the name of the score; of `deletion_gain` and `insertion_gain` too, how much better than the random map."""
    deletion_gain: float
    """Mean of random_deletion - deletion: above 0 where the map is better than chance."""
    insertion_gain: float
    """Mean of insertion - random_insertion."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        gains = {"deletion_gain": self.deletion_gain, "insertion_gain": self.insertion_gain}
        return {
            "pictures": self.pictures,
            **{
                name: {"mean": value, "interval": list(self.intervals[name])}
                for name, value in asdict(self.mean).items()
            },
            **{name: {"mean": value, "interval": list(self.intervals[name])} for name, value in gains.items()},
        }


def map_scores(classify: Classify, pixels: Array, heat: Array, index: int, *, seed: int = 0) -> MapScores:
    """Deletion and insertion of one map, and of a random one, in 116 passes.

    pixels: (3, S, S), normalised.  heat: (h, w), of these pixels.  index: of the label that the map is of.
    seed: of the random map, and of the order among equally hot places.
    Raises ShapeError if the pixels are none, ConfigError if there is no such label.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3 or heat.ndim != 2:
        raise ShapeError(f"expected pixels (3, S, S) and a map (h, w), got {pixels.shape} and {heat.shape}")
    rng = np.random.default_rng(seed)
    chance = rng.random(heat.shape, np.float32)
    grey = np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape)
    blurred = blur(pixels, BLUR * pixels.shape[1])
    areas = []
    for values in (heat, chance):
        order = _order(values, pixels.shape, rng)
        for before, after in ((pixels, grey), (blurred, pixels)):
            areas.append(_area(classify, before, after, order, index))
    return MapScores(deletion=areas[0], insertion=areas[1], random_deletion=areas[2], random_insertion=areas[3])


def summarise(scores: Sequence[MapScores]) -> ScoreSummary:
    """Means and intervals over images. Raises DataError without any."""
    if not scores:
        raise DataError("there is no image whose map could be scored; give at least one")
    names = [part.name for part in fields(MapScores)]
    table = np.array([astuple(one) for one in scores])  # (N, 4)
    columns = {name: table[:, i] for i, name in enumerate(names)}
    columns["deletion_gain"] = columns["random_deletion"] - columns["deletion"]
    columns["insertion_gain"] = columns["insertion"] - columns["random_insertion"]
    means = {name: float(column.mean()) for name, column in columns.items()}
    return ScoreSummary(
        pictures=len(scores),
        mean=MapScores(**{name: means[name] for name in names}),
        intervals={name: bootstrap_interval(column) for name, column in columns.items()},
        deletion_gain=means["deletion_gain"],
        insertion_gain=means["insertion_gain"],
    )


def blur(pixels: Array, deviation: float) -> Array:
    """Gaussian blur of (3, H, W); edges are continued. deviation: in px, above 0."""
    reach = max(1, round(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (reach, reach)
        padded = np.pad(pixels, padding, mode="edge")
        length = pixels.shape[axis]
        parts = (weight * padded.take(range(i, i + length), axis=axis) for i, weight in enumerate(kernel))
        pixels = np.stack(list(parts)).sum(axis=0, dtype=np.float64).astype(np.float32)
    return pixels


def _order(heat: Array, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.intp]:
    """Places (H*W,) of an image, the hottest first, equals in random order."""
    large = enlarged(heat, (shape[2], shape[1])).ravel()
    return np.lexsort((rng.random(len(large)), -large))


def _area(classify: Classify, before: Array, after: Array, order: NDArray[np.intp], index: int) -> float:
    """Area under the label's probability while places change from one image into the other; the whole way is 1."""
    ends = np.linspace(0, len(order), STEPS + 1).round().astype(int)
    image, target = before.reshape(3, -1).copy(), after.reshape(3, -1)
    found: list[float] = []
    batch: list[Array] = []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        image[:, order[first:last]] = target[:, order[first:last]]
        batch.append(image.reshape(before.shape).copy())
        if len(batch) == BATCH or last == len(order):
            answers = classify(np.stack(batch))
            if not 0 <= index < answers.shape[1]:
                raise ConfigError(f"there is no label {index}; the classifier has {answers.shape[1]}")
            found += [float(value) for value in answers[:, index]]
            batch = []
    return float(np.trapezoid(found, ends / len(order)))


def check_has_probabilities(task: str, name: str) -> None:
    """Raise ConfigError where there is no probability whose curve could be measured."""
    if task == "affect":
        raise ConfigError(f"{name} gives valence and arousal; deletion and insertion are scores of probabilities")
