"""Choice of the split whose parts have the most similar colours, and its plot (section III-B, figure 6)."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.data.sample import DataSet, Sample
from uniemox.data.splits import PAPER_RECIPES, Scheme, split_samples
from uniemox.errors import ConfigError
from uniemox.io.files import replacing
from uniemox.plurals import counted

ONE_SCHEME = "two are needed in every split that is compared: --schemes 1 draws one without comparing colours"


@dataclass(frozen=True, slots=True)
class Choice:
    """Scheme whose splits have the most similar colours, and how it was chosen."""

    scheme: Scheme
    seed: int
    distances: Mapping[int, float]
    """Distance between train and val by seed; the smallest was chosen."""
    projected: NDArray[np.floating]
    """(N, 2) first principal components of the samples' histograms."""


def choose_scheme(
    samples: Sequence[Sample], ratios: Mapping[str, float], histograms: NDArray[np.floating], seeds: Sequence[int]
) -> Choice:
    """Draw a scheme for each seed and keep the one whose splits are most similar (section IV, figure 6).

    Args:
        histograms: (N, D), one row per sample. They are projected to two principal components. The distance of a scheme
            is the Fréchet distance between the normal distributions of train and val there (of train and test, if there
            is no val). The paper judges plots of the same data; this makes a number of them. A class with an image or
            group for every split is in all of them.

    Raises:
        ConfigError: If a compared split is not drawn, or has less than two samples in every scheme.
    """
    compared = ("train", "val" if "val" in ratios else "test")
    if not set(compared) <= set(ratios):
        raise ConfigError(f"schemes are compared by {' and '.join(compared)}; there is only {', '.join(ratios)}")
    from sklearn.decomposition import PCA  # noqa: PLC0415 - a second to import

    if len(samples) < 2:
        raise ConfigError(f"{counted(len(samples), 'sample has', 'samples have')} no colours to compare; {ONE_SCHEME}")
    projected = PCA(n_components=2, random_state=0).fit_transform(histograms)  # (N, 2)
    schemes = {seed: split_samples(samples, ratios, seed, fill_splits=True) for seed in seeds}
    distances = {}
    for seed, scheme in schemes.items():
        splits = np.array([scheme[sample.key] for sample in samples])
        distances[seed] = frechet_distance(*(projected[splits == split] for split in compared))
    best = min(distances, key=distances.__getitem__)
    if math.isinf(distances[best]):
        number = counted(len(samples), "sample is", "samples are")
        raise ConfigError(f"{number} too few to compare schemes; {ONE_SCHEME}")
    return Choice(schemes[best], best, distances, projected)


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the Fréchet distance between normal distributions fitted to two sets of points.

    It is |μa - μb|² + tr(A + B - 2 (A B)^½), with means μ and covariances A, B.

    Args:
        first: (M, D).
        second: (N, D).

    Returns:
        A number from 0 on; infinity if a set has less than two points.
    """
    if min(len(first), len(second)) < 2:
        return math.inf
    shift = first.mean(axis=0) - second.mean(axis=0)
    a, b = (np.cov(points, rowvar=False) for points in (first, second))
    # The trace of the root of A B is the sum of the roots of its eigenvalues, which rounding can make negative.
    eigenvalues = np.linalg.eigvals(a @ b).real.clip(0)
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2 * np.sqrt(eigenvalues).sum())


def paper_split(
    kind: str, data: DataSet, seed: int, histograms: Callable[[], NDArray[np.floating]] | None = None
) -> tuple[Scheme, Choice | None]:
    """Draw the split of one of the paper's data sets (docs/paper-vs-code.md has the source of its ratios).

    The authors' own draws are linked in their README; `read_splits` reads their folders.

    Args:
        kind: Kind of the data set, a key of PAPER_RECIPES.
        histograms: Function that returns (N, D) colour histograms of the samples; only called if schemes are compared
            (Emo8).

    Returns:
        The scheme; and how it was chosen, None if the recipe draws only one.

    Raises:
        ConfigError: For a data set that the paper does not use, or that lacks the required official splits.
    """
    if kind not in PAPER_RECIPES:
        raise ConfigError(f"the paper does not split {kind}; it uses {', '.join(PAPER_RECIPES)}")
    recipe = PAPER_RECIPES[kind]
    official = {sample.key: sample.split for sample in data.samples if sample.split}
    if recipe is None:
        if len(official) < len(data):
            raise ConfigError(f"{data.name}: the paper keeps the official splits of {kind}, but they do not exist")
        return official, None
    samples = [sample for sample in data.samples if recipe.of_split in (None, sample.split)]
    if not samples:
        raise ConfigError(f"{data.name}: the paper divides the official split {recipe.of_split!r}, which is missing")
    if recipe.schemes > 1:
        if histograms is None:
            raise ConfigError(f"the paper's recipe of {kind} needs colour histograms")
        choice = choose_scheme(data.samples, recipe.ratios, histograms(), seeds=range(seed, seed + recipe.schemes))
        return choice.scheme, choice

    def stratum_of(sample: Sample) -> Hashable:
        return (sample.label, sample.domain) if recipe.by_domain else sample.label

    scheme = split_samples(samples, recipe.ratios, seed, stratum_of)
    if recipe.of_split is not None:
        scheme = official | scheme
    return scheme, None


def plot_choice(choice: Choice, data: DataSet, path: Path) -> None:
    """Plot the splits' colours in two principal components, a colour per label, and the distances of all schemes.

    Raises:
        DataError: If the file can't be written.
    """
    from matplotlib import colormaps  # noqa: PLC0415 - slow, and writes its cache into the home folder
    from matplotlib.figure import Figure  # noqa: PLC0415

    splits = [name for name in ("train", "val", "test") if name in set(choice.scheme.values())]
    figure = Figure(figsize=(4 * (len(splits) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(splits) + 1)
    assigned = np.array([choice.scheme[sample.key] for sample in data.samples])
    labels = np.array([-1 if sample.label is None else sample.label for sample in data.samples])
    low = choice.projected.min(axis=0)
    high = choice.projected.max(axis=0)
    for axis, split in zip(axes, splits, strict=False):
        for i, label in enumerate(data.labels.labels):
            points = choice.projected[(assigned == split) & (labels == i)]
            axis.scatter(*points.T, s=8, alpha=0.6, label=label, color=colormaps["tab10"](i % 10))
        axis.set(title=f"{split} ({(assigned == split).sum()})", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes[0].legend(fontsize="x-small")
    ordered = sorted(choice.distances.values())
    axes[-1].plot(ordered, marker=".")
    title = f"{len(ordered)} schemes; seed {choice.seed} chosen"
    axes[-1].set(title=title, xlabel="rank", ylabel="Fréchet distance of train and val")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, format=path.suffix[1:] or "png")
