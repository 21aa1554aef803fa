"""Measure how well the distance separates altered images, and the effect of smoothing: tables of recipes/README.md.

Run: python -m recipes.smoothing fi:../shared/data/fi,fi:../shared/data/fi_more check.json

check.json is the output of `uniemox data check DATA --json`. The images are those that calibrate the embedded model;
300 of them are also altered in seven ways. For each threshold of the familiarity, and each minimum weight of the
network's own probabilities (1: no smoothing), temperature and likely sets are fitted to the unaltered images. Prints
two tables for docs; the first has areas under the ROC curve.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from sklearn.metrics import roc_auc_score

from uniemox.classifier_info import AnswerRules
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import expected_calibration_error, fit_temperature
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.recalibration import open_file
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import split_for_training
from uniemox.predict.confidence import familiarity_of, likely_sets, log_softmax, probabilities_of

ALTERED_COUNT = 300
COVERAGE = 0.9
COLUMNS = (
    *("threshold", "minimum weight", "log loss", "ECE", "labels in the likely set", "altered: log loss"),
    *("gap of confidence and accuracy", "true label in the likely set", "labels in it", "mean of both log losses"),
)
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3)
MIN_WEIGHTS = (0.2, 0.4, 0.6)


def noisy(image: Image.Image) -> Image.Image:
    """Add Gaussian noise with a standard deviation of 50, other noise for every image."""
    pixels = np.asarray(image)
    noise = np.random.default_rng(crc32(pixels.tobytes())).normal(0, 50, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "contours": lambda image: image.filter(ImageFilter.CONTOUR),
    "swapped colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    "posterised": lambda image: ImageOps.posterize(image, 2),
    "magnified": lambda image: ImageOps.fit(image, image.size, bleed=1 / 3),
    "noisy": noisy,
    "upside down": ImageOps.flip,
}


@dataclass(frozen=True)
class AlteredImage:
    """A sample's image, altered."""

    sample: Sample
    way: Callable[[Image.Image], Image.Image]

    def read(self) -> bytes:
        """Return it as PNG."""
        file = BytesIO()
        self.way(decode_sample(self.sample)[0]).save(file, "PNG")
        return file.getvalue()


def scores_of(outputs: Outputs) -> dict[str, NDArray[np.floating]]:
    """Return scores (N,) of unfamiliarity by name; higher is less familiar."""
    # The embedded model has distances.
    assert outputs.distances is not None
    log_shares = log_softmax(outputs.values)
    # The difference is -log Σ exp of the logits, the same for every label.
    energy = (log_shares - outputs.values)[:, 0]
    return {"distance": outputs.distances, "energy alone": energy, "highest probability": -log_shares.max(axis=1)}


def main(source: str, check: str) -> None:
    """Print the tables."""
    data = open_data(source, with_texts=False, exclude=Path(check))
    samples = split_for_training(data, FinetuneConfig(select="last", monitor="holdout"), None).calibration
    _, network = open_file("embedded")
    info = network.info
    truth = np.array([info.labels.index(data.label_of(sample)) for sample in samples])
    drawn = np.random.default_rng(0).permutation(len(samples))[:ALTERED_COUNT]
    plain = outputs_of_network(network, samples)
    altered = [
        outputs_of_network(network, [replace(samples[i], image=AlteredImage(samples[i], way)) for i in drawn])
        for way in ALTERATIONS.values()
    ]
    # All images must be readable, or the rows would not match.
    assert len(plain.samples) == len(truth)
    assert all(len(outputs.samples) == ALTERED_COUNT for outputs in altered)
    print(f"| score | mean | {' | '.join(ALTERATIONS)} |\n|{' --- |' * (2 + len(ALTERATIONS))}")
    for name, values in scores_of(plain).items():
        pairs = [(values, scores_of(outputs)[name]) for outputs in altered]
        areas = []
        for plain_scores, altered_scores in pairs:
            is_altered = np.repeat([0, 1], [len(plain_scores), len(altered_scores)])
            areas.append(roc_auc_score(is_altered, np.concatenate([plain_scores, altered_scores])))
        print(f"| {name} | {' | '.join(f'{area:.3f}' for area in [np.mean(areas), *areas])} |")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    plain_familiarity = familiarity_of(plain.distances, info.distances)
    altered_familiarities = [familiarity_of(outputs.distances, info.distances) for outputs in altered]
    for threshold, weight in ((0.05, 1.0), *product(THRESHOLDS, MIN_WEIGHTS)):
        rules = AnswerRules(trusted_familiarity=threshold, min_weight=weight)
        temperature = fit_temperature(plain.values, np.eye(len(info.labels))[truth], plain_familiarity, rules)
        probabilities = probabilities_of(plain.values, temperature, plain_familiarity, rules)
        of_truth = probabilities[np.arange(len(probabilities)), truth]
        sets_from = probabilities_of(plain.values, temperature)
        scores = np.sort(1 - sets_from[np.arange(len(probabilities)), truth]).tolist()
        row = [-np.log(of_truth).mean(), expected_calibration_error(probabilities, truth)]
        row.append(likely_sets(scores, COVERAGE, sets_from, truth)[1])
        rows = []
        for outputs, familiarity in zip(altered, altered_familiarities, strict=True):
            shares = probabilities_of(outputs.values, temperature, familiarity, rules)
            loss = -np.log(shares[np.arange(len(shares)), truth[drawn]]).mean()
            gap = 100 * abs(shares.max(axis=1).mean() - (shares.argmax(axis=1) == truth[drawn]).mean())
            sets = likely_sets(scores, COVERAGE, probabilities_of(outputs.values, temperature), truth[drawn])
            rows.append((loss, gap, *sets))
        means = np.mean(rows, axis=0)
        figures = [*row, *means, (row[0] + means[0]) / 2]
        print(f"| {threshold} | {weight} | {' | '.join(f'{value:.4f}' for value in figures)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
