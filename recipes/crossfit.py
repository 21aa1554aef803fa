"""Measure the gain that more calibration images, as from cross-fitting, could bring to the embedded models.

Run: python -m recipes.crossfit fi:../shared/data/fi,fi:../shared/data/fi_more check.json

check.json is the output of `uniemox data check DATA --json`. The models are calibrated on a tenth of the training
images. This program measures on the validation images: the calibration unchanged; with the temperature that is best on
the validation images themselves, which no way of fitting it can beat; and the spread over bootstrap samples of the
calibration images. It also measures the ECE on the calibration images, and compares both ECEs with those of labels
that are drawn from the predicted probabilities. Prints lines of two tables for docs.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import calibrated, expected_calibration_error, fit_temperature
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.recalibration import open_file
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import split_for_training
from uniemox.predict.confidence import answers_of, familiarity_of, likely_sets, probabilities_of, set_probabilities_of

COVERAGE = 0.9
DRAWS = 300
ECE_DRAWS = 1000
COLUMNS = ("calibration", "temperature", "log loss", "ECE", "true label in the likely set", "labels in it")
ECE_COLUMNS = ("images", "accuracy", "confidence", "without smoothing", "ECE", "of drawn labels", "as large or larger")


def figures(info: ClassifierInfo, outputs: Outputs, truth: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return temperature, log loss, ECE, coverage and size of likely sets of N images.

    Args:
        info: Answer rules of the model.
        outputs: Outputs of the network for the images.
        truth: Indices of the true labels, (N,).
    """
    probabilities = answers_of(info, outputs.values, outputs.distances)  # (N, E)
    loss = -np.log(probabilities[np.arange(len(truth)), truth]).mean()
    shares = set_probabilities_of(info, outputs.values, outputs.distances)
    sets = likely_sets(info.conformal_scores, COVERAGE, shares, truth)
    return np.array([info.temperature or 1.0, loss, expected_calibration_error(probabilities, truth), *sets])


def drawn_ece(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ECEs (ECE_DRAWS,) of labels that are drawn from the probabilities (N, E)."""
    rng = np.random.default_rng(0)
    ends = probabilities.cumsum(axis=1)
    # By rounding, the last sum may be slightly below 1.
    ends[:, -1] = 1
    draws = ((ends < rng.random((len(probabilities), 1))).sum(axis=1) for _ in range(ECE_DRAWS))
    return np.array([expected_calibration_error(probabilities, labels) for labels in draws])


def main(source: str, check: str) -> None:
    """Print the tables."""
    data = open_data(source, with_texts=False, exclude=Path(check))
    held_out = split_for_training(data, FinetuneConfig(select="last", monitor="holdout"), None).calibration
    print(f"| model, {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    ece_rows = []
    for model in ("embedded", "small"):
        _, network = open_file(model)
        info = network.info
        fit, check_on = (outputs_of_network(network, part) for part in (held_out, data.only("val").samples))
        targets, truth = (
            np.array([info.labels.index(data.label_of(sample)) for sample in part.samples]) for part in (fit, check_on)
        )
        # Both models of the package have distances.
        assert fit.distances is not None
        shares = np.eye(len(info.labels))
        familiarity = familiarity_of(check_on.distances, info.distances)
        temperature = fit_temperature(check_on.values, shares[truth], familiarity, info.rules)
        best = replace(info, temperature=temperature)
        p = set_probabilities_of(best, fit.values, fit.distances)
        best = replace(best, conformal_scores=tuple(np.sort(1 - p[np.arange(len(targets)), targets]).tolist()))
        rng = np.random.default_rng(0)
        resamples = [rng.integers(len(targets), size=len(targets)) for _ in range(DRAWS)]
        resampled_infos = [
            calibrated(info, fit.values[indices], fit.distances[indices], shares[targets[indices]])
            for indices in resamples
        ]
        spread = np.std([figures(resampled_info, check_on, truth) for resampled_info in resampled_infos], axis=0)
        rows = {
            "on the hold-out": figures(info, check_on, truth),
            "best temperature for the validation images": figures(best, check_on, truth),
            f"standard deviation over {DRAWS} bootstrap samples of the hold-out": spread,
        }
        for condition, row in rows.items():
            print(f"| `{model}`, {condition} | {' | '.join(f'{value:.4f}' for value in row)} |", flush=True)
        unsmoothed = fit_temperature(fit.values, shares[targets])
        for part, outputs, labels in (("hold-out", fit, targets), ("validation", check_on, truth)):
            p = answers_of(info, outputs.values, outputs.distances)
            ece = expected_calibration_error(p, labels)
            drawn_eces = drawn_ece(p)
            plain = expected_calibration_error(probabilities_of(outputs.values, unsmoothed), labels)
            row = ((p.argmax(axis=1) == labels).mean(), p.max(axis=1).mean(), plain, ece, drawn_eces.mean())
            cells = [*(f"{value:.4f}" for value in row), f"{(drawn_eces >= ece).mean():.3f}"]
            ece_rows.append(f"| `{model}`, {len(labels)} of {part} | {' | '.join(cells)} |")
    print(f"\n| model, {' | '.join(ECE_COLUMNS)} |\n|{' --- |' * len(ECE_COLUMNS)}", *ece_rows, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
