"""Measure how often the 95 % intervals of this library contain the true value. `python -m tools.coverage`.

Simulates two models with different accuracy on the same images, each trained with several seeds. A seed moves the
accuracy of a run; images differ in difficulty, which both models share in part. For each number of runs and each
standard deviation between seeds, the table shows the share of simulated comparisons in which an interval contains the
true value for new seeds and new images: that of a model's mean accuracy (`uniemox.intervals.interval_over_runs`), and
that of the difference of both models (`paired_bootstrap`). The last columns show intervals that resample images alone,
with the same runs: they contain the value for new seeds less often, and that of these runs as often as they should.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from uniemox.intervals import Interval, bootstrap_interval, interval_over_runs, paired_bootstrap

# Means of the latent score of both models; a prediction is right if its score is above 0.
MEANS = (0.35, 0.25)
# Standard deviations of the latent score.
IMAGE = 0.7
MODEL_AND_IMAGE = 0.4
RUN_AND_IMAGE = 0.5
WITHOUT_SEED = float(np.hypot(np.hypot(IMAGE, MODEL_AND_IMAGE), RUN_AND_IMAGE))
RUNS = (1, 2, 3, 5)
# Standard deviations of accuracy between seeds, in percentage points.
SEED_POINTS = (0.0, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Simulated runs of two models."""

    hits: NDArray[np.float64]
    """(2, S, N): model, run, image."""
    expected: tuple[float, float]
    """Accuracy of each model over new seeds and images."""
    of_these_runs: tuple[float, float]
    """Mean accuracy of each model's runs over new images."""


def simulate(rng: np.random.Generator, runs: int, images: int, seed_points: float) -> Comparison:
    """Draw the answers of two models.

    Args:
        rng: Random generator.
        runs: Number of runs of each model.
        images: Number of images.
        seed_points: Standard deviation of accuracy between seeds, in percentage points.
    """
    normal = NormalDist()
    # Near the mean, accuracy changes by this much per unit of the latent score.
    slope = normal.pdf(sum(MEANS) / len(MEANS) / WITHOUT_SEED) / WITHOUT_SEED
    seed_deviation = seed_points / 100 / slope
    difficulty = rng.normal(0, IMAGE, images)
    hits = []
    expected = []
    run_accuracies = []
    for mean in MEANS:
        seed_effect = rng.normal(0, seed_deviation, (runs, 1))
        model_effect = rng.normal(0, MODEL_AND_IMAGE, images)
        score = mean + seed_effect + difficulty + model_effect + rng.normal(0, RUN_AND_IMAGE, (runs, images))
        hits.append((score > 0).astype(np.float64))
        expected.append(normal.cdf(mean / float(np.hypot(WITHOUT_SEED, seed_deviation))))
        run_accuracies.append(
            float(np.mean([normal.cdf((mean + effect) / WITHOUT_SEED) for effect in seed_effect[:, 0]]))
        )
    return Comparison(np.stack(hits), (expected[0], expected[1]), (run_accuracies[0], run_accuracies[1]))


def intervals_of(comparison: Comparison) -> Iterator[tuple[Interval | None, float]]:
    """Yield each interval of a row of the table with the value that it should contain."""
    ours, theirs = comparison.hits
    over_images = bootstrap_interval(ours.mean(axis=0))
    yield interval_over_runs(ours), comparison.expected[0]
    yield paired_bootstrap(ours, theirs).interval, comparison.expected[0] - comparison.expected[1]
    yield over_images, comparison.expected[0]
    yield bootstrap_interval(ours.mean(axis=0) - theirs.mean(axis=0)), comparison.expected[0] - comparison.expected[1]
    yield over_images, comparison.of_these_runs[0]


def coverage(runs: int, images: int, seed_points: float, *, trials: int) -> list[float | None]:
    """Return the share of the trials in which each interval contains its value; None where there is no interval."""
    rng = np.random.default_rng(0)
    contained: list[list[bool | None]] = []
    for _ in range(trials):
        pairs = intervals_of(simulate(rng, runs, images, seed_points))
        contained.append([None if ends is None else ends[0] <= value <= ends[1] for ends, value in pairs])
    return [None if None in column else float(np.mean(column)) for column in zip(*contained, strict=True)]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400, help="simulated comparisons of each row")
    parser.add_argument("--images", type=int, default=500, help="images that are scored")
    args = parser.parse_args()
    print(f"{args.trials} trials, {args.images} images; the standard error of 95 % is "
          f"{100 * (0.95 * 0.05 / args.trials) ** 0.5:.1f} points\n")  # fmt: skip
    print("| runs | deviation between seeds, points | accuracy | difference | images alone: accuracy | difference "
          "| accuracy of these runs |")  # fmt: skip
    print("| ---: " * 7 + "|")
    for runs in RUNS:
        for seed_points in SEED_POINTS:
            shares = coverage(runs, args.images, seed_points, trials=args.trials)
            cells = ["none" if share is None else f"{100 * share:.1f} %" for share in shares]
            print(f"| {runs} | {seed_points:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
