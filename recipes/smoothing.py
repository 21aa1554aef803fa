"""What the smoothing of unfamiliar images costs, and what it gains: the table of docs/method.md.

Run: python -m recipes.smoothing fi:../shared/data/fi,fi:../shared/data/fi_more check.json

check.json is the output of `uniemox data check DATA --json`. The images are those that calibrate the embedded model;
300 of them are also altered in seven ways. For each threshold of the familiarity, temperature and likely sets are
fitted to the unaltered images. Prints lines of a table for docs.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import expected_calibration_error, fit_temperature
from uniemox.evaluate.recalibration import open_file
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.samples import split_for_training
from uniemox.predict.confidence import TRUSTED, familiarity_of, likely_sets, probabilities_of
from uniemox.predict.network import DISTANCE, LOGITS, Network

ALTERED, COVERAGE = 300, 0.9
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3)
NOISE = np.random.default_rng(1)


def noisy(image: Image.Image) -> Image.Image:
    """Add Gaussian noise with a standard deviation of 50."""
    pixels = np.asarray(image, np.float64)
    return Image.fromarray((pixels + NOISE.normal(0, 50, pixels.shape)).clip(0, 255).astype(np.uint8))


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "contours": lambda image: image.filter(ImageFilter.CONTOUR),
    "swapped colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    "posterised": lambda image: ImageOps.posterize(image, 2),
    "magnified": lambda image: ImageOps.fit(image, image.size, bleed=1 / 3),
    "noisy": noisy,
    "upside down": ImageOps.flip,
}


class Answers:
    """Logits (N, E), familiarities (N,) and indices of the true labels (N,) of images, altered in one way or not."""

    def __init__(
        self, network: Network, samples: list[Sample], truth: NDArray[np.integer], way: Callable[..., Image.Image]
    ) -> None:
        """Run the network on N samples.  truth: (N,)."""
        done = []
        for sample in samples:
            image = way(decode_sample(sample)[0])
            done.append(network.run([network.look(image, image.size, (), None)]))
        self.logits = np.concatenate([one[LOGITS] for one in done])
        distances = np.concatenate([one[DISTANCE] for one in done])
        self.familiarity, self.truth = familiarity_of(distances, network.info.distances), truth

    def smoothed(self, threshold: float) -> NDArray[np.float64] | None:
        """Return familiarities (N,) with which the probabilities are smoothed below this threshold; None for 0."""
        return self.familiarity * TRUSTED / threshold if threshold and self.familiarity is not None else None

    def loss(self, p: NDArray[np.float64]) -> float:
        """Return the log loss of probabilities p (N, E)."""
        return float(-np.log(p[np.arange(len(p)), self.truth]).mean())

    def gap(self, p: NDArray[np.float64]) -> float:
        """Return the absolute difference of mean confidence and accuracy of probabilities p (N, E), in points."""
        return float(100 * abs(p.max(axis=1).mean() - (p.argmax(axis=1) == self.truth).mean()))


def main(source: str, check: str) -> None:
    """Print the table."""
    data = open_data(source, with_texts=False, exclude=Path(check))
    samples = list(split_for_training(data, FinetuneConfig(select="last", monitor="holdout"), None).calibration)
    _, network = open_file("embedded")
    truth = np.array([network.info.labels.index(data.label_of(sample)) for sample in samples])
    plain = Answers(network, samples, truth, lambda image: image)
    drawn = np.random.default_rng(0).permutation(len(samples))[:ALTERED]
    chosen = [samples[i] for i in drawn]
    altered = {name: Answers(network, chosen, truth[drawn], way) for name, way in WAYS.items()}
    heads = ("log loss", "ECE", "labels in the likely set", "altered: log loss", "gap of confidence and accuracy")
    print(f"| threshold | {' | '.join(heads)} | true label in the likely set | labels in it |\n|{' --- |' * 8}")
    for threshold in THRESHOLDS:
        familiarity = plain.smoothed(threshold)
        temperature = fit_temperature(plain.logits, np.eye(len(network.info.labels))[truth], familiarity)
        p = probabilities_of(plain.logits, temperature, familiarity)
        scores = np.sort(1 - p[np.arange(len(p)), truth]).tolist()
        row = [plain.loss(p), expected_calibration_error(p, truth), likely_sets(scores, COVERAGE, p, truth)[1]]
        each = []
        for one in altered.values():
            q = probabilities_of(one.logits, temperature, one.smoothed(threshold))
            each.append((one.loss(q), one.gap(q), *likely_sets(scores, COVERAGE, q, one.truth)))
        print(f"| {threshold} | {' | '.join(f'{value:.3f}' for value in [*row, *np.mean(each, axis=0)])} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
