"""What the smoothing of unfamiliar images costs, and what it gains: the table of docs/method.md.

Run: python -m recipes.smoothing fi:../shared/data/fi,fi:../shared/data/fi_more check.json

check.json is the output of `uniemox data check DATA --json`. The images are those that calibrate the embedded model;
300 of them are also altered in seven ways. For each threshold of the familiarity, temperature and likely sets are
fitted to the unaltered images. Prints lines of a table for docs.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import expected_calibration_error, fit_temperature
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.recalibration import open_file
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.samples import split_for_training
from uniemox.predict.confidence import TRUSTED, familiarity_of, likely_sets, probabilities_of

ALTERED, COVERAGE = 300, 0.9
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3)


def noisy(image: Image.Image) -> Image.Image:
    """Add Gaussian noise with a standard deviation of 50, other noise for every image."""
    pixels = np.asarray(image)
    noise = np.random.default_rng(crc32(pixels.tobytes())).normal(0, 50, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "contours": lambda image: image.filter(ImageFilter.CONTOUR),
    "swapped colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    "posterised": lambda image: ImageOps.posterize(image, 2),
    "magnified": lambda image: ImageOps.fit(image, image.size, bleed=1 / 3),
    "noisy": noisy,
    "upside down": ImageOps.flip,
}


@dataclass(frozen=True)
class Altered:
    """A sample's image, altered."""

    sample: Sample
    way: Callable[[Image.Image], Image.Image]

    def read(self) -> bytes:
        """Return it as PNG."""
        file = BytesIO()
        self.way(decode_sample(self.sample)[0]).save(file, "PNG")
        return file.getvalue()


def smoothed(outputs: Outputs, info: ClassifierInfo, threshold: float) -> NDArray[np.float64] | None:
    """Return familiarities (N,) with which probabilities are smoothed below a threshold; None for 0."""
    familiarity = familiarity_of(outputs.distances, info.distances)
    return familiarity * TRUSTED / threshold if threshold and familiarity is not None else None


def main(source: str, check: str) -> None:
    """Print the table."""
    data = open_data(source, with_texts=False, exclude=Path(check))
    samples = split_for_training(data, FinetuneConfig(select="last", monitor="holdout"), None).calibration
    _, network = open_file("embedded")
    info = network.info
    truth = np.array([info.labels.index(data.label_of(sample)) for sample in samples])
    drawn = np.random.default_rng(0).permutation(len(samples))[:ALTERED]
    plain = outputs_of_network(network, samples)
    altered = [
        outputs_of_network(network, [replace(samples[i], image=Altered(samples[i], way)) for i in drawn])
        for way in WAYS.values()
    ]
    assert len(plain.samples) == len(truth)  # all can be read
    heads = ("log loss", "ECE", "labels in the likely set", "altered: log loss", "gap of confidence and accuracy")
    print(f"| threshold | {' | '.join(heads)} | true label in the likely set | labels in it |\n|{' --- |' * 8}")
    for threshold in THRESHOLDS:
        familiarity = smoothed(plain, info, threshold)
        temperature = fit_temperature(plain.values, np.eye(len(info.labels))[truth], familiarity)
        p = probabilities_of(plain.values, temperature, familiarity)
        of_truth = p[np.arange(len(p)), truth]
        scores = np.sort(1 - of_truth).tolist()
        row = [-np.log(of_truth).mean(), expected_calibration_error(p, truth)]
        row.append(likely_sets(scores, COVERAGE, p, truth)[1])
        each = []
        for one in altered:
            q = probabilities_of(one.values, temperature, smoothed(one, info, threshold))
            loss = -np.log(q[np.arange(len(q)), truth[drawn]]).mean()
            gap = 100 * abs(q.max(axis=1).mean() - (q.argmax(axis=1) == truth[drawn]).mean())
            each.append((loss, gap, *likely_sets(scores, COVERAGE, q, truth[drawn])))
        print(f"| {threshold} | {' | '.join(f'{value:.3f}' for value in [*row, *np.mean(each, axis=0)])} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
